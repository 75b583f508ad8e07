"""`speech-emotion`, target `emotion`, 5 folds by actor, from scratch: macro-F1 (chance 0.125).

python benchmarks/speech_emotion.py
"""

from __future__ import annotations

import argparse

from common import DATA, folds_and_seeds, summary, tell

from fuseline.data.table import Table
from fuseline.lab.training.cache import Cache

INPUTS = {
    "audio": {"modality": "audio", "max_seconds": 4.0, "encoder": {"kind": "small"}},
    "transcript": {"modality": "text", "encoder": {"kind": "small"}},
    "speaker": {"modality": "tabular", "columns": {"sex": "category"}, "encoder": {"kind": "small"}},
}
BASE = {
    "inputs": INPUTS,
    "task": {"kind": "classification", "target": "emotion"},
    "split": {"kind": "group", "group": "actor", "folds": 5, "val": 0.0},
    # Nothing is absent here, and the sentences are spoken in every emotion: hiding the sound would only confuse.
    "fusion": {"kind": "concat", "modality_dropout": 0.0},
    "training": {"epochs": 40, "batch_size": 32, "learning_rate": 2e-3, "precision": "float32", "loggers": []},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="", help="one variant by name; default: both")
    parser.add_argument("--out")
    args = parser.parse_args()
    table = Table.open(DATA / "speech-emotion" / "table.csv")
    variants = {"audio": {"inputs": {"audio": INPUTS["audio"]}}, "audio, transcript and sex": {}}
    chosen = {k: v for k, v in variants.items() if not args.only or k == args.only}
    results = folds_and_seeds(table, BASE, chosen, seeds=args.seeds, keep=Cache(1024))
    tell("speech-emotion, macro-F1 over folds by actor", summary(results, "macro_f1"), args.out)


if __name__ == "__main__":
    main()
