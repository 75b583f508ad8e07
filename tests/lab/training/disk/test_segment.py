"""Files of records: whole ones are found, torn and damaged ones are not, whatever the index beside them says."""

from __future__ import annotations

from pathlib import Path

import kept_tokens
import pytest
from kept_tokens import assert_same, kept, key

from fuseline.lab.training.disk.record import DamagedError, pack, read_head, unpack
from fuseline.lab.training.disk.segment import INDEX, Segment, is_written


def written(path: Path, count: int = 5) -> Segment:
    segment = Segment.new(path)
    for i in range(count):
        segment.append(pack(key(i), kept(i)))
    return segment


def keys(path: Path) -> list[bytes]:
    return [found[0] for found in Segment(path).found()]


@pytest.mark.parametrize("i", [0, 1, 7])
def test_a_record_is_what_was_written(i: int) -> None:
    data = pack(key(i), kept(i))
    assert_same(unpack(data, key(i), verify=True), kept(i))
    assert len(data) % 64 == 0
    assert_same(unpack(pack(key(i), kept_tokens.NANS), key(i), verify=True), kept_tokens.NANS)


def test_every_damaged_byte_is_noticed() -> None:
    data = pack(key(3), kept(3))
    head = read_head(data)
    assert head is not None
    for at in (*range(68), *range(128, len(data))):  # between them the head is padding
        bad = bytearray(data)
        bad[at] ^= 1
        with pytest.raises(DamagedError):
            unpack(bytes(bad), key(3), verify=True)
    for bad_one in (data[:-1], data + b"\0", b"", bytes(len(data))):
        with pytest.raises(DamagedError):
            unpack(bad_one, key(3), verify=True)
    with pytest.raises(DamagedError):
        unpack(data, key(4), verify=True)


@pytest.mark.parametrize("indexed", [0, 3, 5])
def test_records_are_found_with_and_without_an_index(tmp_path: Path, indexed: int) -> None:
    path = tmp_path / "a.tokens"
    segment = Segment.new(path)
    entries = []
    for i in range(5):
        record = pack(key(i), kept(i))
        entries.append((key(i), segment.append(record), len(record)))
        if i + 1 == indexed:
            segment.write_index(entries)
    again = Segment(path)
    found = list(again.found())
    assert found == entries
    for name, at, size in found:
        assert_same(unpack(again.read(at, size), name, verify=True), kept(int.from_bytes(name, "big")))
    segment.append(pack(key(9), kept(9)))
    assert [f[0] for f in again.found()] == [key(9)]  # only what is new


@pytest.mark.parametrize("at", [1, 40, 127, 128, 300, -1])
def test_a_torn_tail_is_ignored_and_written_over(tmp_path: Path, at: int) -> None:
    path = tmp_path / "a.tokens"
    written(path).unlock()
    with path.open("ab") as file:
        file.write(pack(key(7), kept(7))[:at])
    assert keys(path) == [key(i) for i in range(5)]
    segment = Segment(path, write=True)
    assert len(list(segment.found())) == 5
    segment.cut()
    segment.append(pack(key(8), kept(8)))
    assert keys(path) == [*(key(i) for i in range(5)), key(8)]


def test_an_index_that_lies_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.tokens"
    segment = written(path)
    segment.write_index(list(Segment(path).found()))
    index = path.with_suffix(INDEX)
    good = index.read_bytes()
    for bad in (b"", good[:-1], good[:60], b"\0" * len(good), good[:100] + b"\xff" + good[101:]):
        index.write_bytes(bad)
        assert keys(path) == [key(i) for i in range(5)]
    index.write_bytes(good)
    with path.open("r+b") as file:  # the file lost what the index says it has
        file.truncate(segment.end - 64)
    assert keys(path) == [key(i) for i in range(4)]


def test_one_process_writes_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tokens"
    segment = written(path)
    assert is_written(path)
    with pytest.raises(BlockingIOError):
        Segment(path, write=True)
    segment.unlock()
    assert not is_written(path)
    assert not is_written(tmp_path / "none.tokens")


def test_few_maps_of_a_file_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "a.tokens"
    writer, reader = Segment.new(path), Segment(path)
    maps = []
    for i in range(200):
        record = pack(key(i), kept(1))
        at = writer.append(record)
        assert bytes(reader.read(at, len(record))) == record
        if not any(reader._map is known for known in maps):
            maps.append(reader._map)
    assert len(maps) <= 10
