// The page: which views there are, the form of one of them, and what the server answers.
import { make } from "./draw.js";
import { control, values } from "./fields.js";
import { VIEWS } from "./views.js";

const at = (id) => document.getElementById(id);
const kept = new Map(); // what the fields of each view said when it was shown last
let rows = []; // of /tasks: what the models of the server do
let key = ""; // of the server; kept while the page is open and nowhere else
let running = null; // the request that is waited for

// Requests

class Refused extends Error {}

async function request(address, body, signal) {
  const headers = new Headers(body ? { "content-type": "application/json" } : {});
  if (key) headers.set("authorization", `Bearer ${key}`);
  let answer;
  try {
    answer = await fetch(address, body ? { method: "POST", headers, body: JSON.stringify(body), signal } : { headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached; is it running?");
  }
  const found = await answer.json().catch(() => null);
  signal?.throwIfAborted();
  if (answer.status === 401) askForKey();
  if (!answer.ok) throw new Refused(found?.error ?? `The server answered ${answer.status}.`);
  return { found, cut: Number(answer.headers.get("x-truncated") ?? 0) };
}

function askForKey() {
  at("key").hidden = false;
  at("key-value").focus();
}

function useKey(event) {
  event.preventDefault();
  key = at("key-value").value.trim();
  at("key").hidden = true;
  at("fault").textContent = "";
  if (rows.length) run();
  else start();
}

// Views

const shownViews = () => Object.keys(VIEWS).filter((task) => rows.some((row) => row.task === task));

async function start() {
  try {
    rows = (await request("tasks")).found;
  } catch (error) {
    at("fault").textContent = error.message;
    return;
  }
  const links = shownViews().map((task) => make("li", {}, make("a", { href: `#${task}` }, VIEWS[task].title)));
  at("views").replaceChildren(...links);
  choose();
}

const chosen = () => {
  const asked = location.hash.slice(1);
  return shownViews().includes(asked) ? asked : null;
};

// Show the view that the address names, or the first one.
function choose() {
  const task = chosen() ?? at("form").dataset.task ?? shownViews()[0];
  if (!task || task === at("form").dataset.task) return;
  const row = rows.find((one) => one.task === task);
  keep();
  running?.abort();
  document.title = `${VIEWS[task].title} · xlmr`;
  at("title").textContent = VIEWS[task].title;
  at("summary").textContent = row.summary;
  for (const link of document.querySelectorAll("#views a")) {
    if (link.hash === `#${task}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const before = kept.get(task) ?? {};
  const controls = fieldsOf(task).map((field) => control(field, before[field.name]));
  const hint = make("small", {}, "Ctrl+Enter runs it as well");
  const buttons = make("div", { class: "row" }, make("button", { type: "submit" }, "Run"), hint);
  at("form").dataset.task = task;
  at("form").replaceChildren(...controls, buttons);
  tell("", "");
  at("answer").replaceChildren();
}

function fieldsOf(task) {
  const { models } = rows.find((row) => row.task === task);
  const choices = models.map((name) => [name, name]);
  return [...VIEWS[task].fields, { name: "model", label: "Model", kind: "choice", value: models[0], choices }];
}

function keep() {
  const { task } = at("form").dataset;
  if (task) kept.set(task, Object.fromEntries(new FormData(at("form"))));
}

// Answers

function tell(status, fault) {
  at("status").textContent = status;
  at("fault").textContent = fault;
}

async function run(event) {
  event?.preventDefault();
  const form = at("form");
  const { task } = form.dataset;
  if (!form.reportValidity()) return;
  const asked = values(form, fieldsOf(task));
  running?.abort();
  const own = (running = new AbortController());
  at("answer").setAttribute("aria-busy", "true");
  tell("Waiting for the model …", "");
  const started = performance.now();
  try {
    const body = { ...VIEWS[task].ask(asked), model: asked.model };
    const { found, cut } = await request(`tasks/${task}`, body, own.signal);
    const seconds = ((performance.now() - started) / 1000).toFixed(2);
    at("answer").replaceChildren(VIEWS[task].show(found, asked));
    tell(`Answered in ${seconds} s.${cut ? " The text was too long, and its end was cut off." : ""}`, "");
  } catch (error) {
    if (error.name === "AbortError") return;
    at("answer").replaceChildren();
    tell("", error instanceof Refused ? error.message : `This page failed: ${error.message}`);
    if (!(error instanceof Refused)) throw error;
  } finally {
    if (running === own) at("answer").removeAttribute("aria-busy");
  }
}

const repaint = () => at("answer").firstChild?.repaint?.();

at("form").addEventListener("submit", run);
at("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(event);
});
at("key").addEventListener("submit", useKey);
addEventListener("hashchange", choose);
addEventListener("resize", repaint);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
start();
