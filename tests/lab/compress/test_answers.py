"""What a student of each task learns from its teacher: the measures themselves, and that healing goes by them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import polars as pl
import pytest
import torch
from lab.compress import taught
from lab.heads import test_detection as boxed
from torch import Tensor, nn

from fuseline.errors import FuselineError
from fuseline.lab.compress.answers import TAUGHT, answers_of
from fuseline.lab.compress.distil import DistilConfig
from fuseline.lab.compress.heal import heal
from fuseline.lab.compress.teacher import Teacher
from fuseline.lab.compress.workshop import _direction
from fuseline.lab.heads import head_class
from fuseline.lab.training import loop
from fuseline.lab.training.prepare import Prepared
from fuseline.tasks import TASKS, task_class
from fuseline.tasks.forecast import Forecast, ForecastConfig
from fuseline.tasks.multi import Multi, MultiConfig
from fuseline.tasks.paired import drop, in_units
from fuseline.tasks.retrieval import Retrieval, RetrievalConfig


def everyone(rows: int) -> Tensor:
    return torch.ones(rows, dtype=torch.bool)


def test_every_task_but_generation_can_be_taught() -> None:
    assert set(TASKS) - set(TAUGHT) == {"generation"}
    generation = task_class("generation")
    with pytest.raises(FuselineError, match="can neither teach nor be taught"):
        answers_of(object.__new__(generation))


# --- forecasts --------------------------------------------------------------------------------------------------------


def forecast(**options: Any) -> tuple[Forecast, Any]:
    steps = np.random.default_rng(0).normal(40, 8, (12, 3, 2)).tolist()
    task = Forecast.fit(ForecastConfig(target="y", **options), {"y": steps})
    return task, head_class("forecast")(task, {}, width=8, dropout=0.0)


def test_quantiles_are_as_far_apart_as_their_numbers() -> None:
    task, head = forecast(quantiles=[0.1, 0.5, 0.9])
    s, t = 40 + torch.randn(2, 3, 2, 3), 40 + torch.randn(2, 3, 2, 3)
    std = torch.tensor(task.std)[:, None]
    t[1, 0] = torch.nan
    gap = answers_of(task).distance(head, {"forecast": s}, {"forecast": t}, everyone(2), 2.0)
    expected = ((s - t) / std).abs()
    torch.testing.assert_close(gap, torch.stack([expected[0].mean(), expected[1, 1:].mean()]))


def test_forecasts_of_other_horizons_and_quantiles() -> None:
    task, _ = forecast(quantiles=[0.1, 0.5, 0.9])
    wider, _ = forecast(quantiles=[0.05, 0.5, 0.9])
    told = {"forecast": np.arange(3.0).reshape(1, 1, 1, 3)}
    np.testing.assert_equal(answers_of(task).ordered(wider, told)["forecast"].ravel(), [np.nan, 1.0, 2.0])
    other = Forecast.fit(ForecastConfig(target="y"), {"y": [[1.0, 2.0]] * 3})
    with pytest.raises(FuselineError, match="the teacher forecasts 2 steps"):
        answers_of(task).ordered(other, told)
    two = answers_of(task).mean([{"forecast": told["forecast"]}, {"forecast": told["forecast"] + 3}], [2, 1])
    np.testing.assert_allclose(two["forecast"], told["forecast"] + 1)


# --- boxes ------------------------------------------------------------------------------------------------------------


def boxes(queries: int = 6, seed: int = 0, rows: int = 3) -> tuple[Any, Any, dict[str, Tensor]]:
    """A head whose proposals are as unlike as a trained one's, and its outputs."""
    task = boxed.task_of(queries=queries, layers=2)
    head = boxed.head_of(task).eval()
    torch.manual_seed(seed)
    for score, move in zip(head.classify, head.refine, strict=True):
        nn.init.normal_(score.weight, std=1.0)  # type: ignore[arg-type]
        nn.init.normal_(move[2].weight, std=0.5)  # type: ignore[index]
    return task, head, head(*boxed.seen(rows))


def told(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: outputs[k].detach() for k in ("logits", "boxes")}


def test_boxes_are_compared_in_any_order_of_the_queries() -> None:
    task, head, out = boxes()
    given = {k: v[:, [3, 0, 5, 1, 4, 2]] for k, v in told(out).items()}
    own = answers_of(task)
    assert own.distance(head, out, given, everyone(3), 2.0).abs().max() < 1e-4
    _, _, strange = boxes(seed=1)
    gap = own.distance(head, out, told(strange), everyone(3), 2.0)
    assert (gap > 0.1).all()
    gap.sum().backward()
    assert head.refine[-1][2].weight.grad.abs().sum() > 0
    assert head.classify[-1].weight.grad.abs().sum() > 0


def test_one_box_by_hand() -> None:
    """(2 · T²·KL + w·(5·L1 + 2·(1 - GIoU))) / max(1, w), w the teacher's chance."""
    task, head, _ = boxes(queries=1)
    s = torch.full((1, 1, 2), -1.0)
    t = torch.tensor([[[1.0, -3.0]]])
    picture = torch.tensor([[100.0, 100.0]])
    mine, theirs = torch.tensor([[[0.1, 0.1, 0.5, 0.5]]]), torch.tensor([[[0.1, 0.1, 0.5, 0.3]]])
    out = {"logits": s, "boxes": mine, "picture": picture}
    gap = answers_of(task).distance(head, out, {"logits": t, "boxes": theirs}, everyone(1), 2.0)
    p, q = (t / 2).sigmoid(), (s / 2).sigmoid()
    kl = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum()
    weight = t.sigmoid().max()
    expected = 2 * kl + weight * (5 * (0.1 + 0.2) + 2 * 0.5)  # centre and height move; half of the box is theirs
    assert float(gap) == pytest.approx(float(expected), rel=1e-5)


def test_rows_without_a_picture_and_fewer_queries_than_the_teacher() -> None:
    task, head, out = boxes(queries=4)
    _, _, many = boxes(queries=9, seed=1)
    out = {**out, "picture": out["picture"] * torch.tensor([[0.0], [1.0], [1.0]])}
    gap = answers_of(task).distance(head, out, told(many), torch.tensor([True, True, False]), 2.0)
    assert gap[0] == 0
    assert gap[1] > 0
    assert gap[2] == 0
    # Those that the teacher is surest of are what is learned.
    surest = told(many)["logits"][1].amax(dim=1).topk(4).indices
    few = {k: v[:, surest] for k, v in told(many).items()}
    known = torch.tensor([False, True, False])
    torch.testing.assert_close(gap[1], answers_of(task).distance(head, out, few, known, 2.0)[1])


def test_boxes_of_two_teachers_and_classes_in_another_order() -> None:
    task, _, out = boxes()
    given = {k: v.numpy() for k, v in told(out).items()}
    own = answers_of(task)
    with pytest.raises(FuselineError, match="cannot be averaged"):
        own.mean([given, given], [1, 1])
    other = boxed.task_of(classes=["b", "c", "a"])
    turned = answers_of(other).ordered(task, given)["logits"]
    np.testing.assert_array_equal(turned[..., [2, 0]], given["logits"])
    assert np.isnan(turned[..., 1]).all()
    lacking = {"logits": torch.from_numpy(turned), "boxes": torch.from_numpy(given["boxes"])}
    three = {**out, "logits": torch.cat([out["logits"], out["logits"][..., :1]], dim=2)}
    assert answers_of(other).distance(boxed.head_of(other), three, lacking, everyone(3), 2.0).isfinite().all()


# --- pairs of vectors -------------------------------------------------------------------------------------------------


def pairs(rows: int, width: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {s: nn.functional.normalize(torch.randn(rows, width, generator=generator)) for s in ("left", "right")}


def retrieval() -> tuple[Retrieval, Any]:
    task = Retrieval(RetrievalConfig(left=("a",), right=("b",), dim=8, temperature=0.5))
    return task, head_class("retrieval")(task, {}, width=8, dropout=0.0)


def test_vectors_are_compared_by_what_they_are_near_to() -> None:
    task, head = retrieval()
    own, s, t = answers_of(task), pairs(5, 8, 0), pairs(5, 6, 1)
    gap = own.distance(head, s, t, everyone(5), 2.0)
    p, q = ((v["left"] @ v["right"].T) / (0.5 * 2) for v in (t, s))
    kl = [
        nn.functional.kl_div(b.log_softmax(d), a.softmax(d), reduction="none").sum(d)
        for a, b, d in ((p, q, 1), (p, q, 0))
    ]
    torch.testing.assert_close(gap, 4 * (kl[0] + kl[1]) / 2, rtol=1e-4, atol=1e-5)
    turn = torch.linalg.qr(torch.randn(8, 8))[0]
    assert own.distance(head, s, {k: v @ turn for k, v in s.items()}, everyone(5), 2.0).abs().max() < 1e-4


def test_rows_that_lack_a_side_are_in_no_sum() -> None:
    task, head = retrieval()
    own, s, t = answers_of(task), pairs(6, 8, 0), pairs(6, 8, 1)
    expected = own.distance(head, {k: v[:3] for k, v in s.items()}, {k: v[:3] for k, v in t.items()}, everyone(3), 2.0)
    s["left"][3], t["right"][4] = 0.0, 0.0  # each lacks a side for one of them, and the teacher knows no sixth row
    s = {k: v.requires_grad_() for k, v in s.items()}
    gap = own.distance(head, s, t, torch.arange(6) < 5, 2.0)
    torch.testing.assert_close(gap[:3], expected)
    assert (gap[3:] == 0).all()
    gap.sum().backward()
    assert all(v.grad is not None and v.grad.isfinite().all() for v in s.values())
    assert head.sharpness.grad is None, "the student would blur what it is to learn"


def test_two_teachers_vectors_are_the_mean_of_their_similarities() -> None:
    task, _ = retrieval()
    a, b = pairs(4, 8, 0), pairs(4, 6, 1)
    given = [{k: v.double().numpy() for k, v in one.items()} for one in (a, b)]
    both = answers_of(task).mean(given, [2, 1])
    mean = sum(w * v["left"] @ v["right"].T for w, v in zip((2, 1), given, strict=True)) / 3
    np.testing.assert_allclose(both["left"] @ both["right"].T, mean, atol=1e-12)
    given[1]["left"][2] = np.nan  # one of them cannot read it
    assert np.isnan(answers_of(task).mean(given, [1, 1])["left"]).all(axis=1).tolist() == [False, False, True, False]


# --- several tasks ----------------------------------------------------------------------------------------------------


def test_several_tasks_are_weighed_as_their_losses() -> None:
    cells = {"kind": ["a", "b", "a"], "size": [1.0, 2.0, 4.0]}
    task = Multi.fit(MultiConfig(tasks={"kind": {"kind": "classification"}, "size": {"kind": "regression"}}), cells)
    head = head_class("multi")(task, {}, width=8, dropout=0.0)
    s = {"kind.logits": torch.randn(2, 2), "size.prediction": torch.randn(2, 1)}
    t = {"kind.logits": torch.randn(2, 2), "size.prediction": torch.randn(2, 1)}
    own = answers_of(task)
    fixed = own.fixed(head)
    first = own.distance(head, s, t, everyone(2), 2.0)
    parts = [
        answers_of(task.tasks[name]).distance(
            sub, {key: s[f"{name}.{key}"]}, {key: t[f"{name}.{key}"]}, everyone(2), 2.0
        )
        for name, key, sub in zip(("kind", "size"), ("logits", "prediction"), head.heads, strict=True)
    ]
    torch.testing.assert_close(first, parts[0] + parts[1])
    with torch.no_grad():
        head.log_variance_K.copy_(torch.tensor([math.log(2.0), 0.0]))
    torch.testing.assert_close(own.distance(head, s, t, everyone(2), 2.0), parts[0] / 2 + parts[1])
    torch.testing.assert_close(fixed.distance(head, s, t, everyone(2), 2.0), first)
    single = Multi.fit(
        MultiConfig(tasks={"kind": {"kind": "classification"}, "n": {"kind": "regression"}}),
        {"kind": ["a", "b"], "n": [1.0, 2.0]},
    )
    with pytest.raises(FuselineError, match="has no task size"):
        own.ordered(single, {})


# --- through training -------------------------------------------------------------------------------------------------

TASKS_TAUGHT: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "forecast": (("pulse", "vitals"), {"target": "pulse@next"}),
    "detection": (("picture", "vitals"), {"target": "boxes", "layers": 1, "queries": 4}),
    "retrieval": (("note", "vitals"), {"left": ["note"], "right": ["vitals"], "dim": 8}),
    "multi": (
        ("picture", "vitals"),
        {
            "tasks": {
                "sick": {"kind": "classification"},
                "boxes": {"kind": "detection", "layers": 1, "queries": 4},
                "pair": {"kind": "retrieval", "left": ["picture"], "right": ["vitals"], "dim": 8},
            }
        },
    ),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third of the cells is absent, a fourth of the rows has no `sick`, and steps of the future are gaps."""
    path = made.make_table(tmp_path_factory.mktemp("answers"), 32, seed=5)
    frame = pl.read_csv(path, infer_schema_length=None)
    rng = np.random.default_rng(0)
    spots = [[{"label": "spot", "xyxy": [10 + 12 * (i % 2), 10, 20 + 12 * (i % 2), 30]}] for i in range(32)]
    ahead = [[[60.0 + i, None if i % 3 else 61.0], [float(rng.normal(60, 5)), 62.0]] for i in range(32)]
    frame.with_columns(
        pl.Series("boxes", [json.dumps(s) for s in spots]),
        pl.Series("pulse@next", [json.dumps(a) for a in ahead]),
        sick=pl.when(pl.int_range(pl.len()) % 4 == 3).then(None).otherwise("sick"),
    ).write_csv(path)
    return path


def ready_for(kind: str, table: Path) -> Prepared:
    names, options = TASKS_TAUGHT[kind]
    changes: dict[str, Any] = {"fusion": {"kind": "concat", "width": 16}, "task": {"kind": kind, **options}}
    return taught.prepared(table, names, split={"kind": "random", "val": 0.25, "test": 0.1}, **changes)


@pytest.mark.parametrize("kind", list(TASKS_TAUGHT))
def test_healing_brings_a_student_of_each_task_nearer_to_its_teacher(
    kind: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = ready_for(kind, table)
    torch.manual_seed(0)
    whole = taught.fresh(ready)
    with torch.no_grad():  # as unlike from row to row as a trained one's answers
        for p in whole.head.parameters():
            p.add_(torch.randn_like(p) * (0.2 if p.ndim > 1 else 0.0))
    teacher = Teacher.of_models([whole], ready)
    student = taught.fresh(ready)
    student.load_state_dict(whole.state_dict())
    with torch.no_grad():
        for p in student.parameters():
            if p.ndim > 1:
                p.mul_(1 + 0.3 * torch.randn_like(p))
    start = taught.copied(student)
    go: dict[str, Any] = {"config": DistilConfig(alpha=1.0), "epochs": 6, "learning_rate": 2e-3}
    report = heal(student, teacher, ready, tmp_path, **go)
    assert report.rows == "val"
    assert report.before.distance is not None
    assert report.after.distance is not None
    assert report.after.distance < 0.8 * report.before.distance

    # The same call gives what has ended; under another teacher it is another lesson.
    healed = taught.copied(student)
    student.load_state_dict(start)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "fit", None)
        assert heal(student, teacher, ready, tmp_path, **go) == report
        assert taught.same(student.state_dict(), healed)
        student.load_state_dict(start)
        other = replace(teacher, told={k: v + 1 for k, v in teacher.told.items()})
        assert other.key != teacher.key
        with pytest.raises(TypeError):
            heal(student, other, ready, tmp_path, **go)


# --- what a drop is of ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "metric", "higher"),
    [
        ("forecast", "mae", False),
        ("detection", "map_50", True),
        ("retrieval", "mrr", True),
        ("multi", "sick.auroc", True),
    ],
)
def test_a_drop_is_of_the_tasks_own_metric(kind: str, metric: str, higher: bool, table: Path) -> None:
    from fuseline.lab.compress.measure import Ruler

    ready = ready_for(kind, table)
    model = taught.fresh(ready)
    ruler = Ruler(ready, ready.rows("val"), metric=metric)
    assert _direction(model, ruler) is higher
    ruler.metric = "beauty"
    with pytest.raises(FuselineError, match="no metric 'beauty'"):
        _direction(model, ruler)


def test_errors_in_units_are_per_cent_in_one_of_several_tasks_too() -> None:
    assert in_units("age.rmse")
    assert in_units("pinball")
    assert not in_units("age.r2")
    cells = {"kind": ["a", "b", "a", "b"], "size": [1.0, 2.0, 4.0, 9.0]}
    task = Multi.fit(MultiConfig(tasks={"kind": {"kind": "classification"}, "size": {"kind": "regression"}}), cells)
    targets = np.stack([task.encode({c: v[i] for c, v in cells.items()}) for i in range(4)])
    first = {"kind.logits": np.zeros((4, 2)), "size.prediction": np.array(cells["size"])[:, None] + 2}
    second = {**first, "size.prediction": first["size.prediction"] + 1}
    assert drop(task, "size.mae", targets, first, second).value == pytest.approx(50)
