// Numbers as colours: tables for few of them, canvases for many.
import { make, said, wide } from "./draw.js";

// Sentences against each other: numbers[row][column] from lowest to highest, in a table that can also be read.
export function heatTable(rows, columns, numbers, label) {
  const all = numbers.flat();
  const [lowest, highest] = [Math.min(...all), Math.max(...all)];
  const shade = (number) => (highest > lowest ? (number - lowest) / (highest - lowest) : 1);
  const head = make("tr", {}, make("td", {}), columns.map((text) => said(text, "th", { scope: "col" })));
  const body = rows.map((text, row) =>
    make("tr", {}, said(text, "th", { scope: "row" }), numbers[row].map((number) => cell(number, shade(number)))),
  );
  return wide(label, make("table", { class: "heat" }, make("thead", {}, head), make("tbody", {}, body)));
}

// From this share of the darker colour on, the lighter letters are the ones that can be read.
const STRONG = 0.72;

function cell(number, heat) {
  const element = make("td", { class: heat > STRONG ? "strong" : null }, number.toFixed(3));
  element.style.setProperty("--heat", heat.toFixed(3));
  return element;
}

// The colours of 0 and of 1, red, green and blue, as the style of the page has them now.
export function colours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim().split(/\s+/).map(Number);
  return { low: read("--low"), high: read("--high"), ink: style.getPropertyValue("--ink").trim() };
}

// A canvas of size x size squares, each `side` pixels wide, coloured by numbers from 0 to 1, row after row. Most
// probabilities are small: their square root is what is seen.
export function paint(canvas, numbers, size, side, { low, high }) {
  const dots = new ImageData(size, size);
  for (let place = 0; place < size * size; place++) {
    const share = Math.sqrt(Math.min(Math.max(numbers[place], 0), 1));
    for (let part = 0; part < 3; part++) dots.data[4 * place + part] = low[part] + share * (high[part] - low[part]);
    dots.data[4 * place + 3] = 255;
  }
  const small = new OffscreenCanvas(size, size);
  small.getContext("2d").putImageData(dots, 0, 0);
  canvas.width = canvas.height = size * side;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, size * side, size * side);
  return context;
}
