from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fuseline.lab.encoders import encoder_class
from fuseline.lab.encoders.graph import Relational, SmallGraph, neighbourhoods
from fuseline.lab.encoders.graph_links import GraphTransE
from fuseline.modalities import MediaRoot
from fuseline.modalities.graph import Graph

EDGES = [(i, "next", (i + 1) % 12) for i in range(12)] + [(i, "of", 12 + i % 2) for i in range(12)]
EDGES += [(99, "next", 99), (0, "near", 13)]
EVERY = torch.arange(17)


@pytest.fixture(scope="module")
def modality(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Entities e0 to e13 and e99, of which a training row shows e0 to e3; `e9` and `e99` have a number beside e98."""
    folder = tmp_path_factory.mktemp("graph")
    lines = ["head,relation,tail", *(f"e{h},{r},e{t}" for h, r, t in EDGES)]
    (folder / "edges.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "facts.csv").write_text("id,a,b\ne9,1,2\ne98,4,\ne99,2,2\n", encoding="utf-8")
    config = Graph.Config(edges="edges.csv", features="facts.csv")
    return Graph.fit(config, {"who": ""}, ({"who": f"e{i}"} for i in range(4)), MediaRoot(str(folder)))


def place(modality: Graph, name: str) -> int:
    return 1 + modality.entities.index(name)


def small(modality: Graph, **options: Any) -> SmallGraph:
    torch.manual_seed(0)
    return SmallGraph(SmallGraph.Config.model_validate({"width": 16, **options}), modality).eval()


def tokens(encoder: Any, entity: Tensor = EVERY) -> Tensor:
    with torch.no_grad():
        out: Tensor = encoder(entity).values_BTD
    return out


def test_neighbourhoods_hold_every_edge_from_both_ends(modality: Graph) -> None:
    near = neighbourhoods(modality.triples, 17, 3, both_ways=True, most=99)
    got = {
        (i, int(n), int(r))
        for i in range(17)
        for n, r, s in zip(near.neighbour_NK[i], near.relation_NK[i], near.share_NK[i], strict=True)
        if s
    }
    kinds = modality.relations
    ends = [(place(modality, f"e{h}"), place(modality, f"e{t}"), kinds.index(r)) for h, r, t in EDGES if h != t]
    assert got == {(h, t, r) for h, t, r in ends} | {(t, h, r + 3) for h, t, r in ends}
    # e12 is the `of` of six: each counts a sixth. Of nobody there is none.
    assert near.share_NK[place(modality, "e12")].tolist() == [pytest.approx(1 / 6)] * 6 + [0.0]
    assert not near.share_NK[0].any()


def test_of_many_neighbours_a_sample_is_kept_and_counts_in_full(modality: Graph) -> None:
    near = neighbourhoods(modality.triples, 17, 3, both_ways=True, most=4)
    assert near.share_NK.shape == (17, 4)
    assert near.share_NK[place(modality, "e12")].tolist() == [0.25] * 4
    again = neighbourhoods(modality.triples, 17, 3, both_ways=True, most=4)
    np.testing.assert_array_equal(near.neighbour_NK, again.neighbour_NK)


def test_a_layer_is_that_of_torch_geometric(modality: Graph) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        geometric = pytest.importorskip("torch_geometric.nn")
    layer = Relational(8, 6, 3, 0.0).eval()
    theirs = geometric.RGCNConv(8, 8, 6, num_bases=3)
    near = neighbourhoods(modality.triples, 17, 3, both_ways=True, most=99)
    with torch.no_grad():
        theirs.weight.copy_(layer.bases.weight.reshape(8, 3, 8).permute(1, 2, 0))
        theirs.comp.copy_(layer.mixture_RZ)
        theirs.root.copy_(layer.own.weight.T)
        theirs.bias.copy_(layer.own.bias)
        values_ND = torch.randn(17, 8)
        head, relation, tail = torch.from_numpy(modality.triples.copy()).long().T
        real = head != tail
        head, relation, tail = head[real] + 1, relation[real], tail[real] + 1
        edges = torch.stack([torch.cat([tail, head]), torch.cat([head, tail])])
        sums_ND = theirs(values_ND, edges, torch.cat([relation, relation + 3]))
        neighbours, kinds, shares = (torch.from_numpy(a) for a in near)
        ours = layer(values_ND[:, None], values_ND[neighbours.long()][:, None], kinds.long()[:, None], shares[:, None])
        torch.testing.assert_close(ours[:, 0], layer.norm(values_ND + F.gelu(sums_ND)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_it_sees_as_many_edges_far_as_it_has_layers(modality: Graph, layers: int) -> None:
    """The vector of e6, which no training row shows: changing it changes what lies near enough."""
    encoder = small(modality, layers=layers, neighbours=99, farther=64)
    assert encoder.vectors is not None
    encoder.near_N.fill_(True)
    before = tokens(encoder)
    assert before.shape == (17, 1 + layers, 16)
    with torch.no_grad():
        encoder.vectors.weight[place(modality, "e6")] += 1.0
    moved = (tokens(encoder) - before).abs().amax(2) > 1e-6
    for name, distance in (("e6", 9), ("e5", 1), ("e4", 2), ("e3", 3), ("e12", 1), ("e8", 2), ("e1", 3), ("e99", 9)):
        row = moved[place(modality, name)].tolist()
        assert row == [far >= distance for far in range(1 + layers)], name


def test_an_entity_unseen_in_training_has_no_vector_of_its_own(modality: Graph) -> None:
    """Neither by itself nor by a path that goes to a neighbour and back."""
    encoder = small(modality, layers=2)
    assert encoder.vectors is not None
    before = tokens(encoder)
    for name, seen in (("e7", False), ("e1", True)):
        with torch.no_grad():
            encoder.vectors.weight[place(modality, name)] += 1.0
        assert torch.equal(tokens(encoder)[place(modality, name)], before[place(modality, name)]) != seen


def test_features_reach_entities_that_training_never_saw(modality: Graph) -> None:
    encoder = small(modality, learned=False)
    rows = tokens(encoder)[:, 0]
    at = {name: rows[place(modality, name)] for name in ("e9", "e98", "e99", "e5", "e6")}
    assert not torch.equal(at["e9"], at["e99"])
    assert not torch.equal(at["e98"], at["e5"])
    assert torch.equal(at["e5"], at["e6"])
    assert not torch.equal(rows[0], at["e5"]), "the unknown entity is another than one of which nothing is known"


def test_folding_changes_no_answer_and_travels_no_further_than_the_package(modality: Graph) -> None:
    encoder = small(modality)
    before = tokens(encoder)
    plain = set(encoder.state_dict())
    encoder.fold()
    folded = encoder.state_dict()
    assert set(folded) - plain == {"table"}
    assert torch.allclose(tokens(encoder), before, atol=1e-6)
    fresh = SmallGraph(encoder.config, modality).eval()
    assert not torch.allclose(tokens(fresh), before, atol=1e-3)
    fresh.load_state_dict(folded)
    assert fresh.table is None
    assert torch.allclose(tokens(fresh), before, atol=1e-6)
    encoder.unfold()
    assert set(encoder.state_dict()) == plain


def test_training_uses_no_folded_table(modality: Graph) -> None:
    encoder = small(modality)
    encoder.fold()
    encoder.train()
    encoder(EVERY).values_BTD.sum().backward()
    assert encoder.nobody_D.grad is not None
    assert encoder.vectors is not None
    moved = encoder.vectors.weight.grad.abs().sum(1) > 0
    assert not moved[0], "the unknown entity has a vector apart"
    assert moved.any()


@pytest.mark.parametrize("kind", ["small", "rotate"])
def test_export(modality: Graph, kind: str, export: Callable[..., Any], same_tokens: Callable[..., None]) -> None:
    cls = encoder_class("graph", kind)
    encoder = cls(cls.Config.model_validate({"width": 16}), modality).eval()
    encoder.fold()
    run = export(encoder, {"entity": torch.tensor([3, 0, 16])}, {})
    for rows in (EVERY, EVERY[5:6], torch.tensor([0, 0]), EVERY.repeat(20)):
        with torch.no_grad():
            same_tokens(run({"entity": rows}), encoder(rows), 1e-5)


def test_links_are_learned_before_the_task(modality: Graph) -> None:
    """Same seed, same vectors; nothing else moves; the caller's random numbers stay."""
    torch.manual_seed(0)
    encoder = GraphTransE(GraphTransE.Config(width=16, size=8, epochs=3, batch_size=8), modality)
    twin = copy.deepcopy(encoder)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    torch.manual_seed(4)
    wanted = torch.rand(3)
    torch.manual_seed(4)
    said: list[str] = []
    encoder.begin(1, said.append)
    assert torch.equal(torch.rand(3), wanted)
    assert len(said) == 3
    assert "who: links, epoch 3 of 3" in said[-1]
    changed = {k for k, v in encoder.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"vectors"}
    found = encoder.vectors[1:]
    torch.testing.assert_close(found.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(0, correction=0), torch.ones(8), atol=1e-4, rtol=0)
    twin.begin(1, said.append)
    assert torch.equal(encoder.vectors, twin.vectors)
    twin.begin(2, said.append)
    assert not torch.equal(encoder.vectors, twin.vectors)


@pytest.mark.parametrize("fine_tune", [False, True])
def test_vectors_move_with_the_task_only_where_asked(modality: Graph, fine_tune: bool) -> None:
    encoder = GraphTransE(GraphTransE.Config(width=16, size=8, fine_tune=fine_tune), modality)
    assert encoder.vectors.requires_grad == fine_tune
    assert ("vectors" in dict(encoder.named_parameters())) == fine_tune
    assert "vectors" in encoder.state_dict(), "or a resumed training would have other ones"


def test_the_graph_stays_out_of_the_weights(modality: Graph, tmp_path: Path) -> None:
    for encoder in (small(modality), GraphTransE(GraphTransE.Config(), modality)):
        assert not any("NK" in name or "triples" in name or "seen" in name for name in encoder.state_dict())
