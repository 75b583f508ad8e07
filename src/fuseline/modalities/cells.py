"""What the modalities share: which cells are absent, how a bad one is named, and arrays that carry facts."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any, cast

import numpy as np

from fuseline.errors import FuselineError


def is_absent(cell: Any) -> bool:
    """None, NaN, NaT, a string of white space only, or a Hugging Face ``{"bytes": None, "path": None}``."""
    if cell is None:
        return True
    if isinstance(cell, str):
        return not cell or cell.isspace()
    if isinstance(cell, dict):
        return bool(cell) and set(cell) <= {"bytes", "path"} and all(v is None for v in cell.values())
    # NaN and NaT are the values that differ from themselves; arrays are left to the parsers, which refuse them.
    return isinstance(cell, (float, np.generic, datetime.datetime)) and bool(cell != cell)


def shorten(cell: Any, limit: int = 60) -> str:
    """A cell as a person may read it in an error: printable, at most `limit` characters of it."""
    if isinstance(cell, (bytes, bytearray, memoryview)):
        return f"{len(cell)} bytes"
    try:
        text = cell[: limit + 1] if isinstance(cell, str) else repr(cell)[: limit + 1]
    except ValueError:  # Python turns no integer of thousands of digits to text
        return f"a {type(cell).__name__} of thousands of digits"
    text = "".join(c if c.isprintable() else "�" for c in text)
    text = text[:limit] + "…" if len(text) > limit else text
    return repr(text) if isinstance(cell, str) else text


def bad_cell(column: str, message: str, hint: str = "") -> FuselineError:
    return FuselineError("bad_cell", message, hint, column=column)


def only_column(columns: Any) -> str:
    """The one column of a modality that reads one. The recipe has checked that there is one."""
    (column,) = columns
    return str(column)


def sha256(array: np.ndarray) -> bytes:
    """Hash of an array's content: dtype, shape and elements."""
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).digest()


class Noted(np.ndarray):
    """An array with a few facts about where it came from (a picture's own width, whether a sound was cut).

    The facts are for the profile, and for arrays that say of themselves that they hold them (a picture's `sides`). They
    survive copies, slices and pickling; where they were lost (``np.save``), `facts` is empty.
    """

    facts: dict[str, float]

    def __array_finalize__(self, source: Any) -> None:
        self.facts = getattr(source, "facts", {})

    def __reduce__(self) -> Any:
        make, arguments, state = cast(tuple[Any, Any, Any], super().__reduce__())
        return make, arguments, (state, self.facts)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.facts = state[1]


def noted(array: np.ndarray, **facts: float) -> Noted:
    out = array.view(Noted)
    out.facts = facts
    return out
