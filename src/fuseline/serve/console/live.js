// What the server is doing, from GET /v1/status: asked every two seconds, and not while nobody looks.

import { call } from "./api.js";
import { LineChart } from "./charts.js";
import { el, milliseconds, name, number, percent } from "./dom.js";

const EVERY = 2000;
const SPAN = 600;
const STEP = 5; // seconds that a point of a series stands for
const LABELS = 6;
const NOTES = 3;
const SEVERITIES = ["critical", "page", "error", "warning", "ticket", "info"];

const list = (value) => (Array.isArray(value) ? value : []);

export class Live {
  /** @param seen called with each status, or with the Failure that came instead */
  constructor(host, seen) {
    this.seen = seen;
    this.model = null;
    this.status = null;
    this.timer = null;
    this.asking = false;
    this.charts = [
      new LineChart("Requests per second", [{ name: "requests", style: "a" }, { name: "errors", style: "b" }, { name: "refused", style: "c" }], rate),
      new LineChart("Latency, ms", [{ name: "p50", style: "a" }, { name: "p95", style: "c" }], milliseconds),
      new LineChart("Waiting rows", [{ name: "rows", style: "a" }], number),
    ];
    this.tiles = el("dl", { class: "tiles" });
    this.alerts = el("section", { class: "block" });
    this.answers = el("section", { class: "block" });
    this.drift = el("section", { class: "block wide" });
    host.replaceChildren(this.tiles, this.alerts, el("div", { class: "charts" }, this.charts.map((c) => c.node)),
      el("div", { class: "blocks" }, this.drift, this.answers));
    document.addEventListener("visibilitychange", () => (document.hidden ? this.pause() : this.ask()));
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = null;
  }

  /** Asks now, and then again and again while the page is seen. */
  async ask() {
    this.pause();
    if (document.hidden || this.asking) return;
    this.asking = true;
    let wait = EVERY;
    try {
      this.status = (await call("v1/status", { signal: AbortSignal.timeout(10000) })) ?? {};
      this.draw();
      this.seen(this.status);
    } catch (failure) {
      wait = failure.status === 401 ? 0 : Math.max(EVERY, 1000 * (failure.retryAfter ?? 0));
      this.seen(failure);
    } finally {
      this.asking = false;
    }
    if (wait && !document.hidden) this.timer = setTimeout(() => this.ask(), wait);
  }

  show(model) {
    this.model = model;
    if (this.status) this.draw();
  }

  draw() {
    if (!this.model) return;
    const observers = this.status.observers ?? {};
    const gauge = list(this.status.gauges).find((g) => g.model === this.model);
    const metrics = observers.metrics?.models?.[this.model];
    this.drawTiles(gauge, metrics?.totals);
    this.drawCharts(list(metrics?.series), gauge);
    this.drawAlerts(observers.alerts);
    this.drawDrift(observers.drift, observers.drift?.models?.[this.model]);
    this.drawAnswers(metrics?.answers);
  }

  drawTiles(gauge, totals) {
    const tile = (word, value, kind = "") => el("div", { class: `tile ${kind}` }, el("dt", {}, word), el("dd", {}, value));
    const errors = totals?.requests ? totals.errors / totals.requests : 0;
    this.tiles.replaceChildren(
      tile("model", gauge ? (gauge.ready ? "ready" : "not ready") : "–", gauge && !gauge.ready ? "bad" : ""),
      tile("waiting rows", gauge ? `${number(gauge.waiting_rows)} of ${number(gauge.limit_rows)}` : "–"),
      tile("workers", gauge ? number(gauge.workers) : "–"),
      tile("restarts", gauge ? number(gauge.restarts) : "–", gauge?.restarts ? "warn" : ""),
      tile("requests", number(totals?.requests)),
      tile("rows", number(totals?.rows)),
      tile("errors", totals ? `${number(totals.errors)} (${percent(errors)})` : "–", errors > 0.01 ? "warn" : ""));
  }

  drawCharts(series, gauge) {
    const good = series.filter((p) => Array.isArray(p) && typeof p[0] === "number");
    const newest = good.at(-1)?.[0] ?? 0;
    // The server's clock where it may be trusted to be newer than ours; a series that ended long ago stays in the past.
    const now = Math.max(newest, Date.now() / 1000 - newest < SPAN ? Date.now() / 1000 : newest);
    const recent = good.filter((p) => p[0] >= now - SPAN);
    const window = { now, span: SPAN };
    const [traffic, latency, waiting] = this.charts;
    traffic.update(recent.map(([t, requests, errors, refused]) => [t, requests / STEP, errors / STEP, refused / STEP]), window);
    latency.update(recent.map(([t, , , , p50, p95]) => [t, p50, p95]), window);
    waiting.update(recent.map((p) => [p[0], p[6]]), { ...window, limit: gauge?.limit_rows ?? null });
  }

  drawAlerts(observer) {
    const rank = (alert) => (SEVERITIES.indexOf(alert.severity) + SEVERITIES.length + 1) % (SEVERITIES.length + 1);
    const firing = [...list(observer?.alerts)].sort((a, b) => rank(a) - rank(b));
    const items = firing.map((alert) => el("li", { class: "alert", "data-severity": SEVERITIES.includes(alert.severity) ? alert.severity : "info" },
      name(alert.severity, { class: "severity" }),
      el("div", {}, el("strong", {}, name(alert.name)), " ", el("span", { class: "note" }, name(alert.model || ""), since(alert.since)),
        el("p", {}, name(alert.summary ?? "")))));
    this.alerts.replaceChildren(el("h3", {}, firing.length ? `Alerts (${firing.length})` : "Alerts"),
      items.length ? el("ul", { class: "alerts" }, items) : el("p", { class: "note" }, observer ? "None is firing." : "Not watched by this server."));
  }

  drawDrift(observer, model) {
    const head = el("h3", {}, "Drift against the training table");
    const features = list(model?.features);
    if (!features.length) {
      const why = !observer ? "Not watched by this server." : "Not enough rows yet, or the package has no profile.";
      this.drift.replaceChildren(head, el("p", { class: "note" }, why));
      return;
    }
    const most = (f) => (f.threshold > 0 ? f.score / f.threshold : 0);
    const rows = [...features].sort((a, b) => Number(b.alarm) - Number(a.alarm) || most(b) - most(a)).map((f) => {
      const fill = el("i", { class: f.alarm ? "alarm" : "" });
      fill.style.width = `${Math.max(0, Math.min(100, 50 * most(f)))}%`;
      return el("tr", { class: f.alarm ? "alarm" : "" },
        el("th", { scope: "row" }, name(f.feature), " ", el("small", {}, name(f.test)),
          f.alarm && f.words ? el("p", { class: "note" }, name(f.words)) : null),
        el("td", { class: "figure" }, brief(f.score)), el("td", { class: "figure" }, brief(f.threshold)),
        el("td", { class: "ratio" }, el("span", { class: "bar half", "aria-hidden": "true" }, fill)), el("td", {}, f.alarm ? "drift" : "ok"));
    });
    const columns = ["feature and test", "score", "threshold"].map((word) => el("th", { scope: "col" }, word));
    this.drift.replaceChildren(head,
      el("p", { class: "note" }, `${number(model.rows)} rows, checked${since(model.checked)}: `,
        el("strong", { class: model.alarm ? "alarm" : "" }, model.alarm ? "drift" : "no drift"), " (after correction for many tests)"),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "drift of the worst features" },
        el("table", {}, el("thead", {}, el("tr", {}, columns, el("th", { scope: "col", class: "ratio" }, "of threshold"), el("th", { scope: "col" }, "state"))),
          el("tbody", {}, rows))),
      ...list(model.notes).slice(0, NOTES).map((note) => el("p", { class: "note" }, name(note))));
  }

  drawAnswers(answers) {
    const counts = Object.entries(answers ?? {}).filter(([, n]) => typeof n === "number").sort((a, b) => b[1] - a[1]);
    const total = counts.reduce((sum, [, n]) => sum + n, 0);
    const rest = counts.slice(LABELS).reduce((sum, [, n]) => sum + n, 0);
    const shown = [...counts.slice(0, LABELS), ...(rest ? [[`${counts.length - LABELS} more`, rest]] : [])];
    const items = shown.map(([label, n]) => {
      const fill = el("i");
      fill.style.width = `${(100 * n) / total}%`;
      return el("li", {}, name(label, { class: "bar-label" }), el("span", { class: "bar", "aria-hidden": "true" }, fill),
        el("span", { class: "figure" }, percent(n / total)));
    });
    this.answers.replaceChildren(el("h3", {}, "Answers so far"),
      items.length ? el("ol", { class: "bars" }, items) : el("p", { class: "note" }, "None yet."));
  }
}

const brief = (value) => number(typeof value === "number" ? Number(value.toPrecision(3)) : value);

function rate(value) {
  return value >= 100 ? number(Math.round(value)) : String(Math.round(10 * value) / 10);
}

function since(iso) {
  const seconds = (Date.now() - Date.parse(iso)) / 1000;
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 60) return " just now";
  if (seconds < 5400) return ` ${Math.round(seconds / 60)} min ago`;
  return seconds < 129600 ? ` ${Math.round(seconds / 3600)} h ago` : ` ${Math.round(seconds / 86400)} days ago`;
}
