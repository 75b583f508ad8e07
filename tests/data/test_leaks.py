from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fuseline.data.leaks import check_leaks, normalised
from fuseline.data.split import Split
from fuseline.data.table import Table

TEXT = "a sentence that is long enough"


def _split(*part: int) -> Split:
    return Split(np.array(part, dtype=np.int8))


def _table(**columns: list[Any]) -> Table:
    return Table.open(pl.DataFrame(columns))


def test_the_same_file_content_under_other_names(tmp_path: Path) -> None:
    for name, content in [("a", b"same!"), ("b", b"same!"), ("c", b"other"), ("d", b"longer content"), ("e", b"lone")]:
        (tmp_path / f"{name}.png").write_bytes(content)
    pl.DataFrame({"p": ["a.png", "b.png", "c.png", "d.png", "e.png", "gone.png", None]}).write_csv(tmp_path / "t.csv")
    table = Table.open(tmp_path / "t.csv")
    (leak,) = check_leaks(table, _split(0, 2, 2, 0, 1, 1, 0), media_columns=["p"])
    assert (leak.column, leak.count, leak.examples, leak.severity) == ("p", 1, [(0, 1)], "warning")
    assert "1 of test" in leak.message
    assert check_leaks(table, _split(0, 0, 2, 0, 1, 1, 0), media_columns=["p"]) == []
    assert check_leaks(table, _split(0, -1, 2, 0, 1, 1, 0), media_columns=["p"]) == []


def test_files_outside_the_media_root_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret.png")
    cells = ["../secret.png", str(tmp_path / "secret.png"), "link.png", "link.png"]
    assert check_leaks(_table(p=cells), _split(0, 0, 2, 2), media_columns=["p"], media_root=tmp_path / "in") == []
    assert len(check_leaks(_table(p=["secret.png"] * 2), _split(0, 1), media_columns=["p"], media_root=tmp_path)) == 1


def test_bytes_base64_and_data_uris_are_compared_by_content() -> None:
    data = b"\x89PNG\r\n\x1a\n" + bytes(range(100))
    text = base64.b64encode(data).decode()
    (leak,) = check_leaks(_table(p=[text, "data:image/png;base64," + text, None]), _split(0, 2, 2), media_columns=["p"])
    assert (leak.count, leak.examples) == (1, [(0, 1)])
    (leak,) = check_leaks(_table(p=[data, data, b"other"]), _split(1, 0, 0), media_columns=["p"])
    assert leak.examples == [(1, 0)]


def test_texts_are_compared_without_case_space_and_form() -> None:
    texts = [
        TEXT.upper(),
        f"  {TEXT.replace(' ', '  ')}\n",
        "Ⅳ. КОНЕЦ длинного предложения",
        "iv. конец ДЛИННОГО предложения",
        None,
    ]
    (leak,) = check_leaks(_table(t=texts), _split(0, 2, 0, 1, 2), text_columns=["t"])
    assert (leak.count, leak.examples) == (2, [(0, 1), (2, 3)])
    assert normalised("Straße") == normalised("STRASSE")


def test_short_and_common_texts_do_not_cry_wolf() -> None:
    rng = np.random.default_rng(0)
    part = rng.integers(0, 3, 200)
    texts = ["A flower." if i % 2 else TEXT for i in range(200)]
    (leak,) = check_leaks(_table(t=texts), _split(*part), text_columns=["t"])
    assert (leak.severity, leak.count) == ("note", int((part > 0).sum()))
    both = check_leaks(_table(t=["short", "short", TEXT, TEXT]), _split(0, 1, 0, 1), text_columns=["t"])
    assert [(found.severity, found.count) for found in both] == [("warning", 1), ("note", 1)]


def test_nothing_held_back_is_no_leak() -> None:
    assert check_leaks(_table(t=[TEXT, TEXT]), _split(0, 0), text_columns=["t"]) == []


def test_a_table_on_disk(tmp_path: Path) -> None:
    texts = [f"{TEXT} {i % 9000}" for i in range(10_000)]
    pl.DataFrame({"t": texts}).write_parquet(tmp_path / "t.parquet", row_group_size=500)
    part = np.zeros(10_000, dtype=np.int8)
    part[9000:] = 2
    (leak,) = check_leaks(Table.open(tmp_path / "t.parquet"), Split(part), text_columns=["t"])
    assert (leak.count, leak.examples[0]) == (1000, (0, 9000))


def test_one_item_of_a_list_on_both_sides(tmp_path: Path) -> None:
    for name, content in [("a", b"same!"), ("b", b"same!"), ("c", b"other"), ("d", b"longer content")]:
        (tmp_path / f"{name}.png").write_bytes(content)
    cells = ["c.png;a.png", '["d.png", "b.png"]', "d.png", None, "gone.png"]
    pl.DataFrame({"p": cells}).write_csv(tmp_path / "t.csv")
    table = Table.open(tmp_path / "t.csv")
    (leak,) = check_leaks(table, _split(0, 2, 1, 2, 0), item_columns={"p": True})
    assert (leak.column, leak.count, leak.examples) == ("p", 1, [(0, 1)])
    assert "an item of the same file content stands in train and in 1 other rows (0 of val, 1 of test)" in leak.message
    assert check_leaks(table, _split(0, 0, 1, 2, 2), item_columns={"p": True})[0].examples == [(1, 2)]
    assert check_leaks(table, _split(0, -1, 1, 2, 0), item_columns={"p": True}) == []
    data = [[b"one", b"two"], [b"two"], [b"three"]]
    assert check_leaks(_table(p=data), _split(0, 1, 1), item_columns={"p": True})[0].examples == [(0, 1)]


def test_one_text_of_a_list_on_both_sides() -> None:
    texts = [[TEXT, "short"], ["short", TEXT.upper()], ["short"], None]
    (leak,) = check_leaks(_table(t=texts), _split(0, 2, 2, 1), item_columns={"t": False})
    assert (leak.count, leak.examples, leak.severity) == (1, [(0, 1)], "warning")
