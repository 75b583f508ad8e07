// One answer: the value, how sure, from which inputs, and what each of them did.

import { SHOWN, bar, diverging, fold } from "./bars.js";
import { copyButton, el, milliseconds, name, number, percent, plain, points, signed } from "./dom.js";

const LONG = 40; // characters of a value that is no longer shown huge

function rows(answer) {
  return Object.entries(answer.probabilities ?? {}).filter(([, p]) => typeof p === "number").sort((a, b) => b[1] - a[1]);
}

/** What an empty list says. */
function none(model) {
  return model.task === "detection" ? "nothing" : "no label";
}

/** A label of several, or a box on a picture. */
function item(v) {
  return v && typeof v === "object" && Array.isArray(v.box) ? `${plain(v.label)} ${percent(v.score)}` : plain(v);
}

/** The answer in one sentence, for those who hear the page. */
export function spoken(answer, model) {
  if (answer.error) return `The row could not be read: ${answer.error.message}`;
  if (answer.abstained) return `Not sure enough to answer; it leans to ${plain(answer.suggestion)}.`;
  const [top] = rows(answer);
  const sure = top && model.mode !== "multilabel" ? `, ${percent(top[1])}` : "";
  const value = Array.isArray(answer.value) ? answer.value.map(item).join(", ") || none(model) : plain(answer.value);
  const absent = answer.absent?.length ? `; absent: ${answer.absent.join(", ")}` : "";
  return `Answer: ${value}${sure}. Based on ${answer.used?.join(", ") || "no input"}${absent}.`;
}

/** Not sure enough for the error that the model's recipe states: nothing is answered, and what it leans to is said. */
function abstained(answer, model) {
  return el("div", {},
    el("p", { class: "value" }, el("span", { class: "target" }, name(model.targets.join(", "))), el("span", { class: "big long" }, "not sure enough to answer")),
    el("p", { class: "interval" }, "It leans to ", name(plain(answer.suggestion)), ": a suggestion, for a person to check."));
}

/** The classes that are not ruled out. */
function candidates(answer) {
  if (!Array.isArray(answer.set)) return null;
  return el("p", { class: "interval" }, "not ruled out: ", name(answer.set.map(plain).join(", ")));
}

/** Inputs that look like none of the rows it was checked on. */
function odd(answer) {
  const strange = Object.entries(answer.odd ?? {}).filter(([, share]) => share >= 0.99).map(([input]) => input);
  return strange.length ? el("p", { class: "interval" }, "unusual: ", name(strange.join(", "))) : null;
}

function value(answer, model) {
  if (answer.abstained) return abstained(answer, model);
  if (Array.isArray(answer.value)) {
    const labels = answer.value.map((label) => name(item(label), { class: "chip chosen" }));
    return el("div", { class: "value many" }, labels.length ? labels : none(model));
  }
  if (answer.value !== null && typeof answer.value === "object") {
    return el("dl", { class: "value pairs" }, Object.entries(answer.value)
      .flatMap(([target, v]) => [el("dt", {}, name(target)), el("dd", {}, plain(v))]));
  }
  const [top] = rows(answer);
  return el("p", { class: "value" },
    el("span", { class: "target" }, name(model.targets.join(", "))),
    name(plain(answer.value), { class: plain(answer.value).length > LONG ? "big long" : "big" }),
    top ? el("span", { class: "sure" }, percent(top[1])) : null);
}

function probabilities(answer, model) {
  const sorted = rows(answer);
  if (!sorted.length) return null;
  const chosen = (p, i) => (model.mode === "multilabel" ? p >= 0.5 : i === 0);
  const list = el("ol", { class: "bars" }, sorted.map(([label, p], i) => el("li", { hidden: i >= SHOWN },
    name(label, { class: "bar-label" }), bar(p, chosen(p, i) ? "chosen" : ""), el("span", { class: "figure" }, percent(p)))));
  return el("section", {}, el("h3", {}, "Probabilities"), list, fold(list, sorted.length));
}

/** Bars to the left and right of nothing. A share is of the probability, or of the number where there are no classes. */
function contributions(answer) {
  const told = answer.contributions;
  const entries = Object.entries(told?.inputs ?? {}).filter(([, v]) => typeof v === "number");
  if (!entries.length) return null;
  entries.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const most = Math.max(...entries.map(([, v]) => Math.abs(v)), 1e-9);
  const chance = Boolean(answer.probabilities);
  const figure = (v) => (chance ? points(v) : signed(number(v)));
  const total = told.base + entries.reduce((sum, [, v]) => sum + v, 0);
  const whole = (v) => (chance ? percent(v) : number(v));
  const list = diverging(entries.map(([input, v]) => [name(input), v]), most, figure);
  return el("section", {},
    el("h3", {}, "What each input contributed", told.class === undefined || told.class === null || !chance ? null : [" to ", name(told.class)]),
    list,
    el("p", { class: "note" }, `Without any input ${whole(told.base)}, with these ${whole(total)}`,
      chance ? "; in points of probability (Shapley values)." : " (Shapley values)."));
}

function basis(answer) {
  const chips = (names, kind) => names.map((input) => el("li", {}, el("span", { class: `chip ${kind}` }, name(input), el("small", {}, kind))));
  return el("ul", { class: "chips", "aria-label": "inputs" }, chips(answer.used ?? [], "used"), chips(answer.absent ?? [], "absent"));
}

function interval(answer) {
  if (!Array.isArray(answer.interval)) return null;
  return el("p", { class: "interval" }, `between ${number(answer.interval[0])} and ${number(answer.interval[1])}`);
}

function facts(reply, roundTrip) {
  const pair = (word, ...what) => [el("dt", {}, word), el("dd", {}, what)];
  return el("dl", { class: "facts" },
    pair("queue", milliseconds(reply.timing?.queue_ms)),
    pair("compute", milliseconds(reply.timing?.compute_ms)),
    pair("round trip", milliseconds(roundTrip)),
    pair("version", name(reply.version ?? "–", { class: "mono" })),
    pair("request", name(reply.request_id ?? "–", { class: "mono" }), " ", copyButton("Copy", () => String(reply.request_id))));
}

/** What is shown of the first answer of a reply. `roundTrip`: milliseconds seen from here. */
export function answerView(reply, model, roundTrip) {
  const [answer] = reply.answers;
  const notes = (answer.notes ?? []).map((note) => el("li", {}, name(note)));
  return [
    answer.error ? errorView(answer.error) : [value(answer, model), interval(answer), candidates(answer), odd(answer), basis(answer), probabilities(answer, model), contributions(answer)],
    notes.length ? el("ul", { class: "notes", "aria-label": "notes" }, notes) : null,
    facts(reply, roundTrip),
  ].flat().filter(Boolean);
}

/** An error, whether of the whole request or of its row. */
export function errorView({ message, hint, code, column, id, retryAfter }) {
  return el("div", { class: "failure", role: "alert" },
    el("p", {}, el("strong", {}, name(message)), column ? [" (", name(column), ")"] : null),
    hint ? el("p", {}, name(hint)) : null,
    retryAfter === null || retryAfter === undefined ? null : el("p", {}, `The server asks to wait ${number(retryAfter)} s.`),
    el("p", { class: "note" }, el("code", {}, code), id ? [" · request ", name(id, { class: "mono" })] : null));
}

export function emptyView() {
  return el("p", { class: "note empty" }, "Give what you have and press Predict. What is left empty counts as absent, and the answer says so.");
}
