"""A search on a Ray cluster: this process alone asks Optuna and writes the study's file; Ray's workers train.

Plain tasks, not Ray Tune: Tune keeps a record of its own beside the study and prunes by schedulers of its own, so that
an interrupted search would leave two truths. So the SQLite file needs no locks over a network, and a search goes on
with or without Ray.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import optuna
from optuna.trial import TrialState

from fuseline.data.table import Table
from fuseline.data.windows import open_table
from fuseline.errors import FuselineError
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.disk.where import open_cache
from fuseline.lab.tune.study import (
    INTERRUPTED,
    GivenUpError,
    Study,
    changed,
    end,
    folder_of,
    line,
    quiet,
    run_trial,
    take,
)
from fuseline.progress import Voice
from fuseline.recipe import parse_recipe
from fuseline.runtime.raycluster import joined

RETRIES: Final = 3
"""times that a trial is gone on with whose worker or machine died"""
PAUSE: Final = 0.5
"""seconds between two looks at what the workers reported"""


class Report(NamedTuple):
    trial: int
    interval: int
    value: float


class Board:
    """Where workers report, and read that they shall stop: an actor. What is lost with it is only heard later."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.stopped: set[int] = set()

    def report(self, trial: int, interval: int, value: float) -> bool:
        """Whether the trial is given up."""
        self.reports.append(Report(trial, interval, value))
        return trial in self.stopped

    def exchange(self, stop: list[int]) -> list[Report]:
        """What was reported since the last time; `stop`: trials that fell behind."""
        self.stopped.update(stop)
        heard, self.reports = self.reports, []
        return heard


def search_on_ray(study: Study, *, trials: int, until: float | None, workers: int, voice: Voice) -> None:
    """Run trials by `workers` tasks at a time until so many have ended, or the time (`time.monotonic`) is over.

    Raises FuselineError ``missing_extra``, ``no_such_cluster``, KeyboardInterrupt after Ctrl-C.
    """
    if study.table is None:
        raise FuselineError("bad_usage", "several workers read the table themselves", "give it as a file")
    with joined(cpus=workers + 1):
        _search(study, trials, until, workers, voice)


def _search(study: Study, trials: int, until: float | None, workers: int, voice: Voice) -> None:
    import ray

    gpus = 1 if ray.cluster_resources().get("GPU", 0) >= workers else 0
    board = ray.remote(Board).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
    task = ray.remote(train).options(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)
    base, stop = study.recipe.model_dump_json(), list[int]()
    running: dict[Any, optuna.Trial] = {}
    try:
        while True:
            while len(running) < workers and (trial := take(study, trials, until)) is not None:
                try:
                    recipe = changed(study, trial).model_dump_json()
                except FuselineError as error:
                    end(study, trial, TrialState.FAIL, None, str(error))
                    voice.say(line(study, trial.number))
                    continue
                folder = folder_of(study, trial.number).resolve()
                running[task.remote(recipe, base, study.table, str(folder), trial.number, board)] = trial
            if not running:
                return
            done, _ = ray.wait(list(running), num_returns=1, timeout=PAUSE)
            # Those that ended, too: what they reported is what later ones are compared with.
            stop = hear({trial.number: trial for trial in running.values()}, ray.get(board.exchange.remote(stop)))
            for ref in done:
                trial = running.pop(ref)
                try:
                    end(study, trial, *_told(ray.get(ref)))
                except ray.exceptions.RayError as error:
                    end(study, trial, TrialState.FAIL, None, f"its worker died {RETRIES + 1} times: {error}")
                voice.say(line(study, trial.number))
    finally:
        for ref, trial in running.items():
            ray.cancel(ref, force=True)
            end(study, trial, TrialState.FAIL, None, INTERRUPTED)


def _told(result: tuple[str, float | None, str]) -> tuple[TrialState, float | None, str]:
    name, value, why = result
    return TrialState[name], value, why


def hear(running: Mapping[int, optuna.Trial], reports: Iterable[Report]) -> list[int]:
    """Note what running trials reported. Returns the numbers of those that fell behind."""
    behind: list[int] = []
    for report in reports:
        trial = running.get(report.trial)
        if trial is None:  # it ended since
            continue
        with quiet():
            known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
            if report.interval not in known:  # a trial that went on elsewhere says some things twice
                trial.report(report.value, report.interval)
            if trial.should_prune():
                behind.append(report.trial)
    return behind


def train(recipe: str, base: str, table: str, folder: str, number: int, board: Any) -> tuple[str, float | None, str]:
    """One trial, in a worker: how it ended, its metric, and why where it failed. A second start goes on in `folder`.

    Args:
        recipe: the trial's, as JSON.
        base: the search's, as JSON.
        table: its file.
        folder: the trial's.
        number: the trial's.
        board: the actor that hears of every interval.
    """
    import ray

    def watch(interval: int, value: float) -> None:
        if ray.get(board.report.remote(number, interval, value)):
            raise GivenUpError

    try:
        opened, cache = _opened(table, base)
        return "COMPLETE", run_trial(parse_recipe(json.loads(recipe)), opened, Path(folder), cache, watch), ""
    except GivenUpError:
        return "PRUNED", None, ""
    except FuselineError as error:
        return "FAIL", None, str(error)


@lru_cache(maxsize=1)
def _opened(table: str, base: str) -> tuple[Table, Cache]:
    """Once a worker: all trials of a search read the same rows, and frozen encoders' tokens are kept for them."""
    recipe = parse_recipe(json.loads(base))
    return open_table(Path(table), recipe.table), open_cache(recipe.training)
