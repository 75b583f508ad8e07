"""Knowledge-graph embeddings: vectors of entities and relations that tell true triples from false ones.

Scores, losses, first weights and negative triples are those of `torch_geometric.nn.kge` (2.8), with which they are
tested in lockstep. Dimensions: B batch, N entities, R relations, D numbers of a vector, E triples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Links(nn.Module):
    """Abstract. `score` is higher for triples that are more likely."""

    def __init__(self, entities: int, relations: int, width: int, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin
        self.entity = nn.Embedding(entities, width)
        self.relation = nn.Embedding(relations, width)

    def score(self, head_B: Tensor, relation_B: Tensor, tail_B: Tensor) -> Tensor:
        raise TypeError("Links is abstract")

    def vectors(self) -> Tensor:
        """What is known of each entity, (N, D) or (N, 2D)."""
        raise TypeError("Links is abstract")

    def loss(self, head_B: Tensor, relation_B: Tensor, tail_B: Tensor) -> Tensor:
        """Of a batch of true triples, against as many with one end drawn anew (binary cross-entropy)."""
        true_B = self.score(head_B, relation_B, tail_B)
        false_B = self.score(*self.corrupted(head_B, relation_B, tail_B))
        scores, wanted = torch.cat([true_B, false_B]), torch.cat([torch.ones_like(true_B), torch.zeros_like(false_B)])
        return F.binary_cross_entropy_with_logits(scores, wanted)

    def corrupted(self, head_B: Tensor, relation_B: Tensor, tail_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Another head in the first half of the batch, another tail in the second: any entity."""
        half = head_B.numel() // 2
        drawn_B = torch.randint(self.entity.num_embeddings, head_B.size(), device=head_B.device)
        return torch.cat([drawn_B[:half], head_B[half:]]), relation_B, torch.cat([tail_B[:half], drawn_B[half:]])


class TransE(Links):
    """`-|h + r - t|` in the 1-norm, h and t of length 1 (Bordes et al. 2013, "Translating Embeddings for Modeling
    Multi-relational Data"), with a margin between true and false."""

    def __init__(self, entities: int, relations: int, width: int, margin: float = 1.0) -> None:
        super().__init__(entities, relations, width, margin)
        bound = 6.0 / math.sqrt(width)
        nn.init.uniform_(self.entity.weight, -bound, bound)
        nn.init.uniform_(self.relation.weight, -bound, bound)
        with torch.no_grad():
            self.relation.weight.copy_(F.normalize(self.relation.weight, p=1, dim=-1))

    def score(self, head_B: Tensor, relation_B: Tensor, tail_B: Tensor) -> Tensor:
        head_BD = F.normalize(self.entity(head_B), p=1, dim=-1)
        tail_BD = F.normalize(self.entity(tail_B), p=1, dim=-1)
        out: Tensor = -(head_BD + self.relation(relation_B) - tail_BD).abs().sum(dim=-1)
        return out

    def loss(self, head_B: Tensor, relation_B: Tensor, tail_B: Tensor) -> Tensor:
        true_B = self.score(head_B, relation_B, tail_B)
        false_B = self.score(*self.corrupted(head_B, relation_B, tail_B))
        return F.margin_ranking_loss(true_B, false_B, torch.ones_like(true_B), margin=self.margin)

    def vectors(self) -> Tensor:
        return F.normalize(self.entity.weight, p=1, dim=-1)


class RotatE(Links):
    """`margin - |h * e^(i r) - t|`, complex h and t: a relation turns (Sun et al. 2019, "RotatE")."""

    def __init__(self, entities: int, relations: int, width: int, margin: float = 1.0) -> None:
        super().__init__(entities, relations, width, margin)
        self.entity_im = nn.Embedding(entities, width)
        nn.init.xavier_uniform_(self.entity.weight)
        nn.init.xavier_uniform_(self.entity_im.weight)
        nn.init.uniform_(self.relation.weight, 0, 2 * math.pi)

    def score(self, head_B: Tensor, relation_B: Tensor, tail_B: Tensor) -> Tensor:
        head_re, head_im = self.entity(head_B), self.entity_im(head_B)
        turn = self.relation(relation_B)
        cos, sin = turn.cos(), turn.sin()
        re_BD = cos * head_re - sin * head_im - self.entity(tail_B)
        im_BD = cos * head_im + sin * head_re - self.entity_im(tail_B)
        out: Tensor = self.margin - torch.linalg.vector_norm(torch.stack([re_BD, im_BD], dim=-1), dim=(-2, -1))
        return out

    def vectors(self) -> Tensor:
        return torch.cat([self.entity.weight, self.entity_im.weight], dim=1)


class ComplEx(Links):
    """`Re <h, r, conj t>`, all complex (Trouillon et al. 2016, "Complex Embeddings for Simple Link Prediction")."""

    def __init__(self, entities: int, relations: int, width: int, margin: float = 1.0) -> None:
        super().__init__(entities, relations, width, margin)
        self.entity_im = nn.Embedding(entities, width)
        self.relation_im = nn.Embedding(relations, width)
        for table in (self.entity, self.entity_im, self.relation, self.relation_im):
            nn.init.xavier_uniform_(table.weight)

    def score(self, head_B: Tensor, relation_B: Tensor, tail_B: Tensor) -> Tensor:
        head_re, head_im = self.entity(head_B), self.entity_im(head_B)
        turn_re, turn_im = self.relation(relation_B), self.relation_im(relation_B)
        tail_re, tail_im = self.entity(tail_B), self.entity_im(tail_B)
        re_BD = (head_re * turn_re - head_im * turn_im) * tail_re
        out: Tensor = (re_BD + (head_im * turn_re + head_re * turn_im) * tail_im).sum(dim=-1)
        return out

    def vectors(self) -> Tensor:
        return torch.cat([self.entity.weight, self.entity_im.weight], dim=1)


def train_links(
    links: Links,
    triples_E3: Tensor,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    told: Callable[[int, float], None] = lambda epoch, loss: None,
) -> float:
    """Learn to predict links, in place. Draws order and negatives from torch's own random numbers: seed them.

    `told`: after each epoch, its number from 1 and its mean loss. Returns the last of these losses."""
    links.train()
    mean = math.nan
    for epoch in range(1, epochs + 1):
        total = torch.zeros((), device=triples_E3.device)
        order_E = torch.randperm(len(triples_E3), device=triples_E3.device)
        for batch_B in torch.split(order_E, batch_size):
            head_B, relation_B, tail_B = triples_E3[batch_B].unbind(1)
            optimizer.zero_grad()
            loss = links.loss(head_B, relation_B, tail_B)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach() * len(batch_B)
        mean = float(total) / len(triples_E3)
        told(epoch, mean)
    links.eval()
    return mean


class Ranks(NamedTuple):
    """Of the true tail among all entities, over triples: mean reciprocal rank, and shares ranked 1, 3, 10 or better."""

    mrr: float
    hits1: float
    hits3: float
    hits10: float


@torch.no_grad()
def rank_tails(
    score: Callable[[Tensor, Tensor, Tensor], Tensor], entities: int, triples_E3: Tensor, known_E3: Tensor | None = None
) -> Ranks:
    """Rank each triple's tail among all entities; of equals, half stand before it.

    `known_E3`: filtered ranks (Bordes et al. 2013): other tails that make a triple of these do not count."""
    known: dict[tuple[int, int], list[int]] = {}
    for head, relation, tail in [] if known_E3 is None else known_E3.tolist():
        known.setdefault((head, relation), []).append(tail)
    every_N = torch.arange(entities)
    ranks = []
    for head, relation, tail in triples_E3.tolist():
        scores_N = score(torch.full_like(every_N, head), torch.full_like(every_N, relation), every_N)
        rivals_N = torch.ones(entities, dtype=torch.bool)
        rivals_N[known.get((head, relation), [])] = False
        rivals_N[tail] = False
        better = (scores_N > scores_N[tail])[rivals_N].sum() + 0.5 * (scores_N == scores_N[tail])[rivals_N].sum()
        ranks.append(1.0 + float(better))
    rank_E = torch.tensor(ranks, dtype=torch.float64)
    hits = [float((rank_E <= k).double().mean()) for k in (1, 3, 10)]
    return Ranks(float((1 / rank_E).mean()), *hits)
