// How answers become elements. Texts go in as text nodes and by no other way, so nothing in a text is read as HTML.

// An element with attributes, listeners (a function as onclick) and children, which are elements or texts.
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

// A text of somebody, which may be in any script and direction.
export const said = (text, name = "bdi", attributes = {}) => make(name, { dir: "auto", lang: "", ...attributes }, text);

// Characters as the server counts them; strings of JavaScript count some of them twice.
export const letters = (text) => Array.from(text);

const RIGHT_TO_LEFT = /[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}]/u;

// Which way a text runs, by its first letter; for texts in pieces, of which dir="auto" would look at <s> first.
export function direction(pieces) {
  const first = /\p{L}/u.exec(pieces.filter((piece) => !/^<.*>$/.test(piece)).join(""));
  return first && RIGHT_TO_LEFT.test(first[0]) ? "rtl" : "ltr";
}

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

// What surrounds a table or a picture that may be wider than the screen; it can be focused to be scrolled by keys.
export const wide = (label, ...children) =>
  make("div", { class: "wide", role: "region", tabindex: 0, "aria-label": label }, ...children);

// Names with bars: rows of {name, score, note}. Scores from 0 to 1 are shares; others are drawn by the largest.
export function bars(rows, label) {
  const shares = rows.every(({ score }) => score >= 0 && score <= 1);
  const largest = Math.max(...rows.map(({ score }) => Math.abs(score)), 1e-9);
  const items = rows.map(({ name, score, note }) => {
    const bar = make("span", { class: "bar" });
    bar.style.inlineSize = `${shares ? 100 * score : (100 * Math.max(score, 0)) / largest}%`;
    const number = shares ? percent(score) : score.toFixed(3);
    const named = make("span", { class: "name" }, said(name), note ? make("small", {}, ` ${note}`) : null);
    return make("li", {}, named, make("span", { class: "track", "aria-hidden": "true" }, bar),
      make("span", { class: "number" }, number));
  });
  return make("ol", { class: "bars", "aria-label": label }, items);
}

// A text with some of its places marked: spans of {start, end, label, hue, rank}; where two meet, the first wins.
export function marked(text, spans) {
  const all = letters(text);
  const edges = new Set([0, all.length]);
  for (const { start, end } of spans) if (end > start) edges.add(start).add(end);
  const cuts = [...edges].sort((one, other) => one - other);
  const parts = [];
  for (let number = 1; number < cuts.length; number++) {
    const [start, end] = [cuts[number - 1], cuts[number]];
    const piece = all.slice(start, end).join("");
    const span = spans.find((one) => one.start <= start && end <= one.end && one.end > one.start);
    parts.push(span ? mark(piece, span, end === span.end) : piece);
  }
  const element = said("", "p", { class: "text" });
  element.append(...parts);
  return element;
}

function mark(piece, { label, hue, rank }, last) {
  const element = make("mark", { class: rank ? `rank-${rank}` : null, title: label });
  if (hue !== undefined) element.style.setProperty("--hue", hue);
  element.append(piece);
  if (label && last) element.append(make("small", { dir: "ltr" }, label));
  return element;
}

// A hue for each label, in the order in which they are met; names that differ are far from each other.
export function hues() {
  const found = new Map();
  return (label) => {
    if (!found.has(label)) found.set(label, (210 + found.size * 137.5) % 360);
    return found.get(label);
  };
}

// A table: what stands above its columns, and rows of texts or elements; numbers stand at the end.
export function table(heads, rows, label) {
  const body = rows.map((row) =>
    make("tr", {}, row.map((cell) => make("td", { class: typeof cell === "number" ? "digits" : null }, cell))),
  );
  const head = make("tr", {}, heads.map((text) => make("th", { scope: "col" }, text)));
  return wide(label, make("table", {}, make("thead", {}, head), make("tbody", {}, body)));
}
