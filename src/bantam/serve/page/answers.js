// Answers as elements: of a conversation, of a task, of a task for many texts, and what is said
// of them.

import { copyButton, download, el, icon, iconButton, markdown, tell } from "./dom.js";
import * as server from "./server.js";
import { csv, duration, percent } from "./text.js";

const SHOWN = 8; // labels before "all labels"
const NUMBER = new Intl.NumberFormat("en-GB");

/** What a conversation's answer has so far. */
export function reply(answer) {
  if (answer.answer) return markdown(answer.answer);
  return answer.running || answer.error ? [] : [el("p", { className: "soft" }, "It answered nothing.")];
}

/** Time and speed of a conversation's answer, and why it ended. */
export function replyFacts(answer) {
  const tokens = answer.tokens ?? answer.pieces;
  const seconds = (answer.took - answer.first) / 1000;
  const told = [];
  if (answer.reason === "length") told.push("cut at the longest answer: Settings can allow more");
  if (answer.reason === "stopped") told.push("stopped");
  if (answer.first !== null) {
    told.push(`first token ${duration(answer.first)}`);
    // The first token's time is that of the prompt.
    if (tokens > 1 && seconds > 0) told.push(`${((tokens - 1) / seconds).toFixed(1)} tokens/s`);
    told.push(`${answer.tokens === null ? "about " : ""}${NUMBER.format(tokens)} tokens`);
  }
  return told;
}

/** A task's answer to one text. */
export function result(task, found) {
  if (found.error) return [el("p", { className: "wrong" }, found.error)];
  if (task.kind === "classify") return label(task, found);
  const shown = task.kind === "extract"
    ? el("pre", { className: "json", tabIndex: 0 }, ...coloured(found.value))
    : el("p", { className: "written" }, found.answer || "(nothing)");
  return [shown, certainty(task, found), ...notes(found)];
}

function label(task, found) {
  const name = found.labels.length ? found.labels.join(", ") : "no label";
  const given = new Set(found.labels);
  const shares = Object.entries(found.probabilities ?? {}).sort((a, b) => b[1] - a[1]);
  const rows = shares.map(([name, share]) => bar(name, share, given.has(name)));
  const few = el("ul", { className: "bars" }, ...rows.slice(0, SHOWN));
  const rest = rows.length > SHOWN
    ? el("details", {}, el("summary", {}, `All ${rows.length} labels`),
      el("ul", { className: "bars" }, ...rows.slice(SHOWN)))
    : null;
  return [el("p", { className: "label" }, name), certainty(task, found), few, rest, ...notes(found)];
}

function notes({ whole, cut }) {
  const told = [];
  if (!whole) told.push("The answer was cut at its longest.");
  if (cut) told.push("The end of the text was not read: it is too long for this model.");
  return told.map((text) => el("p", { className: "soft" }, text));
}

function bar(name, share, given) {
  const filled = el("i");
  filled.style.width = `${Math.max(share * 100, 0.5)}%`;
  return el("li", { className: given ? "given" : "" }, el("span", { className: "name" }, name),
    el("span", { className: "rail", "aria-hidden": "true" }, filled),
    el("span", { className: "share" }, percent(share)));
}

function certainty(task, found) {
  const parts = [];
  if (found.sure === true) parts.push(el("b", { className: "sure" }, icon("yes"), "Sure"));
  if (found.sure === false) parts.push(el("b", { className: "unsure" }, "Not sure"));
  // A text is not right or wrong: how near it comes is what validation could tell.
  const told = task.kind === "generate" ? "confidence" : task.several ? "likely to be right as a whole" : "likely to be right";
  if (found.confidence !== null) parts.push(`${percent(found.confidence)} ${told}`);
  if (found.handed_to) parts.push(`answered by ${found.handed_to}`);
  return el("p", { className: "certainty" }, ...parts.flatMap((p, n) => (n ? [" · ", p] : [p])));
}

/** JSON, indented, its names and values in elements of their own. */
function coloured(value) {
  const text = JSON.stringify(value, null, 2) ?? "null";
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(/"(?:[^"\\]|\\.)*"(?=(:)?)|[\w.+-]+/g)) {
    parts.push(text.slice(at, found.index));
    parts.push(el("span", { className: found[1] ? "key" : "value" }, found[0]));
    at = found.index + found[0].length;
  }
  return [...parts, text.slice(at)];
}

/** A task's answers to many texts as a table; each row opens to show all of its answer. */
export function table(name, task, texts, answer, judged) {
  const found = answer.results;
  const head = ["Text", "Answer", "Confidence", ""].map((told) =>
    el("th", { role: "columnheader", scope: "col" }, told || el("span", { className: "hidden" }, "Details")));
  const rows = found.flatMap((one, n) => row(task, texts[n], one, n, judged));
  const sure = found.filter((one) => one.sure).length;
  const asked = found.some((one) => one.sure !== null);
  const all = NUMBER.format(texts.length);
  const count = found.length < texts.length ? `${NUMBER.format(found.length)} of ${all} texts` : `${all} texts`;
  return [
    el("div", { className: "over-table" },
      el("p", { className: "soft" }, asked ? `${count}, ${NUMBER.format(sure)} surely` : count),
      answer.running || !found.length ? null : el("button", { type: "button", className: "plain",
        onclick: () => download(`${name}.csv`, csv(sheet(task, texts, found)), "text/csv") },
      icon("save"), "CSV")),
    el("table", { className: "many", role: "table" },
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...head)),
      el("tbody", { role: "rowgroup" }, ...rows)),
  ];
}

function row(task, text, one, n, judged) {
  const cell = (name, ...children) => el("td", { role: "cell", className: name }, ...children);
  const whole = el("td", { role: "cell", colSpan: 4 });
  const below = el("tr", { role: "row", className: "whole", hidden: true }, whole);
  const open = el("button", { type: "button", className: "icon-button open", title: "Details",
    "aria-expanded": "false", "aria-label": `Details of text ${n + 1}`,
    onclick: () => {
      below.hidden = !below.hidden;
      open.setAttribute("aria-expanded", String(!below.hidden));
      if (whole.firstChild) return;
      const [thumbs, correction] = judged(text, one);
      whole.append(...[...result(task, one), el("div", { className: "buttons" }, ...(thumbs ?? [])), correction].filter(Boolean));
    } });
  const mark = one.sure === false ? el("span", { className: "unsure" }, " not sure") : null;
  return [
    el("tr", { role: "row" }, cell("text", el("div", { className: "clamp" }, text)),
      cell("answer", el("div", { className: one.error ? "clamp wrong" : "clamp" }, one.error ?? (one.answer || "—"))),
      cell("share", one.confidence === null ? "—" : percent(one.confidence), mark), cell("more", open)),
    below,
  ];
}

function sheet(task, texts, found) {
  const labels = task.kind === "classify" ? task.labels : [];
  const rows = found.map((one, n) => [texts[n], one.answer, one.confidence,
    one.sure, one.error ?? "", ...labels.map((label) => one.probabilities?.[label])]);
  return [["text", "answer", "confidence", "sure", "error", ...labels.map((l) => `p(${l})`)], ...rows];
}

/** Buttons for what can be said of an answer: {model, task, text, tools, found}. */
export function verdict(about) {
  const { found } = about;
  const correction = el("form", { className: "correction", hidden: true });
  const thumbs = ["up", "down"].map((thumb) => {
    const button = iconButton(thumb, thumb === "up" ? "Good answer" : "Bad answer", () => {
      const chosen = found.said?.thumb === thumb ? null : thumb;
      send({ thumb: chosen, correction: found.said?.correction ?? null });
    });
    return button;
  });
  const pen = iconButton("pen", "Correct it", () => {
    correction.hidden = !correction.hidden && correction.elements.length > 0;
    if (!correction.hidden) {
      fill(correction, about, (right) => send({ thumb: found.said?.thumb ?? null, correction: right }));
      correction.querySelector("select, textarea, input")?.focus();
    }
    draw();
  });
  pen.setAttribute("aria-expanded", "false");

  const draw = () => {
    thumbs.forEach((button, n) =>
      button.setAttribute("aria-pressed", String(found.said?.thumb === ["up", "down"][n])));
    pen.setAttribute("aria-expanded", String(!correction.hidden));
    pen.classList.toggle("done", Boolean(found.said && found.said.correction !== null));
  };
  const send = async (said) => {
    try {
      await server.say(about, said);
      correction.hidden = true;
      draw();
      tell(said.thumb || said.correction !== null ? "Kept. Thank you." : "Taken back.");
      about.changed();
    } catch (error) {
      correction.hidden = false;
      correction.replaceChildren(el("p", { className: "wrong", role: "alert" }, `Not kept: ${error.message}`));
    }
  };
  draw();
  return { buttons: [...thumbs, pen], correction };
}

/** A form for the right answer, by what the task answers with. */
function fill(form, { task, found, text }, done) {
  const known = found.said?.correction ?? null;
  const wrong = el("p", { className: "wrong", role: "alert" });
  let read;
  let field;
  if (task?.kind === "classify" && task.several) {
    const chosen = new Set(known ?? found.labels);
    const ticks = task.labels.map((name) =>
      el("label", { className: "tick" }, el("input", { type: "checkbox", value: name, checked: chosen.has(name) }), name));
    field = el("fieldset", {}, el("legend", {}, "The right labels"), ...ticks);
    read = () => [...field.querySelectorAll(":checked")].map((tick) => tick.value);
  } else if (task?.kind === "classify") {
    const chosen = known ?? found.answer;
    field = el("label", {}, "The right label",
      el("select", {}, ...task.labels.map((name) => el("option", { selected: name === chosen }, name))));
    read = () => field.querySelector("select").value;
  } else {
    const json = task?.kind === "extract";
    const shown = known ?? (json ? found.value : found.answer);
    const value = json ? JSON.stringify(shown, null, 2) : shown;
    const rows = Math.min(Math.max(value.split("\n").length, 3), 14);
    const box = el("textarea", { value, rows, spellcheck: !json, className: json ? "mono" : "" });
    field = el("label", {}, json ? "The right JSON" : "The right answer", box);
    read = () => (json ? JSON.parse(box.value) : box.value);
  }
  form.onsubmit = (event) => {
    event.preventDefault();
    wrong.textContent = "";
    try {
      done(read());
    } catch (error) {
      wrong.textContent = `This is no JSON: ${error.message}`;
    }
  };
  form.replaceChildren(field, wrong, el("div", { className: "inline" },
    el("button", { className: "main" }, "Keep"),
    el("button", { type: "button", className: "plain", onclick: () => { form.hidden = true; } }, "Leave it")));
}


