"""`chest-xray`, target `covid`, folds by patient: the fused model, each modality alone, each fusion kind.

python benchmarks/chest_xray.py --seeds 5
"""

from __future__ import annotations

import argparse

from common import DATA, folds_and_seeds, summary, tell

from fuseline.data.table import Table
from fuseline.lab.fusion import FUSIONS
from fuseline.lab.training.cache import Cache

VITALS = {
    "age": "number",
    "sex": "category",
    "temperature": "number",
    "po2_saturation": "number",
    "leukocyte_count": "number",
    "neutrophil_count": "number",
    "lymphocyte_count": "number",
    "days_since_onset": "number",
    "view": "category",
}
INPUTS = {
    "image": {"modality": "image", "encoder": {"kind": "efficientnet-lite0", "tune": "frozen", "tokens": "pooled"}},
    "notes": {"modality": "text", "encoder": {"kind": "minilm", "tune": "frozen", "tokens": "pooled"}},
    "vitals": {"modality": "tabular", "columns": VITALS, "encoder": {"kind": "small"}},
}
DROPOUT = {"input_dropout": 0.5, "head_dropout": 0.3, "modality_dropout": 0.3}
BASE = {
    "inputs": INPUTS,
    "task": {"kind": "classification", "target": "covid", "positive": "yes"},
    # No validation part: thirty rows of it would choose the epoch by chance. All epochs are run, under strong dropout.
    "split": {"kind": "group", "group": "patient", "folds": 5, "val": 0.0},
    "fusion": {"kind": "attention", **DROPOUT},
    "training": {"epochs": 30, "batch_size": 32, "learning_rate": 1e-3, "precision": "float32", "loggers": []},
}


def variants() -> dict[str, dict[str, object]]:
    out: dict[str, dict[str, object]] = {f"fused: {kind}": {"fusion": {"kind": kind, **DROPOUT}} for kind in FUSIONS}
    out |= {f"{name} alone": {"inputs": {name: spec}} for name, spec in INPUTS.items()}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="variants by name, with commas; default: all")
    parser.add_argument("--out")
    args = parser.parse_args()
    table = Table.open(DATA / "chest-xray" / "table.csv")
    chosen = {k: v for k, v in variants().items() if not args.only or k in args.only.split(",")}
    results = folds_and_seeds(table, BASE, chosen, seeds=args.seeds, keep=Cache(1024))
    tell("chest-xray, covid, AUROC over folds by patient", summary(results, "auroc"), args.out)


if __name__ == "__main__":
    main()
