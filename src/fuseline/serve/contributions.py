"""What each input contributed to an answer, by asking the model again with inputs left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fuseline.errors import FuselineError
from fuseline.explain.shapley import shapley, subsets
from fuseline.runtime import Answer
from fuseline.serve.calls import ModelInfo, Row
from fuseline.serve.engine import Engine
from fuseline.serve.scorer import Scored

MOST_INPUTS = 8
EXPLAINED = ("binary", "multiclass", "number")
"""modes of a task whose answer is one number a row"""


def check(info: ModelInfo, cost: int, most: int) -> None:
    """Raises FuselineError ``too_large`` where the subsets are more rows than one request may have."""
    if len(info.inputs) > MOST_INPUTS or cost > most:
        raise FuselineError(
            "too_large",
            f"contributions would run {cost} rows, at most {most} are taken",
            "ask for fewer rows at once, or without contributions",
        )


async def compute(
    engine: Engine, info: ModelInfo, rows: Sequence[Row], scored: Scored, deadline: float
) -> tuple[dict[str, Any] | None, ...]:
    """For each row {"class", "base", "inputs": {input: share}} in units of the answer's probability (or number), or
    None where the row has no answer. `base`: the output when every input is absent."""
    asked: list[Row] = []
    places: list[tuple[int, frozenset[str]]] = []
    columns = {name: [c.name for c in info.columns if c.input == name] for name in info.inputs}
    for i, (row, answer) in enumerate(zip(rows, scored.answers, strict=True)):
        if answer.error is None:
            for subset in subsets(answer.used)[:-1]:  # the whole row is answered already
                kept = {c for name in subset for c in columns[name]}
                asked.append({c: cell for c, cell in row.items() if c in kept})
                places.append((i, subset))
    key = (info.name, info.version)
    more = await engine.score(key, asked, deadline=deadline, seen=False) if asked else Scored([])
    outputs: dict[int, dict[frozenset[str], float]] = {}
    for (i, subset), answer in zip(places, more.answers, strict=True):
        outputs.setdefault(i, {})[subset] = _output(answer, scored.answers[i])
    out: list[dict[str, Any] | None] = []
    for i, answer in enumerate(scored.answers):
        if answer.error is not None or info.mode not in EXPLAINED:
            out.append(None)
            continue
        values = outputs.get(i, {}) | {frozenset(answer.used): _output(answer, answer)}
        shares = shapley(answer.used, values)
        out.append({"class": _label(answer), "base": values[frozenset()], "inputs": shares})
    return tuple(out)


def _label(answer: Answer) -> str | None:
    """The name of the most probable class; None for a number."""
    return None if answer.probabilities is None else max(answer.probabilities, key=answer.probabilities.__getitem__)


def _output(answer: Answer, of: Answer) -> float:
    """What is explained: the probability of the class that `of` names, or the number."""
    if answer.error is not None:
        raise answer.error
    label = _label(of)
    if label is None:
        return float(answer.value)
    assert answer.probabilities is not None
    return float(answer.probabilities[label])
