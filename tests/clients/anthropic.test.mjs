// SPDX-License-Identifier: Apache-2.0
// The npm package `@anthropic-ai/sdk`: messages, count_tokens, errors, abort.
import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { assertFreed, key, prompt, url } from "./support.mjs";

const client = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
const body = {
  model: "mini", max_tokens: 48, temperature: 0, thinking: { type: "disabled" },
  messages: [{ role: "user", content: prompt }],
};

test("messages: streamed equals whole", async () => {
  const whole = await client.messages.create(body);
  const stream = client.messages.stream(body);
  let text = "";
  stream.on("text", (delta) => { text += delta; });
  const final = await stream.finalMessage();
  assert.ok(whole.content[0].text.length > 0);
  assert.equal(text, whole.content[0].text);
  assert.deepEqual(final.content, whole.content);
  assert.equal(final.stop_reason, whole.stop_reason);
  assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
});

test("messages: events come in order, one open block at a time, indices without gaps", async () => {
  let open = null;
  let next = 0;
  const types = [];
  const thinking = { type: "enabled", budget_tokens: 1024 };
  for await (const event of await client.messages.create({ ...body, thinking, stream: true })) {
    types.push(event.type);
    if (event.type === "content_block_start") {
      assert.equal(open, null);
      assert.equal(event.index, next++);
      open = event.index;
    } else if (event.type === "content_block_delta") {
      assert.equal(event.index, open);
    } else if (event.type === "content_block_stop") {
      assert.equal(event.index, open);
      open = null;
    }
  }
  assert.equal(types[0], "message_start");
  assert.deepEqual(types.slice(-2), ["message_delta", "message_stop"]);
  assert.ok(next > 0);
});

test("messages: thinking is a block of its own and may be sent back", async () => {
  const thinking = { type: "enabled", budget_tokens: 1024 };
  const first = await client.messages.create({ ...body, thinking });
  assert.equal(first.content[0].type, "thinking");
  assert.ok(first.content[0].signature.length > 0);
  const messages = [
    ...body.messages, { role: "assistant", content: first.content }, { role: "user", content: "On." },
  ];
  const second = await client.messages.create({ ...body, messages });
  assert.ok(second.content.length > 0);
});

test("messages: a stop sequence ends the answer and is named", async () => {
  const whole = (await client.messages.create(body)).content[0].text;
  const stop = whole.slice(20, 25);
  const cut = await client.messages.create({ ...body, stop_sequences: [stop] });
  assert.equal(cut.stop_reason, "stop_sequence");
  assert.equal(cut.stop_sequence, stop);
  assert.equal(cut.content[0].text, whole.slice(0, whole.indexOf(stop)));
});

test("count_tokens: equals what the request then reads", async () => {
  const { max_tokens: _limit, temperature: _temperature, ...counted } = body;
  const { input_tokens: count } = await client.messages.countTokens(counted);
  const { usage } = await client.messages.create(body);
  const read = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens;
  assert.equal(count, read);
});

test("auth: a bearer token is as good as x-api-key", async () => {
  const bearer = new Anthropic({ baseURL: url, apiKey: null, authToken: key, maxRetries: 0 });
  assert.equal((await bearer.messages.create({ ...body, max_tokens: 4 })).type, "message");
});

test("errors: a wrong key is 401, a wrong field 400 and named", async () => {
  const stranger = new Anthropic({ baseURL: url, apiKey: "sk-wrong", maxRetries: 0 });
  await assert.rejects(stranger.messages.create(body), (error) => {
    assert.ok(error instanceof Anthropic.AuthenticationError);
    assert.equal(error.error.error.type, "authentication_error");
    return true;
  });
  await assert.rejects(client.messages.create({ ...body, temperature: 9 }), (error) => {
    assert.ok(error instanceof Anthropic.BadRequestError);
    assert.equal(error.error.error.type, "invalid_request_error");
    assert.match(error.message, /temperature/);
    return true;
  });
});

test("abort: a client that leaves its stream frees the slot", async () => {
  await assertFreed(4000, async () => {
    const stream = client.messages.stream({ ...body, temperature: 1, max_tokens: 4000 });
    let pieces = 0;
    stream.on("text", () => { if (++pieces === 5) stream.abort(); });
    await assert.rejects(stream.done(), Anthropic.APIUserAbortError);
  });
});
