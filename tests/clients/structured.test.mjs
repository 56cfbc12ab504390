// SPDX-License-Identifier: Apache-2.0
// Answers held to a JSON schema: `openai` and `ai`.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, jsonSchema, streamObject } from "ai";
import OpenAI from "openai";
import { assertForecast, forecastSchema, key, seed, url } from "./support.mjs";

const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const model = "mini";
const prompt = "The weather, as json";
const body = {
  model, seed, max_tokens: 300, thinking: { type: "disabled" },
  messages: [{ role: "user", content: prompt }],
};
const format = {
  type: "json_schema",
  json_schema: { name: "forecast", strict: true, schema: forecastSchema },
};

test("openai: json_schema holds whatever the seed, streamed as whole", async () => {
  for (let i = 0; i < 4; ++i) {
    const request = { ...body, seed: seed + i, response_format: format };
    const whole = await openai.chat.completions.create(request);
    assert.equal(whole.choices[0].finish_reason, "stop");
    assertForecast(JSON.parse(whole.choices[0].message.content));
    const streamed = await openai.chat.completions.stream(request).finalChatCompletion();
    assert.equal(streamed.choices[0].message.content, whole.choices[0].message.content);
  }
});

test("openai: several schemas at once do not mix", async () => {
  const answers = await Promise.all(["a", "b", "c", "d"].map(async (name) => {
    const schema = {
      type: "object", properties: { [name]: { type: "boolean" } }, required: [name],
      additionalProperties: false,
    };
    const answer = await openai.chat.completions.create({
      ...body, response_format: { type: "json_schema", json_schema: { name, strict: true, schema } },
    });
    return [name, JSON.parse(answer.choices[0].message.content)];
  }));
  for (const [name, value] of answers) {
    assert.deepEqual(Object.keys(value), [name]);
    assert.equal(typeof value[name], "boolean");
  }
});

test("openai: the parse helper of the package reads the answer", async () => {
  const answer = await openai.chat.completions.parse({ ...body, response_format: format });
  assertForecast(JSON.parse(answer.choices[0].message.content));
});

test("openai responses: text.format holds", async () => {
  const answer = await openai.responses.create({
    model, input: prompt, max_output_tokens: 300, reasoning: { effort: "none" },
    text: { format: { type: "json_schema", name: "forecast", strict: true, schema: forecastSchema } },
  });
  assertForecast(JSON.parse(answer.output_text));
});

test("openai: a schema that cannot be held is 400", async () => {
  const schema = { type: "object", properties: { a: { type: "colour" } } };
  await assert.rejects(
    openai.chat.completions.create({
      ...body,
      response_format: { type: "json_schema", json_schema: { name: "bad", strict: true, schema } },
    }),
    OpenAI.BadRequestError);
});

const provider = createOpenAICompatible({
  name: "cachalot", baseURL: `${url}/v1`, apiKey: key, supportsStructuredOutputs: true,
});
const request = {
  model: provider(model), prompt, seed, maxOutputTokens: 300, maxRetries: 0,
  schema: jsonSchema(forecastSchema), schemaName: "forecast",
  providerOptions: { cachalot: { reasoningEffort: "none" } },
};

test("ai: generateObject gives an object of the schema", async () => {
  assertForecast((await generateObject(request)).object);
});

test("ai: streamObject ends with an object of the schema", async () => {
  const { partialObjectStream, object } = streamObject(request);
  let last;
  for await (const partial of partialObjectStream) last = partial;
  assertForecast(last);
  assert.deepEqual(await object, last);
});
