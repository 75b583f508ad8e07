"""What keeping frozen encoders' outputs gives on `chest-xray` and `stamps`: epochs, folds, a search, and a kill.

One run with everything off (encoders in every step) against the same run with the outputs kept on disk; then five folds
and ten trials of search over the same cells, beginning with an empty folder; then a training killed while it encodes.

    python benchmarks/embedding_cache.py --epochs 10
"""

from __future__ import annotations

import argparse
import functools
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from chest_xray import VITALS
from common import DATA, LEAN, tell

from fuseline import api
from fuseline.data.table import Table
from fuseline.lab.training.disk.store import Store
from fuseline.lab.training.disk.where import open_cache
from fuseline.lab.training.run import run
from fuseline.progress import Silent
from fuseline.recipe import Recipe, dump_recipe, parse_recipe

FROZEN = {
    "image": {"modality": "image", "encoder": {"kind": "efficientnet-lite0", "tune": "frozen", "tokens": "pooled"}},
    "text": {"modality": "text", "encoder": {"kind": "minilm", "tune": "frozen", "tokens": "pooled"}},
}
TABLES: dict[str, dict[str, Any]] = {
    "chest-xray": {
        "inputs": {
            "image": FROZEN["image"],
            "notes": FROZEN["text"],
            "vitals": {"modality": "tabular", "columns": VITALS, "encoder": {"kind": "small"}},
        },
        "task": {"kind": "classification", "target": "covid", "positive": "yes"},
        "split": {"kind": "group", "group": "patient"},
    },
    "stamps": {
        "inputs": {"image": FROZEN["image"], "description": FROZEN["text"]},
        "task": {"kind": "classification", "target": "category"},
        "split": {"kind": "stratified"},
    },
}


def recipe_of(name: str, epochs: int, cache: Path | None, **split: Any) -> Recipe:
    """`cache` None: everything off, so that frozen encoders run in every step."""
    kept = {"cache_mb": 0} if cache is None else {"cache_mb": 512, "cache_folder": str(cache)}
    training = {"epochs": epochs, "patience": epochs, "precision": "float32", "loggers": [], **kept}
    table = {"path": str(DATA / name / "table.csv"), "media_root": str(DATA / name)}
    base = TABLES[name]
    if base["task"]["target"] == "category":  # all of them, though some rows of a class may all be left out
        classes = sorted(set(Table.open(DATA / name / "table.csv").column("category").to_list()))
        base = {**base, "task": {**base["task"], "classes": classes}}
    return parse_recipe(
        {**base, "table": table, "split": {**base["split"], **split}, "training": training, "evaluation": LEAN}
    )


class Spent(NamedTuple):
    """Seconds by the clock, and of processors: the latter say the same on a machine that others use as well."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Spent:
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: Spent) -> Spent:
        return Spent(self.wall - start.wall, self.cpu - start.cpu)


def one(recipe: Recipe, table: Table, folder: Path) -> tuple[Spent, Spent, dict[str, float]]:
    """(all, the second epoch with its validation, the metrics) of one run."""
    folder.mkdir()
    ends: list[Spent] = []
    start = Spent.now()
    cache = open_cache(recipe.training)
    found = run(recipe, table, folder, voice=Silent(), cache=cache, watch=lambda *_: ends.append(Spent.now()))
    spent = Spent.now().since(start)
    scores = {f"{part} {k}": m["value"] for part, s in found["parts"].items() for k, m in s["metrics"].items()}
    return spent, ends[1].since(ends[0]), scores


def timed(work: Callable[[], Any]) -> Spent:
    start = Spent.now()
    work()
    return Spent.now().since(start)


def line(what: str, spent: Spent, off: Spent | None) -> dict[str, Any]:
    share = 0.0 if off is None else spent.cpu / off.cpu
    against = "" if off is None else f"{share:.2f}" if share > 0.2 else f"1/{1 / share:.0f}"
    return {"what": what, "seconds": round(spent.wall, 2), "CPU seconds": round(spent.cpu, 2), "against off": against}


def epochs_of(name: str, table: Table, epochs: int, work: Path) -> tuple[Spent, list[dict[str, Any]]]:
    """Everything off, an empty folder, a filled one."""
    kept = work / "kept"
    off, epoch_off, scores_off = one(recipe_of(name, epochs, None), table, work / "off")
    cold, epoch_cold, scores_cold = one(recipe_of(name, epochs, kept), table, work / "cold")
    warm, epoch_warm, scores_warm = one(recipe_of(name, epochs, kept), table, work / "warm")
    found = json.loads((work / "warm" / "run.json").read_text(encoding="utf-8"))["cache"]
    apart = max(abs(scores_off[k] - scores_cold[k]) for k in scores_off)
    same = "the same to the bit" if scores_cold == scores_warm else "DIFFERENT"
    print(f"{name}: {len(scores_off)} metrics of empty and filled folder: {same}; off: at most {apart:.2g} apart")
    print(f"{name}: {found['hits']} outputs on disk, {found['folder_bytes'] / 2**20:.1f} MB")
    return off, [
        line("one run, everything off", off, off),
        line("one run, empty folder", cold, off),
        line("one run, filled folder", warm, off),
        line("second epoch, everything off", epoch_off, epoch_off),
        line("second epoch, empty folder", epoch_cold, epoch_off),
        line("second epoch, filled folder", epoch_warm, epoch_off),
    ]


def search_of(name: str, table: Table, epochs: int, trials: int, work: Path, off: Spent | None) -> list[dict[str, Any]]:
    """Five folds, then a search, over one folder that is empty at first."""
    shared = work / "shared"
    train = functools.partial(api.train, table=table, out=work / "folds", quiet=True)
    tune = functools.partial(api.tune, table=table, out=work / "search", trials=trials, quiet=True)
    folds = timed(lambda: train(recipe_of(name, epochs, shared, folds=5)))
    search = timed(lambda: tune(recipe_of(name, epochs, shared)))
    both = Spent(folds.wall + search.wall, folds.cpu + search.cpu)
    return [
        line("five folds, empty folder", folds, off),
        line(f"{trials} trials of search after them", search, off),
        line("together", both, off),
    ]


def killed(name: str, work: Path) -> list[dict[str, Any]]:
    """A training in a process of its own, killed when a third of the cells are encoded."""
    kept, recipe = work / "killed", work / "killed.yaml"
    recipe.write_text(dump_recipe(recipe_of(name, 2, kept)), encoding="utf-8")
    command = [sys.executable, "-m", "fuseline", "train", str(recipe), "--quiet", "--out"]
    process = subprocess.Popen([*command, str(work / "killed-run")], stdout=subprocess.DEVNULL)
    wanted = Table.open(DATA / name / "table.csv").n_rows // 3
    held = 0
    while held < wanted and process.poll() is None:
        time.sleep(0.2)
        held = _held(kept)
    process.send_signal(signal.SIGKILL)
    process.wait()
    held = _held(kept)
    subprocess.run([*command, str(work / "killed-again")], check=True, stdout=subprocess.DEVNULL)
    found = json.loads((work / "killed-again" / "run.json").read_text(encoding="utf-8"))["cache"]
    return [
        {
            "whole on disk after the kill": held,
            "found by the next run": found["hits"],
            "computed by it": found["written"],
        }
    ]


def _held(folder: Path) -> int:
    """Records that can be read."""
    store = Store(folder, 4096)
    return sum(len(store.shelf(path.name, {})) for path in folder.iterdir() if path.is_dir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--every", type=int, default=1, help="of the table's rows only every so manyth")
    parser.add_argument("--only", default=",".join(TABLES), help="tables by name, with commas")
    parser.add_argument("--parts", default="epochs,search,kill", help="what is measured")
    args = parser.parse_args()
    parts = args.parts.split(",")
    for name in args.only.split(","):
        whole = Table.open(DATA / name / "table.csv")
        rows = np.arange(0, whole.n_rows, args.every)
        table = whole if args.every == 1 else Table.open(whole.take(rows, whole.columns))
        with tempfile.TemporaryDirectory() as folder:
            work, off, title = Path(folder), None, f"{name}, {len(rows)} rows, {args.epochs} epochs"
            if "epochs" in parts:
                off, lines = epochs_of(name, table, args.epochs, work)
                tell(title, lines, None)
            if "search" in parts:
                tell(title, search_of(name, table, args.epochs, args.trials, work, off), None)
            if "kill" in parts:
                tell(f"{name}, killed while encoding", killed(name, work), None)


if __name__ == "__main__":
    main()
