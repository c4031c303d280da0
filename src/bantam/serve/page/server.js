// What this page asks of its server, and what comes back, as plain data.

const KEY = "bantam-key";

/** Refused by the server: `status`, what is wrong, and in how many seconds to try again, if told. */
export class Refused extends Error {
  constructor(status, message, after) {
    super(message);
    this.status = status;
    this.after = after;
  }
}

/** The server cannot be reached, or has gone before its answer was whole. */
export class Gone extends Error {}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
};

async function ask(path, { method, body, type = "application/json", signal } = {}) {
  const headers = {};
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (body) headers["Content-Type"] = type;
  let response;
  try {
    response = await fetch(path, { method: method ?? (body ? "POST" : "GET"), headers, body, signal });
  } catch (error) {
    throw signal?.aborted ? error : new Gone("The server does not answer.");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  const after = Number(response.headers.get("Retry-After")) || 0;
  throw new Refused(response.status, words(told.error ?? told.detail) || `status ${response.status}`, after);
}

function words(told) {
  const said = told?.message ?? told ?? "";
  return typeof said === "string" ? said : JSON.stringify(said);
}

/**
 * The models on the shelf: {name, parameters, bytes, context, task}. `task` is null of a model that
 * converses, else {kind, instruction, labels, several, functions}.
 */
export async function models() {
  const [all, made] = await Promise.all([ask("v1/models"), ask("tasks")].map(async (response) => (await response).json()));
  const tasks = new Map(made.tasks.map(({ name, kind, instruction, labels, several, calls }) =>
    [name, { kind, instruction, labels: labels ?? [], several, functions: calls > 0 }]));
  return all.data.map(({ id, bantam }) => ({ ...bantam, name: id, task: tasks.get(id) ?? null }));
}

/** Whether thumbs and corrections are kept. */
export async function keepsFeedback() {
  return (await (await ask("feedback")).json()).kept;
}

/** Whether the server is there. */
export async function alive() {
  try {
    await fetch("health", { cache: "no-store" });
    return true;
  } catch {
    return false;
  }
}

/** A reply to a conversation: {text} again and again, {reason}, {tokens}. */
export async function* chat(model, messages, settings, signal) {
  const body = JSON.stringify({ model, messages, stream: true, stream_options: { include_usage: true },
    temperature: settings.temperature, max_completion_tokens: settings.length });
  const response = await ask("v1/chat/completions", { body, signal });
  for await (const event of events(response.body)) {
    if (event.error) throw new Refused(503, words(event.error), 0);
    const choice = event.choices?.[0];
    if (choice?.delta?.content) yield { text: choice.delta.content };
    if (choice?.finish_reason) yield { reason: choice.finish_reason };
    if (event.usage) yield { tokens: event.usage.completion_tokens };
  }
}

/** The answer of a task to a text. `tools` are the functions to call, if the task has any. */
export async function answer(model, text, tools, signal) {
  const body = JSON.stringify({ text, tools });
  return found(await (await ask(`tasks/${encodeURIComponent(model)}`, { body, signal })).json());
}

/** The answers of a task to many texts, in their order and as they come. */
export async function* answers(model, texts, tools, signal) {
  const path = `tasks/${encodeURIComponent(model)}/stream`;
  const body = texts.map((text) => JSON.stringify({ text, tools })).join("\n");
  const response = await ask(path, { body, type: "application/x-ndjson", signal });
  let count = 0;
  for await (const line of pieces(response.body, /\r?\n/)) {
    if (!line) continue;
    yield found(JSON.parse(line));
    count += 1;
  }
  if (count < texts.length) throw new Gone("The answers broke off.");
}

/** An answer in one form for all tasks: `answer` is its text, `value` the JSON of one that has it. */
function found(told) {
  if (told.error) return { error: words(told.error), answer: "", confidence: null, sure: null };
  const { label, labels, object, text } = told;
  const answer = label ?? text ?? JSON.stringify(object);
  return { ...told, answer, labels, value: object };
}

/**
 * Keep what is said of an answer: a thumb, a correction, both, or neither, which takes back what was
 * said before. `about` is {model, text, tools, found}; the id of what is kept is left in `found`.
 */
export async function say({ model, text, tools, found }, { thumb, correction }) {
  const before = found.said;
  let kept = null;
  if (thumb || correction !== null) {
    const answer = found.value ?? (found.labels?.length === 1 ? found.labels[0] : found.labels) ?? found.answer;
    const body = JSON.stringify({ model, text, answer, tools, thumb, correction });
    const { id } = await (await ask("feedback", { body })).json();
    kept = { id, thumb, correction };
  }
  found.said = kept;
  if (before) await ask(`feedback/${before.id}`, { method: "DELETE" }).catch(() => {}); // gone already
}

/** The data of server-sent events, each JSON. Throws Gone if they break off before [DONE]. */
export async function* events(body) {
  for await (const event of pieces(body, /\r?\n\r?\n/)) {
    const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
    const data = lines.map((line) => line.slice(5).trimStart()).join("\n");
    if (data === "[DONE]") return;
    if (data) yield JSON.parse(data);
  }
  throw new Gone("The answer broke off.");
}

/** A stream of bytes as texts between `ends`, each as soon as it is there. */
async function* pieces(body, ends) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      held += decoder.decode(value, { stream: !done });
      const whole = held.split(ends);
      held = whole.pop();
      yield* whole;
      if (done) break;
    }
    if (held) yield held;
  } catch (error) {
    if (error.name === "TypeError") throw new Gone("The server went away."); // a browser's word
    throw error;
  } finally {
    await reader.cancel().catch(() => {});
  }
}
