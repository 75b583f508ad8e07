"""Graphs: a label that only the edges reveal, and link prediction beside torch-geometric's own.

With `--labels`: people in clubs of a colour that no file says (`tests/graphs.py: write_club`), 4 classes, each person
in one row; trained with the graph (every encoder), and without it (the id as a category). Test accuracy over seeds.

Without: triples that rules explain (`tests/graphs.py: torus`), 80 % to learn from, 10 % held out. Our TransE, RotatE
and ComplEx against `torch_geometric.nn.kge`, which is trained with its own loader, loop and `test` as in its example
(examples/kge_fb15k_237.py): same triples, seeds, epochs, batch and optimiser. Mean reciprocal rank of the true tail
among all entities: unfiltered, as that `test` computes it, and filtered for ours.

    python benchmarks/knowledge_graph.py --seeds 3
    python benchmarks/knowledge_graph.py --labels --seeds 3
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from common import LEAN, tell

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from graphs import torus, write_club

from fuseline import api
from fuseline.lab.encoders.links import ComplEx, RotatE, TransE, rank_tails, train_links

KINDS = {"TransE": (TransE, 1.0), "RotatE": (RotatE, 1.0), "ComplEx": (ComplEx, 1.0)}
WITH: dict[str, dict[str, Any]] = {kind: {"kind": kind} for kind in ("small", "transe", "rotate", "complex")}


def labels(seeds: int, rows: int, epochs: int, out: str | None) -> None:
    noise = {"modality": "tabular", "columns": {"noise": "number"}}
    without = {"modality": "tabular", "columns": {"noise": "number", "who": "category"}}
    told = []
    for name, encoder in {"without the graph": None, **WITH}.items():
        scores, seconds = [], []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                table = write_club(Path(folder), rows, seed=seed)
                who = {"who": {"modality": "graph", "edges": "triples.csv", "encoder": encoder}}
                recipe = {
                    "inputs": {"noise": without} if encoder is None else {"noise": noise, **who},
                    "task": {"kind": "classification", "target": "colour"},
                    "split": {"kind": "stratified", "val": 0.2, "test": 0.3, "seed": seed},
                    "fusion": {"kind": "attention", "width": 32},
                    "training": {
                        "epochs": epochs,
                        "learning_rate": 3e-3,
                        "seed": seed,
                        "precision": "float32",
                        "loggers": [],
                    },
                    "evaluation": LEAN,
                }
                start = time.perf_counter()
                run = api.train(recipe, table=table, out=Path(folder) / "run", quiet=True)
                seconds.append(time.perf_counter() - start)
                scores.append(run.metrics["parts"]["test"]["metrics"]["accuracy"]["value"])
                print(f"{name}, seed {seed}: {scores[-1]:.3f} in {seconds[-1]:.1f} s", file=sys.stderr, flush=True)
        told.append(
            {
                "encoder": name,
                "accuracy": round(statistics.mean(scores), 3),
                "of each seed": ", ".join(f"{s:.3f}" for s in scores),
                "seconds": round(statistics.median(seconds), 1),
            }
        )
    tell(f"{rows} people, 4 colours of which only the edges tell; chance 0.25", told, out)


def links(seeds: int, epochs: int, width: int, out: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch_geometric.nn import kge
    told = []
    for kind, (ours, margin) in KINDS.items():
        rows: dict[str, list[float]] = {"ours": [], "torch-geometric": [], "filtered": [], "untrained": []}
        for seed in range(seeds):
            triples, entities, relations = torus(seed=seed)
            every = torch.from_numpy(triples)
            held = len(every) // 10
            test, train = every[:held], every[2 * held :]
            torch.manual_seed(seed)
            mine = ours(entities, relations, width, margin)
            rows["untrained"].append(rank_tails(mine.score, entities, test).mrr)
            train_links(mine, train, torch.optim.Adam(mine.parameters(), lr=0.01), epochs=epochs, batch_size=512)
            rows["ours"].append(rank_tails(mine.score, entities, test).mrr)
            rows["filtered"].append(rank_tails(mine.score, entities, test, every).mrr)
            torch.manual_seed(seed)
            theirs = getattr(kge, kind)(entities, relations, width)
            rows["torch-geometric"].append(_example(theirs, train, test, epochs))
            print(
                f"{kind}, seed {seed}: { {k: round(v[-1], 4) for k, v in rows.items()} }", file=sys.stderr, flush=True
            )
        told.append({"model": kind, **{name: _spread(values) for name, values in rows.items()}})
    tell(f"MRR of {held} held-out tails among {entities} entities, {len(train)} triples, {epochs} epochs", told, out)


def _example(model: Any, train: torch.Tensor, test: torch.Tensor, epochs: int) -> float:
    """The loop of torch-geometric's example."""
    loader = model.loader(*train.unbind(1), batch_size=512, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(epochs):
        model.train()
        for head, relation, tail in loader:
            optimizer.zero_grad()
            model.loss(head, relation, tail).backward()
            optimizer.step()
    model.eval()
    _, mrr, _ = model.test(*test.unbind(1), batch_size=20_000, k=10, log=False)
    return float(mrr)


def _spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--epochs", type=int, help="default: 20 of the labels, 100 of the links")
    parser.add_argument("--width", type=int, default=32, help="numbers of an entity's vector, of the links")
    parser.add_argument("--out")
    args = parser.parse_args()
    if args.labels:
        labels(args.seeds, args.rows, args.epochs or 20, args.out)
    else:
        links(args.seeds, args.epochs or 100, args.width, args.out)


if __name__ == "__main__":
    main()
