"""The same parts from Ray Data's actors, one of which is killed. In a process of its own: Ray changes its host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import made
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fuseline import api

pytest.importorskip("ray", reason="the extra `ray` is not installed")

CODE = """
import json, os, signal, sys, threading, time
from pathlib import Path
from fuseline import api

killed = []

def kill():
    out = Path(sys.argv[3])
    while not list(out.glob("part-*.parquet")):
        time.sleep(0.01)
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes()
            session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
        except (OSError, ValueError):
            continue
        if words.startswith(b"ray::") and b"MapWorker" in words and session == os.getsid(0):
            os.kill(int(entry.name), signal.SIGKILL)
            killed.append(int(entry.name))
            return

threading.Thread(target=kill, daemon=True).start()
counts = api.batch(sys.argv[1], Path(sys.argv[2]), sys.argv[3], engine="ray", workers=1, shard_rows=4, batch_size=2)
print(json.dumps({"counts": counts, "killed": len(killed)}))
"""


def test_ray_data_makes_the_same_parts_though_an_actor_dies(package: Path, tmp_path: Path) -> None:
    table = made.make_table(tmp_path / "table", 60, seed=3)
    local, out = tmp_path / "local", tmp_path / "ray"
    api.batch(package, table, local, shard_rows=4, batch_size=2, quiet=True)
    environment = os.environ | {"RAY_ADDRESS": "local", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", CODE, str(package), str(table), str(out)],
        capture_output=True,
        text=True,
        env=environment,
        start_new_session=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert told["counts"] == {"rows": 60, "errors": 0, "parts": 15, "kept": 0}
    assert told["killed"] == 1
    names = sorted(p.name for p in local.iterdir())
    assert sorted(p.name for p in out.iterdir()) == names
    for name in names[1:]:
        assert_frame_equal(pl.read_parquet(out / name), pl.read_parquet(local / name), abs_tol=1e-5)
    assert api.batch(package, table, out, shard_rows=4, batch_size=2, quiet=True)["kept"] == 15
