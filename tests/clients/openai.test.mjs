// SPDX-License-Identifier: Apache-2.0
// The npm package `openai`: chat, completions, responses, models, errors, abort.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { assertFreed, key, prompt, seed, url } from "./support.mjs";

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const model = "mini";
const chat = {
  model, seed, max_tokens: 48, thinking: { type: "disabled" },
  messages: [{ role: "user", content: prompt }],
};

async function collect(stream) {
  const got = { content: "", reasoning: "", finish: null, usage: null, roles: 0 };
  for await (const chunk of stream) {
    got.usage = chunk.usage ?? got.usage;
    const choice = chunk.choices[0];
    got.content += choice?.delta.content ?? "";
    got.reasoning += choice?.delta.reasoning_content ?? "";
    got.roles += choice?.delta.role ? 1 : 0;
    got.finish = choice?.finish_reason ?? got.finish;
  }
  return got;
}

test("models: lists the served model and finds it by name", async () => {
  const list = await client.models.list();
  assert.deepEqual(list.data.map((m) => m.id), [model]);
  assert.equal((await client.models.retrieve(model)).id, model);
});

test("chat: streamed equals whole for a seed, usage included", async () => {
  const whole = await client.chat.completions.create(chat);
  const stream = await client.chat.completions.create({
    ...chat, stream: true, stream_options: { include_usage: true },
  });
  const got = await collect(stream);
  assert.ok(whole.choices[0].message.content.length > 0);
  assert.equal(got.content, whole.choices[0].message.content);
  assert.equal(got.finish, whole.choices[0].finish_reason);
  assert.equal(got.roles, 1);
  assert.equal(got.usage.completion_tokens, whole.usage.completion_tokens);
  assert.equal(got.usage.prompt_tokens, whole.usage.prompt_tokens);
  const { prompt_cache_hit_tokens: hit, prompt_cache_miss_tokens: miss } = got.usage;
  assert.equal(hit + miss, got.usage.prompt_tokens);
  assert.equal(got.usage.prompt_tokens_details.cached_tokens, hit);
});

test("chat: thinking arrives apart from the answer, streamed and whole", async () => {
  const body = { ...chat, thinking: { type: "enabled" }, max_tokens: 24 };
  const whole = await client.chat.completions.create(body);
  const got = await collect(await client.chat.completions.create({ ...body, stream: true }));
  assert.ok(whole.choices[0].message.reasoning_content.length > 0);
  assert.equal(got.reasoning, whole.choices[0].message.reasoning_content);
  assert.equal(got.content, whole.choices[0].message.content ?? "");
});

test("chat: the stream helper of the package ends with the same message", async () => {
  const whole = await client.chat.completions.create(chat);
  const final = await client.chat.completions.stream(chat).finalChatCompletion();
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
});

test("chat: log probabilities spell the answer and are sorted", async () => {
  const whole = await client.chat.completions.create({ ...chat, logprobs: true, top_logprobs: 3 });
  const { content } = whole.choices[0].logprobs;
  const bytes = content.flatMap((entry) => entry.bytes);
  assert.equal(Buffer.from(bytes).toString(), whole.choices[0].message.content);
  for (const entry of content) {
    assert.ok(entry.logprob <= 0);
    assert.equal(entry.top_logprobs.length, 3);
    const values = entry.top_logprobs.map((top) => top.logprob);
    assert.deepEqual(values, [...values].sort((a, b) => b - a));
  }
});

test("chat: a stop string ends the answer and is not part of it", async () => {
  const whole = (await client.chat.completions.create(chat)).choices[0].message.content;
  const stop = whole.slice(20, 25);
  const body = { ...chat, stop: [stop] };
  const cut = await client.chat.completions.create(body);
  const got = await collect(await client.chat.completions.create({ ...body, stream: true }));
  assert.equal(cut.choices[0].message.content, whole.slice(0, whole.indexOf(stop)));
  assert.equal(cut.choices[0].finish_reason, "stop");
  assert.equal(got.content, cut.choices[0].message.content);
});

test("chat: n = 2 gives two choices, the first is that of n = 1", async () => {
  const one = await client.chat.completions.create(chat);
  const two = await client.chat.completions.create({ ...chat, n: 2 });
  assert.deepEqual(two.choices.map((c) => c.index), [0, 1]);
  assert.equal(two.choices[0].message.content, one.choices[0].message.content);
  assert.notEqual(two.choices[1].message.content, one.choices[0].message.content);
});

test("completions: streamed equals whole", async () => {
  const body = { model, seed, prompt, max_tokens: 32 };
  const whole = await client.completions.create(body);
  let text = "";
  for await (const chunk of await client.completions.create({ ...body, stream: true })) {
    text += chunk.choices[0]?.text ?? "";
  }
  assert.ok(whole.choices[0].text.length > 0);
  assert.equal(text, whole.choices[0].text);
});

test("responses: streamed equals whole, numbered from 0 without gaps", async () => {
  const body = { model, seed, input: prompt, max_output_tokens: 32, reasoning: { effort: "none" } };
  const whole = await client.responses.create({ ...body, temperature: 0 });
  let text = "";
  const events = [];
  for await (const event of await client.responses.create({
    ...body, temperature: 0, stream: true,
  })) {
    events.push(event);
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  assert.ok(whole.output_text.length > 0);
  assert.equal(text, whole.output_text);
  assert.deepEqual(events.map((e) => e.sequence_number), events.map((_, index) => index));
  assert.equal(events[0].type, "response.created");
  const last = events.at(-1);
  assert.equal(last.type, `response.${whole.status}`);
  assert.equal(last.response.output.at(-1).content[0].text, text);
  assert.equal(last.response.usage.output_tokens, whole.usage.output_tokens);
});

test("abort: a client that leaves its stream frees the slot", async () => {
  await assertFreed(4000, async () => {
    const body = { ...chat, max_tokens: 4000, stream: true };
    const stream = await client.chat.completions.create(body);
    let chunks = 0;
    for await (const chunk of stream) {
      chunks += chunk.choices.length;
      if (chunks === 5) stream.controller.abort();
    }
  });
});

test("abort: a client that gives up on a whole answer frees the slot", async () => {
  await assertFreed(4000, async () => {
    const abort = new AbortController();
    const answer = client.chat.completions.create(
      { ...chat, max_tokens: 4000 }, { signal: abort.signal });
    setTimeout(() => abort.abort(), 150);
    await assert.rejects(answer, OpenAI.APIUserAbortError);
  });
});

test("errors: a wrong key is 401 and nothing else", async () => {
  const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-wrong", maxRetries: 0 });
  await assert.rejects(stranger.chat.completions.create(chat), (error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError);
    assert.equal(error.status, 401);
    assert.equal(error.error.type, "authentication_error");
    return true;
  });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
});

test("errors: a field out of range is 400 and named", async () => {
  for (const [param, value] of [["temperature", 9], ["top_p", -1], ["max_tokens", "many"]]) {
    await assert.rejects(client.chat.completions.create({ ...chat, [param]: value }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError, `${param}: ${error}`);
      assert.equal(error.param, param);
      return true;
    });
  }
});

test("errors: an unknown path is 404, a prompt longer than the context 400", async () => {
  await assert.rejects(client.get("/nothing"), OpenAI.NotFoundError);
  const content = "many words ".repeat(9000);
  await assert.rejects(
    client.chat.completions.create({ ...chat, messages: [{ role: "user", content }] }),
    OpenAI.BadRequestError);
});
