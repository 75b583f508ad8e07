"""The model card: what was measured, in words (Mitchell et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOTICE = "> **Notice.** "


def model_card(
    name: str,
    run: Mapping[str, Any],
    metrics: Mapping[str, Any],
    parity: Mapping[str, Any],
    notice: str | None = None,
) -> str:
    """Markdown. `notice`: the recipe's own words."""
    part = "test" if "test" in metrics.get("parts", {}) else "val"
    scores = metrics.get("parts", {}).get(part)
    lines = [f"# {name}", ""]
    if notice:
        lines += [NOTICE + " ".join(notice.split()), ""]
    lines += [f"A fused {metrics.get('task', '')} model written by fuseline.", "", "## Reads", ""]
    for item in run["inputs"]:
        lines.append(
            f"- `{item['name']}` ({item['modality']}: {', '.join(item['columns'])}), encoder {item['encoder']}, "
            f"{item['tune']}"
        )
    lines += ["", "Any of them may be absent in a row; the answer names what it used.", "", "## Measured", ""]
    if scores:
        lines += [_measured(metrics, scores["rows"], part), "", "| metric | value | 95 % interval |"]
        lines += ["|---|---|---|"]
        for key, m in scores["metrics"].items():
            if m["value"] is not None:
                span = "" if m.get("low") is None else f"{m['low']:.3f} to {m['high']:.3f}"
                lines.append(f"| {key} | {m['value']:.4f} | {span} |")
        lines += ["", "### When inputs are absent", "", f"| present | rows | {metrics['metric']} |", "|---|---|---|"]
        for entry in metrics.get("degradation", ()):
            m = entry["metrics"].get(metrics["metric"], {})
            value = "" if m.get("value") is None else f"{m['value']:.4f}"
            lines.append(f"| {', '.join(entry['present'])} | {entry['rows']} | {value} |")
    lines += sure_lines(metrics) + slice_lines(metrics)
    lines += [
        "",
        "## Verified",
        "",
        f"Replayed on {parity['rows']} real rows without torch: largest difference "
        f"{parity['max_abs_difference']:.2g} (allowed {parity['tolerance']:g}).",
        "",
        "## Limits",
        "",
        *limits(run, metrics),
        "",
        "What the table was is in `datasheet.md`.",
        "",
    ]
    return "\n".join(lines)


def _measured(metrics: Mapping[str, Any], rows: int, part: str) -> str:
    members = metrics.get("ensemble", {}).get("members")
    if members is None:
        return f"On {rows} {part} rows that training never saw:"
    return (
        f"Out of fold: each of {rows} rows was answered by the one of the {members} members that was not trained on "
        f"it. This model answers by the mean of all {members}, which was not measured: no row of the table is new to "
        "all of them."
    )


def sure_lines(metrics: Mapping[str, Any]) -> list[str]:
    """What is promised, and whether it held on the test rows."""
    lines: list[str] = []
    for name, own in metrics.get("sure", {}).get("tasks", {}).items():
        lines += ["", f"## How sure{f': {name}' if name else ''}", ""]
        told = own.get("calibration", {})
        if told.get("method", "none") != "none":
            before, after = (told[when]["ece"] for when in ("before", "after"))
            lines.append(
                f"- chances calibrated by {told['method']}: ECE {_number(before)} before, {_number(after)} after"
            )
        groups = own.get("conformal", [])
        if groups:
            fit = f"{100 * own['coverage']:g} %"
            lines.append(
                f"- sets or intervals state {fit}; they held the truth in {_share(groups[0]['coverage'])} of the rows"
            )
            for group in groups:
                if group["verdict"] == "below":
                    lines.append(f"- they fall short for rows of {_words(group)}: {_share(group['coverage'])}")
            few = [g for g in groups if g["verdict"] == "too few rows"]
            if few:
                lines.append(f"- {len(few)} of {len(groups)} groups of rows had too few rows to tell")
        risk = own.get("selective", {}).get("risk")
        if risk and risk.get("1") is not None:
            lines.append(f"- wrong: {_share(risk['1'])} of all answers, {_share(risk['0.8'])} of the surest 80 %")
        if "abstain" in own.get("selective", {}):
            first = own["selective"]["abstain"]["checked"][0]
            said = (
                f"{_share(first['answered'])} of the rows are answered, {_share(first['error'])} of these wrongly"
                if first["answered"]
                else "**it answered none of the test rows**; each gets what it leans to, for a person to check"
            )
            lines.append(
                f"- it abstains where more than {_share(own['selective']['abstain']['error'])} of the answers would "
                f"be wrong: {said}"
            )
    return lines


def slice_lines(metrics: Mapping[str, Any]) -> list[str]:
    """The metric by groups of rows."""
    found = metrics.get("slices")
    if not found:
        return []
    metric = found["metric"]
    lines = ["", "## Group by group", "", f"| group | rows | {metric} | 95 % interval |", "|---|---|---|---|"]
    for column, groups in found["columns"].items():
        for g in groups:
            m = g["metrics"].get(metric, {})
            span = "" if m.get("low") is None else f"{m['low']:.3f} to {m['high']:.3f}"
            name = _cell(f"{column}: {g['group']}")
            lines.append(f"| {name} | {g['rows']} | {_value(g, m)} | {span} |")
    return lines


def limits(run: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[str]:
    """What the measurements say against trusting it, one sentence each."""
    lines = [
        "- The figures hold for rows like those measured. Rows from another source may do worse; compare against "
        "`profile.json` (`fuseline drift`) before trusting it there."
    ]
    entries = [
        e
        for e in metrics.get("degradation", ())
        if e["metrics"].get(metrics.get("metric"), {}).get("value") is not None
    ]
    if len(entries) > 1:
        metric = metrics["metric"]
        higher = entries[0]["metrics"][metric].get("higher_is_better", True)
        worst = (min if higher else max)(entries[1:], key=lambda e: e["metrics"][metric]["value"])
        lines.append(
            f"- With {', '.join(worst['present'])} alone, {metric} is {_number(worst['metrics'][metric]['value'])} "
            f"instead of {_number(entries[0]['metrics'][metric]['value'])}."
        )
    found = metrics.get("slices") or {}
    if worst := found.get("worst"):
        lines.append(
            f"- It does worst for {_cell(worst['column'])}: {_cell(worst['group'])} ({found['metric']} "
            f"{_number(worst['value'])}, all others {_number(worst['others'])}"
            + ("" if worst["clear"] else "; chance may explain it")
            + ")."
        )
    if not found:
        lines.append("- Whether it does worse for some groups of rows was not measured (`evaluation.slices`).")
    if "sure" not in metrics:
        lines.append("- Its chances were not calibrated and promise nothing (docs/how-sure.md).")
    elif metrics["sure"].get("about", {}).get("ordered"):
        lines.append(
            "- What it promises assumes that new rows are like the held-out ones; its rows are ordered in time."
        )
    if not run.get("parts", {}).get("test"):
        lines.append("- There were no test rows: the figures are of rows that also chose the model.")
    return lines


def _words(group: Mapping[str, Any]) -> str:
    if group["by"]:
        return ", ".join(map(_cell, group["by"]))
    if group["present"] is None:
        return "all kinds, as they come"
    return (", ".join(group["present"]) or "no input") + (" alone" if group["kind"] == "shown" else ", as they come")


def _value(group: Mapping[str, Any], metric: Mapping[str, Any]) -> str:
    return "too few rows" if group["few"] else _number(metric.get("value"))


def _share(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f} %"


def _cell(text: str) -> str:
    """A table's own text inside a line of Markdown."""
    return (
        "".join(c if c.isprintable() else " " for c in text)[:80].replace("|", "/").replace("<", "‹").replace("`", "'")
    )


def compressed_card(
    name: str,
    chosen: Mapping[str, Any],
    final: Mapping[str, Any],
    metric: str,
    parent: Mapping[str, Any],
    before: str,
    metrics: Mapping[str, Any] | None = None,
) -> str:
    """The card of a compressed model: what was done and what it cost, then the inputs as its parent's card says them.

    `final`: as compress.json holds it. `before`: the parent's card, whose figures are not this model's. `metrics`: this
    model's own.
    """
    worse = final["drop"]
    span = "" if worse["low"] is None else f" (95 %: {worse['low']:.2f} to {worse['high']:.2f})"
    latency = final["latency"]
    lines = [
        f"# {name}, compressed",
        "",
        *(part for line in before.splitlines() if line.startswith(NOTICE) for part in (line, "")),
        f"Made from {parent.get('name', name)}, version {parent.get('version', 'unknown')}: {chosen['words']}.",
        "",
        f"- size: {chosen['size_bytes'] / 1e6:.1f} MB",
        f"- one decoded row: {latency['chosen']['1']['median']:.1f} ms, "
        f"before: {latency['base']['1']['median']:.1f} ms, measured side by side",
        f"- {metric} on {final['rows']} {final['of'] or 'validation'} rows: {_number(final['score'])}, "
        f"{_number(worse['value'], 2)} points less than before{span}",
        "",
        "### When inputs are absent",
        "",
        f"| present | rows | {metric} | before | drop |",
        "|---|---|---|---|---|",
    ]
    for entry in final["subsets"]:
        lines.append(
            f"| {', '.join(entry['present'])} | {entry['rows']} | {_number(entry['score'])} | {_number(entry['base'])} "
            f"| {_number(entry['drop']['value'], 2)} |"
        )
    lines += sure_lines(metrics or {}) + slice_lines(metrics or {})
    lines += ["", "## Limits", ""]
    if not (metrics or {}).get("slices"):
        lines.append("- How it does for groups of rows was not measured after compression.")
    if "sure" not in (metrics or {}):
        lines.append("- Its chances were not calibrated and promise nothing (docs/how-sure.md).")
    lines.append("- The figures hold for rows like those measured. Rows from another source may do worse.")
    inputs = before.split("## Measured")[0].split("## Reads")
    return "\n".join([*lines, "", "## Reads", inputs[-1].strip(), ""]) if len(inputs) > 1 else "\n".join([*lines, ""])


def _number(value: float | None, digits: int = 4) -> str:
    return "not defined" if value is None or value != value else f"{value:.{digits}f}"
