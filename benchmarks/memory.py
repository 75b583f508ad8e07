"""Peak memory of training on `chest-xray` as Parquet against the same table repeated 100 times: streamed, so the same.

python benchmarks/memory.py
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl
from chest_xray import BASE
from common import DATA, LEAN, tell


def child(path: str, folder: str, epochs: int) -> None:
    """Train once and print the peak resident size in MB."""
    from fuseline import api

    recipe = {
        **BASE,
        "table": {"media_root": str(DATA / "chest-xray")},
        "split": {**BASE["split"], "folds": 0},
        "training": {**BASE["training"], "epochs": epochs, "patience": 1000},
        "evaluation": {**LEAN, "export": True},
    }
    api.train(recipe, table=path, out=folder, quiet=True)
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measure(path: Path, folder: Path, epochs: int) -> float:
    words = [sys.executable, __file__, "--child", str(path), str(folder), str(epochs)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        frame = pl.read_csv(DATA / "chest-xray" / "table.csv", infer_schema=False)
        frame.write_parquet(folder / "once.parquet")
        many = frame.with_columns(patient=pl.col("patient"))
        pl.concat([many] * args.times).write_parquet(folder / "many.parquet")
        rows = []
        for name, epochs in (("once", 5), ("many", 1)):
            peaks = [measure(folder / f"{name}.parquet", folder / f"{name}-{i}", epochs) for i in range(args.rounds)]
            size = (folder / f"{name}.parquet").stat().st_size
            count = pl.scan_parquet(folder / f"{name}.parquet").select(pl.len()).collect().item()
            rows.append(
                {"table": name, "rows": count, "Parquet MB": round(size / 2**20, 2), "peak MB": round(min(peaks), 1)}
            )
        for row in rows:
            row["ratio"] = round(row["peak MB"] / rows[0]["peak MB"], 3)
    tell("peak memory of training", rows, args.out)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        child(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
