// The page: which models are chosen, what is asked of them, and what stands on the screen.

import { result, reply, replyFacts, table, verdict } from "./answers.js";
import { copyButton, el, icon, iconButton, tell } from "./dom.js";
import * as server from "./server.js";
import { duration, large, sentences } from "./text.js";

const $ = (id) => document.getElementById(id);
const KEPT = "bantam-talks"; // in localStorage, if the user ticks it
const THUMBS = matchMedia("(pointer: coarse)"); // Enter begins a line where there is no Shift
const EXAMPLE = [{
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city",
    parameters: {
      type: "object",
      properties: { city: { type: "string" }, unit: { enum: ["celsius", "fahrenheit"] } },
      required: ["city"],
    },
  },
}];

let models = []; // {name, task}, task null for a model that converses
let chosen = []; // one or two of them
let feedback = false; // whether the server keeps any
let running = null; // what stops it
let talks = {}; // the chosen models, as in `turns` -> their turns
const places = new WeakMap(); // of turns
const cards = new WeakMap(); // of answers
// A turn is {text, texts, tools, answers}. An answer of a conversation is {model, text, pieces,
// tokens, first, took, reason}, of a task {model, results}; both may have `error` and `running`.

// Which models there are, and which are chosen

async function begin() {
  $("locked").hidden = true;
  try {
    [models, feedback] = await Promise.all([server.models(), server.keepsFeedback()]);
  } catch (error) {
    about(...(error instanceof server.Gone || error.status === 401 ? [] : [
      el("p", { className: "wrong", role: "alert" }, error.message),
      el("p", {}, el("button", { type: "button", className: "main", onclick: begin }, "Try again")),
    ]));
    return troubled(error);
  }
  $("gone").hidden = true;
  if (!models.length) {
    $("choice").hidden = $("ask").hidden = true;
    return about(el("h1", {}, "No model yet"), el("p", {}, "Start the server with one or more: ",
      el("code", {}, "bantam serve runs/review-sentiment")));
  }
  const wanted = new URLSearchParams(location.search);
  const options = () => models.map(({ name }) => el("option", { value: name }, name));
  $("model").replaceChildren(...options());
  $("beside").replaceChildren(el("option", { value: "" }, "Compare …"), ...options());
  const there = (name) => models.some((model) => model.name === name);
  if (there(wanted.get("model"))) $("model").value = wanted.get("model");
  if (there(wanted.get("beside"))) $("beside").value = wanted.get("beside");
  $("choice").hidden = $("ask").hidden = false;
  choose();
}

function choose() {
  running?.abort();
  const names = [$("model").value, $("beside").value].filter(Boolean);
  chosen = names.map((name) => models.find((model) => model.name === name));
  history.replaceState(null, "", `?${new URLSearchParams(
    names.length > 1 ? { model: names[0], beside: names[1] } : { model: names[0] })}`);
  document.title = `${names.join(" beside ")} · Bantam`;

  const tasks = chosen.filter((model) => model.task);
  const single = chosen.length === 1 && tasks.length === 1;
  document.body.className = [single && "task", chosen.length > 1 && "two"].filter(Boolean).join(" ");
  // The box stands above the answers of a task, below a conversation; so do the elements.
  if (single) $("turns").before($("ask"));
  else $("turns").after($("ask"));
  $("text-label").textContent = tasks.length === chosen.length ? "Text" : "Message";
  $("open").hidden = tasks.length === chosen.length;
  if ($("open").hidden) settingsShown(false);
  $("declared").hidden = !tasks.some((model) => model.task.functions);
  $("many-field").hidden = !single;
  if (!single) $("many").checked = false;
  introduce();
  draw();
  composer();
}

function introduce() {
  const [{ name, task, parameters, bytes, context }] = chosen;
  const facts = el("p", { className: "facts" }, [`${large(parameters)} parameters`, `${large(bytes, " ")}B`,
    `reads ${context.toLocaleString("en-GB")} tokens`].join(" · "));
  const kept = feedback && el("p", { className: "soft" },
    "Thumbs and corrections are kept, with the text, on the machine that runs the server.");
  if (chosen.length > 1) {
    return about(el("h1", { className: "hidden" }, chosen.map((model) => model.name).join(" beside ")),
      turns().length ? null : el("p", { className: "lede" }, "Both are asked the same."), kept);
  }
  if (!task) {
    return about(el("h1", {}, name), facts,
      turns().length ? null : el("p", { className: "lede" }, "Write something to begin."), kept);
  }
  const { length } = task.labels;
  const answers = {
    classify: `Answers with ${task.several ? "any" : "one"} of ${length} labels${length <= 12 ? `: ${task.labels.join(", ")}` : ""}.`,
    generate: "Answers with a text.",
    extract: task.functions ? "Answers with calls of your functions." : "Answers with JSON.",
  };
  return about(el("h1", {}, name), facts, task.instruction && el("p", { className: "lede" }, task.instruction),
    el("p", { className: "soft" }, answers[task.kind]), kept);
}

function about(...children) {
  $("about").replaceChildren(...children.filter(Boolean));
}

// What was asked and answered

function turns() {
  return (talks[chosen.map(({ name, task }) => `${name} ${task?.kind ?? "chat"}`).join("\n")] ??= []);
}

function draw() {
  $("turns").replaceChildren();
  turns().forEach(show);
  if (!isTask()) toEnd();
}

function isTask() {
  return document.body.classList.contains("task");
}

/** Put a turn on the screen: the newest first of a task, last of a conversation. */
function show(turn) {
  const asked = turn.texts ? `${turn.texts.length} texts` : turn.text;
  const place = el("li", { className: "turn" },
    el("div", { className: turn.texts ? "hidden" : "asked" }, el("span", { className: "hidden" }, "You: "), asked),
    el("div", { className: "answers" }, ...turn.answers.map((answer) => {
      cards.set(answer, el("article"));
      paint(turn, answer);
      return cards.get(answer);
    })));
  places.get(turn)?.remove();
  places.set(turn, place);
  if (isTask()) $("turns").prepend(place);
  else $("turns").append(place);
}

function paint(turn, answer) {
  const model = models.find((one) => one.name === answer.model) ?? { name: answer.model, task: null };
  const { task } = model;
  const parts = [el("h2", { className: chosen.length > 1 ? "who" : "hidden" }, model.name)];
  if (!answer.results) {
    parts.push(el("div", { className: "reply" }, ...reply(answer)));
  } else if (turn.texts && answer.results.length) {
    parts.push(...table(model.name, task, turn.texts, answer, (text, found) => said(model, text, turn, found)));
  } else if (answer.results.length) {
    parts.push(...result(task, answer.results[0]));
  }
  if (answer.error) parts.push(el("p", { className: "wrong", role: "alert" }, answer.error));
  parts.push(...(answer.running ? [el("p", { className: "facts" }, progress(answer))] : below(turn, answer, model)));
  const card = cards.get(answer);
  card.className = answer.running ? "answer running" : "answer";
  card.setAttribute("aria-busy", String(Boolean(answer.running)));
  card.replaceChildren(...parts.filter(Boolean));
}

/** Buttons and facts under a whole answer. */
function below(turn, answer, model) {
  const found = answer.results ? answer.results[0] : answer;
  const one = found && !turn.texts && !found.error;
  const text = one && (found.value === undefined ? found.answer : JSON.stringify(found.value, null, 2));
  const [thumbs, correction] = text ? said(model, turn.text, turn, found) : [];
  const buttons = el("div", { className: "buttons" }, text ? copyButton(() => text) : null);
  if (turn.answers[0] === answer) {
    const ask = () => run(turn);
    const again = answer.error
      ? el("button", { type: "button", className: "plain", onclick: ask }, icon("again"), "Try again")
      : iconButton("again", chosen.length > 1 ? "Ask both again" : "Ask again", ask);
    again.classList.add("again");
    buttons.append(again);
  }
  buttons.append(...(thumbs ?? []));
  const facts = answer.results ? [duration(answer.took)] : replyFacts(answer);
  return [el("div", { className: "under" }, buttons, el("p", { className: "facts" }, facts.join(" · "))), correction];
}

function said(model, text, turn, found) {
  if (!feedback || found.error) return [];
  const { buttons, correction } = verdict({ model: model.name, task: model.task, text, tools: turn.tools, found, changed: keep });
  return [buttons, correction];
}

function progress(answer) {
  const waited = performance.now() - answer.began;
  if (answer.first) return `first token ${duration(answer.first)}`;
  return waited < 1000 ? "…" : `waiting for ${Math.round(waited / 1000)} s`;
}

setInterval(() => {
  for (const turn of running ? turns() : []) {
    for (const answer of turn.answers) {
      if (answer.running) cards.get(answer).querySelector(":scope > .facts").textContent = progress(answer);
    }
  }
}, 500);

// Asking

$("ask").onsubmit = (event) => {
  event.preventDefault();
  if (running) return running.abort();
  const text = $("text").value.trim();
  if (!text) return $("text").focus();
  const turn = { text, answers: [] };
  if ($("many").checked) turn.texts = text.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!$("declared").hidden) {
    turn.tools = declared();
    if (!turn.tools) return $("tools").focus();
  }
  if (!isTask()) $("text").value = "";
  turns().push(turn);
  return run(turn);
};

/** Ask the chosen models, or ask them again. */
async function run(turn) {
  if (running) return;
  const stopping = (running = new AbortController());
  const settings = {
    system: $("system").value.trim(),
    temperature: $("temperature").valueAsNumber,
    length: $("length").valueAsNumber,
  };
  const before = turns().slice(0, turns().indexOf(turn));
  const began = performance.now();
  turn.answers = chosen.map(({ name, task }) => (task
    ? { model: name, running: true, began, results: [] }
    : { model: name, running: true, began, answer: "", pieces: 0, tokens: null, first: null }));
  introduce();
  show(turn);
  composer();
  if (!isTask()) toEnd();
  await Promise.all(turn.answers.map(async (answer, n) => {
    const { task } = chosen[n];
    try {
      if (task) await solve(turn, answer, stopping.signal);
      else await talk(turn, answer, [...conversation(before, n, settings), { role: "user", content: turn.text }], settings, stopping.signal);
    } catch (error) {
      if (stopping.signal.aborted) answer.reason = "stopped";
      else troubled(error, answer);
    }
    answer.took = performance.now() - began;
    answer.running = false;
    const low = isLow();
    paint(turn, answer);
    if (low && !isTask()) toEnd();
  }));
  running = null;
  composer();
  keep();
}

/** What model number `n` has been told and has answered. */
function conversation(before, n, { system }) {
  const messages = system ? [{ role: "system", content: system }] : [];
  for (const { text, answers } of before) {
    if (!answers[n]?.answer) continue;
    messages.push({ role: "user", content: text }, { role: "assistant", content: answers[n].answer });
  }
  return messages;
}

async function talk(turn, answer, messages, settings, signal) {
  let drawn = false;
  let told = 0;
  const voice = chosen.length > 1 ? `${answer.model}: ` : "";
  const grow = () => {
    drawn = false;
    if (!answer.running) return;
    const low = isLow();
    cards.get(answer).querySelector(".reply").replaceChildren(...reply(answer));
    if (low) toEnd();
  };
  for await (const { text, reason, tokens } of server.chat(answer.model, messages, settings, signal)) {
    if (reason) answer.reason = reason;
    if (tokens !== undefined) answer.tokens = tokens;
    if (!text) continue;
    answer.first ??= performance.now() - answer.began;
    answer.answer += text;
    answer.pieces += 1;
    if (!drawn) requestAnimationFrame(grow);
    drawn = true;
    const whole = sentences(answer.answer);
    if (whole > told) tell(voice + answer.answer.slice(told, whole));
    told = Math.max(told, whole);
  }
  if (answer.answer.length > told) tell(voice + answer.answer.slice(told));
}

async function solve(turn, answer, signal) {
  if (turn.texts) return solveAll(turn, answer, signal);
  const found = await server.answer(answer.model, turn.text, turn.tools, signal);
  answer.results.push(found);
  const sure = { true: ", sure", false: ", not sure" }[found.sure] ?? "";
  return tell((found.answer || "no label") + sure);
}

async function solveAll(turn, answer, signal) {
  let drawn = false;
  const grow = () => {
    drawn = false;
    if (answer.running) paint(turn, answer);
  };
  for await (const found of server.answers(answer.model, turn.texts, turn.tools, signal)) {
    answer.results.push(found);
    if (!drawn) setTimeout(grow, 200);
    drawn = true;
  }
  tell(`${turn.texts.length} texts are answered.`);
}

function toEnd() {
  scrollTo(0, document.body.scrollHeight);
}

/** Whether the end of the page is in sight, so that it should stay there. */
function isLow() {
  return innerHeight + scrollY > document.body.scrollHeight - 120;
}

/** The functions that are declared; null, and a word why, if they are none. */
function declared() {
  try {
    const found = JSON.parse($("tools").value);
    if (!Array.isArray(found) || !found.length) throw new Error("a list of functions is wanted, in [ and ]");
    wrongTools("");
    return found;
  } catch (error) {
    wrongTools(error.message);
    return null;
  }
}

function wrongTools(message) {
  $("tools-hint").textContent = message ? `This is no JSON that can be used: ${message}` : "JSON, as OpenAI’s clients declare them.";
  $("tools-hint").className = message ? "wrong" : "hint";
  $("tools").setAttribute("aria-invalid", String(Boolean(message)));
}

// When it does not work

/** Say what is wrong where it can be mended. */
function troubled(error, answer) {
  if (error.status === 401) {
    $("locked-said").firstChild.textContent = server.key.get() ? "This key is not known here." : "This server asks for a key.";
    $("locked").hidden = false;
    $("key").focus();
  }
  if (error instanceof server.Gone) watch();
  if (answer) answer.error = error.message + (error.after ? ` Try again in ${error.after} s.` : "");
}

/** Look every few seconds whether the server is there again. */
async function watch() {
  if (!$("gone").hidden) return;
  $("gone").hidden = false;
  while (!(await server.alive())) await new Promise((done) => setTimeout(done, 2000));
  $("gone").hidden = true;
  tell("The server answers again.");
  if (!models.length) begin();
}

$("locked").onsubmit = (event) => {
  event.preventDefault();
  server.key.set($("key").value.trim());
  $("key").value = "";
  begin();
};

// The box and its settings

function composer() {
  const tasks = chosen.filter((model) => model.task).length;
  document.body.classList.toggle("busy", Boolean(running));
  $("send").textContent = running ? "Stop" : tasks === chosen.length ? "Answer" : "Send";
  $("anew").hidden = !turns().length || Boolean(running);
  $("anew").textContent = isTask() ? "Clear" : "Begin anew";
  const many = $("many").checked;
  $("text").rows = many ? 8 : isTask() ? 4 : 1;
  $("text").placeholder = many ? "One text a line" : "";
  $("hint").textContent = running ? "Esc stops" : many ? "Ctrl+Enter answers" : "Enter sends, Shift+Enter begins a line";
}

$("text").onkeydown = (event) => {
  if (event.key !== "Enter" || event.isComposing || event.shiftKey) return;
  if (!(event.ctrlKey || event.metaKey) && ($("many").checked || THUMBS.matches)) return;
  event.preventDefault();
  if (!running) $("ask").requestSubmit();
};

document.onkeydown = (event) => {
  if (event.key === "Escape") running?.abort();
};

$("model").onchange = $("beside").onchange = choose;
$("many").onchange = composer;
$("example").onclick = () => {
  $("tools").value = JSON.stringify(EXAMPLE, null, 2);
  wrongTools("");
};
$("open").onclick = () => settingsShown($("settings").hidden);
$("anew").onclick = () => {
  turns().length = 0;
  keep();
  introduce();
  draw();
  composer();
  $("text").focus();
};

function settingsShown(shown) {
  const low = isLow();
  $("settings").hidden = !shown;
  if (low && !isTask()) toEnd();
  $("open").setAttribute("aria-expanded", String(shown));
}

// What is kept in this browser

$("keep").onchange = keep;
$("system").onchange = $("temperature").onchange = $("length").onchange = keep;

function keep() {
  if (running) return undefined; // it is kept when it is whole
  if (!$("keep").checked) return localStorage.removeItem(KEPT);
  const settings = Object.fromEntries(["system", "temperature", "length"].map((id) => [id, $(id).value]));
  try {
    return localStorage.setItem(KEPT, JSON.stringify({ talks, settings }));
  } catch {
    return tell("The conversations are too long to be kept.");
  }
}

function remember() {
  const kept = JSON.parse(localStorage.getItem(KEPT));
  if (!kept) return;
  $("keep").checked = true;
  talks = kept.talks;
  for (const [id, value] of Object.entries(kept.settings)) $(id).value = value;
}

remember();
begin();
