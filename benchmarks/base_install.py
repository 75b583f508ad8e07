"""The base install: what it weighs, and how soon a package gives its first answer. No torch.

    python benchmarks/base_install.py --package runs/x/model.fuse --table ../shared/data/chest-xray/table.csv

Makes a new virtual environment, installs the project without extras (constraints.txt), and measures there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import tell

ROOT = Path(__file__).resolve().parents[1]
FIRST = """
import json, sys, time
start = time.perf_counter()
import fuseline
imported = time.perf_counter()
from fuseline.data.table import Table
model = fuseline.load(sys.argv[1])
loaded = time.perf_counter()
table = Table.open(sys.argv[2])
row = Table.rows(table.take([0], [c for c in model.rows.columns]))
read = time.perf_counter()
answer = model.predict(row, media=table.folder)[0]
done = time.perf_counter()
assert answer.error is None, answer.error
try:
    import torch
    torch_there = True
except ModuleNotFoundError:
    torch_there = False
print(json.dumps({"import": imported - start, "load": loaded - imported, "first predict": done - read,
                  "all": done - start, "torch": torch_there}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", required=True)
    parser.add_argument("--table", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        venv = Path(work) / "venv"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        python = venv / "bin" / "python"
        site = Path(
            subprocess.run(
                [python, "-c", "import site; print(site.getsitepackages()[0])"],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.strip()
        )
        before = _megabytes(site)
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, str(ROOT)], check=True, stderr=subprocess.DEVNULL)
        listed = subprocess.run(
            [python, "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        packages = [p["name"] for p in json.loads(listed) if p["name"] not in ("pip", "setuptools")]
        times = [
            json.loads(
                subprocess.run(
                    [python, "-c", FIRST, args.package, args.table],
                    check=True,
                    capture_output=True,
                    text=True,
                    cwd=work,
                ).stdout
            )
            for _ in range(args.rounds)
        ]
        size = _megabytes(site) - before
    rows = [
        {"what": "size on disk with all dependencies", "figure": f"{size:.0f} MB"},
        {"what": "packages", "figure": str(len(packages))},
        {"what": "torch importable", "figure": str(times[0]["torch"])},
    ]
    for key in ("import", "load", "first predict", "all"):
        values = [t[key] for t in times]
        rows.append(
            {"what": f"{key}, median (first run)", "figure": f"{statistics.median(values):.2f} s ({values[0]:.2f} s)"}
        )
    tell("base install", rows, args.out)


def _megabytes(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink()) / 2**20


if __name__ == "__main__":
    main()
