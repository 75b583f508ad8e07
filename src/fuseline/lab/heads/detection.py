"""Boxes by queries over tokens, in the manner of DETR. Dimensions: B batch, T tokens, Q queries, P points, K true boxes
of a row, L layers, C classes, D model width.

Boxes are centre and size (cx cy w h) in the square that the encoder sees, 0 to 1, until `forward` gives them as corners
in shares of the picture itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fuseline.errors import FuselineError
from fuseline.lab.augment.picture import GEOMETRY
from fuseline.lab.fusion.parts import Attention
from fuseline.lab.heads.base import Head
from fuseline.lab.heads.box_loss import box_loss
from fuseline.lab.heads.box_views import centred, corners, kmeans, moved_views, ratio_of, to_picture, to_square
from fuseline.lab.tokens import Fused, View
from fuseline.modalities import Modality
from fuseline.tasks.base import Task
from fuseline.tasks.detection import Detection

POINTS = 5
"""a side of the lattice of points at which a query looks into its box"""
LATTICE = 1.3
"""of that lattice, in box sizes: beyond the edges, or they could not be seen to be too near"""
NOTHING = -20.0
"""the logit of a row without a picture"""


def waves(places: Tensor, width: int) -> Tensor:
    """Sines and cosines of each coordinate (..., n) at width / 2n frequencies, as DAB-DETR has them. (..., width)"""
    count = places.shape[-1]
    half = width // (2 * count)
    rate = 2 * math.pi * 20.0 ** (torch.arange(half, dtype=torch.float32, device=places.device) / half)
    angle = places[..., None] * rate
    found = torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)
    return nn.functional.pad(found, (0, width - found.shape[-1]))


class Layer(nn.Module):
    """Queries look at each other, at all tokens, and at the points of their own boxes (pre-norm)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.among, self.over = Attention(width, heads, dropout), Attention(width, heads, dropout)
        narrow = max(8, width // 4)
        self.narrow = nn.Linear(width, narrow)
        self.look = nn.Sequential(nn.Linear(POINTS * POINTS * narrow, width), nn.GELU(), nn.Linear(width, width))
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x_BQD: Tensor, place_BQD: Tensor, keys_BTD: Tensor, mask_BT: Tensor, map_BSD: Tensor, seen_BQPS: Tensor
    ) -> Tensor:
        """`seen_BQPS`: how much of each place S of the picture each point of each box sees; sums to 1 over S."""
        own_BQD = self.norms[0](x_BQD) + place_BQD
        x_BQD = x_BQD + self.drop(self.among(own_BQD, own_BQD, torch.ones_like(own_BQD[:, :, 0], dtype=torch.bool)))
        x_BQD = x_BQD + self.drop(self.over(self.norms[1](x_BQD) + place_BQD, keys_BTD, mask_BT))
        points_BQPN = torch.einsum("bqps,bsn->bqpn", seen_BQPS, self.narrow(map_BSD))
        x_BQD = x_BQD + self.drop(self.look(points_BQPN.flatten(2)))
        out: Tensor = x_BQD + self.drop(self.mlp(self.norms[2](x_BQD)))
        return out


class DetectionHead(Head):
    """Learned boxes that decoder layers refine (DETR, Carion et al. 2020; boxes as queries and refined layer by layer,
    DAB-DETR, Liu et al. 2022), over the fused tokens (text and numbers condition the boxes) and the picture's own.

    Unlike them: the boxes start where k-means finds those of the training rows, and each layer also reads the picture
    at a lattice of points over its box, weighting the tokens by their distance to the point: with few hundred rows
    attention alone finds edges too slowly. The score is trained towards the overlap: see `box_loss`.

    A row without a picture: scores of 0, boxes of no size.
    """

    def __init__(self, task: Task, inputs: Mapping[str, Modality], *, width: int, dropout: float) -> None:
        super().__init__(task, inputs, width=width, dropout=dropout)
        assert isinstance(task, Detection)
        self.task = task
        self.image = task.picture_of(inputs)
        self.place = list(inputs).index(self.image)
        self.resize: str = inputs[self.image].config.resize  # type: ignore[attr-defined]
        queries, classes = task.config.queries or 6, len(task.classes)
        heads = next(h for h in (8, 4, 2, 1) if width % h == 0)
        self.content_QD = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.boxes_Q4 = nn.Parameter(torch.logit(_spread(queries)))
        self.embed = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(task.config.layers))
        self.norm_map, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.classify = nn.ModuleList(nn.Linear(width, classes) for _ in self.layers)
        self.refine = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4)) for _ in self.layers
        )
        for score, change in zip(self.classify, self.refine, strict=True):
            nn.init.normal_(score.weight, std=0.02)  # type: ignore[arg-type]
            nn.init.constant_(score.bias, -math.log(9))  # type: ignore[arg-type]
            nn.init.normal_(change[2].weight, std=0.002)  # type: ignore[index]
            nn.init.zeros_(change[2].bias)  # type: ignore[index]
        steps = (torch.arange(POINTS, dtype=torch.float32) / (POINTS - 1) - 0.5) * LATTICE
        lattice_P2 = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(-1, 2)
        self.register_buffer("lattice_P2", lattice_P2, persistent=False)

    @classmethod
    def needs(cls, config: Any) -> Mapping[str, Mapping[str, Any]]:
        # The encoder may not move the picture under its boxes: `augment` here moves both.
        return {"image": {"grid": True, "augment": 0.0}}

    @classmethod
    def fixed(cls, config: Any) -> Mapping[str, tuple[str, ...]]:
        return {"image": GEOMETRY}

    def forward(self, fused: Fused, view: View) -> dict[str, Tensor]:
        """`logits` (B, Q, C), `boxes` (B, Q, 4) corners in shares of the picture, `picture` (B, 2) its sides in pixels;
        in training also `layer_logits` (B, L, Q, C) and `layer_boxes` (B, L, Q, 4) in the square, of every layer."""
        own = view.tokens[self.image]
        if own.aside is None or "place" not in own.aside:
            hint = "encoder options `grid: true`; not with an encoder that has no places"
            raise FuselineError("bad_recipe", f"inputs.{self.image}: its encoder gives detection no places", hint)
        there_B = view.present_BM[:, self.place].bool()
        mask_BS = own.mask_BT.bool() & there_B[:, None]
        map_BSD = self.norm_map(torch.where(mask_BS[..., None], own.values_BTD, 0.0))
        place_BS2 = own.aside["place"]
        width = map_BSD.shape[-1]
        keys_BTD = torch.cat([fused.tokens_BTD, map_BSD + waves(place_BS2, width)], dim=1)
        mask_BT = torch.cat([fused.mask_BT.bool(), mask_BS], dim=1)
        x_BQD = self.content_QD.expand(map_BSD.shape[0], -1, -1)
        # Through the pooled vector whatever the other inputs say is there before the first look.
        x_BQD = x_BQD + fused.pooled_BD[:, None]
        box_BQ4 = self.boxes_Q4.sigmoid().expand(map_BSD.shape[0], -1, -1)
        logits, boxes = [], []
        for layer, score, change in zip(self.layers, self.classify, self.refine, strict=True):
            seen_BQPS = self._seen(box_BQ4, place_BS2, mask_BS)
            where_BQD = self.embed(waves(box_BQ4, width))
            x_BQD = layer(x_BQD, where_BQD, keys_BTD, mask_BT, map_BSD, seen_BQPS)
            final_BQD = self.norm(x_BQD)
            moved_BQ4 = (torch.logit(box_BQ4, eps=1e-4) + change(final_BQD)).sigmoid()
            logits.append(score(final_BQD).float())
            boxes.append(moved_BQ4.float())
            box_BQ4 = moved_BQ4.detach()
        sides_B2 = torch.where(there_B[:, None], own.aside["sides"], 0.0)
        there_B11 = there_B[:, None, None]
        corners_BQ4 = to_picture(corners(boxes[-1]), ratio_of(sides_B2, self.resize))
        out = {
            "logits": torch.where(there_B11, logits[-1], NOTHING),
            "boxes": torch.where(there_B11, corners_BQ4, 0.0),
            "picture": sides_B2,
        }
        if self.training:
            out["layer_logits"], out["layer_boxes"] = torch.stack(logits, dim=1), torch.stack(boxes, dim=1)
        return out

    def _seen(self, box_BQ4: Tensor, place_BS2: Tensor, mask_BS: Tensor) -> Tensor:
        """Weights of the picture's tokens at each point of each box: a softmax over distances, half a token wide."""
        points_BQP2 = box_BQ4[..., None, :2] + box_BQ4[..., None, 2:] * self.get_buffer("lattice_P2")
        apart_BQPS = (points_BQP2[..., None, :] - place_BS2[:, None, None]).square().sum(dim=-1)
        sharp = 2.0 * place_BS2.shape[1]  # 1 / (2 · (half a token)²) where S tokens tile the square
        score_BQPS = -sharp * apart_BQPS
        score_BQPS = score_BQPS.masked_fill(~mask_BS[:, None, None], torch.finfo(score_BQPS.dtype).min)
        return score_BQPS.softmax(dim=-1)

    def loss(self, outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        """`targets` (B, K, 5). Mean over the layers; rows without a picture teach nothing."""
        sides_B2 = outputs["picture"]
        there_B = sides_B2.amin(dim=1) > 0
        true_BK4, label_BK = self._targets(targets, sides_B2)
        label_BK = torch.where(there_B[:, None], label_BK, -1)
        logits_LBQC, boxes_LBQ4 = self.proposals(outputs)
        losses = [
            box_loss(logits_BQC, boxes_BQ4, true_BK4, label_BK, there_B)
            for logits_BQC, boxes_BQ4 in zip(logits_LBQC, boxes_LBQ4, strict=True)
        ]
        return torch.stack(losses).mean()

    def proposals(self, outputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Every layer's logits (L, B, Q, C) and boxes (L, B, Q, 4) as centres and sizes in the square; outside training
        those of the last layer alone."""
        if "layer_logits" in outputs:
            return outputs["layer_logits"].transpose(0, 1), outputs["layer_boxes"].transpose(0, 1)
        boxes_BQ4 = centred(to_square(outputs["boxes"], ratio_of(outputs["picture"], self.resize)))
        return outputs["logits"][None], boxes_BQ4[None]

    def _targets(self, targets_BK5: Tensor, sides_B2: Tensor) -> tuple[Tensor, Tensor]:
        """True boxes as centres and sizes in the square (B, K, 4), and their classes (B, K), -1: none."""
        unit_B2 = torch.ones_like(sides_B2) if self.task.config.normalised else sides_B2.clamp(min=1.0)
        share_BK4 = targets_BK5[..., 1:].float() / unit_B2.repeat(1, 2)[:, None]
        return centred(to_square(share_BK4, ratio_of(sides_B2, self.resize))), targets_BK5[..., 0].long()

    @torch.no_grad()
    def begin(self, batches: Iterable[tuple[Mapping[str, Tensor], Tensor]]) -> None:
        """Before training: the boxes start at the centres of k-means over the training rows' boxes.

        Raises FuselineError ``bad_recipe`` where most boxes do not lie on their pictures.
        """
        found, edges = [], []
        for arrays, targets_BK5 in batches:
            sides_B2 = arrays[f"{self.image}.sides"]
            boxes_BK4, label_BK = self._targets(targets_BK5, sides_B2)
            used_BK = (label_BK >= 0) & (sides_B2.amin(dim=1) > 1)[:, None]
            found.append(boxes_BK4[used_BK])
            unit_B2 = torch.ones_like(sides_B2) if self.task.config.normalised else sides_B2
            shares_BK4 = targets_BK5[..., 1:].float() / unit_B2.clamp(min=1.0).repeat(1, 2)[:, None]
            edges.append(torch.cat([shares_BK4, targets_BK5[..., 1:].float()], dim=-1)[used_BK])
        self._check_unit(torch.cat(edges))
        boxes_N4 = torch.cat(found).clamp(0.01, 0.99)
        if len(boxes_N4):
            self.boxes_Q4.copy_(torch.logit(kmeans(boxes_N4, len(self.boxes_Q4)).to(self.boxes_Q4.device)))

    def _check_unit(self, edges_N8: Tensor) -> None:
        """`edges_N8`: shares of the picture, then as the column has them. Boxes of another unit, or of the picture
        before somebody made it smaller, would train without a word, and find nothing."""
        if len(edges_N8) < 3:
            return
        share_N4, normalised = edges_N8[:, :4], self.task.config.normalised
        off = int(((share_N4[:, :2] >= 1).any(dim=1) | (share_N4[:, 2:] <= 0).any(dim=1)).sum())
        small = not normalised and float(edges_N8[:, 4:].max()) <= 1.0
        if 2 * off > len(edges_N8) or small:
            said = "within the first pixel of" if small else "beside"
            hint = "are the boxes of these files, and of this size?"
            hint += " Pixels: task.normalised: false" if normalised else " Shares of it: task.normalised: true"
            count = len(edges_N8) if small else off
            raise FuselineError(
                "bad_recipe",
                f"{count} of {len(edges_N8)} boxes of the training rows lie {said} their picture",
                hint,
                column=self.task.config.target,
            )

    def augment(self, arrays: dict[str, Tensor], targets: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """In training: zoomed, shifted, mirrored pictures, brighter and darker, their boxes along."""
        pixels, sides_B2 = arrays.get(f"{self.image}.pixels"), arrays.get(f"{self.image}.sides")
        if pixels is None or sides_B2 is None:  # a frozen encoder's tokens were kept: there is nothing to move
            return arrays, targets
        boxes_BK4, label_BK = self._targets(targets, sides_B2)
        config = self.task.config
        pixels, moved_BK4, label_BK = moved_views(
            pixels, boxes_BK4, label_BK, zoom=config.zoom, mirror=config.mirror, swap=self._swap(label_BK.device)
        )
        unit_B2 = torch.ones_like(sides_B2) if config.normalised else sides_B2.clamp(min=1.0)
        edges_BK4 = to_picture(corners(moved_BK4), ratio_of(sides_B2, self.resize)) * unit_B2.repeat(1, 2)[:, None]
        new = torch.cat([label_BK[..., None].to(targets.dtype), edges_BK4.to(targets.dtype)], dim=-1)
        return {**arrays, f"{self.image}.pixels": pixels}, new

    def _swap(self, device: torch.device) -> Tensor:
        """Class -> its class in a mirrored picture (C,)."""
        names = self.task.names
        pairs = self.task.config.mirror_labels
        both = {**{b: a for a, b in pairs.items()}, **pairs}
        return torch.tensor([names.index(both.get(name, name)) for name in names], device=device)


def _spread(queries: int) -> Tensor:
    """Boxes of a quarter of the square on a lattice over it, where nothing better is known (Q, 4)."""
    side = math.ceil(queries**0.5)
    at = (torch.arange(side, dtype=torch.float32) + 0.5) / side
    centre_Q2 = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1).reshape(-1, 2)[:queries]
    return torch.cat([centre_Q2, torch.full_like(centre_Q2, 0.4)], dim=1)
