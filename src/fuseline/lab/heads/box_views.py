"""Boxes between the square that an encoder sees and the picture, and pictures moved with their boxes.

Dimensions: B batch, K boxes of a row, N boxes in all, Q clusters, H W the square's sides, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_SEEN = 0.3
"""share of a box that must stay inside a moved picture; of less, nobody could tell what it is"""
LIGHT = 0.2
"""brightness and contrast change by up to this share"""


def corners(boxes: Tensor) -> Tensor:
    """cx cy w h to x1 y1 x2 y2."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def centred(boxes: Tensor) -> Tensor:
    """x1 y1 x2 y2 to cx cy w h."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def ratio_of(sides_B2: Tensor, resize: str) -> Tensor:
    """How much of the square each axis of the picture spans (B, 2): 1 where it is stretched, at most 1 where the short
    side is padded, at least 1 where the long side is cropped."""
    if resize == "stretch":
        return torch.ones_like(sides_B2)
    known_B2 = sides_B2.clamp(min=1.0)
    span_B1 = known_B2.amax(dim=1, keepdim=True) if resize == "pad" else known_B2.amin(dim=1, keepdim=True)
    return known_B2 / span_B1


def to_square(corners_BK4: Tensor, ratio_B2: Tensor) -> Tensor:
    """Shares of the picture to shares of the square; both have their middle at 0.5."""
    return (corners_BK4 - 0.5) * ratio_B2.repeat(1, 2)[:, None] + 0.5


def to_picture(corners_BK4: Tensor, ratio_B2: Tensor) -> Tensor:
    """Shares of the square to shares of the picture."""
    return (corners_BK4 - 0.5) / ratio_B2.repeat(1, 2)[:, None] + 0.5


def moved_views(
    pixels: Tensor, boxes_BK4: Tensor, labels_BK: Tensor, *, zoom: float, mirror: bool, swap: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Each picture zoomed and shifted by up to `zoom` of its size, half of them mirrored, brightness and contrast
    changed; what moves in from outside is black.

    Args:
        pixels: uint8 (B, H, W, 3).
        boxes_BK4: cx cy w h in the square.
        labels_BK: class numbers, -1 where there is no box.
        zoom: 0: the pictures stay where they are.
        mirror: whether to mirror.
        swap: class -> its class in a mirrored picture (C,).

    Returns:
        Moved pixels, boxes cut to the square, and labels: -1 for a box that is mostly outside.
    """
    batch, device = pixels.shape[0], pixels.device

    def spread(size: float, *shape: int) -> Tensor:
        return (torch.rand(batch, *shape, device=device) * 2 - 1) * size

    scale_B2 = torch.exp(spread(zoom, 1) + spread(zoom / 3, 2))  # above 1: the content grows
    shift_B2 = spread(zoom, 2) / 2
    flip_B = torch.rand(batch, device=device) < 0.5 if mirror else torch.zeros(batch, dtype=torch.bool, device=device)
    sign_B2 = torch.stack([torch.where(flip_B, -1.0, 1.0), torch.ones(batch, device=device)], dim=1)
    # Content at u goes to (u - 0.5) · scale · sign + 0.5 + shift; affine_grid wants the way back, on -1 to 1.
    back_B2 = sign_B2 / scale_B2
    matrix_B23 = torch.zeros(batch, 2, 3, device=device)
    matrix_B23[:, 0, 0], matrix_B23[:, 1, 1] = back_B2[:, 0], back_B2[:, 1]
    matrix_B23[:, :, 2] = -2 * shift_B2 * back_B2
    picture_BCHW = pixels.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(matrix_B23, list(picture_BCHW.shape), align_corners=False)
    picture_BCHW = F.grid_sample(picture_BCHW, grid, padding_mode="zeros", align_corners=False)
    light_B111, contrast_B111 = spread(255 * LIGHT, 1, 1, 1), 1 + spread(LIGHT, 1, 1, 1)
    picture_BCHW = (picture_BCHW - 127.5) * contrast_B111 + 127.5 + light_B111
    moved = picture_BCHW.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    centre_BK2 = (boxes_BK4[..., :2] - 0.5) * (scale_B2 * sign_B2)[:, None] + 0.5 + shift_B2[:, None]
    whole_BK4 = torch.cat([centre_BK2, boxes_BK4[..., 2:] * scale_B2[:, None]], dim=-1)
    cut_BK4 = centred(corners(whole_BK4).clamp(0, 1))
    seen_BK = cut_BK4[..., 2:].prod(dim=-1) >= LEAST_SEEN * whole_BK4[..., 2:].prod(dim=-1)
    turned_BK = torch.where(flip_B[:, None], swap[labels_BK.clamp(min=0)], labels_BK)
    return moved, cut_BK4, torch.where((labels_BK >= 0) & seen_BK, turned_BK, -1)


def kmeans(boxes_N4: Tensor, clusters: int, rounds: int = 50) -> Tensor:
    """Centres of boxes (Q, 4): Lloyd's algorithm from k-means++ with fixed draws. Fewer boxes than clusters repeat."""
    generator = torch.Generator().manual_seed(0)
    boxes_N4 = boxes_N4.cpu().double()
    centres_Q4 = boxes_N4[:1]
    for _ in range(clusters - 1):
        apart_N = torch.cdist(boxes_N4, centres_Q4).amin(dim=1).square() + 1e-12
        centres_Q4 = torch.cat([centres_Q4, boxes_N4[torch.multinomial(apart_N, 1, generator=generator)]])
    for _ in range(rounds):
        nearest_N = torch.cdist(boxes_N4, centres_Q4).argmin(dim=1)
        new_Q4 = torch.stack(
            [boxes_N4[nearest_N == q].mean(dim=0) if (nearest_N == q).any() else centres_Q4[q] for q in range(clusters)]
        )
        if torch.equal(new_Q4, centres_Q4):
            break
        centres_Q4 = new_Q4
    return centres_Q4.float()
