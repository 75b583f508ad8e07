// Bars with a name before and a figure behind them; the figure says what the bar shows, for those who do not see it.

import { el } from "./dom.js";

export const SHOWN = 8;

export function bar(share, kind) {
  const fill = el("i", { class: kind });
  fill.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, fill);
}

/** A button that shows what stands hidden in a list beyond the first `SHOWN`; null where there is no more. */
export function fold(list, count) {
  if (count <= SHOWN) return null;
  const button = el("button", { type: "button", class: "quiet small", "aria-expanded": "false" });
  const show = (open) => {
    [...list.children].slice(SHOWN).forEach((item) => (item.hidden = !open));
    button.setAttribute("aria-expanded", String(open));
    button.textContent = open ? `Show the first ${SHOWN}` : `Show all ${count}`;
  };
  button.addEventListener("click", () => show(button.getAttribute("aria-expanded") === "false"));
  show(false);
  return button;
}

/** Bars to the right (for) and left (against) of nothing.
 * @param entries [[label node, value]]; @param most what the longest stands for; @param figure a value and its place as text */
export function diverging(entries, most, figure) {
  return el("ol", { class: "bars diverging" }, entries.map(([label, v], i) => {
    const share = el("i", { class: v < 0 ? "against" : "for" });
    share.style.width = `${50 * Math.min(1, Math.abs(v) / most)}%`;
    return el("li", {}, el("span", { class: "bar-label" }, label),
      el("span", { class: "bar", "aria-hidden": "true" }, share), el("span", { class: "figure" }, figure(v, i)));
  }));
}
