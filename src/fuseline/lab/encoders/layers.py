"""Parts that the from-scratch encoders share. Dimensions: B batch, T tokens, D width, H heads, C channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AFTER_RELU = (2 / (1 - 1 / math.pi)) ** 0.5
"""1 / standard deviation of a ReLU's output for a standard normal input"""


def sinusoids(length: int, width: int, like: Tensor) -> Tensor:
    """Positions as sines and cosines (Vaswani et al. 2017), (T, D). Made in the graph: no longest length."""
    half = width // 2
    steps_T = torch.arange(length, device=like.device, dtype=like.dtype)
    rates = torch.exp(torch.arange(half, device=like.device, dtype=like.dtype) * (-math.log(10_000.0) / half))
    angles = steps_T[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def zeroed(values_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Padding set to zero, which is what a convolution puts at the end of a row that is alone."""
    return torch.where(mask_BT[:, :, None], values_BTD, 0.0)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward (Xiong et al. 2020). Each row needs one real token at least."""

    def __init__(self, width: int, heads: int, dropout: float, expansion: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(expansion * width, width),
        )
        for layer in (self.qkv, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, values_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        mixed = self._attend(self.norm_attention(values_BTD), mask_BT)
        values_BTD = values_BTD + F.dropout(mixed, self.dropout, self.training)
        return values_BTD + F.dropout(self.mlp(self.norm_mlp(values_BTD)), self.dropout, self.training)

    def _attend(self, values_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(values_BTD).chunk(3, dim=2))
        mixed_BHTd = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask_BT[:, None, None, :], dropout_p=self.dropout if self.training else 0.0
        )
        out: Tensor = self.out(mixed_BHTd.transpose(1, 2).flatten(2))
        return out


class ConvBlock(nn.Module):
    """Neighbours mixed by a depthwise convolution, then channels: `x + W(gelu(conv(norm(x))))`."""

    def __init__(self, width: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.out = nn.Linear(width, width)

    def forward(self, values_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        # The norm's bias makes padding non-zero, and the convolution would carry it into the last real tokens.
        mixed = zeroed(self.norm(values_BTD), mask_BT)
        mixed = self.out(F.gelu(self.conv(mixed.transpose(1, 2)).transpose(1, 2)))
        return values_BTD + F.dropout(mixed, self.dropout, self.training)


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose filters have mean 0 and length g (learned, at first `gain`), so that no activation needs
    normalising: Brock et al. 2021, "Characterizing signal propagation to close the performance gap in unnormalized
    ResNets". A batch norm would learn from absent rows' dummies, and a group norm would see padding in time.

    `gain`: 1 for inputs of variance 1, AFTER_RELU for inputs that a ReLU gave.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        gain: float = 1.0,
    ) -> None:
        pair = (kernel, kernel) if isinstance(kernel, int) else kernel
        super().__init__(inputs, outputs, pair, stride, padding=(pair[0] // 2, pair[1] // 2))
        # The output does not depend on the weights' size, but it sets how far one step of the optimiser turns a filter.
        nn.init.normal_(self.weight, std=self.weight[0].numel() ** -0.5)
        assert self.bias is not None
        nn.init.zeros_(self.bias)
        self.gain = nn.Parameter(torch.full((outputs, 1, 1, 1), gain))

    def standardised(self) -> Tensor:
        """The filters that it convolves with."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        return (self.weight - mean) * torch.rsqrt(variance * self.weight[0].numel() + 1e-4) * self.gain

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.standardised(), self.bias, self.stride, self.padding)


class ConvResidual(nn.Module):
    """`skip(x) + a * conv(relu(conv(relu(x))))`, a learned from 0.2; halves height and width where `stride` is 2.

    Width is time: the input is 0 from each row's end on, `mask` (B, 1, 1, W) says where, and `mask[..., ::stride]` says
    it of the output.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.first = StandardisedConv2d(inputs, outputs, 3, stride, AFTER_RELU)
        self.second = StandardisedConv2d(outputs, outputs, 3, 1, AFTER_RELU)
        self.skip: nn.Module = nn.Identity()
        if inputs != outputs:
            self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
            nn.init.normal_(self.skip.weight, std=inputs**-0.5)
        self.scale = nn.Parameter(torch.full((outputs, 1, 1), 0.2))

    def forward(self, values_BCHW: Tensor, mask: Tensor) -> Tensor:
        skipped = values_BCHW
        if self.stride == 2:
            # Padded by hand: the pooling's ceiling mode would divide by fewer cells at the end of the longest row only.
            skipped = F.avg_pool2d(F.pad(skipped, (0, 1, 0, 1)), 2)
        mask = mask[..., :: self.stride]
        hidden = F.relu(self.first(F.relu(values_BCHW))) * mask
        out: Tensor = (self.skip(skipped) + self.scale * self.second(hidden)) * mask
        return out
