import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuseline.data.edges import edge_columns, edge_leaks, names_of, read_edges
from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.modalities.graph import Entity, Graph

TRIPLES = "head,relation,tail\nann,knows,bob\nbob,knows,cy\nann,lives_in,Rome\ncy,lives_in,Rome\n"


def fit(folder: Path, cells: list[Any], text: str = TRIPLES, **options: Any) -> Graph:
    (folder / "triples.csv").write_text(text, encoding="utf-8")
    config = Graph.Config.model_validate({"edges": "triples.csv", **options})
    return Graph.fit(config, {"who": ""}, ({"who": c} for c in cells), MediaRoot(str(folder)))


def read(graph: Graph, cell: Any) -> Entity | None:
    return graph.parse({"who": cell}, MediaRoot(None))


def test_the_graph_is_read_and_survives_json(tmp_path: Path) -> None:
    graph = fit(tmp_path, ["ann", None, "ann", "cy"])
    again = Graph.from_state(json.loads(json.dumps(graph.state())))
    for one in (graph, again):
        assert one.entities == ["Rome", "ann", "bob", "cy"]
        assert one.relations == ["knows", "lives_in"]
        named = [(one.entities[h], one.relations[r], one.entities[t]) for h, r, t in one.triples]
        assert [",".join(t) for t in named] == TRIPLES.splitlines()[1:]
        assert one.seen.tolist() == [False, True, False, True]
        assert one.features.shape == (4, 0)
    assert again.state() == graph.state()


def test_entities_get_their_place_and_strangers_a_note(tmp_path: Path) -> None:
    graph = fit(tmp_path, ["ann"])
    known, bob, stranger = read(graph, " ann "), read(graph, "bob"), read(graph, "dora")
    assert known is not None
    assert bob is not None
    assert stranger is not None
    assert (known.note, bob.note) == ("", "")
    assert stranger.note == "who is no entity of the graph: 'dora'"
    assert graph.collate([known, None, bob, stranger])["entity"].tolist() == [2, 0, 3, 0]
    assert graph.summary(bob) == {"in_graph": 1.0, "edges": 2.0}
    assert graph.summary(stranger) == {"in_graph": 0.0, "edges": 0.0}
    assert len({graph.digest(e) for e in (known, bob, stranger)}) == 3


def test_a_stranger_may_be_an_error(tmp_path: Path) -> None:
    graph = fit(tmp_path, ["ann"], unknown="error")
    with pytest.raises(FuselineError, match="no entity of the graph") as caught:
        read(graph, "an")
    assert (caught.value.code, caught.value.column) == ("bad_cell", "who")
    assert "did you mean 'ann'?" in caught.value.hint


@pytest.mark.parametrize("cell", [["a"], {"a": 1}, b"ann", np.array(["ann"])])
def test_what_is_no_id_is_a_bad_cell(tmp_path: Path, cell: Any) -> None:
    with pytest.raises(FuselineError) as caught:
        read(fit(tmp_path, ["ann"]), cell)
    assert caught.value.code == "bad_cell"


def test_whole_numbers_are_one_entity_however_they_are_written(tmp_path: Path) -> None:
    frame = pl.DataFrame({"source": [1, 2, 3], "target": [2.0, 3.0, None]})
    frame.write_parquet(tmp_path / "edges.parquet")
    graph = fit(tmp_path, [1], edges="edges.parquet")
    assert graph.entities == ["1", "2", "3"]
    assert graph.relations == ["edge"]
    assert [e and e.place for e in (read(graph, c) for c in (2, 2.0, "2", np.int64(2), " 2"))] == [2] * 5
    assert any("1 edges of edges.parquet lack an end" in note for note in graph.notes)
    assert [e and e.place for e in (read(graph, c) for c in ("2.0", "2.00", "02"))] == [2, 0, 0]


def test_whole_numbers_as_texts_are_found_in_their_other_spelling(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("source,target\n1.0,2.0\nx,3.5\n", encoding="utf-8")
    graph = fit(tmp_path, ["1"], edges="edges.csv")
    assert graph.seen.tolist() == [True, False, False, False]
    assert [e and e.name for e in (read(graph, c) for c in ("2", 2, 2.0, "2.0", "x", 3.5))] == [
        *["2.0"] * 4,
        "x",
        "3.5",
    ]


@given(st.lists(st.one_of(st.integers(-5, 10**14), st.text("ab é1.0 \t", min_size=1, max_size=5)), min_size=1))
@settings(deadline=None, max_examples=60)
def test_a_cell_and_the_file_name_an_entity_alike(cells: list[Any]) -> None:
    """`names_of` on a column and `parse` on a cell are two pieces of code for one rule."""
    from fuseline.modalities.cells import is_absent
    from fuseline.modalities.tabular import read_category

    for kind in (int, str):
        some = [c for c in cells if isinstance(c, kind)]
        named = names_of(pl.Series(some, dtype=pl.Int64 if kind is int else pl.String)).to_list()
        assert named == [None if is_absent(c) else read_category(c, "x") for c in some]


def test_features_bring_entities_without_an_edge(tmp_path: Path) -> None:
    (tmp_path / "facts.csv").write_text("id,size,age\nbob,1.5,\neve,2,7\nann,,3\n", encoding="utf-8")
    graph = fit(tmp_path, ["eve"], features="facts.csv")
    assert graph.entities == ["Rome", "ann", "bob", "cy", "eve"]
    assert graph.feature_names == ("size", "age")
    nan = np.nan
    np.testing.assert_array_equal(graph.features, [[nan, nan], [nan, 3], [1.5, nan], [nan, nan], [2, 7]])
    (tmp_path / "facts.csv").write_text("id,size\nbob,big\n", encoding="utf-8")
    with pytest.raises(FuselineError, match=r"'big' in column 'size' of facts\.csv is no number"):
        fit(tmp_path, ["ann"], features="facts.csv")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"edges": "../triples.csv"}, "unsafe_path", "leaves"),
        ({"edges": "/etc/passwd"}, "unsafe_path", "no relative path"),
        ({"edges": "link.csv"}, "unsafe_path", "leaves"),
        ({"edges": "tripels.csv"}, "no_such_file", "no file 'tripels.csv'"),
        ({"tail": "tial"}, "missing_column", "'tial'"),
    ],
)
def test_files_are_looked_for_beside_the_table_only(
    tmp_path: Path, options: dict[str, str], code: str, words: str
) -> None:
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "outside.csv").write_text(TRIPLES, encoding="utf-8")
    (folder / "link.csv").symlink_to(tmp_path / "outside.csv")
    with pytest.raises(FuselineError, match=words) as caught:
        fit(folder, ["ann"], **options)
    assert caught.value.code == code


def test_ids_of_another_kind_are_named_before_training(tmp_path: Path) -> None:
    with pytest.raises(FuselineError, match="'person-1' is none, 'Rome' is one"):
        fit(tmp_path, ["person-1", "person-2"])


def test_columns_of_an_edge_list_are_found_by_name_or_place() -> None:
    assert edge_columns(["rel", "Source", "TARGET", "when"]) == ("Source", "rel", "TARGET")
    assert edge_columns(["a", "b"]) == ("a", None, "b")
    assert edge_columns(["a", "b", "c"]) == ("a", "b", "c")
    assert edge_columns(["a", "b", "c", "d"]) is None
    assert edge_columns(["a", "b", "c", "d"], head="d", tail="a") == ("d", None, "a")


def test_edges_count_once_and_loops_stay(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("src,dst\na,b\na,b\nb,b\n", encoding="utf-8")
    edges = read_edges(tmp_path / "e.csv")
    assert edges.triples_E3.tolist() == [[0, 0, 1], [1, 0, 1]]
    assert edges.notes == ["1 edges of e.csv are written twice and count once"]


def test_a_relation_that_says_the_target_is_a_leak(tmp_path: Path) -> None:
    people = [f"p{i}" for i in range(20)]
    team = ["red" if i % 2 else "blue" for i in range(20)]
    lines = [f"{p},plays_for,{t}\n{p},near,p{i // 2}" for i, (p, t) in enumerate(zip(people, team, strict=True))]
    (tmp_path / "t.csv").write_text("\n".join(["head,relation,tail", *lines]), encoding="utf-8")
    edges = read_edges(tmp_path / "t.csv")
    [leak] = edge_leaks(edges, "who", pl.Series(people), "team", pl.Series(team))
    assert leak.count == 20
    assert "'plays_for' say team, in 20 of 20" in leak.message
    mixed = team[::-1]
    assert edge_leaks(edges, "who", pl.Series(people), "team", pl.Series(mixed[:10] + team[:10])) == []
    assert edge_leaks(edges, "who", pl.Series(people), "score", pl.Series(range(20))) == []
