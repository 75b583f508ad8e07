"""A search for the best recipe, from Python."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuseline.api.sources import recipe_and_table, with_cache_folder
from fuseline.api.training import need_training
from fuseline.data.windows import open_table
from fuseline.errors import FuselineError, unknown_kind
from fuseline.progress import Voice, voice

ENGINES = ("local", "ray")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True)
class Tuned:
    """What a search found."""

    folder: Path
    result: dict[str, Any]
    """study.json: `metric`, `best` (trial, value, changes), `trials`, `importance` (path -> share)"""

    @property
    def recipe(self) -> Path:
        """best.yaml: the recipe to train."""
        return self.folder / "best.yaml"

    @property
    def report(self) -> Path:
        return self.folder / "tune.html"


def tune(
    source: Any = None,
    *,
    table: Any = None,
    out: str | Path | None = None,
    trials: int = 50,
    max_time: str | float | None = None,
    workers: int = 1,
    engine: str = "local",
    cache_folder: str | Path | None = None,
    resume: str | Path | None = None,
    quiet: bool = False,
) -> Tuned:
    """Search for the recipe that does best on validation rows. Test rows are never looked at.

    Args:
        source: a recipe (YAML path, dict or Recipe). Its `tune.space` says what may change; default: see
            :func:`fuseline.lab.tune.space.default_space`.
        table: instead of the recipe's own.
        out: the search's folder; default: tunes/TABLE-DATE.
        trials: that end, given up ones included; on resuming, in all.
        max_time: seconds, or text such as "30m", "1h": no trial begins after it.
        workers: processes that run trials at the same time. The table must then be a file.
        engine: who starts them: "local" (this machine) or "ray" (tasks on a Ray cluster, whose machines see the table
            and the search's folder under the same paths).
        cache_folder: where frozen encoders' tokens are kept for all trials, or "off", instead of the recipe's
            training.cache_folder.
        resume: the folder of a search to go on with, instead of `source`.
        quiet: say nothing.

    Raises:
        FuselineError: ``missing_extra``, ``run_exists``, ``no_such_run``, ``no_validation``, ``bad_recipe``,
            ``no_trial`` where none could be completed, and what training raises.
    """
    need_training()
    _need_optuna()
    if engine not in ENGINES:
        raise unknown_kind("engine", engine, ENGINES)
    from fuseline.lab.training.disk.where import open_cache
    from fuseline.lab.tune import study as studies
    from fuseline.lab.tune.report import write_search

    speak, cache = voice("quiet" if quiet else "auto"), None
    until = None if max_time is None else time.monotonic() + seconds_of(max_time)
    opened = None
    if resume is not None:
        if source is not None:
            message = "a search goes on with the recipe that it was begun with"
            raise FuselineError("bad_usage", message, "leave the recipe away, or begin a new search: --out")
        folder = Path(resume)
    else:
        if source is None:
            raise FuselineError("bad_usage", "which recipe?", "give one, or the folder of a search to go on with")
        recipe, opened, path = recipe_and_table(source, table, None)
        recipe = with_cache_folder(recipe, cache_folder)
        folder = Path(out) if out is not None else _new_name(path)
        cache = open_cache(recipe.training)
        studies.start(folder, recipe, opened, path, speak, cache)
    study = studies.open_study(folder)
    dead = studies.bury_dead(study)
    if dead:
        speak.say(f"{dead} interrupted trials are begun again")
    if opened is None:
        given = table if table is not None else study.table
        if given is None:
            raise FuselineError("no_table", "the search was given a table in memory", "pass it again: table=...")
        opened = open_table(given, study.recipe.table)
    try:
        if engine == "ray":
            from fuseline.lab.tune.ray import search_on_ray

            search_on_ray(study, trials=trials, until=until, workers=workers, voice=speak)
        elif workers > 1:
            if study.table is None:
                raise FuselineError("bad_usage", "several workers read the table themselves", "give it as a file")
            _many(folder, workers, trials, until, speak, quiet)
        else:
            cache = cache or open_cache(study.recipe.training)
            studies.work(study, opened, trials=trials, until=until, voice=speak, cache=cache)
    except KeyboardInterrupt:
        speak.say(f"to go on: fuseline tune --resume {folder}")
        raise
    return Tuned(folder, write_search(studies.open_study(folder)))


def work(folder: str | Path, *, trials: int, until: float | None = None) -> None:
    """One worker of a search that another process began. `until`: seconds since 1970."""
    from fuseline.lab.training.disk.where import open_cache
    from fuseline.lab.tune import study as studies

    study = studies.open_study(Path(folder))
    table = open_table(study.table, study.recipe.table)
    end = None if until is None else time.monotonic() + max(0.0, until - time.time())
    cache = open_cache(study.recipe.training)
    studies.work(study, table, trials=trials, until=end, voice=voice("auto"), cache=cache)


def _many(folder: Path, workers: int, trials: int, until: float | None, speak: Voice, quiet: bool) -> None:
    """Processes that each take the next trial until all are done."""
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    env = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    command = [sys.executable, "-m", "fuseline", "tune", "--resume", str(folder), "--worker", "--trials", str(trials)]
    if until is not None:
        command += ["--until", str(time.time() + until - time.monotonic())]
    sink = subprocess.DEVNULL if quiet else None
    running = [subprocess.Popen(command, env=env, stdout=sink, stderr=sink) for _ in range(workers)]
    try:
        codes = [process.wait() for process in running]
    finally:
        for process in running:
            if process.poll() is None:
                process.terminate()
                process.wait()
    lost = sum(code != 0 for code in codes)
    if lost == workers:
        raise FuselineError("no_trial", "every worker of the search ended with an error", "try it with one worker")
    if lost:
        speak.say(f"{lost} of {workers} workers ended early; the others went on")


def seconds_of(text: str | float) -> float:
    """`90`, `90s`, `30m`, `1h`, `2d`. Raises FuselineError ``bad_usage``."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", str(text))
    if found is None:
        raise FuselineError("bad_usage", f"{str(text)[:40]!r} is no time", "e.g. 90s, 30m, 1h")
    return float(found[1]) * _UNITS.get(found[2], 1.0)


def _new_name(path: Path | None) -> Path:
    return Path("tunes") / f"{path.stem if path else 'search'}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def _need_optuna() -> None:
    import importlib.util

    if importlib.util.find_spec("optuna") is None:
        raise FuselineError("missing_extra", "a search needs optuna", "pip install 'fuseline[tune]' on this machine")
