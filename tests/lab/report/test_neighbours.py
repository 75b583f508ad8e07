from __future__ import annotations

from pathlib import Path

from fuseline.lab.report.neighbours import Neighbours


def test_an_entitys_edges_are_told(tmp_path: Path) -> None:
    rows = ["a,knows,b", "a,knows,c", "a,knows,d", "a,knows,e", "f,knows,a", "a,near,1"]
    (tmp_path / "t.csv").write_text("\n".join(["head,relation,tail", *rows]), encoding="utf-8")
    near = Neighbours(
        {"who": {"edges": "t.csv"}, "lost": {"edges": "gone.csv"}, "out": {"edges": "../t.csv"}}, str(tmp_path)
    )
    assert near.of("who", " a ") == "6 edges: knows b, c, d and 1 more; knows of f; near 1"
    assert near.of("who", 1) == "1 edge: near of a"
    assert near.of("who", "zoe") == "no entity of the graph"
    assert near.of("who", ["a"]) == near.of("lost", "a") == near.of("out", "a") == near.of("note", "a") == ""
