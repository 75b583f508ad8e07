"""Explanations in words, for the page and the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fuseline.explain.schema import Explanation, Quantity, WhatIf

MOST_NOTES = 6


def figure(of: Quantity, value: float) -> str:
    """The quantity as a person reads it."""
    return f"{100 * value:.1f} %" if of.kind == "probability" else f"{value:.4g}"


def change(of: Quantity, value: float) -> str:
    """A difference of the quantity."""
    return f"{100 * value:+.1f}" if of.kind == "probability" else f"{value:+.4g}"


def lean(share: float) -> tuple[float, float]:
    """Left edge and width of a bar, in percent of its place, that grows from the middle: to the right above 0. `share`:
    of the longest bar, -1 to 1."""
    width = 50 * min(1.0, abs(share))
    return (50.0 if share > 0 else 50 - width), width


def subject(of: Quantity) -> str:
    """What is explained, in words."""
    target = f" of {of.target}" if of.target else ""
    if of.kind == "probability":
        return f"the probability of {of.label}{target}"
    return f"the mean of the {of.steps} steps ahead{target}" if of.steps else f"the number answered{target}"


def unit(of: Quantity) -> str:
    """What shares and changes are measured in."""
    return "points of probability" if of.kind == "probability" else "units of the answer"


def standing(row: Explanation) -> list[str]:
    """What the model answers and how sure it is, beside the number that is explained: that it abstains, above all."""
    of, answer = row.of, row.answer
    if of is None:
        return []
    own = _own(of, answer)
    out = []
    if own.get("abstained"):
        out.append(f"not sure enough to answer; it leans to {short(own.get('suggestion'))}")
    elif of.kind != "probability" or own["value"] != of.label:
        out.append(f"answer {short(own['value'])}")
    if own.get("set") is not None:
        out.append(f"not ruled out: {', '.join(map(short, own['set']))}")
    if (span := own.get("interval")) is not None and not isinstance(span, Mapping):
        out.append(f"between {span[0]:.4g} and {span[1]:.4g}")
    if absent := answer.get("absent"):
        out.append(f"absent: {', '.join(absent)}")
    return out


def then(of: Quantity, one: WhatIf) -> str:
    """The answer of a what-if."""
    if one.suggestion is not None:
        return f"none; leans to {short(one.suggestion)}"
    value = one.value.get(of.target) if of.target and isinstance(one.value, Mapping) else one.value
    return short(value) if isinstance(value, (str, bool)) else ""


def failure(row: Explanation) -> str:
    """Why a row is not explained, and the column at fault."""
    error = row.error or {}
    column = error.get("column")
    return f"{column}: {error.get('message', '')}" if column else str(error.get("message", ""))


def remarks(row: Explanation) -> list[str]:
    """What the answer and the explanation note: inputs unlike the training rows, columns that are not read."""
    told = [*(row.answer.get("notes") or []), *row.notes]
    return told[:MOST_NOTES] + ([f"and {len(told) - MOST_NOTES} notes more"] if len(told) > MOST_NOTES else [])


def _own(of: Quantity, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Of several targets' answer the part that is explained."""
    value = answer["value"]
    if of.target is None or not isinstance(value, Mapping):
        return dict(answer)
    told = (answer.get("details") or {}).get(of.target)
    return {**(told if isinstance(told, Mapping) else {}), "value": value.get(of.target)}


def short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)[:120]
