"""The one error that users see. HTTP statuses and exit codes are mapped elsewhere, from `code`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class FuselineError(Exception):
    """What went wrong, where, and what to do about it.

    Args:
        code: stable machine-readable word, e.g. ``bad_cell``, ``missing_column``, ``bad_recipe``.
        message: one sentence for a person; names the thing at fault.
        hint: what to try next.
        row: 0-based row of the table the user gave (header not counted), where one is at fault.
        column: column at fault.
    """

    def __init__(
        self, code: str, message: str, hint: str = "", *, row: int | None = None, column: str | None = None
    ) -> None:
        super().__init__(code, message, hint)
        self.code, self.message, self.hint, self.row, self.column = code, message, hint, row, column

    def at(self, row: int | None) -> FuselineError:
        """The same error with its row filled in, if it had none (parsers know the column, callers the row)."""
        if self.row is None:
            self.row = row
        return self

    @property
    def place(self) -> str:
        parts = [f"row {self.row}"] if self.row is not None else []
        if self.column is not None:
            parts.append(f"column {self.column!r}")
        return ", ".join(parts)

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        return f"{text}\n  hint: {self.hint}" if self.hint else text

    def to_dict(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "row": self.row,
            "column": self.column,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FuselineError:
        return cls(data["code"], data["message"], data["hint"], row=data["row"], column=data["column"])


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name` (case-insensitive), or None where none is near."""
    known = list(known)
    folded = {k.casefold(): k for k in known}
    hit = difflib.get_close_matches(name.casefold(), list(folded), n=1, cutoff=0.6)
    return folded[hit[0]] if hit else None


def unknown_kind(what: str, kind: str, known: Iterable[str]) -> FuselineError:
    """The error every table of kinds raises for a kind that it does not hold."""
    known = sorted(known)
    near = closest(kind, known)
    hint = (f"did you mean {near!r}? " if near else "") + f"known: {', '.join(known)}"
    return FuselineError("unknown_kind", f"no {what} of kind {kind!r}", hint)
