"""The search's decisions, on candidates whose figures are made: no model is built."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fuseline.lab.compress import search as search_module
from fuseline.lab.compress.budget import Budget
from fuseline.lab.compress.candidate import Candidate, Numbers
from fuseline.lab.compress.finish import obstacles, pareto
from fuseline.lab.compress.rungs import Rung
from fuseline.lab.compress.search import Search
from fuseline.progress import Silent

INT8 = Numbers(backend="openvino", precision={"image": "int8", "notes": "int8"})
RUNGS = [
    Rung("notes", "vocabulary", 0.0, 0.001, 0.40, 0.0),
    Rung("notes", "layers", 0.5, 0.005, 0.20, 0.20),
    Rung("notes", "layers", 0.17, 0.012, 0.27, 0.30),
    Rung("image", "widths", 0.5, 0.12, 0.09, 0.18),
]


class Made:
    """A workshop whose candidates cost what a formula says: every rung takes its share, a cut of the picture spoils."""

    def __init__(self, folder: Path, budget: Budget, *, stop_after: int | None = None, spoil: float = 3.0) -> None:
        self.folder, self.budget, self.voice = folder, budget, Silent()
        self.students: dict[str, Any] = {}
        self.subject = SimpleNamespace(names=("image", "notes"))
        self.done: dict[str, dict[str, Any]] = {}
        self.stop_after, self.made, self.spoil = stop_after, 0, spoil

    def key(self, candidate: Candidate) -> str:
        return candidate.model_dump_json()

    def kept(self, candidate: Candidate) -> dict[str, Any] | None:
        return self.done.get(self.key(candidate))

    def root(self, student: str) -> Any:
        return SimpleNamespace(model=None, prepared=SimpleNamespace(plans={}))

    def trial(self, candidate: Candidate) -> dict[str, Any]:
        if self.stop_after is not None and self.made >= self.stop_after:
            raise KeyboardInterrupt
        self.made += 1
        size, time, drop = 100e6, 30.0, 0.0
        for rung in RUNGS:
            at = getattr(candidate.cut, rung.kind)
            if rung.part in at and (rung.kind == "vocabulary" or at[rung.part] == rung.share):
                size, time = size * (1 - rung.parameters), time * (1 - rung.seconds)
                drop += self.spoil if rung.part == "image" else 0.1
        for part, precision in candidate.numbers.precision.items():
            if precision == "int8":
                size, time = size * (0.9 if part == "image" else 0.3), time * 0.6
                drop += 0.2 if part == "image" else 0.0
        trial = {
            "key": self.key(candidate),
            "words": candidate.words(),
            "candidate": candidate.model_dump(mode="json"),
            "size_bytes": size,
            "latency": {"1": {"median": time}, "8": {"median": 8 * time}},
            "speedup": {"1": 30.0 / time, "8": 1.0},
            "drop": {"value": drop, "low": drop - 0.1, "high": drop + 0.1},
            "subsets": [],
            "change": drop / 10,
            "failed": None,
        }
        trial["why_not"] = self.budget.why_not(trial)
        trial["feasible"] = not trial["why_not"]
        self.done[trial["key"]] = trial
        return trial


@pytest.fixture(autouse=True)
def made_rungs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "ladder", lambda model: [INT8])
    monkeypatch.setattr(Search, "_large", lambda self: ["notes", "image"])
    monkeypatch.setattr(Search, "_rungs", lambda self, student: list(RUNGS))


def searched(folder: Path, budget: Budget, **options: Any) -> tuple[Search, dict[str, Any]]:
    search = Search(Made(folder, budget, **options))  # type: ignore[arg-type]
    return search, search.run()


def test_the_smallest_that_keeps_to_the_drop_is_chosen(tmp_path: Path) -> None:
    search, chosen = searched(tmp_path, Budget(max_drop=0.5))
    cut = Candidate.model_validate(chosen["candidate"]).cut
    assert chosen["feasible"]
    assert cut.vocabulary == ("notes",)
    assert cut.layers == {"notes": 0.17}
    assert not cut.widths  # the picture's channels would cost 3 points
    assert chosen["size_bytes"] == min(t["size_bytes"] for t in search.trials.values() if t["feasible"])


def test_a_limit_that_is_met_ends_the_path(tmp_path: Path) -> None:
    search, chosen = searched(tmp_path, Budget(max_size=17e6, max_drop=0.5))
    assert chosen["size_bytes"] <= 17e6
    assert Candidate.model_validate(chosen["candidate"]).cut.layers == {}
    assert len(search.trials) <= 5


def test_numbers_alone_are_enough_where_they_meet_the_budget(tmp_path: Path) -> None:
    _, chosen = searched(tmp_path, Budget(max_latency=20.0, max_drop=0.5))
    assert not Candidate.model_validate(chosen["candidate"]).cut


def test_a_sensitive_part_is_left_in_float(tmp_path: Path) -> None:
    _, chosen = searched(tmp_path, Budget(max_drop=0.15))
    assert Candidate.model_validate(chosen["candidate"]).numbers.precision == {"notes": "int8"}


def test_a_budget_that_cannot_be_met_gives_the_closest_and_says_why(tmp_path: Path) -> None:
    search, chosen = searched(tmp_path, Budget(max_latency=1.0, max_size=10e6, max_drop=0.5))
    assert not chosen["feasible"]
    assert chosen["latency"]["1"]["median"] < 12
    said = " ".join(obstacles(search, chosen))
    assert "ms > 1 ms" in said
    assert "the fastest found takes" in said


def test_a_search_that_was_interrupted_comes_to_the_same_choice(tmp_path: Path) -> None:
    budget = Budget(max_drop=0.5)
    _, wanted = searched(tmp_path, budget)
    for stop in range(1, 6):
        workshop = Made(tmp_path, budget, stop_after=stop)
        with pytest.raises(KeyboardInterrupt):
            Search(workshop).run()  # type: ignore[arg-type]
        workshop.stop_after = None
        assert Search(workshop).run() == wanted  # type: ignore[arg-type]


def test_the_limit_of_trials_holds_and_is_said(tmp_path: Path) -> None:
    workshop = Made(tmp_path, Budget(max_drop=0.5))
    search = Search(workshop, max_trials=3)  # type: ignore[arg-type]
    search.run()
    assert workshop.made == 3
    assert "3 trials" in search.stopped


def test_pareto_keeps_what_no_other_beats() -> None:
    def trial(key: str, drop: float | None, ms: float, size: float, failed: str | None = None) -> dict[str, Any]:
        return {
            "key": key,
            "drop": {"value": drop},
            "latency": {"1": {"median": ms}},
            "size_bytes": size,
            "failed": failed,
        }

    trials = [
        trial("base", 0.0, 30, 100),
        trial("small", 0.4, 10, 20),
        trial("worse", 0.5, 11, 20),
        trial("fast", 0.6, 5, 50),
        trial("undefined", None, 1, 1),
    ]
    assert pareto([*trials, {**trial("broken", 0.0, 1, 1, "no"), "latency": None}]) == ["base", "small", "fast"]
    assert math.isinf(Budget(max_drop=1.0).distance({**trials[0], "failed": "x"}))
