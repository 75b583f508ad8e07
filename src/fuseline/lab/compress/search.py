"""The search: numbers first, since they cost nothing to make; then one cut after the other, each healed and measured.

1. The float model is measured, then every known way of computing the whole model in smaller numbers, and each part in
   small numbers alone (its sensitivity). Where the whole loses too much, the parts that lose most stay in float.
2. Every single cut is probed without healing: what it changes, what it saves. From then on the search is greedy: take
   the cut that saves most of what the budget lacks for what it changes, heal it, measure it in the best numbers; go on
   from there while the drop holds, else forget that cut. This is one path, not a grid: healing costs minutes.
3. Where integers lose what float did not, the best cut is tuned under rounding once.

Every decision is a function of trials that are kept in files, so that a search that was interrupted and goes on makes
the same ones.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from fuseline.lab.compress.candidate import Candidate, Cut, Numbers
from fuseline.lab.compress.names import FUSION, part_of
from fuseline.lab.compress.numbers import alone, ladder, without
from fuseline.lab.compress.rungs import LITTLE, Probe, Rung
from fuseline.lab.compress.workshop import Workshop
from fuseline.package.files import finite, write_json
from fuseline.progress import clock

PATIENCE = 3
"""cuts that lost too much, one after the other, before the path ends"""
PROBED_ROWS = 96

Trial = dict[str, Any]


class Search:
    """Finds the smallest and fastest candidate that keeps to the budget."""

    def __init__(
        self,
        workshop: Workshop,
        *,
        max_trials: int = 24,
        max_seconds: float | None = None,
        after_trial: Callable[[Search], None] = lambda search: None,
    ) -> None:
        self.workshop, self.budget, self.voice = workshop, workshop.budget, workshop.voice
        self.max_trials, self.max_seconds, self.after_trial = max_trials, max_seconds, after_trial
        self.trials: dict[str, Trial] = {}
        self.sensitivity: list[dict[str, Any]] = []
        self.began = time.monotonic()
        self.stopped = ""

    # --- bookkeeping ------------------------------------------------------------------------------------------------

    def trial(self, candidate: Candidate) -> Trial | None:
        """Measure; None where the limit of trials or of time is reached (what is kept already costs nothing)."""
        key = self.workshop.key(candidate)
        if key in self.trials:
            return self.trials[key]
        found = self.workshop.kept(candidate)
        if found is None and self._spent():
            return None
        if found is None:
            found = self.workshop.trial(candidate)
        self.trials[key] = found
        self.voice.say(f"  {len(self.trials)}. {tell(found)}")
        self.after_trial(self)
        return found

    def _spent(self) -> bool:
        if len(self.trials) >= self.max_trials:
            self.stopped = f"the limit of {self.max_trials} trials was reached"
        elif self.max_seconds is not None and time.monotonic() - self.began > self.max_seconds:
            self.stopped = f"the limit of {clock(self.max_seconds)} was reached"
        return bool(self.stopped)

    @property
    def base(self) -> Trial:
        return next(iter(self.trials.values()))

    def cost(self, trial: Trial) -> float:
        """Logarithm of size times latency against the float model's; of what the budget limits alone where it limits
        one of them only."""
        size = math.log(trial["size_bytes"] / self.base["size_bytes"])
        # Medians of one machine differ by some per cent from run to run: differences below that are none.
        latency = round(math.log(1 / trial["speedup"]["1"]) / 0.05) * 0.05
        if self.budget.max_latency is not None and self.budget.max_size is None:
            return latency + 0.1 * size
        if self.budget.max_size is not None and self.budget.max_latency is None:
            return size + 0.1 * latency
        return size + latency

    def best(self, trials: list[Trial]) -> Trial | None:
        """The cheapest that keeps to the limit of the drop; without such a limit, the one that drops least of those
        that keep to the others."""
        fine = [t for t in trials if not self.budget.of_drop(t) and t["failed"] is None]
        return min(fine, key=lambda t: (self.cost(t), t["key"]), default=None)

    @property
    def limited(self) -> bool:
        """Whether size or latency have a limit: then the path ends where it is met."""
        return self.budget.max_latency is not None or self.budget.max_size is not None

    # --- the search -------------------------------------------------------------------------------------------------

    def run(self) -> Trial:
        """Returns the chosen trial: one that keeps to the budget, or else the one that is closest to it."""
        self.trial(Candidate())
        root = self._numbers("")
        for name in self.workshop.students:
            other = self._student(name, root)
            if other is not None and self.cost(other) < self.cost(root):
                root = other
        if not self.stopped and not (self.limited and root["feasible"]):
            self._path(root)
        return self.choice()

    def choice(self) -> Trial:
        trials = [t for t in self.trials.values() if t["failed"] is None]
        feasible = [t for t in trials if t["feasible"]]
        if feasible and self.budget.max_drop is None:
            return min(
                feasible,
                key=lambda t: (t["drop"]["value"] if t["drop"]["value"] is not None else math.inf, self.cost(t)),
            )
        if feasible:
            return min(feasible, key=lambda t: (self.cost(t), t["key"]))
        return min(trials, key=lambda t: (self.budget.distance(t), self.cost(t)))

    def _numbers(self, student: str) -> Trial:
        """The best numbers for the uncut model, and each part's sensitivity to them."""
        found = [self.trial(Candidate(numbers=n, student=student)) for n in ladder(self.workshop.root(student).model)]
        tried = [t for t in found if t is not None and t["failed"] is None]
        best = self.best([self.base, *tried])
        cheapest = min(tried, key=self.cost, default=self.base)
        if cheapest is not self.base and not student:
            for part in self._large():
                numbers = alone(_candidate(cheapest).numbers, part)
                single = None if numbers is None else self.trial(Candidate(numbers=numbers))
                if single is not None and single["failed"] is None:
                    self._felt(part, numbers.precision[part] if numbers else "", single)
        if best is None or self.cost(best) > self.cost(cheapest) + 0.1:
            best = self._spared(cheapest) or best
        return best or self.base

    def _large(self) -> list[str]:
        """The parts that hold more than a little of the model, largest first: for what is the rest's number format."""
        model = self.workshop.subject.model
        sizes = dict.fromkeys((*model.names, FUSION), 0)
        for name, parameter in model.named_parameters():
            sizes[part_of(name, model.names) or FUSION] += parameter.numel()
        total = sum(sizes.values())
        return sorted((p for p, n in sizes.items() if n >= LITTLE * total), key=lambda p: (-sizes[p], p))

    def _spared(self, trial: Trial) -> Trial | None:
        """The cheapest numbers with the most sensitive parts, one after the other, left in float."""
        order = sorted(self.sensitivity, key=lambda s: -s["change"])
        candidate = _candidate(trial)
        for entry in order[:-1]:
            candidate = candidate.model_copy(update={"numbers": without(candidate.numbers, entry["part"])})
            found = self.trial(candidate)
            if found is None:
                return None
            if found["failed"] is None and not self.budget.of_drop(found):
                return found
        return None

    def _felt(self, part: str, action: str, trial: Trial) -> None:
        self.sensitivity.append(
            {
                "part": part,
                "action": action,
                "change": trial["change"],
                "drop": trial["drop"]["value"],
                "size_mb": (self.base["size_bytes"] - trial["size_bytes"]) / 1e6,
                "share_of_time": None,
            }
        )

    def _student(self, name: str, root: Trial) -> Trial | None:
        numbers = _candidate(root).numbers
        known = {
            p: v for p, v in numbers.precision.items() if p in (*self.workshop.students[name].recipe.inputs, FUSION)
        }
        found = self.trial(Candidate(student=name, numbers=numbers.model_copy(update={"precision": known})))
        return found if found is not None and found["failed"] is None and not self.budget.of_drop(found) else None

    def _path(self, root: Trial) -> None:
        """One cut after the other, the most saving for the least change first."""
        start = _candidate(root)
        every = self._rungs(start.student)
        left = every
        at, cut, lost = root, start.cut, 0
        while left and lost < PATIENCE:
            left = [r for r in left if not r.reached(cut)]
            if not left:
                break
            rung = max(left, key=lambda r: (self._worth(r, cut, every, at), r.part, r.kind, -r.share))
            found = self.trial(start.model_copy(update={"cut": rung.applied(cut)}))
            if found is None:
                return
            for mend in (self._thorough, self._aware):
                if found["failed"] is None and self.budget.of_drop(found):
                    found = mend(found) or found
            if found["failed"] or self.budget.of_drop(found) or self.cost(found) > self.cost(at) - LITTLE:
                # this rung and all below it
                left = [r for r in left if (r.part, r.kind) != (rung.part, rung.kind) or r.share > rung.share]
                lost += 1
                continue
            at, cut, lost = found, _candidate(found).cut, 0
            if self.limited and found["feasible"]:
                return

    def _thorough(self, trial: Trial) -> Trial | None:
        """Where what stands behind a frozen encoder could not take up its cut: let the encoder train, too."""
        candidate = _candidate(trial)
        plans = self.workshop.root(candidate.student).prepared.plans
        frozen = [p for p in (*candidate.cut.layers, *candidate.cut.widths) if p in plans and plans[p].tune == "frozen"]
        if candidate.cut.thorough or not frozen:
            return None
        cut = candidate.cut.model_copy(update={"thorough": True})
        return self.trial(candidate.model_copy(update={"cut": cut}))

    def _aware(self, trial: Trial) -> Trial | None:
        """Where a cut model is good in float and its integers are not: tune it under rounding."""
        candidate = _candidate(trial)
        if "int8" not in candidate.numbers.precision.values():
            return None
        whole = self.trial(candidate.model_copy(update={"numbers": Numbers()}))
        if whole is None or whole["failed"] is not None or self.budget.of_drop(whole):
            return None
        return self.trial(
            candidate.model_copy(update={"numbers": candidate.numbers.model_copy(update={"aware": True})})
        )

    def _worth(self, rung: Rung, cut: Cut, rungs: list[Rung], at: Trial) -> float:
        """What a step saves of what the budget lacks, for what it changes beyond the rung above it."""
        above = _above(rung, cut, rungs)
        faster, smaller = rung.seconds - above[0], rung.parameters - above[1]
        change = max(rung.change - above[2], 0.0) + 0.002
        want_time, want_size = 1.0, 1.0
        if self.limited:
            latency, size = self.budget.max_latency, self.budget.max_size
            want_time = 0.05 + (0.0 if latency is None else max(0.0, math.log(at["latency"]["1"]["median"] / latency)))
            want_size = 0.05 + (0.0 if size is None else max(0.0, math.log(at["size_bytes"] / size)))
        return (want_time * max(0.0, faster) + want_size * max(0.0, smaller)) / change

    def _rungs(self, student: str) -> list[Rung]:
        """Every single cut, probed once: kept in a file, since its times differ from run to run."""
        path = self.workshop.folder / f"probe-{self.workshop.key(Candidate(student=student))}.json"
        try:
            found = [Rung(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            root = self.workshop.root(student)
            rows = np.sort(root.prepared.rows("val")[:PROBED_ROWS])
            calm = list(root.prepared.reader.batches(rows, 16))
            probe = Probe(
                root.model,
                root.prepared,
                self.workshop.some_batches(root.prepared),
                calm,
                self.workshop.scores(student),
            )
            wanted = [(part, *cut) for part in (*root.model.names, FUSION) for cut in probe.cuts(part)]
            found = []
            with self.voice.track("probing cuts", len(wanted)) as advance:
                for part, kind, share in wanted:
                    rung = probe.rung(part, kind, share)
                    if rung is not None:
                        found.append(rung)
                    advance(1, part)
            write_json(path, finite([asdict(r) for r in found]))
        for rung in found:
            self.sensitivity.append(
                {
                    "part": rung.part,
                    "action": rung.words(),
                    "change": rung.change,
                    "drop": None,
                    "size_mb": rung.parameters * self.base["size_bytes"] / 1e6,
                    "share_of_time": rung.seconds,
                }
            )
        return [r for r in found if r.seconds >= LITTLE or r.parameters >= LITTLE]


def _candidate(trial: Mapping[str, Any]) -> Candidate:
    return Candidate.model_validate(trial["candidate"])


def _above(rung: Rung, cut: Cut, rungs: list[Rung]) -> tuple[float, float, float]:
    """What the state already has of this part and kind: time, parameters, change."""
    at = getattr(cut, rung.kind) if rung.kind != "vocabulary" else {}
    share = at.get(rung.part)
    for other in rungs:
        if (other.part, other.kind, other.share) == (rung.part, rung.kind, share):
            return other.seconds, other.parameters, other.change
    return 0.0, 0.0, 0.0


def tell(trial: Mapping[str, Any]) -> str:
    """A trial in one line."""
    if trial["failed"]:
        return f"{trial['words']}: failed: {trial['failed']}"
    value = trial["drop"]["value"]
    drop = "drop undefined" if value is None else f"drop {value:+.2f}"
    state = "" if trial["feasible"] else f" ({'; '.join(trial['why_not'][:2])})"
    return (
        f"{trial['words']}: {trial['size_bytes'] / 1e6:.1f} MB, {trial['latency']['1']['median']:.1f} ms "
        f"({trial['speedup']['1']:.1f}x), {drop}{state}"
    )
