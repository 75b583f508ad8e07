"""The index's folder: nearest rows, what was kept of them, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuseline.errors import FuselineError
from fuseline.vectors.folder import GRAPH, MANIFEST, MEMBERS, ROWS, VECTORS, Index, Writer, read_index, unit

DIM = 16


def vectors(rows: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(rows, DIM)))


def written(folder: Path, made: np.ndarray, **more: Any) -> Index:
    writer = Writer(folder, made.shape[1])
    for start in range(0, len(made), 100):
        places = range(start, min(start + 100, len(made)))
        rows = [{"row": 3 * i, "id": f"r{i}", "cells": {"note": f"ä \ud800 {i}"}} for i in places]
        writer.add(made[start : start + 100], rows)
    return writer.seal({"package": {"name": "p", "version": "v"}, "side": "right", **more})


def test_exact_search_is_a_sort(tmp_path: Path) -> None:
    made = vectors(1000)
    index = written(tmp_path / "index", made)
    query = vectors(5, 1)
    places, scores = index.nearest(query, 7, exact=True)
    wanted = np.argsort(-(query @ made.T), axis=1, kind="stable")[:, :7]
    np.testing.assert_array_equal(places, wanted)
    np.testing.assert_allclose(scores, np.take_along_axis(query @ made.T, wanted, 1), rtol=1e-5)


def test_chunks_of_an_exact_search_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = written(tmp_path / "index", vectors(1000))
    whole = index.nearest(vectors(4, 1), 9, exact=True)
    monkeypatch.setattr("fuseline.vectors.folder.CELLS", 100)
    np.testing.assert_array_equal(index.nearest(vectors(4, 1), 9, exact=True)[0], whole[0])


def test_the_graph_finds_nearly_all_and_scores_them_alike(tmp_path: Path) -> None:
    index = written(tmp_path / "index", vectors(3000))
    query = vectors(50, 1)
    near, scores = index.nearest(query, 10)
    sure, sure_scores = index.nearest(query, 10, exact=True)
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(near.tolist(), sure.tolist(), strict=True)]
    assert np.mean(shared) > 0.95
    assert (np.diff(scores, axis=1) <= 0).all()
    same = near == sure
    np.testing.assert_allclose(scores[same], sure_scores[same], rtol=1e-5)


def test_hits_say_what_was_kept(tmp_path: Path) -> None:
    made = vectors(250)
    index = written(tmp_path / "index", made)
    for place in (0, 99, 100, 249):
        for exact in (True, False):
            [[hit]] = index.hits(made[place : place + 1], 1, exact=exact)
            assert (hit.row, hit.id, hit.score) == (3 * place, f"r{place}", pytest.approx(1))
            assert hit.cells == {"note": f"ä ? {place}"}
    [hits] = index.hits(made[:1], 10_000)
    assert len(hits) == 250


def test_same_rows_same_bytes_and_an_old_index_gives_way(tmp_path: Path) -> None:
    first = written(tmp_path / "a", vectors(300))
    kept = first.nearest(vectors(1, 1), 5, exact=True)
    written(tmp_path / "b", vectors(300))
    for name in (*MEMBERS, MANIFEST):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    written(tmp_path / "a", vectors(20, 5))
    assert read_index(tmp_path / "a").rows == 20
    np.testing.assert_array_equal(first.nearest(vectors(1, 1), 5, exact=True)[0], kept[0])  # it stays open


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(FuselineError, match="is no index"):
        Writer(tmp_path, DIM)
    assert (tmp_path / "mine.txt").read_text() == "x"


@pytest.mark.parametrize("name", MEMBERS)
def test_a_changed_member_is_refused(tmp_path: Path, name: str) -> None:
    written(tmp_path / "index", vectors(30))
    path = tmp_path / "index" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(FuselineError) as caught:
        read_index(tmp_path / "index")
    assert caught.value.code == "bad_index"
    path.unlink()
    with pytest.raises(FuselineError, match="missing"):
        read_index(tmp_path / "index")


def _edited(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"format": 2}, "index_version"),
        ({"rows": 29}, "bad_index"),
        ({"dim": 8}, "bad_index"),
        ({"members": {}}, "bad_index"),
        ({"package": "p"}, "bad_index"),
        ({"side": None, "rows": "x"}, "bad_index"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    written(tmp_path / "index", vectors(30))
    _edited(tmp_path / "index", **changes)
    with pytest.raises(FuselineError) as caught:
        read_index(tmp_path / "index")
    assert caught.value.code == code


def test_a_member_may_not_lead_elsewhere(tmp_path: Path) -> None:
    written(tmp_path / "index", vectors(30))
    (tmp_path / "index" / ROWS).rename(tmp_path / "rows")
    (tmp_path / "index" / ROWS).symlink_to(tmp_path / "rows")
    with pytest.raises(FuselineError, match="missing"):
        read_index(tmp_path / "index")


def test_a_graph_of_another_index_is_refused(tmp_path: Path) -> None:
    """Even where someone wrote its hash into the manifest."""
    written(tmp_path / "a", vectors(30))
    written(tmp_path / "b", vectors(40))
    (tmp_path / "a" / GRAPH).write_bytes((tmp_path / "b" / GRAPH).read_bytes())
    members = json.loads((tmp_path / "a" / MANIFEST).read_text())["members"]
    members[GRAPH] = json.loads((tmp_path / "b" / MANIFEST).read_text())["members"][GRAPH]
    _edited(tmp_path / "a", members=members)
    with pytest.raises(FuselineError, match="does not belong"):
        read_index(tmp_path / "a").nearest(vectors(1), 3)


def test_no_index_at_all(tmp_path: Path) -> None:
    with pytest.raises(FuselineError) as caught:
        read_index(tmp_path / "none")
    assert caught.value.code == "no_such_file"


def test_vectors_are_mapped_and_not_read(tmp_path: Path) -> None:
    index = written(tmp_path / "index", vectors(30))
    assert isinstance(index.vectors_NE, np.memmap)
    assert (tmp_path / "index" / VECTORS).stat().st_size == 30 * DIM * 4
