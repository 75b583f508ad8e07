"""What the benchmarks share: where the real tables are, many short runs over folds and seeds, and how they are told."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fuseline import api
from fuseline.data.table import Table
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import fold_rows
from fuseline.recipe import parse_recipe

DATA = Path(os.environ.get("FUSELINE_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
LEAN = {"bootstrap": 0, "degradation": False, "export": False, "report": False}


def machine() -> str:
    import torch

    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads"


def folds_and_seeds(
    table: Table, base: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]], *, seeds: int, keep: Cache
) -> dict[str, list[dict[str, float]]]:
    """Each variant (changes to the recipe) over the same folds of each seed. Returns the test metrics of every run."""
    out: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for seed in range(seeds):
        spec = parse_recipe({**base, "split": {**base["split"], "seed": seed}})
        splits = fold_rows(spec, table)
        for fold, split in enumerate(splits):
            for name, change in variants.items():
                training = {**base["training"], **change.get("training", {}), "seed": seed}
                recipe = {**base, **change, "training": training, "evaluation": change.get("evaluation", LEAN)}
                start = time.perf_counter()
                with tempfile.TemporaryDirectory() as folder:
                    run = api.train(recipe, table=table, out=Path(folder) / "run", split=split, cache=keep, quiet=True)
                    scores = {k: m["value"] for k, m in run.metrics["parts"]["test"]["metrics"].items()}
                    if run.metrics["degradation"]:
                        scores["degradation"] = run.metrics["degradation"]
                scores["seconds"] = time.perf_counter() - start
                out[name].append(scores)
                main = run_metric(scores)
                print(
                    f"seed {seed} fold {fold} {name}: {main} in {scores['seconds']:.1f} s", file=sys.stderr, flush=True
                )
    return out


def run_metric(scores: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {scores[k]:.3f}" for k in ("auroc", "macro_f1") if scores.get(k) is not None)


def summary(results: Mapping[str, list[dict[str, float]]], metric: str) -> list[dict[str, Any]]:
    rows = []
    for name, scores in results.items():
        values = [s[metric] for s in scores if s.get(metric) is not None]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        rows.append(
            {
                "variant": name,
                "runs": len(values),
                metric: round(statistics.mean(values), 4),
                "spread": round(spread, 4),
                "seconds": round(statistics.median(s["seconds"] for s in scores), 2),
            }
        )
    return rows


def tell(title: str, rows: list[dict[str, Any]], out: str | None) -> None:
    """A Markdown table on standard output; JSON to `out`."""
    print(f"\n### {title}\n\n{machine()}\n")
    head = list(rows[0])
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(row.get(k, "")) for k in head) + " |")
    if out:
        Path(out).write_text(
            json.dumps({"title": title, "machine": machine(), "rows": rows}, indent=1), encoding="utf-8"
        )
