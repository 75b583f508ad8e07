"""Rows that are kept give the batches that reading them anew gives."""

from __future__ import annotations

from pathlib import Path

import made
import numpy as np
import pytest

from fuseline.data.table import Table
from fuseline.lab.build import build_model
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import Prepared, prepare
from fuseline.lab.training.reader import Reader
from fuseline.lab.training.stream import Stream
from fuseline.progress import Silent
from fuseline.recipe import parse_recipe


def prepared(folder: Path, names: tuple[str, ...]) -> Prepared:
    table = made.make_table(folder, 24)
    recipe = parse_recipe(made.recipe(table, inputs={name: made.INPUTS[name] for name in names}))
    return prepare(recipe, Table.open(table), folder=folder, voice=Silent(), cache=Cache(64))


def assert_kept_equals_anew(reader: Reader, rows: np.ndarray) -> None:
    for chosen in (rows[:1], rows[:7], rows[::-1], rows):
        kept, anew = reader.batch(chosen), reader.collate(reader._read(chosen, targets=True))
        assert kept.arrays.keys() == anew.arrays.keys()
        for key, array in anew.arrays.items():
            assert kept.arrays[key].dtype == array.dtype
            np.testing.assert_array_equal(kept.arrays[key].numpy(), array.numpy(), err_msg=key)
        np.testing.assert_array_equal(kept.present_BM.numpy(), anew.present_BM.numpy())
        assert kept.targets is not None
        assert anew.targets is not None
        np.testing.assert_array_equal(kept.targets.numpy(), anew.targets.numpy())


def test_kept_rows_of_numbers_and_of_texts_of_many_lengths(tmp_path: Path) -> None:
    ready = prepared(tmp_path, ("note", "vitals"))
    rows = ready.rows("train")
    assert not ready.reader.holds(rows)
    ready.reader.batch(rows)
    assert ready.reader.holds(rows)
    assert_kept_equals_anew(ready.reader, rows)


def test_kept_rows_of_frozen_inputs(tmp_path: Path) -> None:
    ready = prepared(tmp_path, ("picture", "sound", "vitals"))
    model = build_model(ready.recipe, ready.plans, ready.parser.modalities, ready.task).eval()
    for i, name in enumerate(("picture", "sound")):
        ready.reader.keep(name, model.encoders[i])  # type: ignore[arg-type]
    rows = ready.rows("train")
    ready.reader.batch(rows)
    assert ready.reader.holds(rows)
    assert_kept_equals_anew(ready.reader, rows)
    ready.reader.let_go()
    assert not ready.reader.holds(rows)


@pytest.mark.parametrize("names", [("note", "vitals"), ("picture", "vitals")])
def test_the_stream_is_the_same_from_memory(tmp_path: Path, names: tuple[str, ...]) -> None:
    ready = prepared(tmp_path, names)
    rows = ready.rows("train")
    stream = Stream(ready.reader, rows, batch_size=5, seed=1, interval_steps=3, total_steps=3, interval=lambda: 0)
    first = [batch.rows.tolist() for batch in stream]
    ready.reader.batch(rows)
    assert ready.reader.holds(rows) == ("picture" not in names)  # decoded media are not kept as rows
    assert [batch.rows.tolist() for batch in stream] == first
