from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fuseline.errors import FuselineError
from fuseline.lab.encoders.vgg import STAGES, VGG, vgg_features

sys.path.insert(0, str(Path(__file__).parent))
from tiny import image_modality

# The paper's column D with torchvision's numbers of its convolutions, written out: independent of our loop.
VGG16 = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
VGG16 |= {17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512)}
POOLS = (4, 9, 16, 23, 30)


def _published(folder: Path) -> Path:
    """A file as published: convolutions by number and the classifier that is ignored."""
    torch.manual_seed(0)
    tensors = {"classifier.0.weight": torch.zeros(4, 4), "classifier.0.bias": torch.zeros(4)}
    for number, (inside, outside) in VGG16.items():
        tensors[f"features.{number}.weight"] = torch.randn(outside, inside, 3, 3) * (2 / (9 * inside)) ** 0.5
        tensors[f"features.{number}.bias"] = torch.randn(outside) * 0.1
    path = folder / "vgg16.safetensors"
    save_file(tensors, path)
    return path


def _pixels(batch: int, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, generator=generator)


@torch.no_grad()
def test_published_weights_give_the_reference_networks_features(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path = _published(tmp_path)
    config = VGG.Config(depth=16, weights_path=str(path), size=64)
    assert config.pretrained
    encoder = VGG(config, image_modality(64)).eval()
    weights = load_file(path)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((_pixels(2) / 255.0 - mean) / std).permute(0, 3, 1, 2)
    for number in range(31):
        if number in VGG16:
            x = nn.functional.conv2d(
                x, weights[f"features.{number}.weight"], weights[f"features.{number}.bias"], padding=1
            )
            x = x.relu()
        elif number in POOLS:
            x = nn.functional.max_pool2d(x, 2)
    got = encoder(pixels=_pixels(2))
    assert got.values_BTD.shape == (2, 4, 512)
    torch.testing.assert_close(got.values_BTD, x.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)
    pooled = VGG(VGG.Config(weights_path=str(path), tokens="pooled"), image_modality(64)).eval()(pixels=_pixels(2))
    torch.testing.assert_close(pooled.values_BTD[:, 0], x.mean((2, 3)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("depth", sorted(STAGES))
@pytest.mark.parametrize("batch_norm", [False, True])
def test_depth_counts_the_layers_with_weights(depth: int, batch_norm: bool) -> None:
    with torch.device("meta"):
        features = vgg_features(depth, batch_norm)
    assert sum(isinstance(m, nn.Conv2d) for m in features) == depth - 3  # three fully connected ones are left out
    assert sum(isinstance(m, nn.BatchNorm2d) for m in features) == (depth - 3 if batch_norm else 0)
    # Total of torchvision's documented parameter counts, less the classifier's 123,642,856.
    total = {11: 132_863_336, 13: 133_047_848, 16: 138_357_544, 19: 143_667_240}[depth] - 123_642_856
    assert sum(p.numel() for n, p in features.named_parameters() if not batch_norm) == (0 if batch_norm else total)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"depth": 19}, "lacks .* of vgg19's weights"),
        ({"depth": 11}, "vgg11"),
        ({"batch_norm": True}, "lacks .* of vgg16_bn's weights"),
        ({"weights_path": "nowhere.safetensors"}, "no such file"),
    ],
)
def test_wrong_weights_are_named(change: dict[str, object], words: str, tmp_path: Path) -> None:
    options = {"depth": 16, "weights_path": str(_published(tmp_path)), **change}
    with pytest.raises(FuselineError, match=words) as caught:
        VGG(VGG.Config(**options), image_modality(64))
    assert caught.value.code == "cannot_load_weights"


def test_wrong_shape_and_no_safetensors_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"PK\x03\x04 a pickle")
    with pytest.raises(FuselineError, match="not a safetensors file"):
        VGG(VGG.Config(weights_path=str(path)), image_modality(64))
    tensors = {f"features.{n}.{k}": torch.zeros(3) for n in VGG16 for k in ("weight", "bias")}
    save_file(tensors, path)
    with pytest.raises(FuselineError, match=r"features\.0\.weight is \(3,\), vgg16 needs \(64, 3, 3, 3\)"):
        VGG(VGG.Config(weights_path=str(path)), image_modality(64))


def test_batch_norms_train_only_from_scratch(tmp_path: Path) -> None:
    scratch = VGG(VGG.Config(depth=11, batch_norm=True), image_modality(32)).train()
    assert scratch.features[1].training
    path = tmp_path / "bn.safetensors"
    state = {f"features.{k}": v for k, v in scratch.features.state_dict().items()}
    save_file(state, path)
    loaded = VGG(VGG.Config(depth=11, batch_norm=True, weights_path=str(path)), image_modality(32)).train()
    assert loaded.training
    assert not loaded.features[1].training
    assert torch.equal(loaded.features[0].weight, scratch.features[0].weight)
