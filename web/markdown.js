// SPDX-License-Identifier: Apache-2.0
// The little Markdown that answers need: fenced code, inline code, bold. The text comes from a
// model and is never parsed as HTML: nodes are built, text is set as text.

function element(name, text) {
  const node = document.createElement(name);
  node.textContent = text;
  return node;
}

// `code` and **bold**; anything unpaired stays as it was written.
function appendInline(parent, text) {
  const pattern = /`([^`\n]+)`|\*\*([^*\n]+)\*\*/g;
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    parent.append(text.slice(end, match.index));
    parent.append(match[1] !== undefined ? element("code", match[1]) : element("strong", match[2]));
    end = match.index + match[0].length;
  }
  parent.append(text.slice(end));
}

function codeBlock(lines) {
  const pre = document.createElement("pre");
  pre.tabIndex = 0;  // it scrolls: the keyboard must reach it
  pre.append(element("code", lines.join("\n")));
  return pre;
}

function appendParagraphs(parent, lines) {
  for (const text of lines.join("\n").split(/\n{2,}/)) {
    if (text.trim() === "") continue;
    const paragraph = document.createElement("p");
    appendInline(paragraph, text.replace(/^\n|\n$/g, ""));  // the line breaks next to a fence
    parent.append(paragraph);
  }
}

// Replaces what `parent` shows. A fence that is still open is a code block up to the end, so that
// streamed code does not change its look when it closes.
export function renderMarkdown(parent, text) {
  const fragment = document.createDocumentFragment();
  let lines = [];
  let fence = null;
  for (const line of text.split("\n")) {
    const mark = /^ {0,3}(`{3,})/.exec(line)?.[1];
    if (fence === null && mark) {
      appendParagraphs(fragment, lines);
      fence = mark;
      lines = [];
    } else if (fence !== null && mark && mark.length >= fence.length && line.trim() === mark) {
      fragment.append(codeBlock(lines));
      fence = null;
      lines = [];
    } else {
      lines.push(line);
    }
  }
  if (fence === null) appendParagraphs(fragment, lines);
  else fragment.append(codeBlock(lines));
  parent.replaceChildren(fragment);
}
