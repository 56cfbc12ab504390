// SPDX-License-Identifier: Apache-2.0
// What the client tests share: the server that run.sh started, and ways to look at it from outside.
import assert from "node:assert/strict";

export const url = process.env.CACHALOT_URL;
export const key = process.env.CACHALOT_KEY;
if (!url || !key) throw new Error("CACHALOT_URL and CACHALOT_KEY are not set: use run.sh");

// The model of run.sh continues prose; whatever it says is good. Fixed, so that failures repeat.
export const seed = 20240607;
export const prompt = "The morning was cold, and";

// The value of one metric without labels.
export async function metric(name) {
  const response = await fetch(`${url}/metrics`, { headers: { Authorization: `Bearer ${key}` } });
  assert.equal(response.status, 200);
  const line = (await response.text()).split("\n").find((l) => l.startsWith(`${name} `));
  assert.ok(line, `no metric ${name}`);
  return Number(line.slice(name.length + 1));
}

// Waits until no request runs. Fails after 10 s: a step of the mini model takes milliseconds.
export async function untilIdle() {
  const deadline = Date.now() + 10_000;
  while ((await metric("cachalot_requests_running")) !== 0) {
    assert.ok(Date.now() < deadline, "a request still runs 10 s after its client left");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// Runs `leave`, which starts an answer of at most `limit` tokens and goes away early, and holds that
// the server ended it then rather than at its end.
export async function assertFreed(limit, leave) {
  const before = await metric("cachalot_generation_tokens_total");
  await leave();
  await untilIdle();
  const spent = (await metric("cachalot_generation_tokens_total")) - before;
  assert.ok(spent > 0, "nothing was generated before the client left");
  assert.ok(spent < limit / 2, `${spent} of ${limit} tokens were generated for nobody`);
}

// A city and a number of days: what the tools and schemas of these tests ask for.
export const forecastSchema = {
  type: "object",
  properties: {
    city: { type: "string", enum: ["Oslo", "Paris"] },
    days: { type: "integer", enum: [1, 2, 3] },
  },
  required: ["city", "days"],
  additionalProperties: false,
};

export function assertForecast(value) {
  assert.deepEqual(Object.keys(value).sort(), ["city", "days"]);
  assert.ok(["Oslo", "Paris"].includes(value.city), `city: ${value.city}`);
  assert.ok([1, 2, 3].includes(value.days), `days: ${value.days}`);
}
