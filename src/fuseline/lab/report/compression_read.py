"""compress.json, read: what a search over smaller models measured. Whatever is absent or no number becomes None."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fuseline.errors import FuselineError
from fuseline.lab.report.read import Estimate, listing, mapping, number
from fuseline.lab.report.words import clean
from fuseline.tasks.paired import in_units

FILE = "compress.json"
BASE = "base"
"""the key of the float model's own trial"""
HUGE = 1e9
"""milliseconds, megabytes and points beyond it are broken figures, and would break a plot's scale"""


def bounded(value: Any) -> float | None:
    found = number(value)
    return found if found is not None and abs(found) < HUGE else None


def read_estimate(name: str, item: Any, keys: tuple[str, str, str] = ("value", "low", "high")) -> Estimate:
    found = mapping(item) if isinstance(item, dict) else {keys[0]: item}
    value, low, high = (bounded(found.get(k)) for k in keys)
    return Estimate(name, value, low, high)


@dataclass(frozen=True)
class Subset:
    """Scores where only `present` may be seen; empty: the rows as they are."""

    present: tuple[str, ...]
    rows: float | None
    base: float | None
    score: float | None
    drop: Estimate

    @classmethod
    def read(cls, item: Any) -> Subset:
        found = mapping(item)
        names = tuple(str(n) for n in listing(found.get("present")))
        rows, base, score = (number(found.get(k)) for k in ("rows", "base", "score"))
        return cls(names, rows, base, score, read_estimate("drop", found.get("drop")))


@dataclass(frozen=True)
class Trial:
    """One measured candidate. `latency`: rows a call -> median and quartiles, ms. `drop`: points, see `Search.unit`."""

    key: str
    words: str
    candidate: dict[str, Any]
    size: float | None
    latency: dict[int, Estimate]
    speedup: dict[int, float]
    """rows a call -> times the float model's speed, of runs taken in turns"""
    score: float | None
    drop: Estimate
    subsets: list[Subset]
    same: float | None
    change: float | None
    feasible: bool
    why_not: list[str]
    seconds: dict[str, float]
    notes: list[str]
    failed: str | None

    @classmethod
    def read(cls, item: Any) -> Trial:
        found = mapping(item)
        latency = _latency(found.get("latency"))
        sped = {k: s for k, v in _by_rows(found.get("speedup")).items() if (s := bounded(v)) and s > 0}
        if not sped and latency and (one := bounded(found.get("speedup"))):
            sped = {min(latency): one}
        spent = {k: s for k, v in mapping(found.get("seconds")).items() if (s := number(v)) is not None}
        key = str(found.get("key") or "")
        size = bounded((number(found.get("size_bytes")) or 0) / 1e6)
        return cls(
            key=key,
            words=str(found.get("words") or key or "no name"),
            candidate=mapping(found.get("candidate")),
            size=size * 1e6 if size and size >= 1e-6 else None,
            latency=latency,
            speedup=sped,
            score=number(found.get("score")),
            drop=read_estimate("drop", found.get("drop")),
            subsets=[Subset.read(s) for s in listing(found.get("subsets"))],
            same=number(found.get("same_answer")),
            change=number(found.get("change")),
            feasible=found.get("feasible") is True,
            why_not=[str(w) for w in listing(found.get("why_not"))],
            seconds=spent,
            notes=[str(n) for n in listing(found.get("notes"))],
            failed=str(found["failed"]) if found.get("failed") else None,
        )

    def median(self, rows: int | None) -> float | None:
        """Milliseconds of a call of that many rows."""
        found = self.latency.get(rows) if rows is not None else None
        return found.value if found and found.value and found.value > 0 else None


def _latency(item: Any) -> dict[int, Estimate]:
    return {k: read_estimate("latency", v, ("median", "low", "high")) for k, v in sorted(_by_rows(item).items())}


def _by_rows(item: Any) -> dict[int, Any]:
    return {int(k): v for k, v in mapping(item).items() if k.isascii() and k.isdigit() and len(k) < 7}


@dataclass(frozen=True)
class Effect:
    """What one action on one part does, all else left whole."""

    part: str
    action: str
    change: float | None
    drop: float | None
    saved: float | None
    """MB"""
    share: float | None
    """of the base's time"""

    @classmethod
    def read(cls, item: Any) -> Effect:
        found = mapping(item)
        change, drop, saved, share = (bounded(found.get(k)) for k in ("change", "drop", "size_mb", "share_of_time"))
        change = change if change is None or change >= 0 else None
        return cls(str(found.get("part") or ""), str(found.get("action") or ""), change, drop, saved, share)


@dataclass(frozen=True)
class Final:
    """The float and the chosen model side by side once more; on rows that the search never saw if `of` names any."""

    rows: float | None
    of: str
    whole: Subset
    subsets: list[Subset]
    latency: tuple[dict[int, Estimate], dict[int, Estimate]]
    """of the float and of the chosen model, timed in turns"""

    @classmethod
    def read(cls, item: Any) -> Final | None:
        found = mapping(item)
        own = found.get("chosen", found)
        subsets = [Subset.read(s) for s in listing(own.get("subsets") if isinstance(own, dict) else own)]
        full = max(subsets, key=lambda s: len(s.present), default=None)
        whole = Subset.read(own) if mapping(own).get("drop") is not None else full
        if whole is None:
            return None
        if whole.base is None and full is not None:
            whole = replace(whole, base=full.base)
        times = mapping(found.get("latency"))
        pair = (_latency(times.get("base")), _latency(times.get("chosen")))
        return cls(number(found.get("rows")), str(found.get("of") or ""), whole, subsets, pair)


@dataclass(frozen=True)
class Search:
    """One compress.json."""

    raw: dict[str, Any] = field(repr=False)
    trials: list[Trial]
    pareto: list[Trial]
    chosen: Trial | None
    sensitivity: list[Effect]
    final: Final | None

    @property
    def base(self) -> Trial | None:
        key = str(self.raw.get("base") or BASE)
        return next((t for t in self.trials if t.key == key), self.trials[0] if self.trials else None)

    @property
    def metric(self) -> str:
        return clean(self.raw.get("metric") or "metric", 40)

    @property
    def up(self) -> bool:
        return self.raw.get("higher_is_better") is not False

    @property
    def unit(self) -> str:
        """Of a drop: points are hundredths; errors in the target's own unit fall in percent of the base's."""
        return "%" if in_units(self.metric) else "points"

    @property
    def met(self) -> bool:
        return self.raw.get("status") == "met"

    @property
    def alone(self) -> bool:
        """Whether the float model itself was chosen."""
        return self.chosen is not None and self.chosen is self.base

    @property
    def role(self) -> str:
        """What the chosen model is called."""
        return "chosen" if self.met else "closest"

    @property
    def max_drop(self) -> float | None:
        return self.limit("max_drop")

    def limit(self, name: str) -> float | None:
        return bounded(mapping(self.raw.get("budget")).get(name))

    @property
    def unseen(self) -> Final | None:
        """The final scores, where they are of rows that took no part in choosing."""
        return self.final if self.final is not None and self.final.of else None

    def times(self, rows: int | None) -> tuple[Estimate | None, Estimate | None, float | None]:
        """Latencies of the float and of the chosen model and how many times faster that is: from their last timing side
        by side where there is one, else each from its own trial, whose `speedup` was taken in turns."""
        if self.base is None or self.chosen is None or rows is None:
            return None, None, None
        last = self.final.latency if self.final is not None else ({}, {})
        paired = rows in last[0] and rows in last[1]
        before, after = last if paired else (self.base.latency, self.chosen.latency)
        a, b = before.get(rows), after.get(rows)
        ratio = a.value / b.value if a and b and a.value and b.value and a.value > 0 and b.value > 0 else None
        return a, b, ratio if paired else self.chosen.speedup.get(rows, ratio)

    @property
    def spans(self) -> list[int]:
        """Rows a call whose latency was measured, fewest first."""
        return sorted({n for t in self.trials for n in t.latency})


def read_search(folder: Path) -> Search:
    """Read FOLDER/compress.json. Raises FuselineError ``no_search`` where there is none that can be read."""
    path = Path(folder) / FILE
    hint = "give the folder that `fuseline compress` wrote"
    try:
        raw = mapping(json.loads(path.read_text(encoding="utf-8")))
    except OSError:
        raise FuselineError("no_search", f"no {FILE} in {folder}", hint) from None
    except (ValueError, RecursionError):
        raise FuselineError("no_search", f"{path} cannot be read as JSON", hint) from None
    trials = [Trial.read(t) for t in listing(raw.get("trials"))]
    by_key = {t.key: t for t in reversed(trials)}
    front = [by_key[k] for k in dict.fromkeys(map(str, listing(raw.get("pareto")))) if k in by_key]
    effects = [Effect.read(e) for e in listing(raw.get("sensitivity"))]
    chosen = by_key.get(str(raw.get("chosen")))
    return Search(raw, trials, front, chosen, effects, Final.read(raw.get("final")))
