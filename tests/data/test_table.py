"""Every source gives the same rows; every broken source gives a named error."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fuseline.data import sources
from fuseline.data.parquet import read_row_groups
from fuseline.data.table import Table
from fuseline.errors import FuselineError

CSV = "код,имя,n\n007,Анна,1.5\n010,NA,\n011,山田,nan\n"
ROWS = [
    {"код": "007", "имя": "Анна", "n": "1.5"},
    {"код": "010", "имя": None, "n": None},
    {"код": "011", "имя": "山田", "n": None},
]


def _rows(table: Table) -> list[dict[str, Any]]:
    return [row for _, frame in table.batches(size=2) for row in Table.rows(frame)]


def _write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def _error(source: Any, **options: Any) -> FuselineError:
    with pytest.raises(FuselineError) as caught:
        Table.open(source, **options)
    return caught.value


@pytest.mark.parametrize(
    "kind", ["csv", "bom", "crlf", "tsv", "gz", "semicolon", "parquet", "jsonl", "arrow", "stream"]
)
def test_every_file_format_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    frame = pl.DataFrame(ROWS)
    match kind:
        case "csv":
            path = _write(tmp_path / "t.csv", CSV)
        case "bom":
            path = _write(tmp_path / "t.csv", "\ufeff" + CSV)
        case "crlf":
            path = _write(tmp_path / "t.CSV", CSV.replace("\n", "\r\n"))
        case "tsv":
            path = _write(tmp_path / "t.tsv", CSV.replace(",", "\t"))
        case "gz":
            path = _write(tmp_path / "t.csv.gz", gzip.compress(CSV.encode(), mtime=0))
        case "semicolon":
            path = _write(tmp_path / "t.csv", CSV.replace(",", ";"))
        case "parquet":
            frame.write_parquet(path := tmp_path / "t.parquet")
        case "jsonl":
            frame.write_ndjson(path := tmp_path / "t.jsonl")
        case "arrow":
            frame.write_ipc(path := tmp_path / "t.arrow")
        case _:
            frame.write_ipc_stream(path := tmp_path / "t.arrow")
    table = Table.open(path)
    assert (table.columns, table.n_rows, table.folder) == (["код", "имя", "n"], 3, tmp_path.resolve())
    assert _rows(table) == ROWS
    assert bool(table.notes) == (kind == "semicolon")


def test_a_comma_amid_a_header_is_no_separator(tmp_path: Path) -> None:
    table = Table.open(_write(tmp_path / "t.csv", "age;diagnosis, main;note\n1;x;mild, dry\n2;y;none\n"))
    assert table.columns == ["age", "diagnosis, main", "note"]
    assert table.notes == ["t.csv: read with a semicolon between cells"]
    assert _rows(table)[0] == {"age": "1", "diagnosis, main": "x", "note": "mild, dry"}


def test_semicolons_in_cells_are_no_separators(tmp_path: Path) -> None:
    table = Table.open(_write(tmp_path / "t.csv", 'a;b,c\n"x;y",1\nz,2\n'))
    assert table.columns == ["a;b", "c"]
    assert _error(_write(tmp_path / "u.csv", "a;b;c\n1;2\n")).row == 0


def test_python_objects_give_the_same_rows() -> None:
    import datasets
    import pandas
    import pyarrow

    frame = pl.DataFrame(ROWS)
    arrow = pyarrow.Table.from_pylist(ROWS)
    dataset = datasets.Dataset(arrow)
    assert dataset.select([2, 0, 1]).data.num_rows == 3  # it keeps its rows and remembers indices
    for source, order in [
        (frame, [0, 1, 2]),
        (frame.lazy(), [0, 1, 2]),
        (arrow, [0, 1, 2]),
        (pandas.DataFrame(ROWS, index=[5, 6, 7]), [0, 1, 2]),
        (dataset, [0, 1, 2]),
        (dataset.select([2, 0, 1]), [2, 0, 1]),
        (ROWS, [0, 1, 2]),
        (tuple(ROWS), [0, 1, 2]),
    ]:
        table = Table.open(source)
        assert _rows(table) == [ROWS[i] for i in order], type(source)
        assert table.folder is None


def test_pandas_keeps_kinds_and_bears_mixed_cells() -> None:
    import pandas

    frame = pandas.DataFrame(
        {
            "i": pandas.array([1, None], dtype="Int64"),
            "f": [0.5, float("nan")],
            "b": [True, False],
            "c": pandas.Categorical(["a", None]),
            "when": pandas.to_datetime(["2020-01-01", None]),
            "mixed": [1, "x"],
            7: [b"\xff", "a.png"],
        }
    )
    first, second = _rows(Table.open(frame))
    assert str(first.pop("when"))[:10] == "2020-01-01"
    assert second.pop("when") is None
    assert first == {"i": 1, "f": 0.5, "b": True, "c": "a", "mixed": "1", "7": b"\xff"}
    assert second == {"i": None, "f": None, "b": False, "c": None, "mixed": "x", "7": "a.png"}


def test_hugging_face_media_cells_are_bytes_or_paths() -> None:
    table = Table.open(
        [{"image": {"bytes": b"x", "path": "a"}}, {"image": {"bytes": None, "path": "b"}}, {"image": None}]
    )
    assert [r["image"] for r in _rows(table)] == [b"x", "b", None]


def test_absent_words_can_be_chosen_and_raw_text_is_kept(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.csv", "a,b\n-9,\n NA,NA\n")
    assert _rows(Table.open(path, absent=["-9"])) == [{"a": None, "b": ""}, {"a": " NA", "b": "NA"}]
    frame = pl.DataFrame(
        {"a": pl.Series(["x", "-9"], dtype=pl.Categorical), "d": pl.Series(["1.5", "2"]).cast(pl.Decimal(5, 1))}
    )
    assert _rows(Table.open(frame, absent=["-9"])) == [{"a": "x", "d": 1.5}, {"a": None, "d": 2.0}]


def test_csv_oddities_are_read_as_python_reads_them(tmp_path: Path) -> None:
    path = _write(tmp_path / "t.csv", 'a,b\n\n"x\r\ny",say "hi"\n\n1,x"y\n\n')
    assert _rows(Table.open(path)) == [{"a": "x\r\ny", "b": 'say "hi"'}, {"a": "1", "b": 'x"y'}]
    assert _rows(Table.open(_write(tmp_path / "one.csv", "a\n1\n\n3"))) == [{"a": "1"}, {"a": None}, {"a": "3"}]
    assert _rows(Table.open(_write(tmp_path / "cr.csv", "a,b\r1,2\r"))) == [{"a": "1", "b": "2"}]
    assert _rows(Table.open(_write(tmp_path / "long.csv", "a,b\n" + "x" * 300_000 + ",1\n")))[0]["b"] == "1"


@pytest.mark.parametrize(
    ("name", "data", "code", "says"),
    [
        ("t.csv", b"", "empty_table", "0 bytes"),
        ("t.csv", b"\n\n", "empty_table", "empty"),
        ("t.csv", b"a,b\n", "empty_table", "no rows"),
        ("t.csv", b"a,b,a\n1,2,3\n", "duplicate_column", "'a'"),
        ("t.csv", b"a,,b\n1,2,3\n", "bad_table", "column 2 of 3 has no name"),
        ("t.csv", b"a,b\n1,2\n1,2,3\n", "bad_table", "line 3: 3 cells where the header has 2"),
        ("t.csv", b"a,b\n1\n", "bad_table", "line 2: 1 cells"),
        ("t.csv", b'a,b\n"1,2\n3,4\n', "bad_table", "quote"),
        ("t.csv", "a,b\né,1\n".encode("latin-1"), "bad_table", "not UTF-8"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), "bad_table", "UTF-16"),
        ("t.csv", b"\x00\x9f" * 99, "bad_table", "UTF-8"),
        ("t.csv", b"PK\x03\x04rest", "bad_table", "Excel"),
        ("t.csv", b"PAR1rest", "bad_table", "holds Parquet"),
        ("t.csv.gz", b"a,b\n1,2\n", "bad_table", "cannot be read"),
        ("t.csv.gz", gzip.compress(b"a,b\n" * 999, mtime=0)[:30], "bad_table", "cannot be read"),
        ("t.parquet", b"a,b\n1,2\n3,4\n5,6\n", "bad_table", "no Parquet"),
        ("t.parquet", b"PAR1" + b"\xff" * 40 + b"\x20\0\0\0PAR1", "bad_table", "Parquet"),
        ("t.parquet", b"PAR1", "bad_table", "Parquet"),
        ("t.jsonl", b'{"a":1}\n\n{"a":\n', "bad_table", "line 3"),
        ("t.jsonl", b'{"a":1}\n[1]\n', "bad_table", "line 2 is a JSON list"),
        ("t.jsonl", b"\n", "empty_table", ""),
        ("t.jsonl", b'{"a":"\xff"}\n', "bad_table", "UTF-8"),
        ("t.arrow", b"garbage garbage", "bad_table", "cannot be read"),
        ("t.xlsx", b"x", "bad_table", "no kind of table"),
        ("table", b"a,b\n1,2\n", "bad_table", "no kind of table"),
    ],
)
def test_bad_files_have_named_errors(tmp_path: Path, name: str, data: bytes, code: str, says: str) -> None:
    error = _error(_write(tmp_path / name, data))
    assert error.code == code, error
    assert says in str(error)


def test_bad_places_and_bad_objects(tmp_path: Path) -> None:
    assert _error(tmp_path / "no.csv").code == "no_such_file"
    assert _error(tmp_path).code == "no_such_file"
    assert _error("a\0b.csv").code == "no_such_file"
    assert _error([]).code == "empty_table"
    assert _error([{"a": 1}, 3]).row == 1
    assert _error([{"a": object()}]).column == "a"
    assert _error(pl.DataFrame({"a": []})).code == "empty_table"
    assert _error(pl.DataFrame()).code == "empty_table"
    assert _error(42).code == "bad_table"
    assert _error([{"a": 1, " ": 2}]).code == "bad_table"
    frame = pl.DataFrame({"a": [object()]}, schema={"a": pl.Object})
    assert _error(frame).column == "a"


def test_duplicate_columns_of_objects() -> None:
    import pandas
    import pyarrow

    assert _error(pandas.DataFrame([[1, 2]], columns=["a", "a"])).code == "duplicate_column"
    assert _error(pyarrow.table([[1], [2]], names=["a", "a"])).code == "duplicate_column"
    assert _error([{"1": 1, 1: 2}]).code == "duplicate_column"


def test_an_empty_parquet_and_a_nameless_column(tmp_path: Path) -> None:
    pl.DataFrame({"a": pl.Series([], dtype=pl.Int64)}).write_parquet(tmp_path / "e.parquet")
    pl.DataFrame({"": [1]}).write_parquet(tmp_path / "n.parquet")
    assert _error(tmp_path / "e.parquet").code == "empty_table"
    assert _error(tmp_path / "n.parquet").code == "bad_table"


def test_missing_columns_name_the_closest_header() -> None:
    table = Table.open([{"patient": 1, "возраст": 2}])
    with pytest.raises(FuselineError) as caught:
        table.require(["Patiant", "возрст", "zzz"])
    assert caught.value.code == "missing_column"
    assert "'patient' for 'Patiant'" in caught.value.hint
    assert "'возраст' for 'возрст'" in caught.value.hint
    with pytest.raises(FuselineError):
        next(table.batches(["zzz"]))


def test_files_above_the_limit_are_rewritten_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "IN_MEMORY_BYTES", 100)
    rows = [{"a": f"{i:03}", "b": "x" * (i % 7) or None} for i in range(9000)]
    frame = pl.DataFrame(rows)
    frame.write_csv(tmp_path / "t.csv")
    frame.write_ndjson(tmp_path / "t.jsonl")
    frame.write_ipc(tmp_path / "t.arrow")
    _write(tmp_path / "odd.csv", "a,b\n\n" + "".join(f"{r['a']},{r['b'] or ''}\n" for r in rows))
    cache = tmp_path / "cache"
    for name in ("t.csv", "t.jsonl", "t.arrow", "odd.csv"):
        table = Table.open(tmp_path / name, cache_dir=cache)
        assert "rewritten once" in table.notes[0]
        assert _rows(table) == rows, name
        assert table.block_rows == 4096
        again = Table.open(tmp_path / name, cache_dir=cache)
        assert again.notes == []
        assert again.take(np.array([8999, 0]))["a"].to_list() == ["8999", "000"]
    assert len(list(cache.iterdir())) == 4
    assert table.folder == tmp_path.resolve()


def test_a_temporary_copy_goes_with_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    table = Table.open(pl.DataFrame({"a": range(10)}).lazy())
    assert len(list(tmp_path.iterdir())) == 1
    assert table.column("a").to_list() == list(range(10))
    del table
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FuselineError):
        Table.open(pl.DataFrame({"a": []}).lazy())
    assert list(tmp_path.iterdir()) == []


def test_giant_row_groups_are_cut(tmp_path: Path) -> None:
    rows = 200_000
    frame = pl.DataFrame({"a": range(rows), "b": [f"text {i}" for i in range(rows)]})
    frame.write_parquet(tmp_path / "t.parquet", row_group_size=rows)
    assert [g.rows for g in read_row_groups(tmp_path / "t.parquet")] == [rows]
    table = Table.open(tmp_path / "t.parquet", cache_dir=tmp_path / "cache")
    (copy,) = (tmp_path / "cache").iterdir()
    assert max(g.rows for g in read_row_groups(copy)) <= 4096
    assert table.block_rows <= 4096
    picks = np.random.default_rng(0).integers(0, rows, 500)
    assert table.take(picks, ["b", "a"]).rows() == [(f"text {i}", i) for i in picks.tolist()]
    assert table.column("a").equals(frame["a"])


def test_take_and_batches_cross_row_groups_and_survive_pickling(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": range(10_000), "b": ["NA", "x"] * 5000})
    frame.write_parquet(tmp_path / "t.parquet", row_group_size=700)
    table = pickle.loads(pickle.dumps(Table.open(tmp_path / "t.parquet")))
    assert table.block_rows == 3500  # five row groups
    starts = [start for start, _ in table.batches(["a"], 999)]
    assert starts == list(range(0, 10_000, 999))
    assert pl.concat([f for _, f in table.batches(["a"], 999)])["a"].to_list() == list(range(10_000))
    assert table.take(np.array([9999, 0, 3500, 0]))["a"].to_list() == [9999, 0, 3500, 0]
    assert table.take(np.array([], dtype=int), ["b"]).shape == (0, 1)
    assert table.column("b").null_count() == 5000
    with pytest.raises(IndexError):
        table.take(np.array([10_000]))


def test_one_cell() -> None:
    table = Table.open([{"a": None}])
    assert (table.n_rows, _rows(table)) == (1, [{"a": None}])
