"""VGG (Simonyan & Zisserman 2014, "Very deep convolutional networks"). Dimensions: B batch, H W pixels, T D tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fuseline.errors import FuselineError
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.encoders.grid import grid_of_all, placed
from fuseline.lab.encoders.image_pretrained import IMAGENET_MEAN, IMAGENET_STD, Normalise, map_tokens
from fuseline.lab.encoders.tuning import batch_norms_eval
from fuseline.lab.tokens import Tokens
from fuseline.modalities.image import Image
from fuseline.recipe import Frozen

# 3x3 convolutions in each of the five stages (the paper's table 1, columns A, B, D, E).
STAGES: dict[int, tuple[int, ...]] = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
WIDTHS = (64, 128, 256, 512, 512)


def vgg_features(depth: int, batch_norm: bool) -> nn.Sequential:
    """The convolutional part, numbered as torchvision numbers it, so that published weights fit by name."""
    layers: list[nn.Module] = []
    channels = 3
    for repeats, width in zip(STAGES[depth], WIDTHS, strict=True):
        for _ in range(repeats):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU())
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def _load(features: nn.Sequential, path: str, name: str) -> None:
    def refuse(message: str, hint: str) -> FuselineError:
        return FuselineError("cannot_load_weights", f"{path}: {message}", hint)

    if not Path(path).is_file():
        raise refuse("no such file", "weights_path is a safetensors file; leave it out to train from scratch")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise refuse(f"not a safetensors file ({error})", "convert once with safetensors.torch.save_file") from None
    found = {k.removeprefix("features."): v for k, v in tensors.items() if k.startswith("features.")}
    wanted = {k: v for k, v in features.state_dict().items() if not k.endswith("num_batches_tracked")}
    found = {k: v for k, v in found.items() if not k.endswith("num_batches_tracked")}
    lost, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    hint = "check depth and batch_norm against the file; names are torchvision's, e.g. features.0.weight"
    if lost:
        raise refuse(f"lacks {len(lost)} of {name}'s weights, e.g. features.{lost[0]}", hint)
    if extra:
        raise refuse(f"holds {len(extra)} weights that {name} has not, e.g. features.{extra[0]}", hint)
    for key, value in wanted.items():
        if found[key].shape != value.shape:
            raise refuse(f"features.{key} is {tuple(found[key].shape)}, {name} needs {tuple(value.shape)}", hint)
    features.load_state_dict(found, strict=False)  # not strict: counters of batches are absent on purpose


class VGG(Encoder):
    """pixels (B, H, W, 3) uint8 to the last feature map's tokens (B, H/32 * W/32, 512), or their mean (B, 1, 512).

    `weights_path` is a safetensors file, named as torchvision's; its ``classifier.*``, the three fully connected
    layers, is ignored: they fix the picture's size and hold most of the weights. H and W are static in the export.
    """

    class Config(Frozen):
        depth: Literal[11, 13, 16, 19] = Field(16, description="layers with weights, as the paper counts")
        batch_norm: bool = Field(False, description="batch norm after every convolution")
        weights_path: str | None = Field(
            None, description="safetensors file with published weights; none: from scratch"
        )
        size: int = Field(224, ge=32, description="side of the picture in pixels")
        tokens: Literal["all", "pooled"] = Field("all", description="one token a place of the map, or their mean")
        grid: bool = Field(False, description="tokens say where they are, for detection; needs tokens: all")

        @model_validator(mode="after")
        def _places_are_tokens(self) -> Self:
            return grid_of_all(self)

        @property
        def pretrained(self) -> bool:
            return self.weights_path is not None

    pretrained: ClassVar[bool] = False
    width = WIDTHS[-1]

    def __init__(self, config: Config, modality: Image) -> None:
        super().__init__(config, modality)
        self.config = config
        self.normalise = Normalise(IMAGENET_MEAN, IMAGENET_STD)
        self.features = vgg_features(config.depth, config.batch_norm)
        if config.weights_path is not None:
            _load(self.features, config.weights_path, f"vgg{config.depth}{'_bn' if config.batch_norm else ''}")
            batch_norms_eval(self)
            return
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                # Without it, the plain variants do not start to learn at these depths (He et al. 2015).
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    @classmethod
    def cell_options(cls, config: Config) -> dict[str, Any]:
        return {"size": config.size, **({"sides": True} if config.grid else {})}

    def train(self, mode: bool = True) -> VGG:
        super().train(mode)
        if self.config.pretrained:
            batch_norms_eval(self)
        return self

    def forward(self, pixels: Tensor, sides: Tensor | None = None) -> Tokens:  # type: ignore[override]
        tokens = map_tokens(self.features(self.normalise(pixels)), self.config.tokens == "pooled")
        return placed(tokens, sides) if self.config.grid else tokens
