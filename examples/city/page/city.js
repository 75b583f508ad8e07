// The map and its charts, drawn from /state. No library, nothing from elsewhere.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);
const RANK = { none: 0, watch: 1, warning: 2, alarm: 3 };
let chosen = null; // the sensor whose chart is drawn; none: the worst
let pace = 1;

function make(name, attributes, parent) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (parent) parent.appendChild(node);
  return node;
}

// 25 mph red, 45 yellow, 65 green.
function colour(mph) {
  const share = Math.max(0, Math.min(1, (mph - 25) / 40));
  return `hsl(${5 + 140 * share} ${share < 0.5 ? 75 : 55}% ${share < 0.5 ? 48 : 42}%)`;
}

function drawMap(state, feed) {
  const svg = $("map");
  const box = svg.getBoundingClientRect();
  const [width, height, edge] = [box.width || 800, box.height || 560, 26];
  const lat = state.places.map((p) => p.latitude), lon = state.places.map((p) => p.longitude);
  const squeeze = Math.cos(((Math.min(...lat) + Math.max(...lat)) / 2) * Math.PI / 180);
  const spanX = (Math.max(...lon) - Math.min(...lon)) * squeeze || 1, spanY = Math.max(...lat) - Math.min(...lat) || 1;
  const scale = Math.min((width - 2 * edge) / spanX, (height - 2 * edge) / spanY);
  const offX = (width - spanX * scale) / 2, offY = (height - spanY * scale) / 2;
  const at = (i) => [offX + (lon[i] - Math.min(...lon)) * squeeze * scale, offY + (Math.max(...lat) - lat[i]) * scale];
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  for (const [a, b] of state.roads) {
    const [x1, y1] = at(a), [x2, y2] = at(b);
    make("line", { x1, y1, x2, y2 }, svg);
  }
  const radius = state.places.length > 100 ? 5 : 7;
  // The silent ones lie below those that speak, and what is warned of above all.
  const order = ["none", "watch", "warning", "alarm"];
  const above = (i) => 2 * order.indexOf(feed.level[i]) + (feed.silent[i] ? 0 : 1);
  for (const i of state.places.map((_, i) => i).sort((a, b) => above(a) - above(b))) {
    const [cx, cy] = at(i);
    const mute = feed.silent[i];
    const now = last(feed.past[i]);
    if (feed.level[i] !== "none") make("circle", { cx, cy, r: radius + 4, class: `ring ${feed.level[i]}` }, svg);
    const dot = make("circle", { cx, cy, r: radius, class: `${mute ? "mute" : ""} ${i === chosen ? "chosen" : ""}` }, svg);
    if (!mute) dot.style.fill = colour(now);
    make("title", {}, dot).textContent =
      `${feed.channels[i]}: ${mute ? "silent" : `${now} ${feed.unit} now`}, ${feed.middle[i].at(-1)} in an hour (${feed.low[i].at(-1)} to ${feed.high[i].at(-1)})`;
    dot.addEventListener("click", () => { chosen = i; refresh(); });
  }
}

const last = (values) => values.findLast((v) => v !== null) ?? null;

function drawChart(svg, feed, i) {
  const box = svg.getBoundingClientRect();
  const [width, height, left, low] = [box.width || 420, box.height || 168, 34, 18];
  const past = feed.past[i], ahead = feed.middle[i].length, steps = past.length + ahead;
  const all = [...past, ...feed.low[i], ...feed.high[i], ...feed.came[i], feed.threshold.bound].filter((v) => v !== null);
  const bottom = Math.max(0, Math.min(...all) * 0.9), top = Math.max(...all) * 1.05;
  const x = (t) => left + (t / (steps - 1)) * (width - left - 8);
  const y = (v) => 6 + (1 - (v - bottom) / (top - bottom || 1)) * (height - low - 8);
  const ahead_x = (k) => x(past.length + k);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  for (const share of [0, 0.5, 1]) {
    const value = bottom + share * (top - bottom);
    make("text", { x: 2, y: y(value) + 4 }, svg).textContent = Math.round(value);
  }
  make("line", { x1: x(past.length - 1), x2: x(past.length - 1), y1: 4, y2: height - low, class: "now" }, svg);
  make("text", { x: x(past.length - 1) - 10, y: height - 4 }, svg).textContent = "now";
  const minutes = Math.round(ahead * feed.step_minutes);
  make("text", { x: width - 8, y: height - 4, "text-anchor": "end" }, svg).textContent = minutes < 600 ? `+${minutes} min` : `+${minutes / 60} h`;
  const band = [...feed.high[i].map((v, k) => [ahead_x(k), y(v)]), ...feed.low[i].map((v, k) => [ahead_x(k), y(v)]).reverse()];
  make("polygon", { points: band.map((p) => p.join(",")).join(" "), class: "band" }, svg);
  const line = (points, name) => make("polyline", { points: points.map((p) => p.join(",")).join(" "), class: name }, svg);
  line(past.map((v, t) => (v === null ? null : [x(t), y(v)])).filter(Boolean), "past");
  line(feed.middle[i].map((v, k) => [ahead_x(k), y(v)]), "middle");
  make("line", { x1: left, x2: width - 8, y1: y(feed.threshold.bound), y2: y(feed.threshold.bound), class: "bound" }, svg);
  feed.came[i].forEach((v, k) => { if (v !== null) make("circle", { cx: ahead_x(k), cy: y(v), r: 2.2, class: "came" }, svg); });
}

function when(feed, i) {
  const minutes = feed.step[i] * feed.step_minutes;
  return minutes < 120 ? `in ${minutes} min` : `in ${Math.round(minutes / 60)} h`;
}

function drawList(feed) {
  const worst = feed.level.map((level, i) => ({ level, i })).filter((w) => w.level !== "none")
    .sort((a, b) => RANK[b.level] - RANK[a.level] || feed.step[a.i] - feed.step[b.i]);
  const many = (level) => worst.filter((w) => w.level === level).length;
  $("count").textContent = worst.length
    ? `${many("alarm")} alarms, ${many("warning")} warnings, ${many("watch")} to watch, of ${feed.channels.length} sensors (below ${feed.threshold.bound} ${feed.unit})`
    : `none: no sensor is forecast below ${feed.threshold.bound} ${feed.unit}`;
  const held = document.activeElement?.dataset?.sensor; // a keyboard's place outlives the new list
  $("list").replaceChildren(...worst.slice(0, 60).map(({ level, i }) => {
    const line = document.createElement("li");
    const item = document.createElement("button");
    item.type = "button";
    item.dataset.sensor = i;
    const name = document.createElement("b");
    name.className = level;
    name.textContent = level;
    item.append(name, ` sensor ${feed.channels[i]} ${when(feed, i)}: ${Math.min(...feed.middle[i])} ${feed.unit}`);
    item.addEventListener("click", () => { chosen = i; refresh(); });
    line.append(item);
    return line;
  }));
  if (held !== undefined) $("list").querySelector(`[data-sensor="${held}"]`)?.focus();
  return worst.length ? worst[0].i : 0;
}

async function refresh() {
  let state;
  try {
    const answer = await fetch("state");
    if (!answer.ok) throw new Error(answer.status);
    state = await answer.json();
  } catch (error) {
    $("trouble").textContent = `the city's program does not answer (${error.message})`;
    return;
  }
  pace = state.pace;
  $("pause").textContent = pace ? "Pause" : "Go on";
  const { traffic, air } = state.feeds;
  const failed = [traffic.failed, air.failed].filter(Boolean);
  $("trouble").textContent = failed.length ? `no new forecast: ${failed[0]}` : "";
  if (!traffic.channels || !air.channels) return;
  const mute = traffic.silent.filter(Boolean).length;
  $("moment").textContent = `roads at ${traffic.moment}, air at ${air.moment}` + (mute ? `, ${mute} of ${traffic.silent.length} sensors silent` : "");
  if (document.activeElement !== $("silent")) { // what another page, or a program, has set
    $("silent").value = Math.round((100 * mute) / traffic.silent.length);
    $("share").textContent = `${$("silent").value} %`;
  }
  const worst = drawList(traffic);
  const shown = chosen ?? worst;
  drawMap(state, traffic);
  $("h-sensor").textContent = `Sensor ${traffic.channels[shown]}` + (traffic.silent[shown] ? ": silent, forecast from its neighbours" : "");
  drawChart($("sensor"), traffic, shown);
  const level = air.level[0];
  const lacks = air.based_on.absent.length ? ` Without: ${air.based_on.absent.join(", ")}.` : "";
  $("sky").textContent = (level === "none" ? `The whole band stays below ${air.threshold.bound} ${air.unit}.` : `${level}: above ${air.threshold.bound} ${air.unit} ${when(air, 0)}.`) + lacks;
  drawChart($("air"), air, 0);
}

async function send(path, body) {
  await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  refresh();
}

$("silent").addEventListener("input", (event) => { $("share").textContent = `${event.target.value} %`; });
$("silent").addEventListener("change", (event) => send("silence", { share: Number(event.target.value) / 100 }));
$("pause").addEventListener("click", () => send("pace", { seconds: pace ? 0 : 1 }));
refresh();
setInterval(refresh, 1000);
