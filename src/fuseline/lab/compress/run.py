"""One search from a package to the chosen one: what it reads, what it leaves in its folder, and how it ends."""

from __future__ import annotations

import datetime
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fuseline.data.split import Split
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.compress.budget import Budget, read_budget
from fuseline.lab.compress.finish import closing, obstacles, pareto
from fuseline.lab.compress.search import Search, tell
from fuseline.lab.compress.students import student_of
from fuseline.lab.compress.subject import open_subject
from fuseline.lab.compress.teacher import Teacher
from fuseline.lab.compress.workshop import Settings, Workshop
from fuseline.lab.report.compression import write_compression
from fuseline.lab.training.cache import Cache
from fuseline.package import Package
from fuseline.package.files import finite, replace_folder, settle, write_json
from fuseline.progress import Voice
from fuseline.recipe import Recipe
from fuseline.runtime import load
from fuseline.runtime.backend import cpu_quota

Limits = tuple[str | float | None, str | float | None, float | None]


def run_search(
    package: Package,
    table: Table,
    folder: Path,
    *,
    limits: Limits,
    metric: str,
    teachers: Sequence[Package],
    students: Mapping[str, Recipe],
    epochs: int,
    max_trials: int,
    max_seconds: float | None,
    threads: int | None,
    seed: int,
    voice: Voice,
    cache: Cache | None,
    split: Split | None,
    table_name: str | None,
) -> dict[str, Any]:
    """See :func:`fuseline.api.compress`. Returns what compress.json holds."""
    if package.writes:
        raise FuselineError(
            "cannot_compress",
            f"{package.name} writes texts, step by step: no method here can measure or change that yet",
            "train with a smaller task.decoder, or fewer layers",
        )
    budget = read_budget(*limits)
    if budget == Budget():
        raise FuselineError(
            "bad_budget", "no budget was given", "at least one of --max-latency 30ms, --max-size 50MB, --max-drop 0.5"
        )
    began = time.monotonic()
    subject = open_subject(package, table, cache=cache or Cache(1024), voice=voice, split=split)
    for note in subject.prepared.notes:
        voice.say(f"· {note}")
    named = {name: student_of(recipe, subject) for name, recipe in students.items()}
    settings = Settings(metric=metric, epochs=epochs, seed=seed, threads=threads)
    teacher = Teacher.of_models([subject.model], subject.prepared, voice=voice)
    if teachers:
        teacher = teacher.joined(Teacher.of_packages([load(t.folder) for t in teachers], subject.prepared, voice=voice))
    workshop = Workshop(subject, folder, settings, budget, voice, teacher, named)
    _claim(folder, workshop)
    about = {
        "model": {"name": package.name, "version": package.version, "path": str(package.folder)},
        "table": table_name,
        "task": subject.prepared.task.name,
        "metric": workshop.ruler.metric,
        "seed": seed,
        "machine": machine(threads),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "budget": budget.to_dict(),
        "rows": {
            "train": len(subject.prepared.rows("train")),
            "select": len(workshop.ruler.rows),
            "test": len(subject.prepared.rows("test")),
            "of": "val",
            "notes": subject.prepared.notes,
        },
    }

    def save(search: Search) -> None:
        write_json(folder / "compress.json", finite(_result(about, search, None, time.monotonic() - began)))

    search = Search(workshop, max_trials=max_trials, max_seconds=max_seconds, after_trial=save)
    try:
        chosen = search.run()
    except KeyboardInterrupt:
        voice.say(f"to go on: the same command with --out {folder}")
        raise
    if search.stopped:
        voice.say(f"· {search.stopped}")
    voice.say(f"chosen: {tell(chosen)}")
    final = closing(workshop, chosen, threads=threads)
    result = _result(about, search, chosen, time.monotonic() - began) | {"final": final}
    _put(workshop, chosen, folder)
    write_json(folder / "compress.json", finite(result))
    write_compression(folder)
    return finite(result)  # type: ignore[no-any-return]


def _claim(folder: Path, workshop: Workshop) -> None:
    """A folder holds the trials of one model, table and settings: their keys differ, but the report would mix them."""
    import json

    path = folder / "search.json"
    mine = finite({"context": workshop.context})
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        write_json(path, mine)
        return
    except (OSError, ValueError):
        raise FuselineError("changed", f"{path} cannot be read", "choose another folder: --out") from None
    if there != mine:
        raise FuselineError(
            "changed",
            f"{folder} holds the search of another model, table or options",
            "choose another folder: --out; the same command goes on where it was",
        )


def _result(
    about: Mapping[str, Any], search: Search, chosen: Mapping[str, Any] | None, seconds: float
) -> dict[str, Any]:
    trials = list(search.trials.values())
    met = chosen is not None and chosen["feasible"]
    first = trials[0]
    return {
        **about,
        "higher_is_better": search.workshop.higher_is_better,
        "seconds": round(seconds, 1),
        "status": "searching" if chosen is None else "met" if met else "not_met",
        "obstacles": [] if chosen is None or met else obstacles(search, chosen),
        "stopped": search.stopped,
        "chosen": None if chosen is None else chosen["key"],
        "base": first["key"],
        "pareto": pareto(trials),
        "trials": trials,
        "sensitivity": search.sensitivity,
        "final": None,
    }


def _put(workshop: Workshop, chosen: Mapping[str, Any], folder: Path) -> None:
    """The chosen package under its own name, as soon as it is whole."""
    target = settle(folder / "model.fuse")
    new = folder / "model.fuse.new"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(workshop.package_of(chosen), new)
    replace_folder(new, target)


def machine(threads: int | None) -> str:
    """What the times were measured on."""
    libraries = []
    for name in ("onnxruntime", "openvino"):
        try:
            libraries.append(f"{name} {version(name)}")
        except Exception:  # not installed
            continue
    return f"{threads or cpu_quota()} threads of {os.cpu_count()} cores, {', '.join(libraries)}"
