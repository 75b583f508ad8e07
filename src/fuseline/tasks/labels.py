"""Class labels: their text form, their type, their order, and the cells they come from.

Two cells with the same text form are the same class, whatever their type: 1, 1.0 and "1"; true and "true". A class
keeps the type it was seen with in training (text where types differ): a table of numbers is answered with numbers.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fuseline.errors import FuselineError, closest

Label = bool | int | float | str

YES = frozenset({"1", "true", "yes", "y", "positive", "pos"})
"""text forms (case aside) that say which of two classes is the positive one"""


def text_of(label: Label) -> str:
    """The text form: true, 1 (also of 1.0), 0.5, or the text itself."""
    if isinstance(label, bool):
        return "true" if label else "false"
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label)


def answer_text(value: Label | list[Label]) -> str:
    """An answered label as text; several labels as a JSON list."""
    if isinstance(value, list):
        return json.dumps([text_of(v) for v in value], ensure_ascii=False)
    return text_of(value)


def amount_of(value: Any) -> float | None:
    """The one finite number that an answer is, for watching its drift: itself, of boxes how many, of a text its
    characters; else None."""
    if isinstance(value, str):
        return float(len(value))
    if isinstance(value, list) and all(isinstance(v, dict) and "box" in v for v in value):
        return float(len(value))
    return value if isinstance(value, float) and math.isfinite(value) else None


def parse_label(cell: Any, column: str) -> Label | None:
    """One label, or None for None, NaN and empty text. Raises FuselineError ``bad_cell``."""
    if isinstance(cell, np.generic):
        cell = cell.item()
    if cell is None or (isinstance(cell, float) and math.isnan(cell)) or cell == "":
        return None
    if not isinstance(cell, (bool, int, float, str)) or (isinstance(cell, float) and math.isinf(cell)):
        hint = (
            "several labels in a cell are `task.mode: multilabel`"
            if is_list(cell)
            else "a label is text, number or bool"
        )
        raise FuselineError("bad_cell", f"{str(cell)[:80]!r} is not a class label", hint, column=column)
    return cell


def is_list(cell: Any) -> bool:
    """Whether a cell is a list of labels, as Python, Arrow or JSON give it."""
    if isinstance(cell, str):
        return cell.lstrip().startswith("[") and cell.rstrip().endswith("]")
    return isinstance(cell, (list, tuple, set, frozenset, np.ndarray)) or hasattr(cell, "to_list")


def parse_labels(cell: Any, column: str, separator: str) -> list[Label] | None:
    """The labels of a multilabel cell: a list, a JSON list, or text joined by `separator`. None where absent.

    An empty list is a row that has none of the labels. Raises FuselineError ``bad_cell``.
    """
    if isinstance(cell, str) and is_list(cell):
        try:
            cell = json.loads(cell)
        except ValueError:
            hint = 'write ["a", "b"], or a;b with `task.separator`'
            raise FuselineError("bad_cell", f"{cell[:80]!r} is not a JSON list", hint, column=column) from None
    elif isinstance(cell, str):
        cell = [part.strip() for part in cell.split(separator) if part.strip()] if cell else None
    elif hasattr(cell, "to_list"):
        cell = cell.to_list()
    if not is_list(cell):
        one = parse_label(cell, column)
        return None if one is None else [one]
    found = []
    for item in sorted(cell, key=str) if isinstance(cell, (set, frozenset)) else cell:
        label = parse_label(item, column)
        if label is None:
            raise FuselineError("bad_cell", "a list of labels holds an empty one", "remove it", column=column)
        found.append(label)
    return found


def classes_of(labels: Iterable[Label]) -> tuple[list[Label], Counter[str]]:
    """The classes in order (numbers by size, else by text form) and how often each text form occurs."""
    counts: Counter[str] = Counter()
    values: dict[str, Label] = {}
    for label in labels:
        text = text_of(label)
        counts[text] += 1
        seen = values.setdefault(text, label)
        if type(seen) is not type(label):
            both_numbers = {type(seen), type(label)} == {int, float}
            values[text] = int(label) if both_numbers else text
    classes = list(values.values())
    if all(isinstance(c, (int, float)) and not isinstance(c, bool) for c in classes):
        classes.sort(key=lambda c: (float(c), text_of(c)))
    else:
        classes.sort(key=text_of)
    return classes, counts


def find(label: Label, index: dict[str, int], column: str) -> int:
    """The class number of a label. Raises FuselineError ``bad_cell`` for one that training never saw."""
    text = text_of(label)
    if text in index:
        return index[text]
    near = closest(text, index)
    known = ", ".join(list(index)[:10]) + (f" … ({len(index)} in all)" if len(index) > 10 else "")
    raise FuselineError(
        "bad_cell",
        f"label {text[:80]!r} is not among the classes of training: {known}",
        (f"did you mean {near!r}? " if near else "") + "else use a stratified split, or list all in `task.classes`",
        column=column,
    )


def positive_of(classes: Sequence[Label]) -> int:
    """Which of two classes is the positive one: the only one that says yes (see YES), else the second in order."""
    says = [text_of(c).casefold() in YES for c in classes]
    return 0 if says == [True, False] else 1
