// Line charts over the last minutes, drawn as SVG anew whenever data come. Times are Unix seconds.

import { el, number, svg } from "./dom.js";

const HEIGHT = 132;
const [TOP, RIGHT, BOTTOM, LEFT] = [8, 8, 18, 44];
const GAP = 15; // seconds without a point: the line breaks

/** The next round number, whose half is round too. */
function niceTop(most) {
  if (!(most > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 1.6, 2, 3, 4, 5, 6, 8, 10].find((step) => step * power >= most * 0.999) * power;
}

const finite = (v) => typeof v === "number" && Number.isFinite(v);

export class LineChart {
  /** @param lines [{name, style}], style one of a, b, c; @param show a value as its reader wants it */
  constructor(title, lines, show) {
    this.title = title;
    this.lines = lines;
    this.show = show;
    this.values = lines.map(() => el("b", {}, "–"));
    this.when = el("span", { class: "note" });
    this.plot = el("div", { class: "plot" });
    this.node = el("figure", { class: "chart" },
      el("figcaption", {}, el("h3", {}, title), this.when,
        el("span", { class: "legend" }, lines.map((line, i) => el("span", { class: `key ${line.style}` }, `${line.name} `, this.values[i])))),
      this.plot);
    this.data = { points: [], span: 600, now: 0, limit: null };
    this.cursor = null;
    this.plot.addEventListener("pointermove", (event) => this.point(event.clientX - this.plot.getBoundingClientRect().left));
    this.plot.addEventListener("pointerleave", () => this.point(null));
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  /** @param points [[t, value of each line or null]]; @param limit a level that is not to be passed, or null */
  update(points, { now, span, limit = null }) {
    this.data = { points, now, span, limit };
    this.draw();
  }

  point(x) {
    this.cursor = x;
    this.draw();
  }

  draw() {
    const width = Math.round(this.plot.clientWidth);
    if (width < 60) return;
    const { points, now, span, limit } = this.data;
    const values = points.flatMap((p) => p.slice(1)).filter(finite);
    const most = Math.max(...values, 0);
    // A limit far above what happens would flatten all that happens: it is then only named.
    const limitShown = finite(limit) && limit <= 4 * Math.max(most, limit / 8);
    const top = niceTop(Math.max(most, limitShown ? limit : 0));
    const x = (t) => LEFT + (1 - (now - t) / span) * (width - LEFT - RIGHT);
    const y = (v) => TOP + (1 - v / top) * (HEIGHT - TOP - BOTTOM);
    const parts = [0, 0.5, 1].flatMap((share) => [
      svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(share * top), y2: y(share * top) }),
      svg("text", { class: "tick", x: LEFT - 6, y: y(share * top) + 4, "text-anchor": "end" }, number(share * top)),
    ]);
    for (const share of [0, 0.5, 1]) {
      const minutes = Math.round((span * (1 - share)) / 60);
      parts.push(svg("text", { class: "tick", x: LEFT + share * (width - LEFT - RIGHT), y: HEIGHT - 4,
        "text-anchor": ["start", "middle", "end"][2 * share] }, minutes ? `−${minutes} min` : "now"));
    }
    if (limitShown) parts.push(svg("line", { class: "limit", x1: LEFT, x2: width - RIGHT, y1: y(limit), y2: y(limit) }));
    this.lines.forEach((line, i) => {
      const path = trace(points.map((p) => [p[0], p[i + 1]]), x, y);
      if (i === 0 && path) parts.push(svg("path", { class: `area ${line.style}`, d: area(points.map((p) => [p[0], p[1]]), x, y) }));
      parts.push(svg("path", { class: `line ${line.style}`, d: path }));
    });
    const chosen = this.read(x, width);
    if (chosen) {
      parts.push(svg("line", { class: "cursor", x1: x(chosen[0]), x2: x(chosen[0]), y1: TOP, y2: HEIGHT - BOTTOM }));
    }
    const said = this.lines.map((line, i) => `${line.name} ${this.values[i].textContent}`).join(", ");
    this.plot.replaceChildren(svg("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "img",
      "aria-label": points.length ? `${this.title}, last ${Math.round(span / 60)} minutes; now: ${said}` : `${this.title}: no data yet` }, parts));
    if (!points.length) this.plot.append(el("p", { class: "note nothing" }, "no requests yet"));
  }

  /** Writes the values under the pointer, else the newest, into the legend. */
  read(x, width) {
    const { points, limit } = this.data;
    let chosen = points.at(-1);
    if (this.cursor !== null && points.length && width) {
      chosen = points.reduce((best, p) => (Math.abs(x(p[0]) - this.cursor) < Math.abs(x(best[0]) - this.cursor) ? p : best));
    }
    this.lines.forEach((line, i) => {
      const v = chosen?.[i + 1];
      this.values[i].textContent = finite(v) ? this.show(v) : "–";
    });
    const at = this.cursor === null || !chosen ? "" : new Date(1000 * chosen[0]).toLocaleTimeString();
    this.when.textContent = at || (finite(limit) ? `limit ${this.show(limit)}` : "");
    return this.cursor === null ? null : chosen;
  }
}

function runs(points) {
  const out = [];
  let last = null;
  for (const point of points) {
    if (!finite(point[1])) {
      last = null;
      continue;
    }
    if (last === null || point[0] - last > GAP) out.push([]);
    out.at(-1).push(point);
    last = point[0];
  }
  return out;
}

function trace(points, x, y) {
  return runs(points).map((run) => {
    const path = run.map(([t, v], i) => `${i ? "L" : "M"}${x(t).toFixed(1)} ${y(v).toFixed(1)}`).join("");
    return run.length > 1 ? path : `${path}h1`; // a lone point is still to be seen
  }).join("");
}

function area(points, x, y) {
  return runs(points).map((run) =>
    `M${x(run[0][0]).toFixed(1)} ${y(0)}${run.map(([t, v]) => `L${x(t).toFixed(1)} ${y(v).toFixed(1)}`).join("")}L${x(run.at(-1)[0]).toFixed(1)} ${y(0)}Z`).join("");
}
