// Elements. Texts always go in as text, never as HTML: models and strangers write them.

import { blocks } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";

/** An element with properties (or attributes, if named with a dash or "role") and children. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

/** A picture out of the page's own symbols. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A small button with a picture; its name is told to those who cannot see it. */
export function iconButton(name, label, onclick) {
  return el("button", { type: "button", className: "icon-button", title: label, "aria-label": label,
    onclick }, icon(name));
}

/** A text in Markdown as elements. */
export function markdown(text) {
  return blocks(text).map((block) => {
    if (block.kind === "code") {
      return el("div", { className: "code" }, copyButton(() => block.text, "Copy the code"),
        el("pre", { tabIndex: 0 }, el("code", {}, block.text)));
    }
    if (block.kind === "list") {
      const list = el(block.ordered ? "ol" : "ul", { className: `depth-${block.depth}` });
      if (block.ordered) list.start = block.start;
      list.append(...block.items.map((item) => el("li", {}, ...inline(item))));
      return list;
    }
    const tag = { heading: "h4", quote: "blockquote", paragraph: "p" }[block.kind];
    return el(tag, {}, ...inline(block.spans));
  });
}

function inline(spans) {
  return spans.map(({ kind, text }) => (kind === "plain" ? text : el(kind, {}, text)));
}

/** A button that copies a text and says so for a moment. */
export function copyButton(text, label = "Copy") {
  const button = iconButton("copy", label, async () => {
    await copy(text());
    button.replaceChildren(icon("yes"));
    tell("Copied");
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return button;
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Browsers have no clipboard for a page from another machine without TLS, but this old way.
  const before = document.activeElement;
  const box = el("textarea", { value: text, className: "hidden" });
  document.body.append(box);
  box.select();
  document.execCommand("copy");
  box.remove();
  before?.focus();
}

/** Have screen readers say something. */
export function tell(text) {
  const place = document.getElementById("told");
  place.append(el("p", {}, text));
  while (place.children.length > 20) place.firstChild.remove();
}

/** Offer a text as a file. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob(["\ufeff", text], { type }));
  const link = el("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
