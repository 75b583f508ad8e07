// The page: which model, one row, its answer. The parts know nothing of each other; here they meet.

import { answerView, emptyView, errorView, spoken } from "./answer.js";
import { Failure, call, hasKey, predictPath, setKey } from "./api.js";
import { bytes, el, name, number, percent } from "./dom.js";
import { Form, rowOf } from "./form.js";
import { Live } from "./live.js";
import { watchDocument } from "./media.js";
import { Snippets } from "./snippets.js";
import { Why } from "./why.js";

const ROUTED = ""; // the version of "whichever the server chooses"
const MOST_EXPLAINED = 8; // inputs: their subsets are what contributions cost
const $ = (id) => document.getElementById(id);
const form = new Form($("fields"), changed);
const snippets = new Snippets($("snippets"));
const live = new Live($("live"), seen);
const why = new Why($("why"), $("spoken"), askForKey);

let models = [];
let model = null;
let version = ROUTED;
let inFlight = null;
let served = null; // names and versions of the last status: when they change, the models are asked for again
let pending = null;
let retry = null;

// ---- models ----

async function load() {
  clearTimeout(retry);
  try {
    const reply = await call("v1/models");
    models = Array.isArray(reply?.models) ? reply.models : [];
    $("key").hidden = true;
    if (!models.length) throw new Failure({ code: "no_model", message: "no model is loaded yet", hint: "This page looks again in a moment." });
    showTrouble(null);
    const names = [...new Set(models.map((m) => m.name))];
    options($("model"), names.map((n) => [n, n]), model?.name);
    chooseModel(version);
    live.ask();
  } catch (failure) {
    if (failure.status === 401) askForKey(failure);
    else {
      showTrouble(failure);
      retry = setTimeout(load, 3000);
    }
  }
}

function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, label]) => el("option", { value, selected: value === chosen }, label)));
  select.disabled = pairs.length < 2;
}

const ofName = () => models.filter((m) => m.name === $("model").value);

function chooseModel(wanted) {
  const versions = ofName();
  const first = versions.find((m) => m.default) ?? versions[0];
  const chosen = versions.some((m) => m.version === wanted) ? wanted : first.version;
  const pairs = versions.map((m) => [m.version, m.version]);
  if (versions.length > 1) pairs.push([ROUTED, "the server's choice"]);
  options($("version"), pairs, chosen);
  shares();
  chooseVersion();
}

function chooseVersion() {
  version = $("version").value;
  const before = model;
  const versions = ofName();
  model = versions.find((m) => m.version === version) ?? versions.find((m) => m.default) ?? versions[0];
  if (before?.name !== model.name) {
    clearAnswer();
    offerContributions();
  }
  $("notice").hidden = !model.notice; // not folded away: it says what the answers are not for
  $("notice").replaceChildren(name(model.notice ?? ""));
  form.show(model);
  about();
  live.show(model.name);
  changed();
}

/** On where the server tells them: for one label or one number, of not too many inputs. */
function offerContributions() {
  const can = Object.keys(model.inputs).length <= MOST_EXPLAINED && !["multilabel", "numbers"].includes(model.mode);
  $("contributions").checked = can;
  $("contributions").disabled = !can;
  $("contributions").parentElement.title = can ? "" : `told for one answer of up to ${MOST_EXPLAINED} inputs`;
}

/** The share of traffic of each version, from the newest status, into the words of the picker. */
function shares() {
  const share = live.status?.gauges?.find((g) => g.model === $("model").value)?.versions ?? {};
  for (const option of $("version").options) {
    if (option.value === ROUTED) continue;
    const known = share[option.value];
    option.textContent = known === undefined ? option.value : `${option.value} · ${percent(known)} of traffic`;
  }
}

function about() {
  const metrics = Object.entries(model.metrics ?? {}).filter(([, v]) => typeof v === "number");
  metrics.sort(([a], [b]) => Number(b === model.metric) - Number(a === model.metric));
  const pair = (word, ...what) => el("div", {}, el("dt", {}, word), el("dd", {}, what));
  $("about-body").replaceChildren(
    el("dl", { class: "facts" },
      pair("predicts", name(model.targets.join(", ")), ` (${model.mode})`),
      model.classes.length ? pair("classes", String(model.classes.length)) : [],
      pair("package", bytes(model.bytes), ` · written by fuseline ${model.fuseline}`)),
    el("h3", {}, "Inputs"),
    el("ul", { class: "chips" }, Object.entries(model.inputs).map(([input, modality]) =>
      el("li", {}, el("span", { class: "chip" }, name(input), el("small", {}, modality))))),
    el("h3", {}, "Metrics on its own test rows"),
    metrics.length
      ? el("dl", { class: "facts metrics" }, metrics.map(([metric, v]) => pair(metric === model.metric ? `${metric} ★` : metric, number(v))))
      : el("p", { class: "note" }, "The package says none."));
}

// ---- one row ----

function changed() {
  if (!model) return;
  const absent = form.absentInputs;
  $("given").replaceChildren(`${form.given.length} of ${form.fields.length} cells given`,
    ...(absent.length ? ["; absent: ", ...absent.flatMap((input, i) => [i ? ", " : "", name(input)])] : []));
  $("stale").hidden = !$("answer").querySelector(".facts");
  clearTimeout(pending);
  pending = setTimeout(writeSnippets, 120);
}

function writeSnippets() {
  const url = new URL(predictPath(model.name, version), document.baseURI).href;
  snippets.update({ url, cells: form.cells(), contributions: $("contributions").checked, keyed: hasKey() });
}

function clearAnswer() {
  why.clear();
  $("answer").replaceChildren(emptyView());
  $("spoken").textContent = "";
  $("stale").hidden = true;
}

async function send() {
  if (inFlight || !model || !form.check()) return;
  inFlight = new AbortController();
  const sent = { model, cells: form.cells() }; // as it is now: what is asked of the answer later is asked of this row
  busy(true);
  why.clear();
  try {
    const body = JSON.stringify({ rows: [await rowOf(sent.cells)], contributions: $("contributions").checked });
    const start = performance.now();
    const reply = await call(predictPath(model.name, version), { body, signal: inFlight.signal });
    if (!reply?.answers?.[0]) throw new Failure({ code: "no_answer", message: "the reply holds no answer" });
    if (model.name === sent.model.name) showAnswer(reply, sent, performance.now() - start);
  } catch (failure) {
    showFailure(failure);
  } finally {
    inFlight = null;
    busy(false);
  }
}

function busy(on) {
  $("send").setAttribute("aria-disabled", String(on)); // not `disabled`: that would drop the keyboard's focus
  $("cancel").hidden = !on;
  $("answer-pane").setAttribute("aria-busy", String(on));
}

function showAnswer(reply, sent, roundTrip) {
  const [answer] = reply.answers;
  $("answer").replaceChildren(...answerView(reply, sent.model, roundTrip));
  $("spoken").textContent = spoken(answer, sent.model);
  why.offer(answer, { ...sent, version: reply.version, contributed: Boolean(answer.contributions) });
  $("stale").hidden = true;
  if (answer.error && form.place(answer.error)) return;
  const box = $("answer-pane").getBoundingClientRect();
  if (box.top < 0 || box.top > innerHeight * 0.6) $("answer-pane").scrollIntoView({ block: "start" });
}

function showFailure(failure) {
  $("answer").replaceChildren(errorView(failure));
  $("spoken").textContent = "";
  $("stale").hidden = true;
  if (failure.status === 401) askForKey(failure);
  else if (!form.place(failure)) $("answer-pane").scrollIntoView({ block: "nearest" });
}

// ---- the server's state ----

function seen(status) {
  const health = $("health");
  if (status instanceof Failure) {
    health.dataset.state = "bad";
    health.textContent = status.code === "unreachable" ? "unreachable" : status.code;
    $("live-note").textContent = live.status ? "these figures are old" : "";
    if (status.status === 401) askForKey(status);
    return;
  }
  const gauges = Array.isArray(status.gauges) ? status.gauges : [];
  const ready = gauges.length > 0 && gauges.every((g) => g.ready);
  health.dataset.state = ready ? "good" : "wait";
  health.textContent = ready ? "ready" : "not ready";
  $("live-note").textContent = "every 2 seconds, while this tab is in front";
  shares();
  const now = gauges.flatMap((g) => Object.keys(g.versions ?? {}).map((v) => `${g.model} ${v}`)).sort().join("\n");
  if (served !== null && served !== now) load();
  served = now;
}

function showTrouble(failure) {
  $("trouble").hidden = !failure;
  $("trouble").replaceChildren(...(failure ? [errorView(failure)] : []));
}

// ---- key and theme ----

function askForKey(failure) {
  live.pause();
  $("key-note").textContent = hasKey() ? `The key was refused: ${failure.message}` : "Kept in this tab only, and sent to this server only.";
  if ($("key").hidden) {
    $("key").hidden = false;
    $("key-field").focus();
  }
}

$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = $("key-field").value.trim();
  if (!/^[\x21-\x7e]+$/.test(key)) {
    $("key-note").textContent = "A key is letters, digits and signs without a space.";
    return;
  }
  setKey(key);
  $("key-field").value = "";
  $("forget-key").hidden = false;
  load();
});
$("forget-key").addEventListener("click", () => {
  setKey("");
  $("forget-key").hidden = true;
  location.reload();
});
$("forget-key").hidden = !hasKey();

const THEMES = ["auto", "light", "dark"];
function nameTheme() {
  $("theme").textContent = `Theme: ${document.documentElement.dataset.theme ?? "auto"}`;
}
$("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "auto") + 1) % THEMES.length];
  if (next === "auto") delete root.dataset.theme;
  else root.dataset.theme = next;
  nameTheme();
  try {
    localStorage.setItem("fuseline-theme", next);
  } catch {
    // Then the choice lasts until the page is left.
  }
});

// ---- start ----

$("model").addEventListener("change", () => chooseModel());
$("version").addEventListener("change", chooseVersion);
$("contributions").addEventListener("change", changed);
$("cancel").addEventListener("click", () => inFlight?.abort());
$("clear").addEventListener("click", () => form.clear());
$("form").addEventListener("submit", (event) => { event.preventDefault(); send(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); send(); }
});
watchDocument($("fields"));
nameTheme();
clearAnswer();
load();
