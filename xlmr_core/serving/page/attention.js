// How tokens attend to each other: all layers and heads small, one of them large, and one token's view as a text.
import { bars, direction, make, percent, said, wide } from "./draw.js";
import { colours, paint } from "./heat.js";

const MOST_SHOWN = 8; // tokens that are listed with a bar
const SMALL = 36; // pixels of a small picture, about
const LARGE = 520; // pixels of the large one at most

// The answer of /tasks/attention in base64: a matrix for each layer and head, without a copy.
export function matrices({ tokens, heads, attention }) {
  const bytes = Uint8Array.from(atob(attention), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const numbers = new Float32Array(bytes.length / 4);
  for (let place = 0; place < numbers.length; place++) numbers[place] = view.getFloat32(4 * place, true);
  const each = tokens.length ** 2;
  let start = 0;
  return heads.map((count) =>
    Array.from({ length: count }, () => numbers.subarray(start, (start += each))),
  );
}

export function attentionView(answer) {
  return new Picture(answer).element;
}

class Picture {
  constructor(answer) {
    this.tokens = answer.tokens;
    this.layers = answer.layers;
    this.matrices = matrices(answer);
    [this.layer, this.head, this.from, this.to] = [0, 0, 0, 0];
    this.reading = make("output", { "aria-live": "polite" });
    this.listed = make("div");
    this.words = make("p", { class: "text attended", dir: direction(this.tokens), lang: "" });
    this.large = make("canvas", {
      class: "large", tabindex: 0, role: "application", "aria-describedby": "attention-keys",
      onpointermove: (event) => this.point(event), onpointerdown: (event) => this.point(event),
      onkeydown: (event) => this.press(event),
    });
    this.buttons = [];
    this.chips = this.tokens.map((token, place) =>
      make("span", { onclick: () => this.choose(place, this.to) }, said(token)),
    );
    this.words.append(...this.chips);
    this.element = make("div", {},
      make("h3", {}, "Layers (down) and heads (across)"), this.overview(),
      make("h3", { id: "attention-chosen" }), wide("The chosen head, large", this.large),
      make("p", { class: "note", id: "attention-keys" },
        "Rows look, columns are looked at. Point at a square, or focus the picture and use the arrow keys, Home and "
        + "End; in the small pictures the arrow keys choose layer and head."),
      make("p", {}, this.reading), this.words, this.listed,
    );
    this.element.repaint = () => this.repaint();
    queueMicrotask(() => this.repaint()); // once it stands on the page, and has colours
  }

  get matrix() {
    return this.matrices[this.layer][this.head];
  }

  // Small pictures, as buttons of which one is reached by Tab and the others by arrow keys.
  overview() {
    const most = Math.max(...this.matrices.map((heads) => heads.length));
    const names = Array.from({ length: most }, (_, head) => make("th", { scope: "col" }, String(head + 1)));
    const rows = this.matrices.map((heads, layer) => {
      this.buttons.push(heads.map((_, head) => this.button(layer, head)));
      const cells = this.buttons[layer].map((button) => make("td", {}, button));
      return make("tr", {}, make("th", { scope: "row" }, String(this.layers[layer] + 1)), cells);
    });
    const head = make("thead", {}, make("tr", {}, make("td"), names));
    const body = make("tbody", {}, rows);
    const walk = (event) => this.walk(event);
    return wide("All layers and heads", make("table", { class: "overview", onkeydown: walk }, head, body));
  }

  button(layer, head) {
    const label = `Layer ${this.layers[layer] + 1}, head ${head + 1}`;
    const named = { type: "button", "aria-label": label, "aria-pressed": "false", tabindex: -1 };
    const canvas = make("canvas", { "aria-hidden": "true" });
    return make("button", { ...named, onclick: () => this.show(layer, head) }, canvas);
  }

  walk(event) {
    const [down, across] = STEPS[event.key] ?? [0, 0];
    if (!down && !across) return;
    event.preventDefault();
    const layer = within(this.layer + down, this.matrices.length);
    this.show(layer, within(this.head + across, this.matrices[layer].length));
    this.buttons[this.layer][this.head].focus();
  }

  press(event) {
    const ends = { Home: 0, End: this.tokens.length - 1 };
    const [down, across] = STEPS[event.key] ?? [0, 0];
    if (event.key in ends) this.choose(this.from, ends[event.key]);
    else if (down || across) this.choose(this.from + down, this.to + across);
    else return;
    event.preventDefault();
  }

  point(event) {
    const place = this.large.getBoundingClientRect();
    const cell = (length, whole) => Math.floor((length / whole) * this.tokens.length);
    this.choose(cell(event.clientY - place.top, place.height), cell(event.clientX - place.left, place.width));
  }

  show(layer, head) {
    [this.layer, this.head] = [layer, head];
    this.draw();
  }

  choose(from, to) {
    [this.from, this.to] = [within(from, this.tokens.length), within(to, this.tokens.length)];
    this.draw();
  }

  repaint() {
    const size = this.tokens.length;
    this.colours = colours();
    this.matrices.forEach((heads, layer) => heads.forEach((matrix, head) => {
      const canvas = this.buttons[layer][head].firstChild;
      paint(canvas, matrix, size, 1, this.colours);
      canvas.style.inlineSize = canvas.style.blockSize = `${SMALL}px`;
    }));
    this.draw();
  }

  draw() {
    const size = this.tokens.length;
    const named = `Layer ${this.layers[this.layer] + 1}, head ${this.head + 1}`;
    this.element.querySelector("#attention-chosen").textContent = named;
    this.large.setAttribute("aria-label", `${named}: attention from each token to each`);
    this.buttons.flat().forEach((button) => {
      const chosen = button === this.buttons[this.layer][this.head];
      button.setAttribute("aria-pressed", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
    });
    const side = Math.max(2, Math.floor(Math.min(LARGE, this.large.parentNode.clientWidth || LARGE) / size));
    const context = paint(this.large, this.matrix, size, side, this.colours);
    context.strokeStyle = this.colours.ink;
    context.strokeRect(0.5, this.from * side + 0.5, size * side - 1, side - 1);
    context.lineWidth = 2;
    context.strokeRect(this.to * side + 1, this.from * side + 1, side - 2, side - 2);
    this.tell();
  }

  // What the chosen token looks at: in words, as shades of the text, and the most looked at as bars.
  tell() {
    const size = this.tokens.length;
    const row = Array.from(this.matrix.subarray(this.from * size, (this.from + 1) * size));
    const [from, to] = [this.tokens[this.from], this.tokens[this.to]];
    this.reading.replaceChildren("From ", said(from), ` (${this.from + 1}) to `, said(to), ` (${this.to + 1}): `,
      make("strong", {}, percent(row[this.to])));
    this.chips.forEach((chip, place) => {
      chip.style.setProperty("--heat", Math.sqrt(row[place]).toFixed(3));
      chip.className = place === this.from ? "from" : "";
    });
    const best = row.map((score, place) => ({ name: this.tokens[place], score, note: `(${place + 1})` }))
      .sort((one, other) => other.score - one.score).slice(0, MOST_SHOWN);
    this.listed.replaceChildren(bars(best, "What it looks at most"));
  }
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

const within = (number, count) => Math.min(Math.max(number, 0), count - 1);
