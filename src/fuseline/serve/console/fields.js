// One column, one field. A field that is empty is absent: its cell is left out of the request, never sent as "" or 0.

import { el, freshId, name } from "./dom.js";
import { mediaControl } from "./media.js";

const KNOWN_SHOWN = 6;

/**
 * What every control gives: `node` (what is shown), `focus` (the element to focus and to label), `given()`, `value()`
 * (the cell as JSON), `problem()` (why it cannot be sent, or ""), `clear()`, and where it helps `note()`; media have
 * `file()` instead of a value.
 */
function control(column, id, changed) {
  switch (column.kind) {
    case "number":
      return typed(column, id, changed, { type: "number", step: "any", inputmode: "decimal" }, Number, "is no number");
    case "date":
      return typed(column, id, changed, { type: "date", max: "9999-12-31" }, String, "is no whole date");
    case "category":
      return category(column, id, changed);
    case "boolean":
      return boolean(id, changed);
    case "image":
    case "audio":
    case "video":
    case "images":
      return mediaControl(column, id, changed);
    default:
      return text(id, changed);
  }
}

function text(id, changed) {
  const area = el("textarea", { id, rows: "3", dir: "auto", input: changed });
  return {
    node: area,
    focus: area,
    given: () => area.value.trim() !== "",
    value: () => area.value,
    problem: () => "",
    clear: () => (area.value = ""),
    note: () => (area.value.length > 200 ? `${area.value.length} characters` : ""),
  };
}

/** The browser empties a number or date field that it cannot read: that is a mistake, not an absent cell. */
function typed(column, id, changed, attributes, read, wrong) {
  const input = el("input", { id, ...attributes, autocomplete: "off", input: changed, change: changed });
  return {
    node: input,
    focus: input,
    given: () => input.value !== "" || input.validity.badInput,
    value: () => read(input.value),
    problem: () => (input.validity.badInput ? `what is typed ${wrong}` : ""),
    clear: () => (input.value = ""),
  };
}

function category(column, id, changed) {
  const list = freshId("known");
  const known = new Set(column.values);
  const input = el("input", { id, type: "text", list, dir: "auto", autocomplete: "off", input: changed });
  const options = el("datalist", { id: list }, column.values.map((value) => el("option", { value })));
  const quick = el("div", { class: "quick" });
  if (known.size && known.size <= KNOWN_SHOWN) {
    for (const value of known) {
      const pick = () => { input.value = value; changed(); };
      quick.append(el("button", { type: "button", class: "quiet small", click: pick }, name(value)));
    }
  }
  const strange = () => input.value.trim() !== "" && known.size && !known.has(input.value.trim());
  return {
    node: el("div", { class: "category" }, input, options, quick.childElementCount ? quick : null),
    focus: input,
    given: () => input.value.trim() !== "",
    value: () => input.value,
    problem: () => "",
    clear: () => (input.value = ""),
    note: () => {
      if (strange()) return "not among the values known from training";
      return known.size > KNOWN_SHOWN ? `${known.size} known values` : "";
    },
  };
}

function boolean(id, changed) {
  const group = freshId("choice");
  const choices = [["yes", true], ["no", false], ["absent", null]].map(([label, value], i) => {
    const input = el("input", { type: "radio", name: group, id: i ? null : id, checked: value === null, change: changed });
    return { value, input, node: el("label", {}, input, el("span", {}, label)) };
  });
  const chosen = () => choices.find((c) => c.input.checked).value;
  return {
    node: el("div", { class: "segments" }, choices.map((c) => c.node)),
    focus: choices[0].input,
    group: true,
    given: () => chosen() !== null,
    value: chosen,
    problem: () => "",
    clear: () => (choices[2].input.checked = true),
  };
}

export class Field {
  /** @param column one entry of a model's `columns`; @param changed called whenever the cell changes */
  constructor(column, changed) {
    this.column = column;
    const id = freshId("cell");
    this.control = control(column, id, () => { this.say(""); this.refresh(); changed(); });
    this.state = el("span", { class: "state", id: `${id}-state` });
    this.clearButton = el("button", { type: "button", class: "quiet small", click: () => this.clear(changed) }, "Clear");
    this.clearButton.setAttribute("aria-label", `Clear ${column.name}: make it absent`);
    this.note = el("p", { class: "note", id: `${id}-note` });
    this.error = el("p", { class: "error", id: `${id}-error` });
    const label = this.control.group
      ? el("span", { class: "label", id: `${id}-label` }, name(column.name))
      : el("label", { for: id }, name(column.name));
    this.node = el("div", { class: "field", "data-kind": column.kind },
      el("div", { class: "field-head" }, label, el("span", { class: "kind" }, column.kind), this.clearButton, this.state),
      this.control.node, this.note, this.error);
    if (this.control.group) {
      this.node.setAttribute("role", "radiogroup");
      this.node.setAttribute("aria-labelledby", `${id}-label`);
    }
    (this.control.group ? this.node : this.control.focus)
      .setAttribute("aria-describedby", `${id}-state ${id}-note ${id}-error`);
    this.refresh();
  }

  get given() {
    return this.control.given();
  }

  refresh() {
    const given = this.given;
    this.state.textContent = given ? "given" : "absent";
    this.node.dataset.state = this.state.textContent;
    this.clearButton.hidden = !given;
    this.note.textContent = this.control.note?.() ?? "";
  }

  clear(changed = () => {}) {
    this.control.clear();
    this.say("");
    this.refresh();
    this.control.focus.focus({ preventScroll: true });
    changed();
  }

  /** Why the cell cannot be sent, "" where it can. */
  problem() {
    return this.control.problem();
  }

  /** Shows an error at the field; "" takes it away. */
  say(message, hint = "") {
    this.error.replaceChildren(...(message ? [el("strong", {}, message), hint ? ` – ${hint}` : ""] : []));
    const target = this.control.group ? this.node : this.control.focus;
    if (message) target.setAttribute("aria-invalid", "true");
    else target.removeAttribute("aria-invalid");
    this.node.classList.toggle("wrong", Boolean(message));
  }

  focus() {
    this.control.focus.focus();
  }
}
