"""API keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuseline.errors import FuselineError
from fuseline.serve import keys
from fuseline.serve.keys import Bucket, Keys


def test_a_key_opens_and_is_stored_as_a_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = keys.add(file, "ward 3")
    assert secret not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    assert Keys(file).check(secret) == "ward 3"


@pytest.mark.parametrize("given", [None, "", "fuse_wrong", "é" * 40, "x" * 10_000])
def test_others_do_not(tmp_path: Path, given: str | None) -> None:
    file = tmp_path / "keys.json"
    keys.add(file, "a")
    with pytest.raises(FuselineError) as caught:
        Keys(file).check(given)
    assert caught.value.code == "unauthorized"


def test_a_removed_key_stops_and_a_new_one_starts(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    first = keys.add(file, "a")
    door = Keys(file)
    second = keys.add(file, "b")
    keys.remove(file, "a")
    door._looked = float("-inf")
    assert door.check(second) == "b"
    with pytest.raises(FuselineError):
        door.check(first)


def test_a_broken_file_keeps_the_keys_of_before(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = keys.add(file, "a")
    door = Keys(file)
    file.write_text("{")
    door._looked = float("-inf")
    assert door.check(secret) == "a"
    with pytest.raises(FuselineError, match="no key file"):
        Keys(file)


def test_each_key_has_its_rate(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    slow, free = keys.add(file, "slow", per_minute=1), keys.add(file, "free")
    door = Keys(file)
    door.check(slow)
    with pytest.raises(FuselineError) as caught:
        door.check(slow)
    assert caught.value.code == "rate_limited"
    for _ in range(50):
        door.check(free)


def test_a_bucket_fills_with_time() -> None:
    bucket = Bucket(60)
    now = bucket.filled
    assert [bucket.take(now) > 0 for _ in range(7)] == [False] * 6 + [True]
    assert bucket.take(now + 1) == 0


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 65, "a"])
def test_names_are_checked(tmp_path: Path, name: str) -> None:
    file = tmp_path / "keys.json"
    keys.add(file, "a")
    with pytest.raises(FuselineError):
        keys.add(file, name)
