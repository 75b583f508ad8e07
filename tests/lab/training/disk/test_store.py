"""The store under what may happen to it: kills, several writers, a full folder, damage, a folder that goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from kept_tokens import assert_same, kept, key, plain

from fuseline.errors import FuselineError
from fuseline.lab.training.cache import Kept
from fuseline.lab.training.disk import store as stores
from fuseline.lab.training.disk.segment import INDEX
from fuseline.lab.training.disk.shelf import Shelf
from fuseline.lab.training.disk.store import Store, clear, files_in, listed
from fuseline.lab.training.disk.where import open_cache
from fuseline.recipe import TrainingSpec

ENCODER = "e" * 64
WRITER = """
import sys
from pathlib import Path
from kept_tokens import key, plain
from fuseline.lab.training.disk.store import Store

shelf = Store(Path(sys.argv[1]), 64).shelf("e" * 64, {})
for i in range(int(sys.argv[2]), int(sys.argv[3])):
    shelf.put(key(i), plain(i))
    print(i, flush=True)
"""


def begin(folder: Path, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(folder), str(first), str(last)]
    paths = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths})


def shelf(folder: Path, megabytes: int = 64) -> Shelf:
    return Store(folder, megabytes).shelf(ENCODER, {"encoder": "E", "input": "photo"})


def segments(folder: Path) -> list[Path]:
    return sorted(path for path, _, _ in files_in(folder))


def test_what_was_put_is_there_for_the_next_process(tmp_path: Path) -> None:
    first = shelf(tmp_path)
    for i in range(20):
        assert first.get(key(i)) is None
        assert first.put(key(i), kept(i))
        assert_same(first.get(key(i)), kept(i))
    first.flush()
    second = shelf(tmp_path)
    for i in range(20):
        assert_same(second.get(key(i)), kept(i))
    assert second.get(key(20)) is None
    found = second.get(key(19))
    assert found is not None
    assert not found.values_TD.flags.writeable  # a view of the file
    assert Store(tmp_path, 64).shelf("f" * 64, {}).get(key(1)) is None  # another encoder


def test_a_kill_loses_at_most_the_record_that_was_being_written(tmp_path: Path) -> None:
    process = begin(tmp_path, 0, 10**9)
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    said += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    process.wait()
    process.stdout.close()
    after = shelf(tmp_path)
    for i in said:
        assert_same(after.get(key(i)), plain(i))
    assert len(said) <= len(after) <= len(said) + 1
    assert after.put(key(10**9), kept(1))  # its file is gone on with
    assert len(segments(tmp_path)) == 1
    again = shelf(tmp_path)
    assert_same(again.get(key(10**9)), kept(1))
    assert_same(again.get(key(said[-1])), plain(said[-1]))


def test_several_processes_write_at_once_and_see_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuseline.lab.training.disk.shelf.PAUSE", 0.0)
    mine = shelf(tmp_path)
    assert mine.put(key(5000), kept(3))
    running = [begin(tmp_path, 0, 300), begin(tmp_path, 150, 450)]
    for process in running:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert len(out.split()) == 300
    for i in range(450):
        assert_same(mine.get(key(i)), plain(i))
    assert_same(mine.get(key(5000)), kept(3))
    assert 2 <= len(segments(tmp_path)) <= 3  # one goes on with the other's if that has ended


def test_damage_is_computed_again_and_never_served(tmp_path: Path) -> None:
    first = shelf(tmp_path)
    for i in range(10):
        first.put(key(i), kept(i))
    first.flush()
    (path,) = segments(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.rindex(kept(5).values_TD.tobytes()) + 7] ^= 4
    path.write_bytes(bytes(data))
    store = Store(tmp_path, 64)
    again = store.shelf(ENCODER, {})
    found = [again.get(key(i)) for i in range(10)]
    for i, tokens in enumerate(found):
        if tokens is not None:
            assert_same(tokens, kept(i))
    assert found[5] is None
    assert store.counts.damaged == 1
    assert all(again.put(key(i), kept(i)) for i in range(10))
    last = shelf(tmp_path)
    for i in range(10):
        assert_same(last.get(key(i)), kept(i))


def test_the_bound_is_kept_by_removing_what_was_used_longest_ago(tmp_path: Path) -> None:
    big = Kept(np.ones((1, 8000), np.float32), np.ones(1, bool))  # 32 kB, two of them a file
    old = shelf(tmp_path, 1)
    assert all(old.put(key(i), big) for i in range(12))
    old.flush()
    del old
    for age, path in enumerate(segments(tmp_path)):
        os.utime(path, (1000 + age, 1000 + age))
    store = Store(tmp_path, 1)
    new = store.shelf("f" * 64, {})
    assert all(new.put(key(100 + i), big) for i in range(24))
    assert sum(size for _, _, size in files_in(tmp_path)) <= 2**20
    held = [shelf(tmp_path, 1).get(key(i)) is not None for i in range(12)]
    assert not held[0]
    assert held == sorted(held)  # the oldest went first
    # What this run has used is not removed for more of it: nothing more is written, and it is said.
    assert not all(new.put(key(200 + i), big) for i in range(12))
    assert "full" in store.trouble
    assert all(new.get(key(100 + i)) is not None for i in range(24))
    assert sum(size for _, _, size in files_in(tmp_path)) <= 2**20
    store.begin()  # the next run's may take their place
    assert store.shelf("a" * 64, {}).put(key(1), big)


def test_more_than_the_bound_in_one_record(tmp_path: Path) -> None:
    assert not shelf(tmp_path, 1).put(key(0), Kept(np.ones((1, 300_000), np.float32), np.ones(1, bool)))


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, 64)
    full = store.shelf(ENCODER, {})
    assert full.put(key(0), kept(0))
    real, calls = os.pwrite, [0]

    def half(file: int, data: memoryview, at: int) -> int:
        calls[0] += 1
        if calls[0] == 1:
            return real(file, data[:100], at)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half)
        assert not full.put(key(1), kept(1))
        assert not full.put(key(2), kept(2))
    assert "No space left" in store.trouble
    assert_same(full.get(key(0)), kept(0))
    assert full.get(key(1)) is None
    assert len(shelf(tmp_path)) == 1


def test_a_folder_that_another_process_clears(tmp_path: Path) -> None:
    first = shelf(tmp_path)
    first.put(key(0), kept(0))
    first.flush()
    reader = shelf(tmp_path)
    assert_same(reader.get(key(0)), kept(0))
    assert [(e["encoder"], e["input"]) for e in listed(tmp_path)] == [("E", "photo")]
    assert clear(tmp_path) > 0
    assert listed(tmp_path) == []
    assert_same(reader.get(key(0)), kept(0))  # it is mapped
    assert first.put(key(1), kept(1))  # to a file without a name: lost, and no error
    new = shelf(tmp_path)
    assert new.get(key(0)) is None
    assert new.put(key(0), kept(0))


def test_foreign_files_are_passed_over(tmp_path: Path) -> None:
    first = shelf(tmp_path)
    first.put(key(0), kept(0))
    first.flush()
    folder = segments(tmp_path)[0].parent
    (folder / "zz.tokens").write_bytes(os.urandom(5000))
    (folder / "empty.tokens").write_bytes(b"")
    (folder / "dir.tokens").mkdir()
    (folder / "about.json").write_text("[1, 2", encoding="utf-8")
    segments(tmp_path)[0].with_suffix(INDEX).write_bytes(b"x")
    assert_same(shelf(tmp_path).get(key(0)), kept(0))
    assert listed(tmp_path)[0]["bytes"] > 5000
    clear(tmp_path)


def test_used_files_are_marked_as_used(tmp_path: Path) -> None:
    first = shelf(tmp_path)
    first.put(key(0), kept(0))
    first.flush()
    (path,) = segments(tmp_path)
    os.utime(path, (1000, 1000))
    again = shelf(tmp_path)
    assert path.stat().st_mtime == 1000  # opened is not used
    again.get(key(0))
    assert path.stat().st_mtime > time.time() - 60


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder(**spec: object) -> Path | None:
        store = open_cache(TrainingSpec.model_validate(spec)).store
        return None if store is None else store.folder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("FUSELINE_CACHE", raising=False)
    assert folder() == tmp_path / "xdg" / "fuseline" / "tokens"
    assert (tmp_path / "xdg/fuseline/tokens").stat().st_mode & 0o077 == 0
    assert folder(cache_folder=str(tmp_path / "own")) == tmp_path / "own"
    assert folder(cache_folder="off") is folder(cache_mb=0) is folder(cache_disk_mb=0) is None
    monkeypatch.setenv("FUSELINE_CACHE", "off")
    assert folder() is None
    assert folder(cache_folder=str(tmp_path / "own")) == tmp_path / "own"
    file = tmp_path / "file"
    file.write_text("")
    monkeypatch.setenv("FUSELINE_CACHE", str(file / "below"))
    assert folder() is None  # nobody asked for it in the recipe
    with pytest.raises(FuselineError, match="cannot hold frozen") as raised:
        folder(cache_folder=str(file / "below"))
    assert raised.value.code == "cannot_write"


def test_the_store_is_marked_for_backup_programs(tmp_path: Path) -> None:
    Store(tmp_path / "deep/er", 1)
    assert (tmp_path / "deep/er" / stores.MARK).read_text(encoding="ascii").startswith("Signature: 8a477f597d28d172")
