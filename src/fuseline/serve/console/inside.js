// An explanation as it is shown: what is explained, each input with what its parts did, what-ifs, notes.

import { diverging, fold } from "./bars.js";
import { el, name, number, percent, plain, points, signed } from "./dom.js";
import { legend, pictureView, soundView, stepsView, strongest, textView } from "./heat.js";

const LITTLE = 0.2; // of full colour: where no part has more, there is nothing to see, and that is said
const FAINT = 0.1; // of the largest share of an input: what parts do below it is drawn faint, not blown up to full colour
const PLURALS = new Map([["patch", "patches"], ["second", "moments"], ["column", "cells"]]);
const NOUNS = new Map([["second", "moment"], ["column", "cell"]]);
const NUMBERS = new Map([["word", 2], ["patch", 4], ["second", 2], ["step", 2]]); // that a part's place has

const list = (value) => (Array.isArray(value) ? value : []);
const plural = (unit) => PLURALS.get(unit) ?? `${unit}s`;

/** How the explained number, a change of it and their unit are written. */
function written(of) {
  const chance = of.kind === "probability";
  const change = chance ? points : (v) => signed(number(v));
  const size = (v) => (chance && v < 5e-4 ? "less than 0.1" : change(v).replace(/^[+−]/, ""));
  return { whole: chance ? percent : number, change, size, unit: chance ? "points of probability" : "units of the answer" };
}

function subject(of) {
  const target = of.target ? [" of ", name(of.target)] : [];
  if (of.kind === "probability") return ["the probability of ", name(plain(of.label)), ...target];
  return [of.steps ? `the mean of the ${number(of.steps)} steps ahead` : "the number answered", ...target];
}

/** Parts with a finite value, and a place where their kind has one. */
function partsOf(one) {
  const size = NUMBERS.get(one.unit) ?? 0;
  return list(one.parts).filter((p) => Number.isFinite(p?.value))
    .map((p) => ({ label: plain(p.label), value: p.value, place: list(p.place).filter(Number.isFinite) }))
    .map((p) => ({ ...p, placed: p.place.length >= size && size > 0 }));
}

/** Where the model looks, drawn if it can be: [node or null, why there is none]. */
async function drawing(one, parts, most, change, sent) {
  if (!parts.length || !parts.every((p) => p.placed)) return [null, ""];
  if (one.unit === "word") return [typeof one.text === "string" ? textView(one.text, parts, most, change) : null, ""];
  if (one.unit === "step") return [stepsView(parts, most, change), ""];
  const file = sent.files.get(one.input);
  if (one.unit === "second") return [await soundView(file, parts, most, change), ""];
  const seen = list(one.seen).filter(Number.isFinite);
  if (seen.length !== 4) return [null, "Which part of the picture the model sees is not known, so patches are told in words."];
  const picture = file ? await pictureView(file, seen, parts, most, change) : null;
  return [picture, picture ? "" : "This browser cannot show the picture (DICOM and TIFF, for example), so patches are told in words."];
}

async function inputView(one, least, told, sent) {
  const parts = partsOf(one);
  const title = el("h4", {}, "Inside ", name(one.input), `: ${plural(one.unit)}`);
  if (!parts.length) return el("div", { class: "inside" }, title, el("p", { class: "note" }, "It has no parts."));
  const largest = Math.max(...parts.map((p) => Math.abs(p.value)));
  const most = Math.max(least, largest) || 1;
  const [node, why] = await drawing(one, parts, most, told.change, sent);
  const sorted = [...parts].sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const bars = diverging(sorted.map((p) => [partName(p, one.unit, sent), p.value]), most, told.change);
  const figures = [bars, fold(bars, sorted.length)];
  const how = one.method === "occlusion"
    ? [`Each ${NOUNS.get(one.unit) ?? one.unit} is hidden in turn (`, name(one.hidden), ")."]
    : ["Integrated gradients, the path begins at ", name(one.hidden), "."];
  return el("div", { class: "inside", "data-unit": one.unit }, title, why ? el("p", { class: "note" }, why) : null, node,
    node ? el("details", {}, el("summary", {}, `The ${plural(one.unit)} in figures`), figures) : figures,
    el("p", { class: "note" }, how, ` The strongest colour or the longest bar stands for ${told.size(most)} ${told.unit}.`,
      largest < LITTLE * most ? ` Alone each did little: at most ${told.size(largest)}. Parts that say the same stand in for one another.` : ""));
}

/** Of a cell with what stands in it. */
function partName({ label }, unit, sent) {
  const cell = unit === "column" ? sent.cells.get(label) : undefined;
  return [name(label), cell === undefined ? null : [" ", el("small", {}, name(plain(cell).slice(0, 40)))]];
}

function shares(inputs, of, told, quantity) {
  const entries = Object.entries(inputs?.values ?? {}).filter(([, v]) => Number.isFinite(v)).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  if (!entries.length) return null;
  const most = Math.max(...entries.map(([, v]) => Math.abs(v))) || 1;
  const error = (input) => (Number.isFinite(inputs.errors?.[input]) ? ` ± ${told.size(inputs.errors[input])}` : "");
  const bars = diverging(entries.map(([input, v]) => [name(input), v]), most, (v, i) => told.change(v) + error(entries[i][0]));
  return el("div", { class: "inside" }, el("h4", {}, "What each input adds to ", subject(of)), bars, fold(bars, entries.length),
    el("p", { class: "note" }, `Without any input ${told.whole(inputs.base)}, with these ${told.whole(quantity)}. In ${told.unit} `,
      inputs.method === "sampled" ? "(Shapley values from random orders)." : "(exact Shapley values)."));
}

/** The answer that a what-if gives, in words. */
function then(of, one) {
  if (one.suggestion !== null && one.suggestion !== undefined) return ["none; leans to ", name(plain(one.suggestion))];
  const value = of.target && one.value && typeof one.value === "object" ? one.value[of.target] : one.value;
  return typeof value === "string" || typeof value === "boolean" ? name(plain(value)) : "";
}

function whatIf(found, of, told) {
  const lines = found.filter((one) => one?.absent !== null && one?.absent !== undefined);
  if (!lines.length) return null;
  const rows = lines.map((one) => el("tr", {}, el("th", { scope: "row" }, name(one.absent), " absent"),
    Number.isFinite(one.quantity)
      ? [el("td", {}, then(of, one)), el("td", { class: "figure" }, told.whole(one.quantity)), el("td", { class: "figure" }, told.change(one.change))]
      : el("td", { colspan: 3 }, name(one.error ?? "no answer"))));
  const heads = [["", ""], ["answer then", ""], [of.label ? name(of.label) : "it is", "figure"], ["change", "figure"]];
  return el("div", { class: "inside" }, el("h4", {}, "What if an input had been absent"),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "answers with an input absent" },
      el("table", { class: "whatif" }, el("thead", {}, el("tr", {}, heads.map(([words, kind]) => el("th", { scope: "col", class: kind }, words)))),
        el("tbody", {}, rows))));
}

/** What is shown of one explained row.
 * @param sent {cells: column -> value, files: input -> File, contributed: whether the shares stand above already} */
export async function explanationView(row, sent) {
  const { of } = row;
  const told = written(of);
  const sizes = Object.values(row.inputs?.values ?? {}).filter(Number.isFinite).map(Math.abs);
  const least = FAINT * Math.max(0, ...sizes);
  const inside = await Promise.all(list(row.inside).map((one) => inputView(one, least, told, sent)));
  const notes = list(row.notes).map((note) => el("li", {}, name(note)));
  return [
    el("p", {}, "Explained is ", subject(of), `, ${told.whole(row.quantity)}: what it loses when a part is hidden. `,
      `The model was asked ${number(row.outputs)} times. This says what the model went by, not what causes what.`),
    sent.contributed ? null : shares(row.inputs, of, told, row.quantity),
    inside.length ? [legend(), inside] : el("p", { class: "note" }, "No input of this row has parts that can be hidden."),
    whatIf(list(row.what_if), of, told),
    notes.length ? el("ul", { class: "notes", "aria-label": "notes on the explanation" }, notes) : null,
  ].flat().filter(Boolean);
}

/** The same in one sentence, for those who hear the page. */
export function spokenWhy(row) {
  const { change } = written(row.of);
  const told = list(row.inside).map((one) => [one.input, partsOf(one)]).filter(([, parts]) => parts.length)
    .map(([input, parts]) => `in ${input}: ${strongest(parts, change)}`);
  return told.length ? `Explained. The strongest ${told.join(". ")}.` : "Explained; no input has parts that can be hidden.";
}
