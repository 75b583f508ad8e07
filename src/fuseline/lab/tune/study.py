"""The trials of a search, one run each, over one SQLite file that several processes may share.

A trial's suggestion is a function of the seed, its number and the trials that ended before it, so that a search by one
worker that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import math
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.callbacks import Watch
from fuseline.lab.training.disk.store import Counts
from fuseline.lab.training.disk.told import told
from fuseline.lab.training.run import run
from fuseline.lab.training.team import begun
from fuseline.lab.tune.judge import judged_by
from fuseline.lab.tune.space import Space, apply, read_space, suggest
from fuseline.package.files import write_json, write_text
from fuseline.progress import Silent, Voice
from fuseline.recipe import Recipe, dump_recipe, load_recipe

NAME = "tune"
STARTUP = 5
"""trials that are drawn at random, and that none is given up against"""
INTERRUPTED = "interrupted"
HOPELESS = 20
"""trials that failed, and none that ended, after which a search gives up"""
PRUNER = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=2)
WAIT = 60.0
"""seconds that a process waits for another's write to the file"""


class GivenUpError(Exception):
    """A trial that falls behind the others: no error, the search goes on."""


@dataclass
class Study:
    """A search's folder: `study.db`, `recipe.yaml`, `trials/NNNN/`, `best.yaml`, `study.json`, `tune.html`."""

    folder: Path
    recipe: Recipe
    space: Space
    table: str | None
    metric: str
    """of validation rows"""
    optuna: optuna.Study = field(repr=False)

    @property
    def seed(self) -> int:
        return self.recipe.training.seed

    @property
    def trials(self) -> list[FrozenTrial]:
        with quiet():
            return self.optuna.get_trials(deepcopy=False)

    def ended(self) -> list[FrozenTrial]:
        """Trials with a result, given up ones included."""
        return [t for t in self.trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]

    def best(self) -> FrozenTrial | None:
        done = [t for t in self.trials if t.state == TrialState.COMPLETE and t.value is not None]
        sign = -1 if self.optuna.direction == optuna.study.StudyDirection.MAXIMIZE else 1
        return min(done, key=lambda t: (sign * float(t.value or 0.0), t.number), default=None)


def start(folder: Path, recipe: Recipe, table: Table, table_path: Path | None, voice: Voice, cache: Cache) -> Study:
    """A new search in an empty folder. Raises FuselineError ``run_exists``, ``bad_recipe``, ``no_validation``."""
    if (folder / "study.db").exists():
        raise FuselineError("run_exists", f"{folder} holds a search already", "go on with it: --resume")
    read_space(recipe)
    metric, higher_is_better = judged_by(_lean(recipe), table, voice, cache)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FuselineError("cannot_write", f"cannot make the folder {folder}: {error.strerror}", "") from None
    write_text(folder / "recipe.yaml", dump_recipe(recipe))
    info = {"table": None if table_path is None else str(table_path.resolve()), "metric": metric}
    write_json(folder / "search.json", info)
    with quiet():
        optuna.create_study(
            storage=_storage(folder), study_name=NAME, direction="maximize" if higher_is_better else "minimize"
        )
    return open_study(folder)


def open_study(folder: Path) -> Study:
    """A search that was begun. Raises FuselineError ``no_such_run``."""
    if not (folder / "study.db").exists() or not (folder / "search.json").exists():
        raise FuselineError("no_such_run", f"{folder} holds no search", "begin one with `fuseline tune RECIPE`")
    recipe = load_recipe(folder / "recipe.yaml")
    info = json.loads((folder / "search.json").read_text(encoding="utf-8"))
    with quiet():
        study = optuna.load_study(study_name=NAME, storage=_storage(folder))
    return Study(folder, recipe, read_space(recipe), info["table"], info["metric"], study)


def bury_dead(study: Study) -> int:
    """Trials that a killed process left running count as failed: they are begun again under other numbers."""
    dead = [t for t in study.trials if t.state == TrialState.RUNNING]
    for trial in dead:
        with quiet():
            study.optuna.tell(trial.number, state=TrialState.FAIL)
        shutil.rmtree(folder_of(study, trial.number), ignore_errors=True)
    return len(dead)


def work(study: Study, table: Table, *, trials: int, until: float | None, voice: Voice, cache: Cache) -> None:
    """Run trials until so many have ended, or the time (`time.monotonic`) is over. Several processes may do so at once.

    Raises KeyboardInterrupt after Ctrl-C; all trials that ended are kept.
    """
    while (trial := take(study, trials, until)) is not None:
        value: float | None = None
        state, why = TrialState.FAIL, INTERRUPTED
        try:
            recipe = changed(study, trial)
            value = run_trial(recipe, table, folder_of(study, trial.number), cache, _watching(trial))
            state, why = TrialState.COMPLETE, ""
        except GivenUpError:
            state, why = TrialState.PRUNED, ""
        except FuselineError as error:  # e.g. a width that its heads do not divide, or a loss that diverged
            why = str(error)
        finally:
            end(study, trial, state, value, why)
        voice.say(line(study, trial.number))
    if cache.store is not None:
        told(cache.store, Counts(), voice)


def take(study: Study, trials: int, until: float | None) -> optuna.Trial | None:
    """Begin the next trial, with an empty folder. None where enough have ended or run, or the time is over."""
    if until is not None and time.monotonic() >= until:
        return None
    with _turn(study), quiet():
        known = study.trials
        going = sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING) for t in known)
        if going >= trials or _hopeless(known):
            return None
        trial = study.optuna.ask()
        # Seeded by the draw, not by the search, and an interrupted trial's draw is made again: a resumed search tries
        # what it would have tried.
        drawn = {t.user_attrs.get("draw", t.number) for t in known if not _interrupted(t)}
        draw = next(i for i in itertools.count() if i not in drawn)
        trial.set_user_attr("draw", draw)
        study.optuna.sampler = optuna.samplers.TPESampler(
            seed=study.seed * 100_003 + draw, n_startup_trials=STARTUP, constant_liar=True
        )
        study.optuna.pruner = PRUNER
        # Within the turn: another process must see what is being tried already.
        trial.set_user_attr("changes", suggest(trial, study.space))
    folder = folder_of(study, trial.number)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return trial


def _interrupted(trial: FrozenTrial) -> bool:
    """By Ctrl-C, or by a kill, after which nobody could say why."""
    return trial.state == TrialState.FAIL and trial.user_attrs.get("why", INTERRUPTED) == INTERRUPTED


def _hopeless(known: list[FrozenTrial]) -> bool:
    """Whether so many failed, and none ended, that the search would never end."""
    failed = sum(t.state == TrialState.FAIL and not _interrupted(t) for t in known)
    return failed >= HOPELESS and not any(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in known)


def changed(study: Study, trial: optuna.Trial) -> Recipe:
    """The recipe that a trial tries. Raises FuselineError ``bad_recipe`` where its values do not go together."""
    return apply(_lean(study.recipe), trial.user_attrs["changes"])


def run_trial(recipe: Recipe, table: Table, folder: Path, cache: Cache, watch: Watch) -> float | None:
    """The best validation metric of one run; goes on with one that was begun in `folder`."""
    run(recipe, table, folder, voice=Silent(), cache=cache, watch=watch, resume=begun(folder))
    best: float | None = json.loads((folder / "run.json").read_text(encoding="utf-8"))["best"]["value"]
    return best


def _watching(trial: optuna.Trial) -> Watch:
    def watch(interval: int, value: float) -> None:
        with quiet():
            trial.report(value, interval)
            if trial.should_prune():
                raise GivenUpError

    return watch


def end(study: Study, trial: optuna.Trial, state: TrialState, value: float | None, why: str = "") -> None:
    """Record how a trial ended, and drop what of its folder is large."""
    if state == TrialState.COMPLETE and (value is None or not math.isfinite(value)):
        state, value, why = TrialState.FAIL, None, "the metric is not defined"
    with quiet():
        if why:
            trial.set_user_attr("why", why[:500])
        study.optuna.tell(trial, value if state == TrialState.COMPLETE else None, state=state)
    folder = folder_of(study, trial.number)
    for part in ("checkpoints", "predictions.parquet"):
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).unlink(missing_ok=True)


def _lean(recipe: Recipe) -> Recipe:
    """A trial is judged by validation rows during training: nothing is exported, reported, or tested."""
    training = recipe.training.model_copy(update={"loggers": ()})
    evaluation = recipe.evaluation.model_copy(
        update={"bootstrap": 0, "degradation": False, "export": False, "report": False, "parts": ("val",)}
    )
    return recipe.model_copy(update={"training": training, "evaluation": evaluation, "tune": None})


def line(study: Study, number: int) -> str:
    trial, best = study.trials[number], study.best()
    ended = {"COMPLETE": f"{trial.value:.4g}" if trial.value is not None else "", "PRUNED": "given up"}
    said = ended.get(trial.state.name) or f"failed: {trial.user_attrs.get('why', 'interrupted').splitlines()[0]}"
    lead = f" · best {best.value:.4g} (trial {best.number})" if best is not None and best.value is not None else ""
    return f"trial {number}: {said}{lead}"


def folder_of(study: Study, number: int) -> Path:
    return study.folder / "trials" / f"{number:04d}"


def _storage(folder: Path) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(
        f"sqlite:///{(folder / 'study.db').resolve()}", engine_kwargs={"connect_args": {"timeout": WAIT}}
    )


@contextmanager
def _turn(study: Study) -> Iterator[None]:
    """One process at a time takes a trial: two that did so at once would draw the same one, or one too many."""
    with (study.folder / "study.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing lets go, and so does a kill


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna logs every trial, and calls parts of itself that it marks as experimental."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        yield
