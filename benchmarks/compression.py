"""Compressing fused models on the real tables: how much smaller and faster, and what it costs on rows never seen.

    python benchmarks/compression.py chest              # 5 folds by patient, at most half a point of AUROC
    python benchmarks/compression.py speech --folds 2   # an eighth of the size, at most one point of macro-F1
    python benchmarks/compression.py stamps
    python benchmarks/compression.py stamps --methods   # each method alone, on one fold

Every fold trains a model, lets `fuseline compress` choose on training rows held back from the search, and measures the
float package and the chosen one on the fold's test rows. Drops are means over folds; their intervals resample whole
groups (patients, actors) within the folds, the same for both models.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import chest_xray
import numpy as np
import speech_emotion
import stamps
from common import DATA, machine

from fuseline import api
from fuseline.data.split import make_folds
from fuseline.data.table import Table
from fuseline.lab.compress.budget import read_budget
from fuseline.lab.compress.candidate import Candidate, Cut, Numbers
from fuseline.lab.compress.measure import Outputs, Ruler
from fuseline.lab.compress.subject import open_subject
from fuseline.lab.compress.teacher import Teacher
from fuseline.lab.compress.workshop import Settings, Workshop
from fuseline.lab.training.cache import Cache
from fuseline.package import read_package
from fuseline.progress import Silent, voice
from fuseline.recipe import parse_recipe
from fuseline.runtime import load
from fuseline.tasks.bootstrap import intervals

EVALUATION = {"bootstrap": 0, "degradation": False, "report": False}
TABLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chest": (chest_xray.BASE, {"max_drop": 0.5}),
    "speech": (speech_emotion.BASE, {"max_drop": 1.0}),
    "stamps": ({**stamps.BASE, "inputs": stamps.INPUTS}, {"max_drop": 1.0}),
}
FOLDERS = {"chest": "chest-xray", "speech": "speech-emotion", "stamps": "stamps"}
EIGHTH = ("speech", "stamps")
"""tables whose budget is an eighth of the size"""


def methods(names: tuple[str, ...], text: str | None, image: str | None) -> dict[str, Candidate]:
    """Each method by itself, on all parts that it fits."""
    large = [n for n in (text, image) if n is not None] or list(names)

    def numbers(backend: str, precision: str) -> Candidate:
        return Candidate(numbers=Numbers(backend=backend, precision=dict.fromkeys(large, precision)))

    def cut(**change: Any) -> Candidate:
        return Candidate(cut=Cut(**change))

    found = {
        "as it is": Candidate(),
        "OpenVINO float32": Candidate(numbers=Numbers(backend="openvino")),
        "OpenVINO bfloat16": numbers("openvino", "bfloat16"),
        "OpenVINO int8": numbers("openvino", "int8"),
        "OpenVINO int8 weights": numbers("openvino", "weights-int8"),
        "ONNX Runtime int8, static": numbers("onnxruntime", "int8"),
        "ONNX Runtime int8, dynamic": numbers("onnxruntime", "int8-dynamic"),
        "ONNX Runtime int8 weights": numbers("onnxruntime", "weights-int8"),
        "ONNX Runtime int4 weights": numbers("onnxruntime", "weights-int4"),
        "half of the widths": cut(widths=dict.fromkeys(large, 0.5)),
    }
    if text is not None:
        found["half of the text's layers"] = cut(layers={text: 0.5})
        found["used words only"] = cut(vocabulary=(text,))
    if image is not None:
        found["two thirds of the picture's layers"] = cut(layers={image: 0.67})
    return found


def table_of_methods(name: str, table: Table, base: dict[str, Any], work: Path, cache: Cache) -> list[dict[str, Any]]:
    """One fold's model, every method alone, measured on the fold's test rows; cuts with and without healing."""
    split = folds(table, base)[0]
    run = trained(table, base, split, work / "run", cache)
    subject = open_subject(read_package(run), table, cache=cache, voice=Silent(), split=split)
    modalities = {n: m.name for n, m in subject.prepared.parser.modalities.items()}
    text = next((n for n, m in modalities.items() if m == "text" and name != "speech"), None)
    image = next((n for n, m in modalities.items() if m == "image"), None)
    teacher = Teacher.of_models([subject.model], subject.prepared)
    rows: list[dict[str, Any]] = []
    test = Ruler(subject.prepared, subject.prepared.rows("test"), metric=subject.prepared.task.metric)
    before: Outputs | None = None
    for epochs in (10, 0):
        budget = read_budget(None, None, 1.0)
        shop = Workshop(subject, work / f"methods-{epochs}", Settings(epochs=epochs), budget, voice(), teacher)
        for title, candidate in methods(subject.names, text, image).items():
            if epochs == 0 and not candidate.cut:
                continue
            trial = shop.trial(candidate)
            label = title if epochs or not candidate.cut else f"{title}, not healed"
            if trial["failed"]:
                rows.append({"method": label, "drop": f"failed: {trial['failed'][:80]}"})
                continue
            after = test.outputs(load(shop.package_of(trial)), Silent(), "")
            before = before or after
            verdict = test.compare(before, after)
            worst = max(verdict.subsets[1:], key=lambda s: s["drop"]["value"] or 0.0, default=None)
            rows.append(
                {
                    "method": label,
                    "MB": round(trial["size_bytes"] / 1e6, 1),
                    "times smaller": round(rows[0]["MB"] / (trial["size_bytes"] / 1e6), 1) if rows else 1.0,
                    "times faster, 1 row": round(trial["speedup"]["1"], 2),
                    "8 rows": round(trial["speedup"]["8"], 2),
                    "drop": f"{verdict.drop['value']:+.2f} ({verdict.drop['low']:+.2f} to {verdict.drop['high']:+.2f})",
                    "mean change": f"{verdict.change:.4f}",
                    "same answers": f"{verdict.same_answer:.1%}",
                    "worst subset": ""
                    if worst is None
                    else f"{', '.join(worst['present'])}: {worst['drop']['value']:+.2f}",
                    "seconds to make": round(sum(v for k, v in trial["seconds"].items() if k != "measure")),
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def folds(table: Table, base: dict[str, Any]) -> list[Any]:
    spec = parse_recipe({**base, "table": {"media_root": str(table.folder)}})
    return make_folds(table, spec.split, target_column=base["task"]["target"], stratify="classes")


def trained(table: Table, base: dict[str, Any], split: Any, out: Path, cache: Cache) -> Path:
    if (out / "model.fuse" / "manifest.json").exists():  # --work is gone on in
        return out
    recipe = {**base, "evaluation": EVALUATION, "table": {"media_root": str(table.folder)}}
    return api.train(recipe, table=table, out=out, split=split, cache=cache, quiet=True).folder


def one_fold(
    name: str,
    table: Table,
    base: dict[str, Any],
    limits: dict[str, Any],
    split: Any,
    work: Path,
    args: Any,
    cache: Cache,
) -> dict[str, Any]:
    run = trained(table, base, split, work / "run", cache)
    size = read_package(run).bytes
    if name in EIGHTH:
        limits = {**limits, "max_size": f"{size / 8:.0f}b"}
    start = time.perf_counter()
    found = api.compress(
        run, table, out=work / "search", split=split, cache=cache, max_trials=args.trials, epochs=args.epochs, **limits
    )
    seconds = time.perf_counter() - start
    subject = open_subject(read_package(run), table, cache=cache, voice=Silent(), split=split)
    ruler = Ruler(subject.prepared, subject.prepared.rows("test"), metric=subject.prepared.task.metric)
    chosen = found.chosen
    latency = found.result["final"]["latency"]
    before, after = (ruler.outputs(load(path), Silent(), "") for path in (run, found.package))
    print(f"{chosen['words']}: {found.result['status']}", file=sys.stderr, flush=True)
    return {
        "words": chosen["words"],
        "status": found.result["status"],
        "smaller": size / chosen["size_bytes"],
        "faster": latency["base"]["1"]["median"] / latency["chosen"]["1"]["median"],
        "ms": (latency["base"]["1"]["median"], latency["chosen"]["1"]["median"]),
        "bytes": (size, chosen["size_bytes"]),
        "seconds": seconds,
        "trials": len(found.result["trials"]),
        "ruler": ruler,
        "outputs": (before, after),
    }


def pooled(done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over folds of both models' metric and of the drop, for every subset, with intervals over groups."""
    first: Ruler = done[0]["ruler"]
    task, metric = first.prepared.task, first.metric
    rows = []
    for subset in first.subsets:
        measures, sizes, groups = [], [], []
        for k, fold in enumerate(done):
            ruler: Ruler = fold["ruler"]
            chosen = [i for i, n in enumerate(ruler.names) if n in subset]
            some = np.flatnonzero(ruler.present_NM[:, chosen].any(axis=1))
            pair = [{key: v[some] for key, v in outputs[subset].items()} for outputs in fold["outputs"]]
            measures.append([task.measure(ruler.targets[some], outputs) for outputs in pair])
            sizes.append(len(some))
            own = ruler.groups[some] if ruler.groups is not None else np.arange(len(some))
            groups.append(own + 1_000_000 * k)
        edges = np.cumsum([0, *sizes])

        def measure(weights_RN: np.ndarray, measures: Any = measures, edges: Any = edges) -> dict[str, np.ndarray]:
            values = [
                [m(weights_RN[:, a:b])[metric] for m in pair]
                for pair, a, b in zip(measures, edges[:-1], edges[1:], strict=True)
            ]
            before, after = np.nanmean(np.array(values), axis=0)
            return {"before": before, "after": after, "drop": 100 * (before - after)}

        point = {k: float(v[0]) for k, v in measure(np.ones((1, edges[-1]))).items()}
        low, high = intervals(measure, int(edges[-1]), resamples=1000, groups=np.concatenate(groups))["drop"]
        rows.append(
            {
                "present": ", ".join(subset),
                "rows": int(edges[-1]),
                f"{metric} before": round(point["before"], 4),
                "after": round(point["after"], 4),
                "drop, points": f"{point['drop']:+.2f} ({low:+.2f} to {high:+.2f})",
            }
        )
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    head = list(rows[0])
    print(f"\n### {title}\n\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(row.get(k, "")) for k in head) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--folds", type=int, default=5, help="the first so many")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--methods", action="store_true", help="each method alone instead")
    parser.add_argument("--work", help="a folder to keep and to go on in")
    parser.add_argument("--out")
    args = parser.parse_args()
    base, limits = TABLES[args.table]
    table = Table.open(DATA / FOLDERS[args.table] / "table.csv")
    cache = Cache(2048)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(args.work or temporary)
        print(machine())
        if args.methods:
            rows = table_of_methods(args.table, table, base, work, cache)
            show(f"{args.table}: each method alone", rows)
            if args.out:
                Path(args.out).write_text(json.dumps(rows, indent=1), encoding="utf-8")
            return
        done = [
            one_fold(args.table, table, base, limits, split, work / f"fold-{k}", args, cache)
            for k, split in enumerate(folds(table, base)[: args.folds])
        ]
        plain = [{k: v for k, v in fold.items() if k not in ("ruler", "outputs")} for fold in done]
        show(
            f"{args.table}: chosen in each fold",
            [
                {
                    "fold": k,
                    "chosen": fold["words"],
                    "budget": fold["status"],
                    "MB": f"{fold['bytes'][0] / 1e6:.1f} to {fold['bytes'][1] / 1e6:.1f}",
                    "times smaller": round(fold["smaller"], 1),
                    "ms": f"{fold['ms'][0]:.1f} to {fold['ms'][1]:.1f}",
                    "times faster": round(fold["faster"], 1),
                    "trials": fold["trials"],
                    "seconds": round(fold["seconds"]),
                }
                for k, fold in enumerate(plain)
            ],
        )
        table_rows = pooled(done)
        show(f"{args.table}: test rows of {len(done)} folds", table_rows)
        if args.out:
            Path(args.out).write_text(json.dumps({"folds": plain, "subsets": table_rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
