// SPDX-License-Identifier: Apache-2.0
// The npm package `ai` with its OpenAI-compatible provider: text whole, streamed, aborted, refused.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import { assertFreed, key, prompt, seed, url } from "./support.mjs";

const provider = createOpenAICompatible({
  name: "cachalot", baseURL: `${url}/v1`, apiKey: key, includeUsage: true,
});
const request = {
  model: provider("mini"), prompt, seed, maxOutputTokens: 48, maxRetries: 0,
  providerOptions: { cachalot: { reasoningEffort: "none" } },
};

test("streamText gives the text and usage of generateText", async () => {
  const whole = await generateText(request);
  const stream = streamText(request);
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  assert.ok(whole.text.length > 0);
  assert.equal(text, whole.text);
  assert.equal(await stream.finishReason, whole.finishReason);
  assert.equal((await stream.usage).outputTokens, whole.usage.outputTokens);
  assert.equal((await stream.usage).inputTokens, whole.usage.inputTokens);
});

test("reasoning arrives as reasoning", async () => {
  const whole = await generateText({
    ...request, providerOptions: { cachalot: { reasoningEffort: "high" } },
  });
  assert.ok(whole.reasoningText.length > 0);
});

test("abort: a client that leaves its stream frees the slot", async () => {
  await assertFreed(4000, async () => {
    const abort = new AbortController();
    const stream = streamText({
      ...request, maxOutputTokens: 4000, abortSignal: abort.signal, onError: () => {},
    });
    let pieces = 0;
    for await (const part of stream.fullStream) {
      if (part.type === "text-delta" && ++pieces === 5) abort.abort();
    }
  });
});

test("errors: the server's words reach the caller", async () => {
  const stranger = createOpenAICompatible({ name: "x", baseURL: `${url}/v1`, apiKey: "sk-wrong" });
  await assert.rejects(generateText({ ...request, model: stranger("mini") }), (error) => {
    assert.equal(error.statusCode, 401);
    assert.match(error.message, /api key/i);
    return true;
  });
});
