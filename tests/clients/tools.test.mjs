// SPDX-License-Identifier: Apache-2.0
// Tool calls there and back: `openai`, `@anthropic-ai/sdk` and `ai`. Forced, so that the mini model,
// which knows no tools, makes them too.
import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, stepCountIs, tool } from "ai";
import OpenAI from "openai";
import { assertForecast, forecastSchema, key, seed, url } from "./support.mjs";

const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
const model = "mini";
const question = { role: "user", content: "What will the weather be?" };
const forecast = {
  type: "function",
  function: { name: "forecast", description: "A forecast", strict: true, parameters: forecastSchema },
};
const body = {
  model, seed, max_tokens: 300, thinking: { type: "disabled" }, parallel_tool_calls: false,
  tools: [forecast], messages: [question],
};

for (const [name, choice] of [
  ["required", "required"],
  ["named", { type: "function", function: { name: "forecast" } }],
]) {
  test(`openai: a ${name} call has valid arguments, and its result can be sent back`, async () => {
    const first = await openai.chat.completions.create({ ...body, tool_choice: choice });
    const { message, finish_reason: finish } = first.choices[0];
    assert.equal(finish, "tool_calls");
    assert.equal(message.tool_calls.length, 1);
    const [call] = message.tool_calls;
    assert.equal(call.function.name, "forecast");
    assertForecast(JSON.parse(call.function.arguments));
    const second = await openai.chat.completions.create({
      ...body, max_tokens: 16, tool_choice: "none",
      messages: [question, message, { role: "tool", tool_call_id: call.id, content: "sunny" }],
    });
    assert.ok(second.choices[0].message.content.length > 0);
  });
}

test("openai: a streamed call is the whole one, piece by piece", async () => {
  const forced = { ...body, tool_choice: "required" };
  const whole = await openai.chat.completions.create(forced);
  const final = await openai.chat.completions.stream(forced).finalChatCompletion();
  const [got] = final.choices[0].message.tool_calls;
  const [want] = whole.choices[0].message.tool_calls;
  assert.equal(got.function.name, want.function.name);
  assert.equal(got.function.arguments, want.function.arguments);
  assert.equal(final.choices[0].finish_reason, "tool_calls");
});

test("openai: a result without its call is refused", async () => {
  const messages = [question, { role: "tool", tool_call_id: "call_none", content: "sunny" }];
  await assert.rejects(openai.chat.completions.create({ ...body, messages }), OpenAI.BadRequestError);
});

test("openai responses: a required call, streamed, and its result sent back", async () => {
  const request = {
    model, max_output_tokens: 300, reasoning: { effort: "none" }, parallel_tool_calls: false,
    tools: [{ type: "function", name: "forecast", strict: true, parameters: forecastSchema }],
  };
  const stream = openai.responses.stream({
    ...request, tool_choice: "required", input: question.content,
  });
  let text = "";
  stream.on("response.function_call_arguments.delta", (event) => { text += event.delta; });
  const final = await stream.finalResponse();
  const call = final.output.find((item) => item.type === "function_call");
  assert.equal(text, call.arguments);
  assertForecast(JSON.parse(call.arguments));
  const second = await openai.responses.create({
    ...request, max_output_tokens: 16, tool_choice: "none",
    input: [
      question,
      { type: "function_call", call_id: call.call_id, name: call.name, arguments: call.arguments },
      { type: "function_call_output", call_id: call.call_id, output: "sunny" },
    ],
  });
  assert.ok(second.output_text.length > 0);
});

const claudeBody = {
  model, max_tokens: 300, thinking: { type: "disabled" }, messages: [question],
  tools: [{ name: "forecast", description: "A forecast", input_schema: forecastSchema }],
};

for (const [name, choice] of [["any", { type: "any" }], ["named", { type: "tool", name: "forecast" }]]) {
  test(`anthropic: a call by choice ${name}, streamed, and its result sent back`, async () => {
    const stream = anthropic.messages.stream({
      ...claudeBody, tool_choice: { ...choice, disable_parallel_tool_use: true },
    });
    let json = "";
    stream.on("inputJson", (delta) => { json += delta; });
    const message = await stream.finalMessage();
    assert.equal(message.stop_reason, "tool_use");
    const call = message.content.find((block) => block.type === "tool_use");
    assert.deepEqual(JSON.parse(json), call.input);
    assertForecast(call.input);
    const second = await anthropic.messages.create({
      ...claudeBody, max_tokens: 16, tool_choice: { type: "none" },
      messages: [
        question,
        { role: "assistant", content: message.content },
        { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "sunny" }] },
      ],
    });
    assert.equal(second.content[0].type, "text");
  });
}

test("ai: calls the tool and goes on with its result", async () => {
  const provider = createOpenAICompatible({ name: "cachalot", baseURL: `${url}/v1`, apiKey: key });
  const inputs = [];
  const result = await generateText({
    model: provider(model), prompt: question.content, seed, maxOutputTokens: 300, maxRetries: 0,
    tools: {
      forecast: tool({
        description: "A forecast",
        inputSchema: jsonSchema(forecastSchema),
        execute: async (input) => {
          inputs.push(input);
          return "sunny";
        },
      }),
    },
    providerOptions: { cachalot: { reasoningEffort: "none" } },
    stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
  });
  assert.ok(inputs.length > 0);
  inputs.forEach(assertForecast);
  assert.equal(result.steps.length, 2);
  assert.ok(result.text.length > 0);
});
