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
        lines += [f"On {scores['rows']} {part} rows that training never saw:", "", "| metric | value | 95 % interval |"]
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
