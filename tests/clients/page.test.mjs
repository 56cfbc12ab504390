// SPDX-License-Identifier: Apache-2.0
// The page in headless Chromium, by keyboard where a person could. Skipped loudly without a browser.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { after, before, beforeEach, test } from "node:test";
import { chromium } from "playwright-core";
import { assertFreed, key, prompt, seed, url } from "./support.mjs";

const kBrowsers = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome"];
const executablePath = kBrowsers.find((path) => path && existsSync(path));
const folder = process.env.CACHALOT_WEB;
const csp = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
  "img-src 'self' data:; base-uri 'none'";

const skip = executablePath ? false : "SKIPPED: no chromium; the page is not tested";
if (skip) console.error(skip);

let browser;
let page;
let problems;

// The files of CACHALOT_WEB, as the server would send them.
async function serveFolder(context) {
  const types = { html: "text/html", js: "text/javascript", css: "text/css" };
  await context.route(/\/(web\/[a-z.]+)?$/, (route) => {
    const path = new URL(route.request().url()).pathname.replace("/web/", "/");
    const name = path === "/" ? "/index.html" : path;
    return route.fulfill({
      body: readFileSync(folder + name, "utf8"),
      headers: { "Content-Type": types[name.split(".")[1]], "Content-Security-Policy": csp },
    });
  });
}

before(async () => {
  if (!skip) browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
});
after(async () => browser?.close());

beforeEach(async () => {
  if (skip) return;
  await page?.context().close();
  const context = await browser.newContext({ viewport: { width: 1180, height: 760 } });
  page = await context.newPage();
  page.setDefaultTimeout(15_000);
  problems = [];
  page.on("console", (m) => m.type() === "error" && problems.push(m.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("request", (request) => {
    const ours = request.url().startsWith(url) || request.url().startsWith("data:");
    if (!ours) problems.push(`request to ${request.url()}`);
  });
  if (folder) await serveFolder(context);
  // Before each load: what a user has set in an earlier visit.
  await page.addInitScript(([name, number]) => {
    if (sessionStorage.getItem("cachalot.key") === null) sessionStorage.setItem("cachalot.key", name);
    if (localStorage.getItem("cachalot.options") === null) {
      const options = { effort: "none", seed: String(number), max_tokens: "64" };
      localStorage.setItem("cachalot.options", JSON.stringify(options));
    }
  }, [key, seed]);
});

async function load() {
  await page.goto(`${url}/`);
  await page.waitForFunction(() => document.getElementById("model").textContent === "mini");
}

async function ask(text) {
  await page.keyboard.type(text);
  await page.keyboard.press("Enter");
}

const idle = () => page.waitForSelector("#send:not([hidden])");
const answers = () => page.locator("article.assistant .body").allTextContents();
const set = async (id, value) => {
  await page.locator("#settings").evaluate((node) => { node.open = true; });
  await page.locator(`#${id}`).fill(value);
  await page.locator(`#${id}`).blur();
  await page.locator("#prompt").focus();
};

// Answers the next chat requests with `deltas`, so that a test decides what the model writes.
async function pretend(deltas) {
  const chunks = [...deltas.map((delta) => ({ choices: [{ index: 0, delta, finish_reason: null }] })),
    { choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }];
  const body = chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join("");
  await page.route("**/v1/chat/completions", (route) => route.fulfill({
    contentType: "text/event-stream", body: `: keep-alive\n\n${body}data: [DONE]\n\n`,
  }));
}

test("text streams in, by keyboard alone, with the figures of the answer", { skip }, async () => {
  await load();
  await page.evaluate(() => {
    window.lengths = new Set();
    new MutationObserver(() => {
      const body = document.querySelector("article.assistant .body");
      if (body) window.lengths.add(body.textContent.length);
    }).observe(document.getElementById("log"), { childList: true, subtree: true });
  });
  await set("max_tokens", "600");  // a busy machine draws few frames
  await ask(prompt);
  await page.waitForSelector("article.assistant");
  await idle();
  assert.ok((await answers())[0].length > 50);
  assert.ok(await page.evaluate(() => window.lengths.size) > 3, "the text came at once");
  assert.match(await page.textContent("#figures"),
    /^[1-9][\d.]* tokens\/s \u00b7 \d+ tokens \u00b7 prompt \d+ \(\d+ cached\)/);
  assert.match(await page.textContent("#cache:not([hidden])"),
    /^cache on disk \d+\.\d MB \u00b7 \d+ tokens read back$/);
  assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
  assert.deepEqual(problems, []);
});

test("Shift+Enter makes a line, Enter sends it all", { skip }, async () => {
  await load();
  await page.keyboard.type("one");
  await page.keyboard.press("Shift+Enter");
  await ask("two");
  await idle();
  assert.equal(await page.locator("article.user .body").textContent(), "one\ntwo");
});

for (const [name, leave] of [
  ["Escape", () => page.keyboard.press("Escape")],
  ["the button", () => page.click("#stop")],
]) {
  test(`${name} stops the answer, keeps its beginning and frees the slot`, { skip }, async () => {
    await load();
    await set("max_tokens", "4000");
    await assertFreed(4000, async () => {
      await ask(prompt);
      await page.waitForFunction(
        () => document.querySelector("article.assistant .body")?.textContent.length > 40);
      await leave();
      await idle();
    });
    assert.match(await page.textContent("article.assistant .note"), /Stopped/);
    assert.ok((await answers())[0].length > 40);
    assert.deepEqual(problems, []);
  });
}

test("regenerate, edit, clear; a reload shows the conversation again", { skip }, async () => {
  await load();
  await ask(prompt);
  await idle();
  const [first] = await answers();
  await page.click("#regenerate");
  await idle();
  assert.deepEqual(await answers(), [first]);  // same seed, same answer
  await page.reload();
  assert.deepEqual(await answers(), [first]);
  await page.click("#edit");
  assert.equal(await page.inputValue("#prompt"), prompt);
  assert.deepEqual(await answers(), []);
  await ask(" the sea");
  await idle();
  assert.equal(await page.locator("article.user .body").textContent(), `${prompt} the sea`);
  await page.click("#clear");
  assert.equal(await page.locator("article").count(), 0);
  assert.deepEqual(problems, []);
});

test("thinking is folded, calls are shown, markup stays text", { skip }, async () => {
  await load();
  await pretend([
    { role: "assistant", content: null, reasoning_content: "Let me " },
    { reasoning_content: "think <b>hard</b>" },
    { content: "A **bold** `word` <img src=x onerror=alert(1)>\n\n```js\nlet a = \"<b>\";\n" },
    { content: "```\n\n[link](javascript:alert(1))<script>alert(2)</script>" },
    { tool_calls: [{ index: 0, id: "call_1", type: "function", function: { name: "forecast", arguments: "" } }] },
    { tool_calls: [{ index: 0, function: { arguments: "{\"city\": " } }] },
    { tool_calls: [{ index: 0, function: { arguments: "\"Oslo\"}" } }] },
  ]);
  await ask("anything");
  await idle();
  const answer = page.locator("article.assistant");
  assert.equal(await answer.locator(".thinking").evaluate((node) => node.open), false);
  assert.equal(await answer.locator(".thinking p").textContent(), "Let me think <b>hard</b>");
  assert.equal(await answer.locator("strong").textContent(), "bold");
  assert.equal(await answer.locator("p code").textContent(), "word");
  assert.equal(await answer.locator(".body pre code").textContent(), "let a = \"<b>\";");
  assert.match(await answer.locator(".call").textContent(), /forecast.*\{"city": "Oslo"\}/s);
  assert.equal(await answer.locator("img, script, a, b").count(), 0);
  assert.match(await answer.locator(".body").textContent(), /<script>alert\(2\)<\/script>/);
  const [request] = await Promise.all([
    page.waitForRequest("**/v1/chat/completions"), ask("sunny"),
  ]);
  const last = request.postDataJSON().messages.at(-1);
  assert.deepEqual(last, { role: "tool", tool_call_id: "call_1", content: "sunny" });
  assert.deepEqual(problems, []);
});

test("a call that was cut off is not kept, its text is", { skip }, async () => {
  await load();
  await pretend([
    { role: "assistant", content: "I look it up." },
    { tool_calls: [{ index: 0, id: "call_1", type: "function", function: { name: "f", arguments: "{\"a" } }] },
  ]);
  await ask("anything");
  await idle();
  assert.equal(await page.locator(".call").count(), 0);
  const [request] = await Promise.all([page.waitForRequest("**/v1/chat/completions"), ask("go on")]);
  const sent = request.postDataJSON().messages.slice(1);
  assert.deepEqual(sent, [{ role: "assistant", content: "I look it up." }, { role: "user", content: "go on" }]);
});

test("what the server refuses is shown in its words", { skip }, async () => {
  await load();
  await set("temperature", "9");
  await ask(prompt);
  await idle();
  assert.match(await page.textContent("#error"), /temperature.*\[0, 2\].*\(400\)/);
  await set("key", "sk-wrong");
  await page.waitForFunction(() => /api key.*401/i.test(document.getElementById("error").textContent));
  assert.equal(await page.evaluate(() => Object.values(localStorage).join().includes("sk-wrong")), false);
});

test("all controls are reached with Tab, in the order they are read", { skip }, async () => {
  await load();
  const next = async () => {
    await page.keyboard.press("Tab");
    return page.evaluate(() => document.activeElement.id || document.activeElement.tagName);
  };
  // The message field has the focus: on to the end of the page, then once around.
  for (let i = 0; i < 12 && (await next()) !== "BODY"; ++i);
  const seen = [];
  for (let i = 0; i < 9; ++i) seen.push(await next());
  const order = ["A", "new", "SUMMARY", "log", "prompt", "send"].map((id) => seen.indexOf(id));
  assert.ok(!order.includes(-1), seen.join(" "));
  assert.deepEqual(order, [...order].sort((a, b) => a - b), seen.join(" "));
});

test("dark and light follow the system; text is readable in both", { skip }, async () => {
  await load();
  await pretend([
    { role: "assistant", reasoning_content: "The user wants a short example." },
    { content: "Sperm whales dive for about **45 minutes**. In `C++`:\n\n```cpp\n" +
        "constexpr int kMinutes = 45;  // a typical dive\n```\n\nThey rest for ten in between." },
  ]);
  await ask("How long does a cachalot dive? Show it in code.");
  await idle();
  const shown = {};
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    shown[colorScheme] = await page.evaluate(() => {
      const luminance = (color) => {
        const [r, g, b] = color.match(/\d+/g).map((v) => v / 255)
          .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const of = (id, property) => luminance(getComputedStyle(document.querySelector(id))[property]);
      const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      const background = of("body", "backgroundColor");
      return {
        background, text: ratio(of("body", "color"), background),
        muted: ratio(of("#keys", "color"), of("#compose", "backgroundColor")),
      };
    });
    await page.screenshot({ path: colorScheme === "light" ? "page.png" : "page-dark.png" });
    assert.ok(shown[colorScheme].text >= 7, `${colorScheme}: ${shown[colorScheme].text}`);
    assert.ok(shown[colorScheme].muted >= 4.5, `${colorScheme}: ${shown[colorScheme].muted}`);
  }
  assert.ok(shown.light.background > 0.8 && shown.dark.background < 0.05);
});

test("a narrow screen shows everything without sideways scrolling", { skip }, async () => {
  await page.setViewportSize({ width: 360, height: 720 });
  await load();
  await ask(prompt);
  await idle();
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  assert.ok(await page.locator("#prompt").isVisible());
  await page.screenshot({ path: "page-narrow.png" });
});
