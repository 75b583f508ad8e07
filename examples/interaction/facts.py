"""What is known: a small graph of triples, customer to order to state, looked up when a turn comes.

The reply's model is told the state of the order alone; the slots of what it writes are filled from here. The graph is
no column of the model: an order that changes today needs no training, only another triple.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from examples.interaction.words import ITEMS, STATES
from fuseline.errors import FuselineError

NAMES = ("Ada", "Boris", "Chloe", "Dmitri", "Esra", "Farid", "Grete", "Hana", "Imani", "Jonas", "Keiko", "Luis")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
HEADER = ("head", "relation", "tail")


def make(path: Path, seed: int = 0) -> None:
    """Twelve customers; each but the last has an order."""
    rng = np.random.default_rng([seed, 4])
    rows: list[tuple[str, str, str]] = []
    for number, name in enumerate(NAMES):
        customer, order = f"customer-{number + 1}", f"order-{101 + number}"
        rows.append((customer, "is called", name))
        if number == len(NAMES) - 1:
            continue
        rows.append((customer, "placed", order))
        rows.append((order, "is of", ITEMS[number % len(ITEMS)]))
        rows.append((order, "is", STATES[1 + number % 4]))
        rows.append((order, "arrives on", DAYS[int(rng.integers(len(DAYS)))]))
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=HEADER, orient="row").write_csv(path)


class Facts:
    """The triples in memory."""

    def __init__(self, triples: list[tuple[str, str, str]]) -> None:
        self.triples = triples

    @classmethod
    def read(cls, path: Path) -> Facts:
        """Raises FuselineError ``no_such_file``, ``bad_table``."""
        if not path.is_file():
            raise FuselineError("no_such_file", f"there is no {path}", "delete data.json to have it made again")
        table = pl.read_csv(path, infer_schema=False)
        if tuple(table.columns) != HEADER:
            raise FuselineError("bad_table", f"{path} has the columns {table.columns}", f"they should be {HEADER}")
        return cls([(h, r, t) for h, r, t in table.drop_nulls().iter_rows()])

    def customers(self) -> list[dict[str, str]]:
        return [{"id": h, "name": t} for h, r, t in self.triples if r == "is called"]

    def about(self, customer: str | None) -> tuple[dict[str, str], list[list[str]]]:
        """Slots (`state` among them; "none" without an order) and the triples that they came from.

        Raises FuselineError ``bad_request`` for a customer whom the graph does not know, and for an order in a state
        that no reply was learned for.
        """
        if customer is None:
            return {"state": "none"}, []
        if not any(h == customer and r == "is called" for h, r, _ in self.triples):
            raise FuselineError("bad_request", f"the records know no customer {customer[:60]!r}", "see /state")
        used = [[h, r, t] for h, r, t in self.triples if h == customer]
        orders = [t for _, r, t in used if r == "placed"]
        slots = {"name": next(t for _, r, t in used if r == "is called"), "state": "none"}
        if orders:
            of = [[h, r, t] for h, r, t in self.triples if h == orders[-1]]  # the latest
            keys = {"is of": "item", "is": "state", "arrives on": "day"}
            slots |= {keys[r]: t for _, r, t in of if r in keys}
            used += of
        if slots["state"] not in STATES:
            hint = f"known: {', '.join(STATES[1:])}"
            raise FuselineError("bad_request", f"the records have a state {slots['state'][:60]!r}", hint)
        return slots, used


class Filler:
    """Fills the slots of a text that comes in pieces; a slot may lie across several."""

    LONGEST = 12

    def __init__(self, slots: dict[str, str]) -> None:
        self.slots = slots
        self.held = ""
        self.unknown: list[str] = []

    def add(self, piece: str) -> str:
        """What can be shown by now."""
        text, out = self.held + piece, ""
        while (at := text.find("{")) >= 0:
            out, text = out + text[:at], text[at:]
            end = text.find("}")
            if end < 0 and len(text) <= self.LONGEST:
                self.held = text
                return out
            if end < 0 or end > self.LONGEST:  # no slot: the decoder strayed
                out, text = out + self._missing(text[1 : self.LONGEST]), text[1:]
                continue
            name = text[1:end]
            out, text = out + (self.slots.get(name) or self._missing(name)), text[end + 1 :]
        self.held = ""
        return out + text

    def end(self) -> str:
        rest, self.held = self.held, ""
        return self._missing(rest[1:]) if rest else ""

    def _missing(self, name: str) -> str:
        self.unknown.append(name)
        return "…"
