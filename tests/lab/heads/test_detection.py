"""The detection head: geometry, matching, absent pictures, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.lab.heads import box_views
from fuseline.lab.heads.box_loss import assign, box_loss, overlaps
from fuseline.lab.heads.detection import DetectionHead
from fuseline.lab.heads.multi import MultiHead
from fuseline.lab.tokens import Fused, Tokens, View
from fuseline.modalities.image import Image, ImageConfig
from fuseline.tasks import boxes as numpy_boxes
from fuseline.tasks.detection import Detection, DetectionConfig
from fuseline.tasks.multi import Multi, MultiConfig

SIZE, SIDE, WIDTH = 32, 4, 32
CELLS = ['[{"label": "a", "xyxy": [10, 10, 50, 40]}, {"label": "b", "xyxy": [60, 20, 90, 90]}]'] * 3


def task_of(**options: object) -> Detection:
    return Detection.fit(DetectionConfig(target="boxes", **options), {"boxes": CELLS})  # type: ignore[arg-type]


def head_of(task: Detection, resize: str = "stretch") -> DetectionHead:
    torch.manual_seed(0)
    image = Image(ImageConfig(size=SIZE, sides=True, resize=resize), "photo")  # type: ignore[arg-type]
    return DetectionHead(task, {"photo": image}, width=WIDTH, dropout=0.0)


def seen(rows: int, sides: tuple[float, float] = (100.0, 100.0), present: bool = True) -> tuple[Fused, View]:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(rows, SIDE * SIDE, WIDTH, generator=generator)
    at = (torch.arange(SIDE) + 0.5) / SIDE
    place = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1).reshape(1, -1, 2).expand(rows, -1, -1)
    aside = {"place": place, "sides": torch.tensor([sides]).expand(rows, -1)}
    own = Tokens(values, torch.ones(rows, SIDE * SIDE, dtype=torch.bool), aside)
    pooled = torch.randn(rows, WIDTH, generator=generator)
    fused = Fused(pooled, pooled[:, None], torch.ones(rows, 1, dtype=torch.bool))
    return fused, View({"photo": own}, torch.full((rows, 1), present), lambda _: fused)


@pytest.mark.parametrize("resize", ["stretch", "pad", "crop"])
def test_boxes_lie_where_the_modality_puts_them(resize: str) -> None:
    """A white box in a black picture, as the encoder sees it, is where `to_square` says."""
    import io

    from PIL import Image as Pillow

    from fuseline.modalities.base import MediaRoot

    for width, height in ((300, 200), (120, 240), (90, 90)):
        # In the middle, so that cropping keeps it.
        x1, y1, x2, y2 = 0.4 * width, 0.45 * height, 0.65 * width, 0.6 * height
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[round(y1) : round(y2), round(x1) : round(x2)] = 255
        file = io.BytesIO()
        Pillow.fromarray(pixels).save(file, "PNG")
        image = Image(ImageConfig(size=128, sides=True, resize=resize), "photo")  # type: ignore[arg-type]
        arrays = image.collate([image.parse({"photo": file.getvalue()}, MediaRoot(None))])
        assert arrays["sides"].tolist() == [[width, height]]
        ys, xs = np.nonzero(arrays["pixels"][0, :, :, 0] > 127)
        found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / 128
        share = torch.tensor([[[x1 / width, y1 / height, x2 / width, y2 / height]]])
        ratio = box_views.ratio_of(torch.from_numpy(arrays["sides"]), resize)
        square = box_views.to_square(share, ratio)
        np.testing.assert_allclose(square[0, 0].numpy(), found, atol=1.6 / 128)
        torch.testing.assert_close(box_views.to_picture(square, ratio), share)


def test_overlaps_are_the_metrics_own() -> None:
    corners = torch.rand(8, 2, 2, dtype=torch.float64).sort(dim=1).values.reshape(8, 4)
    iou, giou = overlaps(corners[:, None], corners[None])
    np.testing.assert_allclose(iou.numpy(), numpy_boxes.iou(corners.numpy(), corners.numpy()), atol=1e-6)
    np.testing.assert_allclose(giou.numpy(), numpy_boxes.giou(corners.numpy(), corners.numpy()), atol=1e-6)


def test_each_true_box_gets_the_query_that_is_nearest_to_it() -> None:
    true = torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.7, 0.7, 0.3, 0.3]])
    proposed = torch.tensor([[0.7, 0.7, 0.28, 0.3], [0.5, 0.5, 0.9, 0.9], [0.21, 0.2, 0.2, 0.2]])
    labels = torch.tensor([[0, 1], [-1, -1], [-1, 1]])
    rows, queries, truths = assign(torch.zeros(3, 3, 2), proposed.expand(3, -1, -1), true.expand(3, -1, -1), labels)
    assert list(zip(rows.tolist(), truths.tolist(), queries.tolist(), strict=True)) == [(0, 1, 0), (0, 0, 2), (2, 1, 0)]


def test_the_loss_is_least_at_the_truth() -> None:
    true = torch.tensor([[[0.3, 0.3, 0.2, 0.2], [0.7, 0.6, 0.3, 0.3]]])
    labels, there = torch.tensor([[0, -1]]), torch.tensor([True])
    sure = torch.tensor([[[6.0, -6.0], [-6.0, -6.0]]])
    right = box_loss(sure, true, true, labels, there)
    assert right < 0.05
    for moved in (true + torch.tensor([0.05, 0, 0, 0]), true * torch.tensor([1, 1, 1.5, 1])):
        assert box_loss(sure, moved, true, labels, there) > right + 0.1
    assert box_loss(sure.flip(-1), true, true, labels, there) > right + 1
    assert box_loss(-sure, true, true, labels, there) > right + 1
    nothing = box_loss(sure, true, true, torch.full((1, 2), -1), there)
    assert nothing > 1, "a sure box where there is none"
    assert box_loss(sure, true, true, labels, torch.tensor([False])) < nothing


def test_a_row_without_a_picture_has_no_boxes_and_teaches_nothing() -> None:
    task = task_of()
    head = head_of(task)
    fused, view = seen(3)
    own = view.tokens["photo"]
    assert own.aside is not None
    own.values_BTD[1] = float("nan")
    own.aside["sides"] = own.aside["sides"].clone()
    own.aside["sides"][1] = float("nan")  # type: ignore[index]
    view.present_BM[1] = False
    head.train()
    outputs = head(fused, view)
    assert outputs["picture"][1].tolist() == [0, 0]
    assert all(bool(v.isfinite().all()) for v in outputs.values())
    arrays = {k: v.detach().numpy() for k, v in outputs.items()}
    assert [bool(a.notes) for a in task.decode(arrays)] == [False, True, False]
    targets = torch.from_numpy(np.stack([task.encode({"boxes": c}) for c in CELLS]))
    before = head.loss(outputs, targets)
    targets[1, :, 1:] += 7
    assert head.loss(outputs, targets) == before
    before.backward()
    assert all(bool(p.grad.isfinite().all()) for p in head.parameters() if p.grad is not None)


def test_other_inputs_condition_the_boxes() -> None:
    head = head_of(task_of()).eval()
    torch.nn.init.normal_(head.refine[-1][2].weight, std=0.2)  # type: ignore[index]
    fused, view = seen(2)
    changed = Fused(fused.pooled_BD, fused.tokens_BTD + 1.0, fused.mask_BT)
    a, b = head(fused, view), head(changed, view)
    assert (a["boxes"] - b["boxes"]).abs().max() > 1e-4


def test_boxes_begin_where_those_of_training_are() -> None:
    task = task_of(queries=2)
    head = head_of(task)
    targets = torch.from_numpy(np.stack([task.encode({"boxes": c}) for c in CELLS]))
    sides = torch.tensor([[100.0, 100.0], [200.0, 100.0], [100.0, 100.0]])
    targets[1, :2, [1, 3]] *= 2  # the same shares of a picture that is twice as wide
    head.begin([({"photo.sides": sides}, targets)])
    found = sorted(head.boxes_Q4.sigmoid().tolist())
    np.testing.assert_allclose(found, [[0.3, 0.25, 0.4, 0.3], [0.75, 0.55, 0.3, 0.7]], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "scale", "words"),
    [
        ({}, 10.0, "6 of 6 boxes of the training rows lie beside"),
        ({}, 0.01, "within the first pixel"),
        ({"normalised": True}, 0.1, "6 of 6 boxes"),
    ],
)
def test_boxes_that_are_on_no_picture_stop_the_training(options: dict[str, bool], scale: float, words: str) -> None:
    task = task_of(queries=2)
    head = head_of(task)
    targets = torch.from_numpy(np.stack([task.encode({"boxes": c}) for c in CELLS]))
    targets[..., 1:] *= scale
    task.config = task.config.model_copy(update=options)
    with pytest.raises(FuselineError, match=words) as caught:
        head.begin([({"photo.sides": torch.full((3, 2), 100.0)}, targets)])
    assert (caught.value.code, caught.value.column) == ("bad_recipe", "boxes")


def test_moved_pictures_take_their_boxes_along() -> None:
    """A white box on black: after any move its pixels span the box that is told."""
    torch.manual_seed(0)
    pixels = torch.zeros(32, 64, 64, 3, dtype=torch.uint8)
    pixels[:, 16:40, 8:28] = 255
    boxes = torch.tensor([18 / 64, 28 / 64, 20 / 64, 24 / 64]).expand(32, 1, 4)
    labels = torch.zeros(32, 1, dtype=torch.long)
    moved, told, turned = box_views.moved_views(pixels, boxes, labels, zoom=0.3, mirror=True, swap=torch.tensor([1, 0]))
    flipped = 0
    for b in range(32):
        grey = moved[b, :, :, 0].float()
        ys, xs = torch.nonzero(grey > (grey.max() + grey.min()) / 2, as_tuple=True)
        found = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) / 64
        torch.testing.assert_close(box_views.corners(told[b, 0]), found, atol=1.5 / 64, rtol=0)
        assert (int(turned[b, 0]) == 1) == (float(told[b, 0, 0]) > 0.5)
        flipped += int(turned[b, 0])
    assert 8 < flipped < 24
    away = torch.tensor([0.02, 0.5, 0.04, 0.2]).expand(32, 1, 4)
    _, _, gone = box_views.moved_views(pixels, away, labels, zoom=0.3, mirror=False, swap=torch.tensor([0]))
    assert bool((gone == -1).any())
    assert bool((gone == 0).any())


@pytest.mark.parametrize("resize", ["stretch", "pad"])
def test_augment_changes_pictures_and_targets_together(resize: str) -> None:
    task = task_of(zoom=0.0, mirror=True, mirror_labels={"a": "b"})
    head = head_of(task, resize)
    targets = torch.from_numpy(np.stack([task.encode({"boxes": CELLS[0]})] * 8))
    arrays = {
        "photo.pixels": torch.randint(0, 255, (8, SIZE, SIZE, 3), dtype=torch.uint8),
        "photo.sides": torch.tensor([[200.0, 100.0]]).expand(8, -1),
    }
    torch.manual_seed(0)
    new, moved = head.augment(arrays, targets)
    assert new["photo.pixels"].shape == arrays["photo.pixels"].shape
    mirrored = (moved[:, 0, 0] == 1).tolist()
    assert 0 < sum(mirrored) < 8
    for row, turned in zip(moved, mirrored, strict=True):
        expected = [200.0 - 50, 10, 200 - 10, 40] if turned else [10.0, 10, 50, 40]
        assert row[0, 1:].tolist() == pytest.approx(expected, abs=1e-3)
        assert bool((row[2:, 0] == -1).all())
    kept = {"photo.tokens": torch.zeros(8, 1, 4)}
    assert head.augment(kept, targets)[1] is targets


def test_it_learns_where_a_picture_shows_something() -> None:
    """Tokens that say which cells are covered: boxes of never seen places are found."""
    task = task_of(queries=4, layers=1)
    head = head_of(task)
    generator = torch.Generator().manual_seed(0)

    def draw(rows: int) -> tuple[Tensor, Tensor]:
        corner = torch.rand(rows, 2, generator=generator) * 60
        size = 25 + torch.rand(rows, 2, generator=generator) * 15
        box = torch.cat([corner, corner + size], dim=1)
        targets = torch.full((rows, task.max_boxes, 5), -1.0)
        label = torch.randint(0, 2, (rows,), generator=generator)
        targets[:, 0, 0], targets[:, 0, 1:] = label.float(), box
        at = (torch.arange(6) + 0.5) / 6 * 100
        across = (torch.minimum(box[:, 2:3], at + 8) - torch.maximum(box[:, :1], at - 8)).clamp(0, 16) / 16
        down = (torch.minimum(box[:, 3:], at + 8) - torch.maximum(box[:, 1:2], at - 8)).clamp(0, 16) / 16
        cover = (down[:, :, None] * across[:, None, :]).flatten(1)
        values = torch.zeros(rows, 36, WIDTH)
        values[:, :, 0], values[:, :, 1] = cover, cover * (2.0 * label[:, None] - 1)
        return values, targets

    def run(values: Tensor) -> dict[str, Tensor]:
        rows = len(values)
        at = (torch.arange(6) + 0.5) / 6
        place = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=-1).reshape(1, -1, 2).expand(rows, -1, -1)
        aside = {"place": place, "sides": torch.full((rows, 2), 100.0)}
        own = Tokens(values, torch.ones(rows, 36, dtype=torch.bool), aside)
        pooled = torch.zeros(rows, WIDTH)
        fused = Fused(pooled, pooled[:, None], torch.ones(rows, 1, dtype=torch.bool))
        return head(fused, View({"photo": own}, torch.ones(rows, 1, dtype=torch.bool), lambda _: fused))

    head.begin([({"photo.sides": torch.full((64, 2), 100.0)}, draw(64)[1])])
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-3)
    head.train()
    for step in range(80):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * 0.5 * (1 + math.cos(math.pi * step / 80))
        values, targets = draw(16)
        loss = head.loss(run(values), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    head.eval()
    values, targets = draw(64)
    with torch.no_grad():
        outputs = {k: v.numpy() for k, v in run(values).items()}
    scores = task.score(targets.numpy(), outputs).metrics
    assert scores["map_50"].value > 0.6


def test_an_encoder_without_places_is_refused() -> None:
    head = head_of(task_of())
    fused, view = seen(1)
    own = view.tokens["photo"]
    bare = View({"photo": Tokens(own.values_BTD, own.mask_BT)}, view.present_BM, view.fuse)
    with pytest.raises(FuselineError, match="no places"):
        head(fused, bare)


def test_boxes_may_be_one_of_several_tasks() -> None:
    """Rows without boxes keep their places, those with boxes move with their pictures."""
    config = MultiConfig.model_validate(
        {"tasks": {"age": {"kind": "regression"}, "boxes": {"kind": "detection", "mirror": True, "zoom": 0}}}
    )
    cells = {"age": [10.0, 20.0, 30.0], "boxes": [CELLS[0], None, CELLS[0]]}
    task = Multi.fit(config, cells)
    image = Image(ImageConfig(size=SIZE, sides=True), "photo")
    head = MultiHead(task, {"photo": image}, width=WIDTH, dropout=0.0)
    encoded = [task.encode({c: values[i] for c, values in cells.items()}) for i in (0, 1, 2, 0, 2, 0)]
    packed = torch.from_numpy(np.stack(encoded))
    arrays = {
        "photo.pixels": torch.zeros(6, SIZE, SIZE, 3, dtype=torch.uint8),
        "photo.sides": torch.full((6, 2), 100.0),
    }
    head.begin([(arrays, packed)])
    assert any(abs(x - 0.3) < 1e-4 for x in head.heads[1].boxes_Q4.sigmoid()[:, 0].tolist())
    torch.manual_seed(1)
    _, moved = head.augment(arrays, packed)
    assert torch.equal(moved[1].nan_to_num(7), packed[1].nan_to_num(7))
    assert torch.equal(moved[:, 0], packed[:, 0]), "the other task's targets stay"
    boxes = task.unpack("boxes", moved.numpy()[[0, 2, 3, 4, 5]])
    assert sorted({round(float(b[0, 1])) for b in boxes}) == [10, 50]
    fused, view = seen(6)
    head.train()
    outputs = head(fused, view)
    assert head.loss(outputs, moved).isfinite()
    outputs["boxes.picture"][0] = 0
    answers = task.decode({k: v.detach().numpy() for k, v in outputs.items()})
    assert [a.notes for a in answers[:2]] == [["boxes: no picture, so no boxes"], []]
