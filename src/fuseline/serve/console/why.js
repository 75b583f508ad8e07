// Behind an answer: why, inside the inputs. Asked for on its own, since it costs the model's answer many times over.

import { errorView } from "./answer.js";
import { Failure, call, explainPath } from "./api.js";
import { el } from "./dom.js";
import { rowOf } from "./form.js";
import { explanationView, spokenWhy } from "./inside.js";

const NO_NUMBER = new Set(["generation", "detection", "retrieval"]); // tasks whose answers cannot be explained
const FINEST = { grid: 8, most_parts: 64 };
const COARSEST = 2;
const TOO_MUCH = new Map([
  [413, "This row has more parts than the server explains at once. It may answer when pictures are cut into fewer patches and texts and sounds into fewer parts."],
  [504, "The server did not finish in time. Fewer patches and parts take less."],
]);

export class Why {
  /** @param spoken element whose text is read out; @param refused called with a Failure of the key */
  constructor(host, spoken, refused) {
    Object.assign(this, { host, spoken, refused, asking: null });
  }

  /** Nothing to explain: what is being asked is given up. */
  clear() {
    this.asking?.abort();
    this.asking = null;
    this.host.replaceChildren();
  }

  /** Offers to explain an answer. @param sent the row as it was sent: {model, version, cells, contributed} */
  offer(answer, sent) {
    this.clear();
    if (!answer.error && !NO_NUMBER.has(sent.model.task)) this.show(this.button("Why, inside the inputs", sent, FINEST), this.cost());
  }

  cost() {
    return el("p", { class: "note" }, "Asks the model again with each word, patch, moment and cell hidden in turn: often hundreds of answers.");
  }

  button(words, sent, fineness) {
    return el("button", { type: "button", class: "button", click: () => this.ask(sent, fineness) }, words);
  }

  /** Puts these in place of what is there; whoever had the focus there has it on the first that takes it. */
  show(...nodes) {
    const held = this.host.contains(document.activeElement);
    this.host.replaceChildren(...nodes);
    if (held) this.host.querySelector("button, [tabindex]")?.focus();
  }

  async ask(sent, fineness) {
    this.asking?.abort();
    const mine = new AbortController();
    this.asking = mine;
    const clock = this.wait(mine);
    let shown;
    try {
      const body = JSON.stringify({ rows: [await rowOf(sent.cells)], inside: true, ...fineness });
      const reply = await call(explainPath(sent.model.name, sent.version), { body, signal: mine.signal });
      const row = reply?.rows?.[0];
      if (row?.error) throw new Failure(row.error);
      if (!row?.of || !Number.isFinite(row.quantity)) throw new Failure({ code: "no_explanation", message: "the reply holds no explanation" });
      shown = await this.explained(row, sent);
      if (this.asking === mine) this.spoken.textContent = spokenWhy(row);
    } catch (failure) {
      if (this.asking === mine && failure.status === 401) this.refused(failure);
      shown = this.failed(failure, sent, fineness);
    } finally {
      clearInterval(clock);
    }
    if (this.asking !== mine) return; // another answer has come meanwhile
    this.asking = null;
    this.show(...shown);
  }

  /** Shows that it goes on and for how long; returns the clock to stop. */
  wait(controller) {
    const seconds = el("span", { class: "note", "aria-hidden": "true" }, "0 s");
    const start = performance.now();
    const clock = setInterval(() => (seconds.textContent = `${Math.round((performance.now() - start) / 1000)} s`), 1000);
    this.spoken.textContent = "Asking the model again with parts hidden.";
    this.show(el("div", { class: "asking" }, el("progress", { "aria-label": "the model is being asked again" }),
      el("span", { class: "note" }, "asking again with parts hidden"), seconds,
      el("button", { type: "button", class: "quiet", click: () => controller.abort() }, "Cancel")));
    return clock;
  }

  async explained(row, sent) {
    const { columns } = sent.model;
    const inputOf = new Map(columns.map((c) => [c.name, c.input]));
    const view = await explanationView(row, {
      contributed: sent.contributed,
      cells: new Map(sent.cells.filter((c) => !c.file).map((c) => [c.column, c.value])),
      files: new Map(sent.cells.filter((c) => c.file).map((c) => [inputOf.get(c.column), c.file])),
    });
    return [el("section", { class: "why" }, el("h3", { tabindex: "-1" }, "Why, inside the inputs"), view)];
  }

  failed(failure, sent, fineness) {
    this.spoken.textContent = "";
    if (failure.code === "cancelled") return [this.button("Why, inside the inputs", sent, FINEST), el("p", { class: "note" }, "Cancelled.")];
    const coarser = { grid: fineness.grid / 2, most_parts: fineness.most_parts / 4 };
    const words = TOO_MUCH.get(failure.status);
    const again = words && coarser.grid >= COARSEST
      ? this.button(`Ask again with ${coarser.grid} × ${coarser.grid} patches and at most ${coarser.most_parts} parts`, sent, coarser)
      : this.button("Ask again", sent, fineness);
    return [words ? el("p", {}, words) : null, errorView(failure), again].filter(Boolean);
  }
}
