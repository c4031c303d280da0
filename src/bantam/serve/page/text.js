// Texts as plain data: what a model wrote in Markdown, sentences for screen readers, CSV, figures.

const FENCE = /^ {0,3}(```|~~~)\s*([\w+#.-]*)\s*$/;
const HEADING = /^ {0,3}(#{1,6}) +(.+?)[ #]*$/;
const ITEM = /^( *)(?:[-*+•]|(\d{1,6})[.)]) +(\S.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;

/**
 * The blocks of a text, which may still be growing. Each has a `kind`: "code" with `text`,
 * "heading" and "quote" and "paragraph" with `spans`, "list" with `ordered`, `start`, `depth` and
 * `items`, each of these spans. What is not understood stays as it was written.
 */
export function blocks(text) {
  const found = [];
  let paragraph = [];
  const close = () => {
    if (paragraph.length) found.push({ kind: "paragraph", spans: spans(paragraph.join("\n")) });
    paragraph = [];
  };
  const lines = text.replace(/\r\n?/g, "\n").replace(/\t/g, "    ").split("\n");
  for (let n = 0; n < lines.length; n++) {
    const line = lines[n];
    const last = found.at(-1);
    let part;
    if ((part = FENCE.exec(line))) {
      close();
      const code = [];
      while (++n < lines.length && !lines[n].trimStart().startsWith(part[1])) code.push(lines[n]);
      found.push({ kind: "code", text: code.join("\n") });
    } else if ((part = HEADING.exec(line))) {
      close();
      found.push({ kind: "heading", spans: spans(part[2]) });
    } else if ((part = ITEM.exec(line))) {
      close();
      const ordered = part[2] !== undefined;
      const depth = Math.min(Math.floor(part[1].length / 2), 3);
      if (last?.kind === "list" && last.ordered === ordered && last.depth === depth) {
        last.items.push(spans(part[3]));
      } else {
        const start = ordered ? Number(part[2]) : 1;
        found.push({ kind: "list", ordered, start, depth, items: [spans(part[3])] });
      }
    } else if ((part = QUOTE.exec(line))) {
      close();
      if (last?.kind === "quote") last.spans.push({ kind: "plain", text: "\n" }, ...spans(part[1]));
      else found.push({ kind: "quote", spans: spans(part[1]) });
    } else if (!line.trim()) {
      close();
    } else if (!paragraph.length && last?.kind === "list" && /^ {2}/.test(line)) {
      last.items.at(-1).push({ kind: "plain", text: "\n" }, ...spans(line.trim()));
    } else {
      paragraph.push(line);
    }
  }
  close();
  return found;
}

const MARKS = [["``", "code"], ["`", "code"], ["**", "strong"], ["__", "strong"], ["*", "em"]];

/** Parts of a line by how they are written: "plain", "code", "strong" or "em". In linear time. */
export function spans(line) {
  const found = [];
  const absent = new Set(); // marks that do not come again
  let plain = "";
  let at = 0;
  while (at < line.length) {
    const [mark, kind] = MARKS.find(([mark]) => line.startsWith(mark, at)) ?? [];
    const begin = at + (mark?.length ?? 0);
    // "2 * 3" is no emphasis, and neither is snake__case.
    const opens = mark && !absent.has(mark) && /\S/.test(line[begin] ?? "")
      && (kind === "code" || !/\w/.test(line[at - 1] ?? ""));
    const end = opens ? line.indexOf(mark, begin + 1) : -1;
    if (opens && end < 0) absent.add(mark);
    if (end < 0 || (kind !== "code" && /\s/.test(line[end - 1]))) {
      plain += mark ?? line[at];
      at = mark ? begin : at + 1;
      continue;
    }
    if (plain) found.push({ kind: "plain", text: plain });
    plain = "";
    found.push({ kind, text: line.slice(begin, end).trim() });
    at = end + mark.length;
  }
  if (plain) found.push({ kind: "plain", text: plain });
  return found;
}

/** How much of a growing text is whole sentences. */
export function sentences(text) {
  const ends = /[.!?:…。！？]["'”’)]*\s|\n/g;
  let length = 0;
  while (ends.exec(text)) length = ends.lastIndex;
  return length;
}

/** Rows as CSV. A text that a spreadsheet would take for a formula gets an apostrophe before it. */
export function csv(rows) {
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function cell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** A probability for people: never 100% for what is not certain, nor 0% for what is possible. */
export function percent(share) {
  if (share > 0.999 && share < 1) return "> 99.9%";
  if (share > 0 && share < 0.001) return "< 0.1%";
  return `${(share * 100).toFixed(1)}%`;
}

/** Milliseconds for people. */
export function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

/** A large number for people: 98M, 1.2G. */
export function large(count, gap = "") {
  const [unit, name] = count < 999.5e3 ? [1e3, "k"] : count < 999.5e6 ? [1e6, "M"] : [1e9, "G"];
  return (count / unit).toFixed(count / unit < 9.95 ? 1 : 0) + gap + name;
}
