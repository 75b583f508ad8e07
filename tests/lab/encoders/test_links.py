"""Our knowledge-graph embeddings against torch-geometric's, weight by weight and step by step."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from graphs import torus
from torch import nn

from fuseline.lab.encoders.links import ComplEx, Links, RotatE, TransE, rank_tails, train_links

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch-geometric scripts a few classes on import, which torch deprecates
    kge = pytest.importorskip("torch_geometric.nn.kge")

PAIRS = {"node_emb": "entity", "rel_emb": "relation", "node_emb_im": "entity_im", "rel_emb_im": "relation_im"}
KINDS = {"TransE": TransE, "RotatE": RotatE, "ComplEx": ComplEx}
TRIPLES, ENTITIES, RELATIONS = torus((5, 6))
TRIPLES_E3 = torch.from_numpy(TRIPLES)


def both(kind: str, width: int = 8) -> tuple[Links, Any]:
    """Ours and theirs, each made from the same seed."""
    torch.manual_seed(5)
    ours = KINDS[kind](ENTITIES, RELATIONS, width)
    torch.manual_seed(5)
    theirs = getattr(kge, kind)(ENTITIES, RELATIONS, width)
    return ours, theirs


@pytest.mark.parametrize("kind", KINDS)
def test_they_start_alike(kind: str) -> None:
    """The same seed, the same first weights and the same false triples."""
    ours, theirs = both(kind, 64)
    for name, table in theirs.named_children():
        assert torch.equal(getattr(ours, PAIRS[name]).weight, table.weight), name
    columns = TRIPLES_E3.unbind(1)
    torch.manual_seed(1)
    false = ours.corrupted(*columns)
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(false, theirs.random_sample(*columns), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_they_go_in_lockstep(kind: str) -> None:
    """From the same weights and seed: equal scores, equal losses over 40 steps of Adam, equal weights after them."""
    ours, theirs = both(kind)
    columns = TRIPLES_E3.unbind(1)
    torch.testing.assert_close(ours.score(*columns), theirs(*columns), atol=1e-5, rtol=0)
    histories = []
    for model in (ours, theirs):
        torch.manual_seed(7)
        histories.append(_losses(model, torch.optim.Adam(model.parameters(), lr=0.01)))
    for a, b in zip(*histories, strict=True):
        assert abs(a - b) < 1e-5
    assert len(set(histories[0])) == 40, "nothing moved"
    for name, table in theirs.named_children():
        torch.testing.assert_close(getattr(ours, PAIRS[name]).weight, table.weight, atol=1e-4, rtol=0)


def _losses(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[float]:
    out = []
    for step in range(40):
        head, relation, tail = TRIPLES_E3[(step * 16) % 96 :][:32].unbind(1)
        optimizer.zero_grad()
        loss = model.loss(head, relation, tail)
        loss.backward()
        optimizer.step()
        out.append(float(loss.detach()))
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_are_those_of_torch_geometric(kind: str) -> None:
    """Unfiltered, as its `test` ranks."""
    _, theirs = both(kind)
    _, mrr, hits = theirs.test(*TRIPLES_E3[:40].unbind(1), batch_size=1000, k=10, log=False)
    ours = rank_tails(theirs, ENTITIES, TRIPLES_E3[:40])
    assert ours.mrr == pytest.approx(mrr, abs=1e-6)
    assert ours.hits10 == pytest.approx(hits)


def test_filtered_ranks_leave_out_other_true_tails() -> None:
    scores = torch.tensor([0.1, 0.9, 0.8, 0.8, 0.3])

    def score(head: torch.Tensor, relation: torch.Tensor, tail: torch.Tensor) -> torch.Tensor:
        return scores[tail]

    asked = torch.tensor([[0, 0, 2]])
    assert rank_tails(score, 5, asked).mrr == pytest.approx(1 / 2.5)  # one better, one equal
    assert rank_tails(score, 5, asked, torch.tensor([[0, 0, 1], [0, 0, 2], [9, 0, 3]])).mrr == pytest.approx(1 / 1.5)
    assert rank_tails(score, 5, asked, torch.tensor([[0, 0, 1], [0, 0, 3]])).hits1 == 1.0


def test_training_links_finds_the_rule() -> None:
    """Held-out triples of a torus: far above an untrained model, by the same ranks."""
    triples, entities, relations = torus((7, 8), share=0.9)
    train, test = torch.from_numpy(triples[40:]), torch.from_numpy(triples[:40])
    torch.manual_seed(0)
    links = RotatE(entities, relations, 32)
    before = rank_tails(links.score, entities, test).mrr
    told: list[tuple[int, float]] = []
    last = train_links(
        links, train, torch.optim.Adam(links.parameters(), lr=0.02), epochs=60, batch_size=64,
        told=lambda epoch, loss: told.append((epoch, loss)),
    )  # fmt: skip
    assert [epoch for epoch, _ in told] == list(range(1, 61))
    assert told[-1][1] == last < 0.5 * told[0][1]
    assert rank_tails(links.score, entities, test).mrr > before + 0.4
