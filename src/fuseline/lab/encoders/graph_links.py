"""Entities by their knowledge-graph embedding, learned from the triples alone before the task is.

Dimensions: B batch, N entities, E numbers of an entity's vector, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.links import ComplEx, Links, RotatE, TransE, train_links
from fuseline.lab.tokens import Tokens
from fuseline.recipe import Frozen

_TOLD = 10
"""times that learning the links speaks"""


class LinksConfig(Frozen):
    width: int = Field(64, ge=8, description="D: width of the entity's token")
    size: int = Field(64, ge=4, description="numbers of an entity's vector (complex ones count double)")
    epochs: int = Field(100, ge=0, description="passes over the triples, before the training of the task")
    batch_size: int = Field(1024, ge=2, description="triples a step")
    link_rate: float = Field(0.01, gt=0, description="learning rate of these steps (Adam)")
    margin: float = Field(1.0, gt=0, description="between true and false triples (not ComplEx)")
    fine_tune: bool = Field(
        False, description="the vectors go on learning with the task; else only what stands above them does"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on the vectors")
    unknown: float = Field(0.02, ge=0, lt=1, description="share of entities taken as unknown while training the task")


class _GraphLinks(Encoder):
    """Abstract. In: `entity` int64 (B,), 0 for one that the graph does not hold. Out: one token (B, 1, D): two layers
    over the vector that :func:`train_links` gave the entity."""

    Config: ClassVar[type[Frozen]] = LinksConfig
    made: ClassVar[type[Links]]
    vectors: Tensor
    triples_E3: Tensor

    def __init__(self, config: LinksConfig, modality: Any) -> None:
        super().__init__(config, modality)
        self.config = config
        self.width = config.width
        self.column, self.entities, self.relations = (
            modality.columns[0],
            len(modality.entities),
            len(modality.relations),
        )
        # Made anew from the modality wherever the model is built: no part of the weights.
        self.register_buffer("triples_E3", torch.from_numpy(modality.triples.copy()), persistent=False)
        parts = 1 if self.made is TransE else 2
        vectors = torch.randn(1 + self.entities, parts * config.size)  # until `begin`: row 0 is never looked at
        if config.fine_tune:
            self.vectors = nn.Parameter(vectors)
        else:
            self.register_buffer("vectors", vectors)
        self.nobody_E = nn.Parameter(torch.randn(parts * config.size))
        self.drop = nn.Dropout(config.dropout)
        self.first = nn.Linear(parts * config.size, config.width)
        self.second = nn.Linear(config.width, config.width)

    def begin(self, seed: int, say: Callable[[str], None]) -> None:
        config = self.config
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        triples_E3 = self.triples_E3.long().to(device)
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(seed)
            links = self.made(self.entities, self.relations, config.size, config.margin).to(device)
            optimizer = torch.optim.Adam(links.parameters(), lr=config.link_rate)
            every = max(1, config.epochs // _TOLD)

            def told(epoch: int, loss: float) -> None:
                if epoch % every == 0:
                    say(f"{self.column}: links, epoch {epoch} of {config.epochs}, loss {loss:.4f}")

            train_links(links, triples_E3, optimizer, epochs=config.epochs, batch_size=config.batch_size, told=told)
        with torch.no_grad():
            found_NE = links.vectors().cpu()
            spread_E = found_NE.std(0, correction=0).clamp_min(1e-6)
            self.vectors[1:] = (found_NE - found_NE.mean(0)) / spread_E

    def forward(self, entity: Tensor) -> Tokens:  # type: ignore[override]
        if self.training and self.config.unknown:
            entity = torch.where(torch.rand(entity.shape, device=entity.device) < self.config.unknown, 0, entity)
        vector_BE = torch.where((entity == 0)[:, None], self.nobody_E, self.vectors[entity])
        hidden_BD = self.first(self.drop(vector_BE))
        token_BD = hidden_BD + self.second(F.gelu(hidden_BD))
        return Tokens(token_BD[:, None, :], torch.ones_like(entity, dtype=torch.bool)[:, None])


class GraphTransE(_GraphLinks):
    """Vectors by TransE (Bordes et al. 2013): a relation is a step, `h + r = t`."""

    made = TransE


class GraphRotatE(_GraphLinks):
    """Vectors by RotatE (Sun et al. 2019): a relation is a turn of complex numbers."""

    made = RotatE


class GraphComplEx(_GraphLinks):
    """Vectors by ComplEx (Trouillon et al. 2016): a relation weighs products of complex numbers."""

    made = ComplEx
