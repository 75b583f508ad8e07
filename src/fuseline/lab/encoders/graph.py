"""Entities by their neighbours: a relational graph network over the edges around each.

Dimensions: B batch, N entities, K neighbours, P places at one distance (K to the power of it), D width, R relations,
F numbers of an entity, Z bases, T tokens (distances 0 to `layers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.tabular import LARGEST_SCORE
from fuseline.lab.tokens import Tokens
from fuseline.recipe import Frozen

FOLDED_AT_ONCE = 128


class SmallGraphConfig(Frozen):
    width: int = Field(64, ge=8, description="D: width of every token")
    layers: int = Field(2, ge=1, le=3, description="how many edges far it sees")
    neighbours: int = Field(
        32, ge=1, le=256, description="most neighbours of the entity that are looked at: of more, some drawn at random"
    )
    farther: int = Field(10, ge=1, le=64, description="the same of its neighbours, and of theirs")
    both_ways: bool = Field(True, description="edges are walked from either end (as two relations)")
    bases: int = Field(4, ge=1, description="matrices of which every relation's is a mixture")
    learned: bool = Field(True, description="every entity has a learned vector beside its features")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside every layer")
    edge_dropout: float = Field(0.1, ge=0, lt=1, description="share of edges not seen while training")
    own_dropout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of rows trained without their entity's own learned vector: by neighbours alone",
    )
    unknown: float = Field(0.02, ge=0, lt=1, description="share of entities taken as unknown while training")


class Relational(nn.Module):
    """One layer of an R-GCN, `W0 x_i + sum_r 1/|N_r(i)| sum_j W_r x_j` with `W_r = sum_z a_rz V_z`, then a residual and
    a norm (Schlichtkrull et al. 2018, "Modeling Relational Data with Graph Convolutional Networks", equations 2, 3)."""

    def __init__(self, width: int, relations: int, bases: int, dropout: float) -> None:
        super().__init__()
        self.own = nn.Linear(width, width)
        self.mixture_RZ = nn.Parameter(torch.empty(relations, bases))
        self.bases = nn.Linear(bases * width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.mixture_RZ)

    def forward(self, own_BPD: Tensor, near_BPKD: Tensor, relation_BPK: Tensor, share_BPK: Tensor) -> Tensor:
        """`share`: 1 over how many neighbours the relation has there, 0 where there is no neighbour."""
        weight_BPKZ = self.mixture_RZ[relation_BPK] * share_BPK[..., None]
        sums_BPZD = weight_BPKZ.transpose(2, 3) @ near_BPKD
        out: Tensor = self.norm(own_BPD + self.drop(F.gelu(self.own(own_BPD) + self.bases(sums_BPZD.flatten(2)))))
        return out


class SmallGraph(Encoder):
    """A relational graph network (R-GCN) on the neighbourhood of each row's entity, of as many edges as it has layers.

    In: `entity` int64 (B,), 0 for one that the graph does not hold. Out: tokens (B, 1 + layers, D): the entity itself,
    what one edge around it says, two ... (Xu et al. 2018, "Representation Learning on Graphs with Jumping Knowledge
    Networks"). Of a neighbour with many neighbours a fixed random sample is seen (Hamilton et al. 2017, "Inductive
    Representation Learning on Large Graphs"). No path goes back where it came from: the entity's own vector would come
    back as if its neighbours had said it.

    An entity that no training row showed has no learned vector of its own, as none has in `own_dropout` of the rows.
    The exported graph holds the tokens of every entity as a table.
    """

    Config: ClassVar[type[Frozen]] = SmallGraphConfig
    features_NF: Tensor
    seen_N: Tensor
    """which entities a training row has: their own learned vectors are trained"""
    near_N: Tensor
    """which are a neighbour, near enough, of one of those: their vectors are trained as such"""
    table: Tensor | None

    def __init__(self, config: SmallGraphConfig, modality: Any) -> None:
        super().__init__(config, modality)
        self.config = config
        self.width = config.width
        entities, relations = 1 + len(modality.entities), len(modality.relations) * (1 + config.both_ways)
        # Made anew from the modality wherever the model is built: no part of the weights.
        seen_N = front_N = np.concatenate([[False], modality.seen])
        near_N = np.zeros(entities, bool)
        for distance in range(config.layers):
            hood = neighbourhoods(
                modality.triples,
                entities,
                len(modality.relations),
                both_ways=config.both_ways,
                most=config.farther if distance else config.neighbours,
            )
            front_N = np.isin(np.arange(entities), hood.neighbour_NK[front_N])
            front_N[0] = False
            near_N |= front_N
            if distance < 2:
                for name, array in hood._asdict().items():
                    self.register_buffer(f"{name}_{distance}", torch.from_numpy(array), persistent=False)
        self.register_buffer("seen_N", torch.from_numpy(seen_N), persistent=False)
        self.register_buffer("near_N", torch.from_numpy(near_N), persistent=False)
        self.features: nn.Linear | None = None
        if modality.feature_names:
            self.register_buffer("features_NF", _standardised(modality.features), persistent=False)
            self.features = nn.Linear(self.features_NF.shape[1], config.width)
        self.vectors = nn.Embedding(entities, config.width) if config.learned else None
        if self.vectors is not None:
            nn.init.normal_(self.vectors.weight, std=0.5)
        self.any_D = nn.Parameter(0.5 * torch.randn(config.width))  # what all entities have in common
        self.nobody_D = nn.Parameter(0.5 * torch.randn(config.width))
        bases = min(config.bases, relations)
        self.rounds = nn.ModuleList(
            Relational(config.width, relations, bases, config.dropout) for _ in range(config.layers)
        )
        self.register_buffer("table", None)

    def forward(self, entity: Tensor, **edges: Tensor) -> Tokens:  # type: ignore[override]
        """`edges`: weights instead of those that `gates` gives."""
        if self.table is not None and not self.training and not edges:
            tokens_BTD = self.table[entity]
        else:
            if self.training and self.config.unknown:
                unknown_B = torch.rand(entity.shape, device=entity.device) < self.config.unknown
                entity = torch.where(unknown_B, 0, entity)
            tokens_BTD = self._tokens(entity, edges)
        return Tokens(tokens_BTD, torch.ones(tokens_BTD.shape[:2], dtype=torch.bool, device=tokens_BTD.device))

    @torch.no_grad()
    def fold(self) -> None:
        every_N = torch.arange(len(self.seen_N), device=self.any_D.device)
        self.table = torch.cat([self._tokens(some, {}) for some in torch.split(every_N, FOLDED_AT_ONCE)])

    def unfold(self) -> None:
        self.table = None

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *more: Any) -> None:
        state_dict.pop(f"{prefix}table", None)  # a package's: it follows from the weights
        self.unfold()
        super()._load_from_state_dict(state_dict, prefix, *more)

    def gates(self, entity: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {f"edges_{d}": walk.share_BPK for d, walk in enumerate(self.walks(entity))}

    def walks(self, entity_B: Tensor) -> list[Walk]:
        """The edges around each entity that are looked at, by their distance."""
        out: list[Walk] = []
        here_BP = entity_B[:, None]
        for distance in range(self.config.layers):
            hood = Neighbourhoods(*(self.get_buffer(f"{f}_{min(distance, 1)}") for f in Neighbourhoods._fields))
            next_BPK = hood.neighbour_NK[here_BP].long()
            share_BPK = hood.share_NK[here_BP]
            if distance:  # not back to where the path came from
                before_BP = out[-1].here_BP.repeat_interleave(here_BP.shape[1] // out[-1].here_BP.shape[1], 1)
                share_BPK = torch.where(next_BPK == before_BP[:, :, None], 0.0, share_BPK)
            out.append(Walk(here_BP, hood.relation_NK[here_BP].long(), next_BPK, share_BPK))
            here_BP = next_BPK.flatten(1)
        return out

    def _tokens(self, entity_B: Tensor, edges: Mapping[str, Tensor]) -> Tensor:
        walks = self.walks(entity_B)
        shares = [edges.get(f"edges_{d}", walk.share_BPK) for d, walk in enumerate(walks)]
        if self.training and self.config.edge_dropout:
            shares = [F.dropout(share_BPK, self.config.edge_dropout) for share_BPK in shares]
        relations = [walk.relation_BPK for walk in walks]
        places = [entity_B[:, None], *(walk.next_BPK.flatten(1) for walk in walks)]  # (B, P) at each distance
        values = [self._own(places[0]), *(self._neighbour(p) for p in places[1:])]
        tokens = [values[0][:, 0]]
        for number, layer in enumerate(self.rounds):
            values = [
                layer(own_BPD, torch.unflatten(near, 1, (own_BPD.shape[1], -1)), relation_BPK, share_BPK)
                for own_BPD, near, relation_BPK, share_BPK in zip(
                    values[: self.config.layers - number], values[1:], relations, shares, strict=False
                )
            ]
            tokens.append(values[0][:, 0])
        return torch.stack(tokens, dim=1)

    def _own(self, entity_B1: Tensor) -> Tensor:
        """The row's own entity (B, 1, D)."""
        known_B1 = self.seen_N[entity_B1]
        if self.training:
            known_B1 = known_B1 & (torch.rand(entity_B1.shape, device=entity_B1.device) >= self.config.own_dropout)
        own_B1D = self._vector(entity_B1, known_B1)
        return torch.where((entity_B1 == 0)[:, :, None], self.nobody_D, own_B1D)

    def _neighbour(self, entity_BP: Tensor) -> Tensor:
        return self._vector(entity_BP, self.near_N[entity_BP])

    def _vector(self, entity_BP: Tensor, known_BP: Tensor) -> Tensor:
        """(B, P, D): features, and the learned vector where training moves it."""
        out_BPD = self.any_D.expand(*entity_BP.shape, -1)
        if self.features is not None:
            out_BPD = out_BPD + self.features(self.features_NF[entity_BP])
        if self.vectors is not None:
            out_BPD = out_BPD + torch.where(known_BP[:, :, None], self.vectors(entity_BP), 0.0)
        return out_BPD


class Walk(NamedTuple):
    """The edges of one distance. `share`: as in Neighbourhoods, 0 where there is no edge."""

    here_BP: Tensor
    relation_BPK: Tensor
    next_BPK: Tensor
    share_BPK: Tensor


class Neighbourhoods(NamedTuple):
    """Of every entity, each (N, K). `relation`: walked backwards, that of the edge + R. `share`: 1 over the neighbours
    of that relation, 0 where there is no neighbour."""

    neighbour_NK: Any
    relation_NK: Any
    share_NK: Any


def neighbourhoods(
    triples_E3: np.ndarray, entities: int, relations: int, *, both_ways: bool, most: int
) -> Neighbourhoods:
    """numpy arrays, K at most `most`: of more neighbours, some drawn with a fixed seed are kept. Loops are left out.

    Entity i of the triples is i + 1 here; 0 has no neighbour."""
    head_E, relation_E, tail_E = triples_E3.T.astype(np.int64)
    loop_E = head_E == tail_E
    head_E, relation_E, tail_E = head_E[~loop_E] + 1, relation_E[~loop_E], tail_E[~loop_E] + 1
    if both_ways:
        ends = np.concatenate([head_E, tail_E]), np.concatenate([tail_E, head_E])
        of_E, other_E = ends
        kind_E = np.concatenate([relation_E, relation_E + relations])
    else:
        of_E, other_E, kind_E = head_E, tail_E, relation_E
    mixed = np.random.default_rng(0).permutation(len(of_E))
    order = mixed[np.argsort(of_E[mixed], kind="stable")]
    of_E, other_E, kind_E = of_E[order], other_E[order], kind_E[order]
    starts_N = np.searchsorted(of_E, np.arange(entities))
    rank_E = np.arange(len(of_E)) - starts_N[of_E]
    kept = rank_E < most
    of_E, other_E, kind_E, rank_E = of_E[kept], other_E[kept], kind_E[kept], rank_E[kept]
    width = int(rank_E.max(initial=0)) + 1
    neighbour_NK, relation_NK = np.zeros((2, entities, width), np.int32)
    share_NK = np.zeros((entities, width), np.float32)
    _, pair_E, count = np.unique(of_E * (2 * relations) + kind_E, return_inverse=True, return_counts=True)
    neighbour_NK[of_E, rank_E], relation_NK[of_E, rank_E] = other_E, kind_E
    share_NK[of_E, rank_E] = 1.0 / count[pair_E]
    return Neighbourhoods(neighbour_NK, relation_NK, share_NK)


def _standardised(features_NF: np.ndarray) -> Tensor:
    """(1 + N, 2F): each number less its median, by its spread, and whether it is there; nothing for the unknown."""
    there_NF = ~np.isnan(features_NF)
    out_NF = np.zeros(features_NF.shape, np.float64)
    for i in range(features_NF.shape[1]):
        values = features_NF[there_NF[:, i], i].astype(np.float64)
        if len(values):
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            spread = (high - low) / 1.349 or values.std() or 1.0
            out_NF[there_NF[:, i], i] = np.clip((values - middle) / spread, -LARGEST_SCORE, LARGEST_SCORE)
    both = np.concatenate([out_NF, there_NF], axis=1).astype(np.float32)
    return torch.from_numpy(np.concatenate([np.zeros((1, both.shape[1]), np.float32), both]))
