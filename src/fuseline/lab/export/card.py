"""The model card: what was measured, in words (Mitchell et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def model_card(name: str, run: Mapping[str, Any], metrics: Mapping[str, Any], parity: Mapping[str, Any]) -> str:
    part = "test" if "test" in metrics.get("parts", {}) else "val"
    scores = metrics.get("parts", {}).get(part)
    lines = [f"# {name}", "", f"A fused {metrics.get('task', '')} model written by fuseline.", "", "## Reads", ""]
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
    lines += [
        "",
        "## Verified",
        "",
        f"Replayed on {parity['rows']} real rows without torch: largest difference "
        f"{parity['max_abs_difference']:.2g} (allowed {parity['tolerance']:g}).",
        "",
        "## Limits",
        "",
        "The figures hold for rows like those measured. Rows from another source may do worse; compare against "
        "`profile.json` before trusting it there.",
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


def compressed_card(
    name: str,
    chosen: Mapping[str, Any],
    final: Mapping[str, Any],
    metric: str,
    parent: Mapping[str, Any],
    before: str,
) -> str:
    """The card of a compressed model: what was done and what it cost, then the inputs as its parent's card says them.

    `final`: as compress.json holds it. `before`: the parent's card, whose figures are not this model's.
    """
    worse = final["drop"]
    span = "" if worse["low"] is None else f" (95 %: {worse['low']:.2f} to {worse['high']:.2f})"
    latency = final["latency"]
    lines = [
        f"# {name}, compressed",
        "",
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
    inputs = before.split("## Measured")[0].split("## Reads")
    return "\n".join([*lines, "", "## Reads", inputs[-1].strip(), ""]) if len(inputs) > 1 else "\n".join([*lines, ""])


def _number(value: float | None, digits: int = 4) -> str:
    return "not defined" if value is None or value != value else f"{value:.{digits}f}"
