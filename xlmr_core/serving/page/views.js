// What can be looked at, a row a task of the server: the fields of its form, what they ask, how the answer is shown.
//
// `ask` makes the body of POST /tasks/NAME of what the fields say; `show` makes an element of the answer and of what
// was asked. A task without a row here has no view.
import { attentionView } from "./attention.js";
import { bars, hues, make, marked, said, table } from "./draw.js";
import { heatTable } from "./heat.js";

const SENTENCES = ["A cat sleeps on the sofa.", "Eine Katze schläft auf dem Sofa.", "Le train arrive à midi."];

function lines(name, label, texts) {
  return { name, label, kind: "lines", rows: 4, value: texts.join("\n"), help: "one a line" };
}

const candidates = { name: "count", label: "Candidates", kind: "number", value: 5, least: 1, most: 50 };

export const VIEWS = {
  "fill-mask": {
    title: "Fill in blanks",
    fields: [
      { name: "text", label: "Text", value: "Ich weiß es <mask>.", help: "with <mask> in the place of each blank" },
      candidates,
    ],
    ask: ({ text, count }) => ({ inputs: text, parameters: { top_k: count } }),
    show: showBlanks,
  },
  "token-classification": {
    title: "Label words",
    fields: [
      { name: "text", label: "Text", value: "Angela Schmidt besuchte gestern Heidelberg." },
      {
        name: "what", label: "What is labelled", kind: "choice", value: "spans",
        choices: [["spans", "names and other spans"], ["words", "each word"], ["none", "each token"]],
      },
    ],
    ask: ({ text, what }) => ({ inputs: text, parameters: { aggregation_strategy: what } }),
    show: showLabels,
  },
  "question-answering": {
    title: "Find answers in a text",
    fields: [
      { name: "question", label: "Question", kind: "line", value: "Who wrote a letter?" },
      {
        name: "context", label: "Text", rows: 5,
        value: "The old lighthouse keeper in Brest wrote a letter to Maria Lopez.",
      },
      { ...candidates, label: "Answers", value: 3, most: 20 },
    ],
    ask: ({ question, context, count }) =>
      ({ inputs: { question, context }, parameters: { top_k: count, trim: true } }),
    show: showAnswers,
  },
  "sentence-similarity": {
    title: "Compare sentences",
    fields: [lines("texts", "Sentences", SENTENCES)],
    ask: ({ texts }) => ({ inputs: { source: texts, target: texts } }),
    show: (numbers, { texts }) => heatTable(texts, texts, numbers, "How alike sentences are"),
  },
  "rerank": {
    title: "Order texts by a question",
    fields: [
      { name: "query", label: "Question", kind: "line", value: "Where does the cat sleep?" },
      lines("texts", "Texts", SENTENCES),
    ],
    ask: ({ query, texts }) => ({ inputs: { query, passages: texts } }),
    show: (ranked, { texts }) =>
      bars(ranked.map(({ index, score }) => ({ name: texts[index], score })), "Texts, best first"),
  },
  "text-classification": {
    title: "Label a text",
    fields: [{ name: "text", label: "Text", value: "Das war wirklich sehr gut!" }],
    ask: ({ text }) => ({ inputs: text, parameters: { top_k: null } }),
    show: (found) => bars(found.map(({ label, score }) => ({ name: label, score })), "Labels, best first"),
  },
  "zero-shot-classification": {
    title: "Label a text with labels of your own",
    fields: [
      { name: "text", label: "Text", value: "Das Spiel endet 2:1." },
      lines("labels", "Labels", ["sport", "politics", "music"]),
    ],
    ask: ({ text, labels }) => ({ inputs: text, parameters: { candidate_labels: labels } }),
    show: ({ labels, scores }) =>
      bars(labels.map((name, place) => ({ name, score: scores[place] })), "Labels, best first"),
  },
  "multiple-choice": {
    title: "Choose how a text goes on",
    fields: [
      { name: "prompt", label: "Text", value: "It rained all night, so" },
      lines("choices", "Choices", ["the street is wet.", "the cat is green."]),
    ],
    ask: ({ prompt, choices }) => ({ inputs: { prompt, choices } }),
    show: showChoices,
  },
  "text-generation": {
    title: "Continue a text",
    fields: [
      { name: "text", label: "Text", value: "Once upon a time" },
      { name: "count", label: "Tokens at most", kind: "number", value: 40, least: 1, most: 400 },
    ],
    ask: ({ text, count }) => ({ inputs: text, parameters: { max_new_tokens: count } }),
    show: showWritten,
  },
  "text2text-generation": {
    title: "Write a text from another",
    fields: [
      { name: "text", label: "Text", value: "Once upon a time" },
      { name: "count", label: "Tokens at most", kind: "number", value: 40, least: 1, most: 400 },
    ],
    ask: ({ text, count }) => ({ inputs: text, parameters: { max_new_tokens: count } }),
    show: showWritten,
  },
  "tokens": {
    title: "Tokens",
    fields: [{ name: "text", label: "Text", value: "Unglaublich: 東京 is a city. 😀" }],
    ask: ({ text }) => ({ inputs: text }),
    show: showTokens,
  },
  "attention": {
    title: "Attention",
    fields: [{ name: "text", label: "Text", value: "The animal didn't cross the street because it was too tired." }],
    ask: ({ text }) => ({ inputs: text, parameters: { encoding_format: "base64" } }),
    show: attentionView,
  },
};

// Several blanks have a list of candidates each, one has it alone.
function showBlanks(found) {
  const blanks = Array.isArray(found[0]) ? found : [found];
  return make("div", {}, blanks.map((words, place) => {
    const heading = `Blank ${place + 1}`;
    const rows = words.map(({ token_str, score }) => ({ name: token_str, score }));
    return make("section", {}, blanks.length > 1 ? make("h3", {}, heading) : null, bars(rows, heading));
  }));
}

function showLabels(found, { text }) {
  if (!found.length) return make("p", {}, "Nothing is labelled.");
  const hueOf = hues();
  const spans = found.map(({ start, end, entity_group, entity, score }) => {
    const label = entity_group ?? entity;
    return { start, end, label, score, hue: hueOf(label) };
  });
  const all = Array.from(text);
  const rows = spans.map(({ start, end, label, score }) =>
    [said(all.slice(start, end).join("")), label, score.toFixed(4), `${start}–${end}`]);
  const listed = table(["text", "label", "score", "characters"], rows, "What is labelled");
  return make("div", {}, marked(text, spans), listed);
}

function showAnswers(found, { context }) {
  const answers = Array.isArray(found) ? found : [found];
  const spans = answers.map(({ start, end }, place) =>
    ({ start, end, label: String(place + 1), hue: 210, rank: place + 1 }));
  const rows = answers.map(({ answer, score }) => ({ name: answer || "(no answer)", score }));
  return make("div", {}, marked(context, spans), bars(rows, "Answers, best first"));
}

function showChoices(found, { choices }) {
  const ranked = Array.isArray(found) ? found : [found];
  return bars(ranked.map(({ index, score }) => ({ name: choices[index], score })), "Choices");
}

function showWritten(found) {
  const texts = Array.isArray(found) ? found : [found];
  return make("div", {}, texts.map(({ generated_text }) => said(generated_text, "p", { class: "text" })));
}

// Tokens that touch have colours in turns, so that one sees where each ends.
function showTokens(found, { text }) {
  const placed = found.filter(({ special }) => !special);
  const spans = placed.map(({ start, end }, place) => ({ start, end, hue: place % 2 ? 48 : 210 }));
  const rows = found.map(({ id, piece, start, end, special }, place) =>
    [place, said(piece, "bdi", { class: "piece" }), id, special ? "special" : `${start}–${end}`]);
  const counted = `${found.length} tokens, ${placed.length} of them of the text`;
  const listed = table(["", "piece", "id", "characters"], rows, "Tokens");
  return make("div", {}, make("p", {}, counted), marked(text, spans), listed);
}
