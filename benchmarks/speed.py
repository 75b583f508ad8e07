"""Side by side in one run: training against a bare loop over the same model with tensors in memory, and the predictor
against a bare onnxruntime session on the same graph.

    python benchmarks/speed.py
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from chest_xray import BASE, INPUTS
from common import DATA, LEAN, tell

from fuseline import api
from fuseline.data.table import Table
from fuseline.lab.build import build_model
from fuseline.lab.training import loop
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import prepare
from fuseline.modalities import MediaRoot
from fuseline.progress import Silent
from fuseline.recipe import parse_recipe
from fuseline.runtime import load


def recipe(tune: str, epochs: int) -> dict:
    inputs = copy.deepcopy(INPUTS)
    for name in ("image", "notes"):
        inputs[name]["encoder"] |= {"tune": tune, "learning_rate": 1e-5} if tune == "full" else {"tune": tune}
    training = {**BASE["training"], "epochs": epochs, "patience": 1000}
    return {**BASE, "inputs": inputs, "training": training, "evaluation": LEAN, "split": {**BASE["split"], "folds": 0}}


def bare(model: torch.nn.Module, batches: list, steps: int) -> float:
    """Seconds of `steps` plain steps: forward, loss, backward, clip, AdamW."""
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    start = time.perf_counter()
    for i in range(steps):
        batch = batches[i % len(batches)]
        optimizer.zero_grad(set_to_none=True)
        loss = model.head.loss(model(batch.arrays, batch.present_BM), batch.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    return time.perf_counter() - start


def training_ratio(tune: str, epochs: int, rounds: int, *, cached: bool) -> dict:
    """Samples a second of fit (less validation, which a bare loop has not) over those of the bare loop."""
    table = Table.open(DATA / "chest-xray" / "table.csv")
    spec = recipe(tune, epochs)
    if not cached:
        spec["training"] = {**spec["training"]}
    spec["split"] = {**spec["split"], "val": 0.0}
    parsed = parse_recipe(spec)
    cache = Cache(1024)
    ratios = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            prepared = prepare(parsed, table, folder=Path(folder), voice=Silent(), cache=cache)
            model = build_model(parsed, prepared.plans, prepared.parser.modalities, prepared.task)
            if cached:
                loop.keep_frozen(prepared, model, Silent())
            rows = prepared.rows("train")
            size = parsed.training.batch_size
            batches = [prepared.reader.batch(rows[i : i + size]) for i in range(0, len(rows) - size + 1, size)]
            steps = epochs * loop.steps_per_epoch(len(rows), size)
            plain = bare(copy.deepcopy(model), batches, steps)
            start = time.perf_counter()
            loop.fit(prepared, model, Path(folder), Silent(), resume=False, precision="float32")
            ours = time.perf_counter() - start
            ratios.append((plain / ours, steps * size / ours, steps * size / plain))
    ratio, ours, plain = (statistics.median(r[i] for r in ratios) for i in range(3))
    return {
        "what": f"training, {tune}" + (", frozen outputs kept" if cached else ""),
        "fuseline": f"{ours:.0f} rows/s",
        "bare loop": f"{plain:.0f} rows/s",
        "ratio": round(ratio, 3),
    }


def predictor_ratio(size: int, rounds: int) -> list[dict]:
    """Time of Predictor.predict on rows already decoded, and from files, over a bare session.run on the same arrays."""
    table = Table.open(DATA / "chest-xray" / "table.csv")
    spec = {**recipe("frozen", 1), "evaluation": {**LEAN, "export": True}}
    with tempfile.TemporaryDirectory() as folder:
        run = api.train(spec, table=table, out=Path(folder) / "run", quiet=True)
        predictor = load(run.package)
        rows = table.take(np.arange(size), list(predictor.rows.columns)).to_dicts()
        media = MediaRoot(str(table.folder))
        parsed = [predictor.rows.parse(row, media) for row in rows]
        arrays = predictor.rows.arrays([p.values for p in parsed])
        session = predictor.backend.session
        times: dict[str, list[float]] = {"bare": [], "answer": [], "predict": []}
        for i in range(rounds + 3):
            for name, call in (
                ("bare", lambda: session.run(None, arrays)),
                ("answer", lambda: predictor.answer(parsed)),
                ("predict", lambda: predictor.predict(rows, media=table.folder)),
            ):
                start = time.perf_counter()
                call()
                if i >= 3:
                    times[name].append(time.perf_counter() - start)
    base = statistics.median(times["bare"])
    return [
        {
            "what": f"predictor, batch {size}, {what}",
            "fuseline": f"{statistics.median(times[name]) * 1e3:.2f} ms",
            "bare loop": f"{base * 1e3:.2f} ms",
            "ratio": round(statistics.median(a / b for a, b in zip(times[name], times["bare"], strict=True)), 3),
        }
        for name, what in (("answer", "from decoded rows"), ("predict", "from files"))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out")
    args = parser.parse_args()
    rows = []
    for part in (
        lambda: [training_ratio("frozen", 30, args.rounds, cached=True)],
        lambda: predictor_ratio(1, 100),
        lambda: predictor_ratio(16, 15),
        lambda: [training_ratio("frozen", 3, 1, cached=False)],
        lambda: [training_ratio("full", 3, 1, cached=False)],
    ):
        rows += part()
        print(rows[-1], file=sys.stderr, flush=True)
    tell("speed against bare loops", rows, args.out)


if __name__ == "__main__":
    main()
