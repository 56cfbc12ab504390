// SPDX-License-Identifier: Apache-2.0
// The server's side of the page: one request of /v1/chat/completions, read as it is generated.

// What the server answers when it refuses, in the words it used.
async function errorOf(response) {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text);
    if (error?.message) return `${error.message} (${response.status})`;
  } catch {
    // Not JSON: a proxy in between.
  }
  return `${response.status} ${response.statusText}: ${text.slice(0, 500)}`;
}

function headersOf(key) {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

// The data of server-sent events. Comments (keep-alives) and other fields are skipped; a multi-byte
// character or a line may be cut anywhere between two reads.
export async function* eventData(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const raw of lines) {
        const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
        if (line === "" && data.length > 0) {
          yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Adds one delta to `message`: {content, reasoning_content, tool_calls}.
export function applyDelta(message, delta) {
  if (delta.content) message.content += delta.content;
  if (delta.reasoning_content) {
    message.reasoning_content = (message.reasoning_content ?? "") + delta.reasoning_content;
  }
  for (const part of delta.tool_calls ?? []) {
    message.tool_calls ??= [];
    const call = (message.tool_calls[part.index] ??= {
      id: "", type: "function", function: { name: "", arguments: "" },
    });
    if (part.id) call.id = part.id;
    call.function.name += part.function?.name ?? "";
    call.function.arguments += part.function?.arguments ?? "";
  }
}

// Sends `body` and calls onChange(message) after each change. Returns {finish, usage}. Throws the
// server's message, or an AbortError once `signal` fires.
export async function streamChat({ body, key, signal, message, onChange }) {
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headersOf(key) },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.ok) throw new Error(await errorOf(response));
  let finish = null;
  let usage = null;
  for await (const data of eventData(response.body)) {
    if (data === "[DONE]") return { finish, usage };
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message ?? "the server ended the stream");
    usage = chunk.usage ?? usage;
    const choice = chunk.choices?.[0];
    if (!choice) continue;
    finish = choice.finish_reason ?? finish;
    applyDelta(message, choice.delta ?? {});
    onChange(message);
  }
  throw new Error("the connection ended before the answer did");
}

// The name of the served model.
export async function modelName(key) {
  const response = await fetch("/v1/models", { headers: headersOf(key) });
  if (!response.ok) throw new Error(await errorOf(response));
  return (await response.json()).data?.[0]?.id ?? "";
}

// What the server says of its KV cache; null if the key may not ask.
export async function cacheState(key) {
  const response = await fetch("/v1/cache", { headers: headersOf(key) });
  return response.ok ? response.json() : null;
}
