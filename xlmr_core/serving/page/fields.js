// The controls of a form: each with its label, and what it says.
import { make } from "./draw.js";

// A field is {name, label, kind, value, help, rows, least, most, choices}; its kind is text, line, lines, number or
// choice. `before` is what it said when it was shown last.
export function control(field, before) {
  const id = `field-${field.name}`;
  const help = field.help ? make("small", { id: `${id}-help` }, field.help) : null;
  const shared = { id, name: field.name, "aria-describedby": help && help.id };
  const element = MAKERS[field.kind ?? "text"](field, shared);
  element.value = before ?? field.value ?? "";
  return make("div", { class: "field" }, make("label", { for: id }, field.label), element, help);
}

const area = (field, shared) =>
  make("textarea", { ...shared, rows: field.rows ?? 3, dir: "auto", spellcheck: "false", required: true });

const MAKERS = {
  text: area,
  lines: area,
  line: (field, shared) =>
    make("input", { ...shared, type: "text", dir: "auto", autocomplete: "off", spellcheck: "false", required: true }),
  number: (field, shared) =>
    make("input", { ...shared, type: "number", min: field.least ?? 1, max: field.most, required: true }),
  choice: (field, shared) =>
    make("select", shared, field.choices.map(([value, text]) => make("option", { value }, text))),
};

// What the fields of a form say, by their names: numbers of numbers, and of lines a list without empty ones.
export function values(form, fields) {
  const found = {};
  for (const { name, kind } of fields) {
    const said = form.elements[name].value;
    if (kind === "number") found[name] = Number(said);
    else if (kind === "lines") found[name] = said.split("\n").map((line) => line.trim()).filter(Boolean);
    else found[name] = said;
  }
  return found;
}
