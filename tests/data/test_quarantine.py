from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from fuseline.data.quarantine import Quarantine, as_text
from fuseline.data.table import Table
from fuseline.errors import FuselineError

TABLE = Table.open([{"имя": f"row {i}", "n": i, "b": bytes(i)} for i in range(40)])


def _bad(column: str = "n", message: str = "is broken") -> FuselineError:
    return FuselineError("bad_cell", message, "mend it", column=column)


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_nothing_bad(tmp_path: Path) -> None:
    for mode in ("stop", "quarantine"):
        assert Quarantine(tmp_path / "q.csv", TABLE, mode=mode).finish() == set()
    assert list(tmp_path.iterdir()) == []


def test_stop_lists_the_first_ten(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.csv", TABLE, mode="stop")
    for row in range(12):
        quarantine.add(row + 3, _bad(message=f"cell {row}"))
    quarantine.add(3, _bad(message="again"))
    assert len(quarantine) == 12
    with pytest.raises(FuselineError) as caught:
        quarantine.finish()
    error = caught.value
    assert (error.code, error.row, error.column) == ("bad_cell", 3, "n")
    assert "12 rows" in error.message
    assert "row 12, column 'n': cell 9" in error.message
    assert "cell 10" not in error.message
    assert "and 2 more" in error.message
    assert "quarantine" in error.hint
    assert not (tmp_path / "q.csv").exists()


def test_stop_with_one_is_that_error(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.csv", TABLE)
    quarantine.add(7, FuselineError("unsafe_path", "leaves", column="имя"))
    with pytest.raises(FuselineError) as caught:
        quarantine.finish()
    assert (caught.value.code, caught.value.row, caught.value.message) == ("unsafe_path", 7, "leaves")


def test_quarantine_writes_raw_cells_with_reasons(tmp_path: Path) -> None:
    path = tmp_path / "run" / "q.csv"
    quarantine = Quarantine(path, TABLE, mode="quarantine", max_share=0.1)
    quarantine.add(5, _bad(), {"n": "=1+1"})
    quarantine.add(2, _bad("b", "no picture"))
    assert quarantine.finish() == {2, 5}
    first, second = _lines(path)
    assert first == {
        "имя": "row 5",
        "n": "'=1+1",
        "b": "<5 bytes>",
        "_row": "5",
        "_column": "n",
        "_reason": "is broken",
    }
    assert (second["_row"], second["_reason"], second["n"]) == ("2", "no picture", "2")


def test_a_second_scan_goes_on_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    for rows in ([1], [1, 2]):
        quarantine = Quarantine(path, TABLE, mode="quarantine", max_share=1)
        for row in rows:
            quarantine.add(row, _bad())
        assert quarantine.finish() == set(rows)
    assert [line["_row"] for line in _lines(path)] == ["1", "2"]
    other = Quarantine(path, Table.open([{"x": 1}]), mode="quarantine", max_share=1)
    other.add(0, _bad("x"))
    assert [(line["x"], line["_row"]) for line in _lines(path)] == [("1", "0")]


def test_too_many_bad_rows(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.csv", TABLE, mode="quarantine", max_share=0.05)
    for row in range(3):
        quarantine.add(row, _bad())
    with pytest.raises(FuselineError) as caught:
        quarantine.finish()
    assert caught.value.code == "too_many_bad_rows"
    assert "3 of 40" in caught.value.message
    assert quarantine.finish(scanned=60) == {0, 1, 2}
    assert len(_lines(tmp_path / "q.csv")) == 3


def test_columns_called_like_ours_are_kept(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.csv", Table.open([{"_row": "x"}]), mode="quarantine", max_share=1)
    quarantine.add(0, _bad("_row"))
    assert _lines(tmp_path / "q.csv") == [{"_row": "x", "__row": "0", "_column": "_row", "_reason": "is broken"}]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        (b"abc", "<3 bytes>"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("@x", "'@x"),
        ("+1 2", "'+1 2"),
        ("\tx", "'\tx"),
        ("-3.5", "-3.5"),
        (-3.5, "-3.5"),
        ("a=b", "a=b"),
        ("日本", "日本"),
        ([1, "a"], "[1, 'a']"),
        ("x" * 2001, "x" * 2000 + "… (2001 characters)"),
    ],
)
def test_cells_as_text(cell: Any, text: str) -> None:
    assert as_text(cell) == text
