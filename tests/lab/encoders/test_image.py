from __future__ import annotations

import pytest
import torch

from fuseline.errors import FuselineError
from fuseline.lab.encoders.image import SmallImage, SmallImageConfig, random_view
from fuseline.modalities.base import MediaRoot
from fuseline.modalities.image import Image, ImageConfig
from fuseline.recipe import read_options

TINY = SmallImageConfig(size=21, channels=(8, 12, 16))


def make(config: SmallImageConfig = TINY) -> SmallImage:
    torch.manual_seed(0)
    modality = Image.fit(ImageConfig(**SmallImage.cell_options(config)), {"scan": ""}, iter(()), MediaRoot())
    return SmallImage(config, modality).eval()


def pictures(count: int, size: int = 21) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def test_the_last_maps_cells_are_tokens_and_rows_are_independent() -> None:
    encoder, pixels = make(), pictures(4)
    tokens = encoder(pixels)
    assert tokens.values_BTD.shape == (4, 9, encoder.width)
    assert tokens.mask_BT.all()
    for i in range(4):
        torch.testing.assert_close(encoder(pixels[i : i + 1]).values_BTD[0], tokens.values_BTD[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [0, 255])
def test_an_even_picture_gives_finite_tokens(value: int) -> None:
    encoder = make()
    assert torch.isfinite(encoder(torch.full((1, 21, 21, 3), value, dtype=torch.uint8)).values_BTD).all()


@pytest.mark.parametrize(("size", "channels"), [(8, (8, 8, 8, 8)), (21, (12,))])
def test_the_exported_graph_gives_the_same_tokens(export, same_tokens, size, channels) -> None:  # type: ignore[no-untyped-def]
    encoder = make(SmallImageConfig(size=size, channels=channels))
    graph = export(encoder, {"pixels": pictures(3, size)}, {})
    for count in (1, 2, 5):
        arrays = {"pixels": pictures(count, size)}
        same_tokens(graph(arrays), encoder(**arrays), 1e-4)


def test_views_are_random_in_training_only_and_every_weight_learns() -> None:
    encoder, pixels = make(), pictures(2)
    assert torch.equal(encoder(pixels).values_BTD, encoder(pixels).values_BTD)
    encoder.train()
    first = encoder(pixels).values_BTD
    assert not torch.equal(first, encoder(pixels).values_BTD)
    first.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_a_view_of_no_strength_is_the_picture_and_a_mirror_is_its_mirror() -> None:
    picture = torch.rand(8, 3, 9, 9)
    assert torch.equal(random_view(picture, 0.0, False), picture)
    mirrored = random_view(picture, 0.0, True)
    kept = [torch.allclose(a, b, atol=1e-5) for a, b in zip(mirrored, picture, strict=True)]
    turned = [torch.allclose(a, b.flip(2), atol=1e-5) for a, b in zip(mirrored, picture, strict=True)]
    assert all(a != b for a, b in zip(kept, turned, strict=True))
    assert any(kept)
    assert any(turned)


@pytest.mark.parametrize("options", [{"size": 4}, {"channels": []}, {"augmented": 1}, {"augment": -1}])
def test_impossible_options_name_the_path(options: dict[str, object]) -> None:
    with pytest.raises(FuselineError, match=r"inputs\.scan\.encoder"):
        read_options(SmallImage.Config, options, "inputs.scan.encoder")


def test_shapes_are_learned_from_few_pictures() -> None:
    """Bars lying or standing, anywhere: unseen places must be recognised."""
    torch.manual_seed(0)

    def draw(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, target = torch.randint(0, 40, (count, 21, 21, 3)), torch.randint(0, 2, (count,))
        for picture, standing in zip(pixels, target, strict=True):
            y, x = torch.randint(0, 12, (2,))
            part = picture[y : y + 8, x : x + 2] if standing else picture[y : y + 2, x : x + 8]
            part += 180
        return pixels.to(torch.uint8), target

    encoder = make().train()
    head = torch.nn.Linear(encoder.width, 2)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    pixels, target = draw(64)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(head(encoder(pixels).values_BTD.mean(1)), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    encoder.eval()
    pixels, target = draw(64)
    assert (head(encoder(pixels).values_BTD.mean(1)).argmax(1) == target).float().mean() > 0.9
