from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lab.encoders import tiny

from fuseline.errors import FuselineError
from fuseline.lab.encoders.tuning import apply_tuning
from fuseline.lab.encoders.video import HFVideo, SmallVideo, SmallVideoConfig, when

SMALL = SmallVideoConfig.model_validate({"frame": {"kind": "small", "channels": [8, 16]}, "width": 16})


def arrays(batch: int, frames: int = 4, size: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (batch, frames, size, size, 3), generator=generator, dtype=torch.uint8)
    seconds_BN = torch.arange(frames).float().repeat(batch, 1) * 0.4
    return {"frames": pixels, "seconds": seconds_BN, "real": torch.ones(batch, frames, dtype=torch.bool)}


def small(**changes: Any) -> SmallVideo:
    return SmallVideo(SMALL.model_copy(update=changes), tiny.video_modality(32, 4)).eval()


def test_small_gives_a_few_tokens_a_frame_and_masks_the_padding() -> None:
    given = arrays(3)
    given["real"][1, 2:] = False
    tokens = small()(**given)
    assert tokens.values_BTD.shape == (3, 4 * 2, 16)
    assert tokens.mask_BT.sum(1).tolist() == [8, 4, 8]


def test_padding_frames_and_neighbours_change_nothing(same_tokens: Callable[..., None]) -> None:
    encoder, given = small(), arrays(3)
    given["real"][1, 2:] = False
    before = encoder(**given)
    given["frames"][1, 2:] = 255
    given["seconds"][1, 2:] = 99.0
    given["frames"][2] = 0
    after = encoder(**given)
    same_tokens(type(before)(*(x[:2] for x in before[:2])), type(after)(*(x[:2] for x in after[:2])), 1e-6)


def test_the_order_and_the_pace_of_frames_matter() -> None:
    encoder, given = small(), arrays(1)
    before = encoder(**given).values_BTD.mean(1)
    turned = encoder(**{**given, "frames": given["frames"].flip(1)}).values_BTD.mean(1)
    slower = encoder(**{**given, "seconds": 3 * given["seconds"]}).values_BTD.mean(1)
    assert (before - turned).abs().max() > 1e-3
    assert (before - slower).abs().max() > 1e-3


def test_where_something_stands_in_a_frame_is_kept() -> None:
    """A mean over places would forget it."""
    encoder = small()
    left, right = (torch.zeros(1, 4, 32, 32, 3, dtype=torch.uint8) for _ in range(2))
    left[:, :, 12:20, 4:12] = 255
    right[:, :, 12:20, 20:28] = 255
    given = arrays(1)
    outs = [encoder(**{**given, "frames": f}).values_BTD for f in (left, right)]
    assert (outs[0] - outs[1]).abs().max() > 1e-2


def test_times_are_told_apart_from_hundredths_to_minutes() -> None:
    codes = when(torch.tensor([[0.0, 0.04, 0.08, 1.0, 1.04, 60.0, 300.0]]), 32)[0]
    gaps = torch.cdist(codes, codes) + 10 * torch.eye(7)
    assert gaps.min() > 0.3


def test_small_exports(export: Callable[..., Any], same_tokens: Callable[..., None]) -> None:
    encoder = small()
    run = export(encoder, arrays(3), {})
    for batch in (1, 2, 5):
        given = arrays(batch)
        given["real"][0, 1:] = False
        with torch.no_grad():
            same_tokens(encoder(**given), run(given), 1e-4)


def test_a_pretrained_frame_encoder_stays_frozen_while_the_rest_trains(tmp_path: Path) -> None:
    folder = tiny.make_tiny("resnet", tmp_path / "resnet")
    config = SMALL.model_copy(update={"frame": SMALL.frame.model_validate({"kind": "hf", "source": str(folder)})})
    assert SmallVideo.cell_options(config) == {"size": 64}
    encoder = SmallVideo(config, tiny.video_modality(64, 3))
    apply_tuning(encoder, "full")
    encoder.train()
    assert not encoder.frame.training
    encoder(**arrays(2, 3, 64)).values_BTD.sum().backward()
    assert all(p.grad is None for p in encoder.frame.parameters())
    assert all(p.grad is not None for p in encoder.blocks.parameters())


def test_a_frame_encoders_wrong_option_is_named() -> None:
    config = SMALL.model_copy(update={"frame": SMALL.frame.model_validate({"kind": "small", "chanels": [8]})})
    with pytest.raises(FuselineError, match="did you mean 'channels'"):
        SmallVideo(config, tiny.video_modality(32, 4))


@pytest.mark.parametrize("kind", tiny.VIDEO)
def test_backbones(kind: str, tmp_path: Path) -> None:
    folder = tiny.make_tiny(kind, tmp_path / kind)
    config = HFVideo.Config(source=str(folder), tokens="all")
    assert HFVideo.cell_options(config) == {"size": 32, "frames": 4}
    encoder = HFVideo(config, tiny.video_modality(32, 4)).eval()
    given = arrays(2)
    with torch.no_grad():
        tokens = encoder(**given)
        mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
        pixels = ((given["frames"] / 255 - mean) / std).permute(0, 1, 4, 2, 3)
        wanted = encoder.model(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(tokens.values_BTD, wanted, atol=1e-5, rtol=0)
    assert tokens.mask_BT.all()
    assert tokens.values_BTD.shape[1] >= 8


def test_a_backbone_exports(tmp_path: Path, export: Callable[..., Any], same_tokens: Callable[..., None]) -> None:
    folder = tiny.make_tiny("videomae", tmp_path / "videomae")
    encoder = HFVideo(HFVideo.Config(source=str(folder)), tiny.video_modality(32, 4)).eval()
    run = export(encoder, arrays(3), {})
    for batch in (1, 4):
        given = arrays(batch)
        with torch.no_grad():
            same_tokens(encoder(**given), run(given), 1e-4)


def test_a_backbone_of_another_number_of_frames_says_so(tmp_path: Path) -> None:
    folder = tiny.make_tiny("videomae", tmp_path / "videomae")
    with pytest.raises(FuselineError, match="6 frames of 32 x 32"):
        HFVideo(HFVideo.Config(source=str(folder)), tiny.video_modality(32, 6))


def test_all_frames_of_a_clip_are_seen_alike_in_training() -> None:
    """A still clip stays still, and clips are not all turned the same way."""
    encoder = small(mirror=True)
    still = arrays(4)["frames"][:, :1].expand(-1, 4, -1, -1, -1)
    seen = encoder._seen_anew(still)
    assert seen.dtype == torch.uint8
    assert (seen == seen[:, :1]).all()
    assert (seen != still).any(dim=(1, 2, 3, 4)).all()
    assert torch.equal(small(augment=0.0)._seen_anew(still), still)


def test_motion_is_seen_at_each_place_and_padding_frames_are_not() -> None:
    """A dot that goes right or left over the same frames: other tokens, although each frame is a frame of both."""
    encoder = small(queries=1, layers=1)
    frames = torch.zeros(1, 4, 32, 32, 3, dtype=torch.uint8)
    for i in range(4):
        frames[:, i, 12:16, 6 * i : 6 * i + 4] = 255
    given = arrays(1)
    still = {**given, "seconds": torch.zeros(1, 4)}
    right, left = (encoder(**{**still, "frames": f}).values_BTD.mean(1) for f in (frames, frames.flip(1)))
    assert (right - left).abs().max() > 1e-3
    blind = small(queries=1, layers=1, motion=0)
    right, left = (blind(**{**still, "frames": f}).values_BTD.mean(1) for f in (frames, frames.flip(1)))
    assert (right - left).abs().max() < 1e-5
