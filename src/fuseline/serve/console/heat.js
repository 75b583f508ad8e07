// Parts of an input drawn where they are: words tinted, patches over their picture, bars below a sound or along steps.
// Colour is never alone: against is hatched or dashed or points down, every mark has its figure as title, and a list
// beside the drawing says the same in words. A part is {label, place, value}; `most`: what full colour stands for.

import { el, freshId, svg } from "./dom.js";
import { drawnPicture } from "./media.js";
import { drawnSound } from "./sound.js";

const SIDE = 360; // pixels on the screen of a picture's longer side
const WIDE = 1000;
const HIGH = 56;
const NAMED = 3;
// Controls and overrides of direction: they could make a text read as another one. One character each, as places count.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

const kindOf = (value) => (value < 0 ? "against" : "for");
const strength = (value, most) => Math.min(1, Math.abs(value) / most);

/** The strongest parts in one line, for those who hear the page. */
export function strongest(parts, change) {
  const first = [...parts].sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, NAMED);
  return first.map((p) => `${p.label} ${change(p.value)}`).join("; ");
}

/** What the colours mean, once above all drawings. */
export function legend() {
  const swatch = (kind, words) => {
    const hatch = hatching();
    return el("span", { class: "swatch" }, svg("svg", { class: "heat-key", width: 22, height: 14, "aria-hidden": "true" }, hatch.node,
      svg("rect", { class: kind, width: 22, height: 14 }),
      kind === "against" ? svg("rect", { fill: hatch.fill, width: 22, height: 14 }) : null), words);
  };
  return el("p", { class: "note swatches" }, swatch("for", "speaks for it"), swatch("against", "speaks against it (hatched, dashed, or downwards)"));
}

function hatching() {
  const id = freshId("hatch");
  const node = svg("defs", {}, svg("pattern", { id, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("line", { class: "hatch", x1: 1, x2: 1, y1: 0, y2: 6 })));
  return { node, fill: `url(#${id})` };
}

/** A text with its words tinted. Null where the places are none of this text. */
export function textView(text, parts, most, change) {
  const letters = Array.from(text); // whole characters, as places count them: an emoji is two units of a string here
  const shown = (from, to) => letters.slice(from, to).join("").replace(HIDDEN, "\ufffd");
  const out = [];
  let at = 0;
  for (const { place: [start, stop], value } of [...parts].sort((a, b) => a.place[0] - b.place[0])) {
    if (!(start >= at && stop > start && stop <= letters.length)) continue; // special tokens have no letters
    const word = el("span", { class: `tint ${kindOf(value)}`, title: change(value) }, shown(start, stop));
    word.style.setProperty("--strength", `${(50 * strength(value, most)).toFixed(1)}%`);
    out.push(shown(at, start), word);
    at = stop;
  }
  return out.length ? el("div", { class: "words", dir: "auto" }, out, shown(at)) : null;
}

/** The picture in grey with its patches over it; null where the browser cannot show it.
 * @param seen left, top, right, bottom of what the model sees, as shares of the picture's sides */
export async function pictureView(file, seen, parts, most, change) {
  const drawn = await drawnPicture(file);
  if (!drawn) return null;
  const { canvas } = drawn;
  const [width, height] = [canvas.width, canvas.height];
  const inside = (share) => Math.max(0, Math.min(1, share));
  const [x0, y0, x1, y1] = seen;
  const hatch = hatching();
  const marks = [];
  let outside = 0;
  for (const { label, place: [left, top, right, bottom], value } of parts) {
    const [a, b, c, d] = [x0 + left * (x1 - x0), y0 + top * (y1 - y0), x0 + right * (x1 - x0), y0 + bottom * (y1 - y0)].map(inside);
    if (!(c > a && d > b)) {
      outside += 1;
      continue;
    }
    const box = { x: (a * width).toFixed(2), y: (b * height).toFixed(2), width: ((c - a) * width).toFixed(2), height: ((d - b) * height).toFixed(2) };
    const alpha = (0.75 * strength(value, most)).toFixed(3);
    marks.push(svg("g", {}, svg("title", {}, `${label}: ${change(value)}`), svg("rect", { ...box, class: kindOf(value), "fill-opacity": alpha }),
      value < 0 ? svg("rect", { ...box, fill: hatch.fill, opacity: alpha }) : null));
  }
  const cropped = x0 > 0 || y0 > 0 || x1 < 1 || y1 < 1;
  const frame = [x0, y0, x1, y1].map(inside).map((share, i) => share * (i % 2 ? height : width));
  const [l, t, r, b] = frame;
  if (cropped) {
    marks.push(svg("path", { class: "beyond", "fill-rule": "evenodd", d: `M0 0H${width}V${height}H0ZM${l} ${t}H${r}V${b}H${l}Z` }),
      svg("rect", { class: "frame", x: l, y: t, width: r - l, height: b - t }));
  }
  const over = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${file.name} with its patches tinted; the strongest: ${strongest(parts, change)}` }, hatch.node, marks);
  canvas.removeAttribute("role");
  canvas.removeAttribute("aria-label");
  canvas.setAttribute("aria-hidden", "true"); // what lies over it is named
  const node = el("div", { class: "heat" }, canvas, over);
  node.style.width = `${Math.round((SIDE * width) / Math.max(width, height))}px`;
  const said = [cropped ? "The model sees the part inside the frame." : "",
    outside ? `${outside} ${outside === 1 ? "patch lies" : "patches lie"} on the black that was added beside the picture: in figures alone.` : ""];
  return el("figure", {}, node, said.some(Boolean) ? el("figcaption", { class: "note" }, said.filter(Boolean).join(" ")) : null);
}

/** Bars up (for) and down (against) over 0 to `end`. `spans`: from and to of each part. */
function strip(parts, spans, end, most, change, what) {
  const middle = HIGH / 2;
  const bars = parts.map(({ label, value }, i) => {
    const size = strength(value, most) * (middle - 2);
    const [start, stop] = spans[i];
    return svg("g", {}, svg("title", {}, `${label}: ${change(value)}`),
      // The whole height, not to be seen: a short bar is hard to point at.
      svg("rect", { class: "catch", x: (WIDE * start) / end, y: 0, width: (WIDE * (stop - start)) / end, height: HIGH }),
      svg("rect", { class: kindOf(value), x: ((WIDE * start) / end).toFixed(1), y: (value < 0 ? middle : middle - size).toFixed(2),
        width: Math.max(1, (WIDE * (stop - start)) / end - 2).toFixed(1), height: size.toFixed(2) }));
  });
  return svg("svg", { class: "strip", viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `what each ${what} did; the strongest: ${strongest(parts, change)}` }, bars,
    svg("line", { x1: 0, x2: WIDE, y1: middle, y2: middle }));
}

const axis = (from, to) => el("div", { class: "axis", "aria-hidden": "true" }, el("span", {}, from), el("span", {}, to));

/** The waveform with a strip of bars below it; where the browser cannot play the file, the strip alone. */
export async function soundView(file, parts, most, change) {
  const drawn = file ? await drawnSound(file) : null;
  const spans = parts.map((p) => p.place);
  const end = Math.max(drawn?.buffer.duration ?? 0, ...spans.map((s) => s[1])) || 1;
  if (drawn) drawn.picture.style.width = `${(100 * drawn.buffer.duration) / end}%`;
  return el("div", { class: "wide" }, drawn?.picture, strip(parts, spans, end, most, change, "moment"), axis("0 s", `${end.toFixed(2)} s`));
}

/** A strip along the steps of a series. */
export function stepsView(parts, most, change) {
  const spans = parts.map(({ place: [first, last] }) => [first, last + 1]);
  const end = Math.max(...spans.map((s) => s[1]));
  return el("div", { class: "wide" }, strip(parts, spans, end, most, change, "step"), axis("step 1", `step ${end}`));
}
