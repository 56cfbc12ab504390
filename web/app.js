// SPDX-License-Identifier: Apache-2.0
// The chat page. State is one list of conversations in localStorage; what is shown is built from it.
import { renderMarkdown } from "/web/markdown.js";
import { cacheState, modelName, streamChat } from "/web/stream.js";

const $ = (id) => document.getElementById(id);
const kOptions = ["system", "effort", "temperature", "top_p", "max_tokens", "seed", "tools"];
const kDefaults = { effort: "high", temperature: "1", top_p: "1" };

let conversations = load("cachalot.conversations", []).filter((c) => Array.isArray(c?.messages));
let current = conversations[0] ?? fresh();
let running = null;  // {abort, node, message} while an answer is generated

function load(key, fallback) {
  try {
    return JSON.parse(localStorage.getItem(key)) ?? fallback;
  } catch {
    return fallback;  // written by something else, or storage is off
  }
}

function store(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch (error) {
    showError(`This conversation is not kept: ${error.message}`);
  }
}

function fresh() {
  return { id: crypto.getRandomValues(new Uint32Array(2)).join("-"), messages: [] };
}

function save() {
  conversations = conversations.filter((c) => c !== current && c.messages.length > 0);
  if (current.messages.length > 0) conversations.unshift(current);
  store("cachalot.conversations", conversations);
  showConversations();
}

function showError(text) {
  $("error").textContent = text;
  $("error").hidden = text === "";
}

function make(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

// --- what is shown ---

function showConversations() {
  const titleOf = (c) => c.messages.find((m) => m.role === "user")?.content || "New conversation";
  const listed = conversations.includes(current) ? conversations : [current, ...conversations];
  $("conversations").replaceChildren(...listed.map((conversation) => {
    const title = titleOf(conversation).slice(0, 80);
    const open = make("button", { type: "button", className: "open", textContent: title });
    if (conversation === current) open.setAttribute("aria-current", "true");
    open.addEventListener("click", () => openConversation(conversation));
    const remove = make("button", { type: "button", textContent: "\u00d7" });
    remove.setAttribute("aria-label", `Delete conversation: ${title}`);
    remove.addEventListener("click", () => removeConversation(conversation));
    return make("li", {}, open, remove);
  }));
}

function showCall(call) {
  const { name, arguments: text } = call.function;
  return make("details", { className: "call", open: true },
    make("summary", { textContent: `Tool call: ${name}` }),
    make("pre", { textContent: text, tabIndex: 0 }));
}

// Brings `node` up to date with `message`. The thinking element is kept, so that it stays as the
// reader folded it while text streams in.
function showMessage(node, message) {
  const thinking = node.querySelector(".thinking");
  thinking.hidden = !message.reasoning_content;
  thinking.querySelector("p").textContent = message.reasoning_content ?? "";
  const body = node.querySelector(".body");
  if (message.role === "user") body.replaceChildren(make("p", { textContent: message.content }));
  else renderMarkdown(body, message.content);
  node.querySelector(".calls").replaceChildren(...(message.tool_calls ?? []).map(showCall));
  node.querySelector(".note").textContent = message.note ?? "";
}

const kWho = { user: "You", assistant: "cachalot", tool: "Tool result" };

function appendMessage(message) {
  const node = make("article", { className: message.role },
    make("h2", { textContent: kWho[message.role] }),
    make("details", { className: "thinking", hidden: true },
      make("summary", { textContent: "Thinking" }), make("p")),
    make("div", { className: "body" }),
    make("div", { className: "calls" }),
    make("p", { className: "note muted" }));
  showMessage(node, message);
  $("log").append(node);
  return node;
}

function showConversation() {
  $("log").replaceChildren();
  if (current.messages.length === 0) {
    $("log").append(make("p", { className: "empty", textContent: "Write a message to begin." }));
  }
  current.messages.forEach(appendMessage);
  $("log").scrollTop = $("log").scrollHeight;
  $("figures").textContent = "";
  showControls();
}

function showControls() {
  const busy = running !== null;
  const last = current.messages.at(-1);
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  $("regenerate").disabled = busy || !last;
  $("edit").disabled = busy || !current.messages.some((m) => m.role === "user");
  $("clear").disabled = busy || !last;
}

// Follows the end unless the reader has scrolled away from it.
function keepingEnd(change) {
  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  change();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

// Tokens per second are counted from the first token on: the wait before it is the prompt's.
function showFigures(usage, begin, first) {
  if (!usage) return;
  const now = performance.now();
  const hit = usage.prompt_cache_hit_tokens ?? usage.prompt_tokens_details?.cached_tokens ?? 0;
  const seconds = (now - (first ?? begin)) / 1000;
  const rate = usage.completion_tokens > 1 ? (usage.completion_tokens - 1) / seconds : 0;
  $("figures").textContent = [
    `${rate.toFixed(1)} tokens/s`,
    `${usage.completion_tokens} tokens`,
    `prompt ${usage.prompt_tokens} (${hit} cached)`,
    first === null ? "" : `first after ${((first - begin) / 1000).toFixed(2)} s`,
  ].filter(Boolean).join(" \u00b7 ");
}

// A line about the cache on disk, if the server keeps one.
async function showCache() {
  const state = await cacheState($("key").value).catch(() => null);
  const disk = state?.disk;
  $("cache").hidden = !disk;
  if (!disk) return;
  $("cache").textContent = [
    `cache on disk ${(disk.bytes / 1e6).toFixed(1)} MB`,
    `${disk.reused_tokens} tokens read back`,
    disk.damaged > 0 ? `${disk.damaged} damaged records dropped` : "",
  ].filter(Boolean).join(" \u00b7 ");
}

// --- the request ---

// Fields left empty are left out: the server's defaults hold.
function requestBody() {
  const body = {};
  for (const name of ["temperature", "top_p", "max_tokens", "seed"]) {
    if ($(name).value !== "") body[name] = Number($(name).value);
  }
  const effort = $("effort").value;
  body.thinking = { type: effort === "none" ? "disabled" : "enabled" };
  if (effort !== "none") body.reasoning_effort = effort;
  if ($("tools").value.trim() !== "") body.tools = JSON.parse($("tools").value);
  const system = $("system").value.trim();
  body.messages = system ? [{ role: "system", content: system }] : [];
  for (const { note, ...message } of current.messages) body.messages.push(message);
  const name = $("model").textContent;
  if (name) body.model = name;
  return body;
}

const kNotes = {
  length: "Ended at the token limit.",
  insufficient_system_resource: "The server ended this answer.",
  content_filter: "The server withheld the rest.",
};

async function answer() {
  showError("");
  let body;
  try {
    body = requestBody();
  } catch (error) {
    showError(`Settings, tools: ${error.message}`);
    return;
  }
  const message = { role: "assistant", content: "" };
  const node = appendMessage(message);
  node.classList.add("streaming");
  $("log").scrollTop = $("log").scrollHeight;
  const turn = (running = { abort: new AbortController() });
  const conversation = current;
  const begin = performance.now();
  let first = null;
  let frame = 0;
  const show = () => {
    frame = 0;
    keepingEnd(() => showMessage(node, message));
  };
  showControls();
  $("announce").textContent = "Answering";
  try {
    const { finish, usage } = await streamChat({
      body, message, key: $("key").value, signal: turn.abort.signal,
      onChange: () => {
        if (message.content || message.reasoning_content) first ??= performance.now();
        frame ||= requestAnimationFrame(show);
      },
    });
    if (kNotes[finish]) message.note = kNotes[finish];
    showFigures(usage, begin, first);
    showCache();
    $("announce").textContent = `Answer: ${message.content.slice(0, 500)}`;
  } catch (error) {
    const stopped = turn.abort.signal.aborted;
    message.note = stopped ? "Stopped." : "Cut off by an error.";
    $("announce").textContent = stopped ? "Stopped" : "";
    if (!stopped) showError(error.message);
  } finally {
    cancelAnimationFrame(frame);
    running = null;
    finishTurn(conversation, message, node);
  }
}

function isWhole(call) {
  try {
    JSON.parse(call.function.arguments);
    return true;
  } catch {
    return false;
  }
}

// Keeps what arrived; a turn that brought nothing leaves no trace. A call that was cut off goes: it
// could not be answered, and the server would refuse a conversation that holds it.
function finishTurn(conversation, message, node) {
  node.classList.remove("streaming");
  message.tool_calls = message.tool_calls?.filter(isWhole);
  if (!message.tool_calls?.length) delete message.tool_calls;
  const empty = !message.content && !message.reasoning_content && !message.tool_calls;
  if (empty) node.remove();
  else conversation.messages.push(message);
  if (!empty) keepingEnd(() => showMessage(node, message));
  save();
  showControls();
}

// --- what the user does ---

function openConversation(conversation) {
  if (running) return;
  current = conversation;
  showError("");
  showConversation();
  showConversations();
  $("prompt").focus();
}

function removeConversation(conversation) {
  if (running) return;
  conversations = conversations.filter((c) => c !== conversation);
  store("cachalot.conversations", conversations);
  openConversation(conversation === current ? (conversations[0] ?? fresh()) : current);
}

// The next message answers the calls of the last one, if it made any: one result for each.
function pendingCalls() {
  return current.messages.at(-1)?.tool_calls ?? [];
}

function send() {
  const text = $("prompt").value.trim();
  if (running || text === "") return;
  $("log").querySelector(".empty")?.remove();
  const calls = pendingCalls();
  const added = calls.length === 0
    ? [{ role: "user", content: text }]
    : calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: text }));
  for (const message of added) {
    current.messages.push(message);
    appendMessage(message);
  }
  $("prompt").value = "";
  resizePrompt();
  save();
  answer();
}

// Drops what the model wrote since the last message of somebody else.
function dropAnswer() {
  while (current.messages.at(-1)?.role === "assistant") current.messages.pop();
}

function regenerate() {
  if (running || current.messages.length === 0) return;
  dropAnswer();
  showConversation();
  answer();
}

function editLast() {
  const index = current.messages.findLastIndex((m) => m.role === "user");
  if (running || index < 0) return;
  $("prompt").value = current.messages[index].content;
  current.messages.length = index;
  showConversation();
  save();
  resizePrompt();
  $("prompt").focus();
}

function clear() {
  if (running) return;
  current.messages.length = 0;
  showError("");
  showConversation();
  save();
  $("prompt").focus();
}

function stop() {
  running?.abort.abort();
  $("prompt").focus();
}

function resizePrompt() {
  const lines = $("prompt").value.split("\n").length;
  $("prompt").rows = Math.min(12, Math.max(1, lines));
}

function showModel() {
  modelName($("key").value)
    .then((name) => {
      $("model").textContent = name;
      showError("");
    })
    .catch((error) => showError(error.message));
}

function readOptions() {
  const kept = { ...kDefaults, ...load("cachalot.options", {}) };
  for (const name of kOptions) $(name).value = kept[name] ?? "";
  $("key").value = sessionStorage.getItem("cachalot.key") ?? "";
}

function keepOptions(event) {
  if (event.target === $("key")) {
    // For this tab only: a key does not belong on disk.
    sessionStorage.setItem("cachalot.key", $("key").value);
    showModel();
    return;
  }
  store("cachalot.options", Object.fromEntries(kOptions.map((name) => [name, $(name).value])));
}

function listen() {
  $("compose").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  $("options").addEventListener("submit", (event) => event.preventDefault());
  $("options").addEventListener("change", keepOptions);
  $("prompt").addEventListener("input", resizePrompt);
  $("prompt").addEventListener("keydown", (event) => {
    // isComposing: Enter ends the input of a Chinese or Japanese word, not the message.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running) stop();
  });
  $("stop").addEventListener("click", stop);
  $("regenerate").addEventListener("click", regenerate);
  $("edit").addEventListener("click", editLast);
  $("clear").addEventListener("click", clear);
  $("new").addEventListener("click", () => openConversation(fresh()));
}

readOptions();
listen();
showConversation();
showConversations();
showModel();
$("prompt").focus();
