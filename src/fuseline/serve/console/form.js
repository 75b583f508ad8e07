// The form of one model: a card for every input, in it a field for every column.

import { el, name } from "./dom.js";
import { Field } from "./fields.js";
import { dataUri, typeOf } from "./media.js";

/** Cells as JSON values, media as data URIs. fromEntries: a column may be called `__proto__`. */
export async function rowOf(cells) {
  const entries = cells.map(async (cell) => [cell.column, cell.file ? await dataUri(cell.file) : cell.value]);
  return Object.fromEntries(await Promise.all(entries));
}

export class Form {
  constructor(host, changed) {
    this.host = host;
    this.changed = changed;
    this.fields = [];
    this.kept = new Map();
  }

  /** Shows a model's columns. What was typed stays where another version of the model has the same column. */
  show(model) {
    this.model = model;
    this.fields = model.columns.map((column) => {
      const key = JSON.stringify([model.name, column.name, column.kind, column.values]);
      if (!this.kept.has(key)) this.kept.set(key, new Field(column, this.changed));
      return this.kept.get(key);
    });
    const cards = Object.keys(model.inputs).map((input) => this.card(input, model.inputs[input]));
    this.host.replaceChildren(...cards.filter(Boolean));
  }

  card(input, modality) {
    const fields = this.fields.filter((field) => field.column.input === input);
    if (!fields.length) return null;
    const title = [name(input), el("span", { class: "kind" }, modality)];
    const only = fields.length === 1;
    return el("fieldset", { class: only ? "card single" : "card", "data-input": input },
      el("legend", { class: only && fields[0].column.name === input ? "unseen" : "" }, title),
      el("div", { class: "card-fields" }, fields.map((field) => field.node)));
  }

  get given() {
    return this.fields.filter((field) => field.given);
  }

  /** Inputs of which no cell is given. */
  get absentInputs() {
    const given = new Set(this.given.map((field) => field.column.input));
    return Object.keys(this.model.inputs).filter((input) => !given.has(input));
  }

  /** The row as it stands: [{column, value}] or [{column, file, type}], given cells only. */
  cells() {
    return this.given.filter((field) => !field.problem()).map((field) => {
      const file = field.control.file?.();
      const column = field.column.name;
      return file ? { column, file, type: typeOf(file) } : { column, value: field.control.value() };
    });
  }

  /** Says at each field why its cell cannot be sent; true where all can. */
  check() {
    const wrong = this.given.filter((field) => field.problem());
    for (const field of this.fields) field.say(wrong.includes(field) ? field.problem() : "", "Correct it, or clear it.");
    wrong[0]?.focus();
    return !wrong.length;
  }

  /** Puts an error at its field (a column's name, or an input's); false where there is none such. */
  place({ column, message, hint }) {
    const field = this.fields.find((f) => f.column.name === column) ?? this.fields.find((f) => f.column.input === column);
    if (!field || column === null) return false;
    field.say(message, hint);
    field.focus();
    return true;
  }

  clear() {
    for (const field of this.fields) if (field.given) field.clear();
    this.changed();
  }
}
