"""From an answer to the one number that is explained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fuseline.errors import FuselineError, closest
from fuseline.explain.schema import Quantity
from fuseline.runtime import Answer
from fuseline.tasks import Task


def choose(task: Task, answer: Answer, of: str | None = None) -> Quantity:
    """What is explained of this answer.

    Args:
        task: the package's.
        answer: of the whole row.
        of: a class, a target, or TARGET=CLASS of a model of several tasks. Default: the answered (of several labels the
            most probable) class, the first target.

    Raises:
        FuselineError: ``cannot_explain`` where an answer is no number (texts, boxes, matches), or has no such class.
    """
    value = answer.value
    details = answer.details or {}
    if answer.probabilities:
        return Quantity(kind="probability", label=_label(answer.probabilities, of))
    if task.name == "forecast":
        series = value if isinstance(value, Mapping) else {"": value}
        target = _named(series, of)
        return Quantity(kind="number", target=target or None, steps=len(series[target]))
    if _is_number(task, value):
        if of is not None:
            raise _unknown(of, ())
        return Quantity(kind="number")
    if isinstance(value, Mapping):
        wanted, _, label = (of or "").partition("=")
        target = _named(value, wanted or None)
        told = details.get(target)
        chances = told.get("probabilities") if isinstance(told, Mapping) else None
        if isinstance(chances, Mapping):
            return Quantity(kind="probability", target=target, label=_label(chances, label or None))
        if _is_number(getattr(task, "tasks", {}).get(target, task), value[target]):
            return Quantity(kind="number", target=target)
    raise FuselineError(
        "cannot_explain",
        f"the answer of a {task.name} model is no probability and no number",
        "what can be explained: classification, regression, forecasts, and several of them",
    )


def _is_number(task: Task, value: Any) -> bool:
    """How near two sides are is none: with a side left out there is no such number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and task.name != "retrieval"


def read(quantity: Quantity, answer: Answer) -> float:
    """The quantity in an answer of the same model. Raises the answer's own error where it has one."""
    if answer.error is not None:
        raise answer.error
    found: Any = answer.value
    if quantity.kind == "probability":
        chances: Any = answer.probabilities
        if quantity.target is not None:
            chances = (answer.details or {})[quantity.target]["probabilities"]
        return float(chances[quantity.label])
    if quantity.target is not None:
        found = found[quantity.target]
    return float(np.mean(found)) if quantity.steps is not None else float(found)


def leaning(quantity: Quantity, answer: Answer) -> Any:
    """What a model that is not sure enough to answer leans to; None where it answers."""
    if quantity.target is None:
        return answer.suggestion
    told = (answer.details or {}).get(quantity.target)
    return told.get("suggestion") if isinstance(told, Mapping) else None


def _label(chances: Mapping[str, float], of: str | None) -> str:
    if of is None:
        return max(chances, key=chances.__getitem__)
    if of not in chances:
        raise _unknown(of, chances)
    return of


def _named(values: Mapping[str, Any], of: str | None) -> str:
    if of is None:
        return next(iter(values))
    if of not in values:
        raise _unknown(of, values)
    return of


def _unknown(of: str, known: Any) -> FuselineError:
    near = closest(of, known)
    hint = (f"did you mean {near!r}? " if near else "") + (f"there are: {', '.join(list(known)[:20])}" if known else "")
    return FuselineError("cannot_explain", f"the answer has no {of!r}", hint or "it is one number")
