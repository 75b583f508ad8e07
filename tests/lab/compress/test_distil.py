"""Teachers, what their students lose by, and healing: the numbers, the masks, and that a kill changes nothing."""

from __future__ import annotations

import copy
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import polars as pl
import pytest
import torch
from lab.compress import taught
from torch import nn

from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.compress.answers import answers_of
from fuseline.lab.compress.distil import DistilConfig, Distillation, distil, unwatched
from fuseline.lab.compress.heal import HealReport, heal, standing, training_only
from fuseline.lab.compress.hidden import InputDistance, Live, Stored, tokens_of
from fuseline.lab.compress.teacher import Teacher
from fuseline.lab.heads import head_class
from fuseline.lab.model import FusionModel
from fuseline.lab.tokens import Tokens
from fuseline.lab.training import loop
from fuseline.lab.training.callbacks import Keeper
from fuseline.lab.training.module import TrainModule
from fuseline.lab.training.prepare import Prepared
from fuseline.progress import Silent
from fuseline.recipe import parse_recipe
from fuseline.runtime import load
from fuseline.tasks import task_class

CPU = torch.device("cpu")
PAIR = ("weight", "bias")


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return taught.prepared(taught.rows(tmp_path_factory.mktemp("distil")))


@pytest.fixture(scope="module")
def whole(ready: Prepared, tmp_path_factory: pytest.TempPathFactory) -> FusionModel:
    return taught.trained(ready, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def teacher(ready: Prepared, whole: FusionModel) -> Teacher:
    return Teacher.of_models([whole], ready, tokens=True)


def answer(model: FusionModel, ready: Prepared, rows: np.ndarray) -> dict[str, torch.Tensor]:
    batch = ready.reader.batch(rows)
    with torch.no_grad():
        out: dict[str, torch.Tensor] = model.eval()(batch.arrays, batch.present_BM)
    return out


def cut(model: FusionModel) -> FusionModel:
    """A copy that lost one of its two fusion layers, and whose text encoder no longer mixes neighbours."""
    student = copy.deepcopy(model)
    blocks: Any = student.fusion.blocks
    student.fusion.blocks = nn.ModuleList([blocks[0]])
    torch.nn.init.zeros_(student.encoders[0].conv.out.weight)  # type: ignore[union-attr,arg-type]
    return student


def head(kind: str, **state: Any) -> tuple[Any, Any]:
    states: dict[str, dict[str, Any]] = {
        "classification": {"mode": "multiclass", "classes": ["a", "b", "c"], "counts": [5, 3, 2], "rows": 10},
        "regression": {"mean": [1.0, 0.0], "std": [2.0, 10.0]},
    }
    config = {"target": "y"} if kind == "classification" else {"targets": ["y", "z"], "huber_delta": 1e9}
    task = task_class(kind).from_state({"config": config, **states[kind], **state})
    return task, head_class(kind)(task, {}, width=8, dropout=0.0)


def distance(task: Any, head: Any, outputs: dict[str, torch.Tensor], told: torch.Tensor, hot: float) -> torch.Tensor:
    """Of rows that the teacher all knows, whose answers are named as the student's."""
    (name,) = outputs
    known = torch.ones(len(told), dtype=torch.bool)
    return answers_of(task).distance(head, outputs, {name: told}, known, hot)


# --- the distance of answers ------------------------------------------------------------------------------------------


def test_one_class_of_many_is_the_tempered_divergence() -> None:
    task, own = head("classification")
    s, t = torch.randn(4, 3), torch.randn(4, 3)
    p, q = (t / 3).softmax(1), (s / 3).softmax(1)
    expected = 9 * (p * (p / q).log()).sum(1)
    torch.testing.assert_close(distance(task, own, {"logits": s}, t, 3.0), expected)
    # What was added to all logits of a row does not matter: log chances do as well.
    torch.testing.assert_close(distance(task, own, {"logits": s}, t.log_softmax(1), 3.0), expected)
    assert distance(task, own, {"logits": t}, t, 3.0).abs().max() < 1e-5


def test_a_class_that_the_teacher_never_met_has_no_chance() -> None:
    task, own = head("classification")
    s = torch.randn(2, 3, requires_grad=True)
    gap = distance(task, own, {"logits": s}, torch.tensor([[0.3, -torch.inf, 0.1]]).expand(2, 3), 2.0)
    gap.sum().backward()
    assert gap.isfinite().all()
    assert s.grad is not None
    assert (s.grad[:, 1] > 0).all()


def test_labels_and_numbers_leave_out_what_is_not_known() -> None:
    task, labels = head("classification", mode="multilabel")
    s, t = torch.randn(2, 3), torch.randn(2, 3)
    t[0, 1] = torch.nan
    p, q = (t / 2).sigmoid(), (s / 2).sigmoid()
    kl = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())
    got = distance(task, labels, {"logits": s}, t, 2.0)
    torch.testing.assert_close(got, torch.stack([kl[0, [0, 2]].mean(), kl[1].mean()]))

    task, numbers = head("regression")
    s, t = torch.tensor([[1.0, 5.0], [3.0, 0.0]]), torch.tensor([[3.0, 25.0], [torch.nan, 10.0]])
    got = distance(task, numbers, {"prediction": s}, t, 2.0)
    torch.testing.assert_close(got, torch.tensor([(0.5 + 2.0) / 2, 0.5]))


# --- teachers ---------------------------------------------------------------------------------------------------------


def test_one_model_teaches_its_own_answers(ready: Prepared, whole: FusionModel, teacher: Teacher) -> None:
    rows = ready.rows("val")[::-1].copy()
    out = answer(whole, ready, rows)
    torch.testing.assert_close(teacher.answers(rows, CPU)["logits"], out["logits"].log_softmax(1))
    torch.testing.assert_close(teacher.embedding(rows, CPU), out["embedding"])
    assert teacher.known(np.concatenate([ready.rows("train"), rows])).all()
    assert not teacher.known(ready.rows("test")).any()


def test_an_ensemble_is_the_mean_of_chances(ready: Prepared, whole: FusionModel, teacher: Teacher) -> None:
    others = [taught.fresh(ready) for _ in range(2)]
    for i, other in enumerate(others):
        nn.init.normal_(other.head.project.weight, std=1.0 + i)  # type: ignore[union-attr,arg-type]
    rows = ready.rows("train")
    chances = [answer(m, ready, rows)["logits"].softmax(1) for m in (whole, *others)]
    expected = torch.stack(chances).mean(0).log()
    three = Teacher.of_models([whole, others[0], (others[1], ready)], ready)
    torch.testing.assert_close(three.answers(rows, CPU)["logits"], expected)
    two = teacher.joined(Teacher.of_models(others, ready))
    torch.testing.assert_close(two.answers(rows, CPU)["logits"], expected)
    torch.testing.assert_close(two.embedding(rows, CPU), teacher.embedding(rows, CPU))
    assert len({two.key, three.key, teacher.key}) >= 2


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_ensembles_of_labels_and_numbers(kind: str, ready: Prepared) -> None:
    task = head("regression")[0] if kind == "regression" else head("classification", mode="multilabel")[0]
    place, rows = np.full(64, -1), np.arange(4)
    place[rows] = rows
    parts = np.random.default_rng(0).normal(size=(2, 4, len(task.columns) if kind == "regression" else 3))
    parts[0, 0, 1] = np.nan
    name = "prediction" if kind == "regression" else "logits"
    one, two = (Teacher(task, place, {name: p.astype(np.float32)}) for p in parts)
    got = one.joined(two).answers(rows, CPU)[name].double().numpy()
    if kind == "regression":
        expected = np.nanmean(parts, axis=0)
    else:
        chance = np.nanmean(1 / (1 + np.exp(-parts)), axis=0)
        expected = np.log(chance / (1 - chance))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_package_teaches_what_it_answers(package: Path, tmp_path: Path) -> None:
    path = made.make_table(tmp_path, 24, seed=7)
    (tmp_path / "media" / "5.png").write_bytes(b"no picture")
    frame = pl.read_csv(path, infer_schema_length=None)
    broken = pl.when(pl.int_range(pl.len()) == 5).then(pl.lit("media/5.png")).otherwise(pl.col("picture"))
    frame.with_columns(picture=broken).write_csv(path)
    task = {"kind": "classification", "target": "sick"}
    ready = taught.prepared(
        path, ("vitals",), task=task
    )  # the student has no pictures, and so no trouble with that one
    predictor = load(package)
    teacher = Teacher.of_packages([predictor, predictor], ready)
    asked = np.concatenate([ready.rows("train"), ready.rows("val")])
    assert 5 in asked
    assert teacher.known(asked).tolist() == (asked != 5).tolist()
    good = asked[asked != 5]
    answers = predictor.predict(Table.rows(Table.open(path).take(good, predictor.rows.columns)), media=tmp_path)
    got = teacher.answers(good, CPU)["logits"].exp().numpy()
    labels = predictor.task.labels  # type: ignore[attr-defined]
    expected = [[a.probabilities[label] for label in labels] for a in answers if a.probabilities]
    np.testing.assert_allclose(got, expected, atol=1e-5)

    objective = Distillation(DistilConfig(alpha=1.0), teacher, taught.fresh(ready), ready)
    model = taught.fresh(ready)
    batch = ready.reader.batch(np.array([5]))
    outputs = model(batch.arrays, batch.present_BM)
    assert torch.equal(objective(model, batch, outputs), model.head.loss(outputs, batch.targets))
    batch = ready.reader.batch(np.array([5, good[0]]))
    outputs = model(batch.arrays, batch.present_BM)
    gaps = distance(
        ready.task, model.head, {"logits": outputs["logits"]}, teacher.answers(batch.rows, CPU)["logits"], 2.0
    )
    expected_loss = 0.5 * model.head.loss(outputs, batch.targets) + gaps[1] / 2
    torch.testing.assert_close(objective(model, batch, outputs), expected_loss)


def test_classes_in_another_order_and_tasks_that_do_not_fit(ready: Prepared) -> None:
    task, _ = head("classification")
    other, _ = head("classification", classes=["c", "d", "a"])
    place = np.zeros(64, dtype=np.int64)
    log = {"logits": torch.tensor([[0.2, 0.5, 0.3]]).log().numpy()}
    turned = Teacher(task, place, log).for_task(other)
    np.testing.assert_allclose(np.exp(turned.told["logits"]), [[0.3 / 0.5, 0.0, 0.2 / 0.5]], rtol=1e-6)
    for stranger in (head("regression")[0], head("classification", mode="multilabel")[0]):
        with pytest.raises(FuselineError, match="different tasks"):
            Teacher(task, place, log).for_task(stranger)
    with pytest.raises(FuselineError, match="the right target"):
        Teacher(task, place, log).for_task(ready.task)


def test_a_teacher_on_another_table_is_refused(ready: Prepared, whole: FusionModel, tmp_path: Path) -> None:
    other = taught.prepared(taught.rows(tmp_path, 32))
    with pytest.raises(FuselineError, match="the student's 32"):
        Teacher.of_models([(whole, ready)], other)


# --- students ---------------------------------------------------------------------------------------------------------


def gap(model: FusionModel, ready: Prepared, teacher: Teacher) -> float:
    objective = Distillation(DistilConfig(temperature=1.0), teacher, model, ready)
    found = standing(model, ready, ready.rows("val"), objective).distance
    assert found is not None
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_student_is_nearer_to_its_teacher_than_one_of_labels_alone(
    seed: int, ready: Prepared, teacher: Teacher, tmp_path: Path
) -> None:
    """The teacher knows what is true; a quarter of the student's labels lies."""
    recipe = student_recipe(ready, ("note", "vitals"), epochs=12, seed=seed)
    recipe = recipe.model_copy(update={"task": recipe.task.model_copy(update={"target": "sick"})})
    own, student = distil(recipe, ready, teacher, tmp_path / "taught")
    alone = taught.fresh(own)
    (tmp_path / "alone").mkdir()
    silent = replace(own, part=unwatched(own.part))
    loop.fit(silent, alone, tmp_path / "alone", Silent(), resume=False, precision="float32")
    assert gap(student, own, teacher) < 0.7 * gap(alone, own, teacher)


def student_recipe(ready: Prepared, names: tuple[str, ...], **training: Any) -> Any:
    data = ready.recipe.model_dump(mode="json")
    small = {"kind": "concat", "width": 16}
    training = {**data["training"], "epochs": 6, **training}
    return parse_recipe({**data, "inputs": {n: made.INPUTS[n] for n in names}, "fusion": small, "training": training})


def test_a_student_with_fewer_inputs(ready: Prepared, whole: FusionModel, teacher: Teacher, tmp_path: Path) -> None:
    recipe = student_recipe(ready, ("vitals",))
    config = DistilConfig(hidden=0.5, attention=0.5, embedding=0.5)
    own, student = distil(recipe, ready, teacher, tmp_path, config=config)
    assert student.names == ("vitals",)
    start = taught.fresh(own)
    assert gap(student, own, teacher) < gap(start, own, teacher)
    assert not [name for name in student.state_dict() if "project" in name and "inputs" in name]
    # The same call gives what has ended, without training again.
    before = (tmp_path / "checkpoints" / "best.safetensors").stat().st_mtime_ns
    _, again = distil(recipe, ready, teacher, tmp_path, config=config)
    assert taught.same(student.state_dict(), again.state_dict())
    assert (tmp_path / "checkpoints" / "best.safetensors").stat().st_mtime_ns == before


def test_training_by_an_objective_that_is_the_heads_own_loss_changes_nothing(ready: Prepared, tmp_path: Path) -> None:
    ready = replace(ready, recipe=student_recipe(ready, ("note", "vitals")))
    models = []
    for name, objective in (("a", None), ("b", lambda model, batch, out: model.head.loss(out, batch.targets))):
        models.append(taught.fresh(ready))
        (tmp_path / name).mkdir()
        folder = tmp_path / name
        loop.fit(ready, models[-1], folder, Silent(), resume=False, precision="float32", objective=objective)
    assert taught.same(models[0].state_dict(), models[1].state_dict())


# --- hidden tokens ----------------------------------------------------------------------------------------------------


def test_stored_and_live_tokens_are_the_models(ready: Prepared, whole: FusionModel, teacher: Teacher) -> None:
    rows = np.concatenate([ready.rows("val")[:5], ready.rows("train")[:3]])
    live = Teacher.of_models([whole], ready, tokens=True, tokens_mb=0)
    assert isinstance(teacher.tokens, Stored)
    assert isinstance(live.tokens, Live)
    batch = ready.reader.batch(rows)
    with torch.no_grad():
        own = tokens_of(whole.train(), batch)
    assert whole.training
    assert whole.encoders[0].training
    whole.eval()
    for memory in (teacher.tokens, live.tokens):
        for name, tokens in memory(rows, CPU).items():
            length = tokens.mask_BT.shape[1]
            assert torch.equal(tokens.mask_BT, own[name].mask_BT[:, :length])
            assert not own[name].mask_BT[:, length:].any()
            real = tokens.mask_BT
            torch.testing.assert_close(tokens.values_BTD[real], own[name].values_BTD[:, :length][real])
    absent = ~batch.present_BM[:, 0]
    assert absent.any()
    assert not teacher.tokens(rows, CPU)["note"].mask_BT[absent].any()
    with pytest.raises(AssertionError, match="change with its student"):
        Distillation(DistilConfig(hidden=1.0), live, whole, ready)


def test_distances_of_tokens_are_masked_and_scaled() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    t = torch.randn(2, 3, 4)
    same = InputDistance(Tokens(t, mask), Tokens(t, mask))
    assert same.aligned
    assert isinstance(same.project, nn.Identity)
    wild = torch.where(mask[..., None], t, torch.inf)
    near, related = same(Tokens(wild, mask), Tokens(t, mask))
    assert near == 0
    assert related.abs() < 1e-6
    near, _ = same(Tokens(torch.zeros_like(t), mask), Tokens(t, mask))
    assert near == pytest.approx(1.0, rel=1e-5)
    # Turned and stretched, every relation holds.
    turned = 3 * t @ torch.linalg.qr(torch.randn(4, 4))[0]
    assert same(Tokens(turned, mask), Tokens(t, mask))[1] < 1e-6


def test_other_numbers_of_tokens_are_compared_by_their_means() -> None:
    mask = torch.ones(3, 4, dtype=torch.bool)
    t = torch.randn(3, 2, 6)
    pooled = InputDistance(Tokens(torch.randn(3, 4, 8), mask), Tokens(t, mask[:, :2]))
    assert not pooled.aligned
    assert isinstance(pooled.project, nn.Linear)
    s = t.mean(1, keepdim=True).expand(3, 4, 6)
    same = InputDistance(Tokens(s, mask), Tokens(t, mask[:, :2]))
    near, related = same(Tokens(s, mask), Tokens(t, mask[:, :2]))
    assert near.abs() < 1e-6
    assert related.abs() < 1e-6


def test_the_losses_on_tokens_bring_them_nearer(
    ready: Prepared, whole: FusionModel, teacher: Teacher, tmp_path: Path
) -> None:
    def distances(config: DistilConfig, name: str) -> tuple[float, float]:
        student = cut(whole)
        heal(student, teacher, ready, tmp_path / name, parts=["note"], config=config, epochs=6, learning_rate=3e-3)
        objective = Distillation(DistilConfig(hidden=1.0), teacher, student, ready)
        batch = ready.reader.batch(ready.rows("val"))
        with torch.no_grad():
            near, related = objective._tokens(student, batch, torch.ones(len(batch.rows), dtype=torch.bool))
        return float(near), float(related)

    plain = distances(DistilConfig(), "plain")
    taught_tokens = distances(DistilConfig(hidden=2.0, attention=2.0), "tokens")
    assert taught_tokens[0] < 0.8 * plain[0]
    assert taught_tokens[1] < 0.8 * plain[1]


def test_projections_train_beside_the_model_and_travel_in_its_checkpoints(ready: Prepared, teacher: Teacher) -> None:
    recipe = student_recipe(ready, ("note", "vitals"))
    narrow = replace(ready, recipe=recipe)
    student = taught.fresh(narrow)
    objective = Distillation(DistilConfig(embedding=1.0, hidden=1.0), teacher, student, narrow)
    own = dict(objective.named_parameters())
    assert own.keys() == {f"{p}.{n}" for p in ("project", "inputs.0.project", "inputs.1.project") for n in PAIR}
    rates: dict[str, float | None] = {}
    module = TrainModule(
        student, recipe.training, total_steps=1, interval_steps=1, learning_rates=rates, objective=objective
    )
    trained = {id(p) for group in module._groups() for p in group["params"]}
    assert {id(p) for p in (*own.values(), *student.parameters())} == trained
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    assert {k for k in checkpoint["state_dict"] if not k.startswith("model.")} == {f"objective.{k}" for k in own}


def test_what_a_loss_needs_and_the_teacher_lacks(ready: Prepared, whole: FusionModel) -> None:
    with pytest.raises(FuselineError, match="kept them"):
        Distillation(DistilConfig(hidden=1.0), Teacher.of_models([whole], ready), whole, ready)
    blind = replace(Teacher.of_models([whole], ready), embedding_NE=None)
    with pytest.raises(FuselineError, match="no embedding"):
        Distillation(DistilConfig(embedding=1.0), blind, whole, ready)


# --- healing ----------------------------------------------------------------------------------------------------------


def test_a_heal_gives_back_most_of_what_a_cut_took(
    ready: Prepared, whole: FusionModel, teacher: Teacher, tmp_path: Path
) -> None:
    student = cut(whole)
    report = heal(student, teacher, ready, tmp_path, parts=["note"], epochs=12, learning_rate=1e-3)
    assert (report.rows, report.parts, report.metric) == ("val", ("note",), "auroc")
    assert report.before.distance is not None
    assert report.after.distance is not None
    assert report.after.distance < 0.3 * report.before.distance
    assert report.after.loss < report.before.loss
    assert HealReport.from_dict(report.to_dict()) == report
    assert not student.training


def with_checkpoints(ready: Prepared) -> Prepared:
    """One at the end of every interval."""
    training = ready.recipe.training.model_copy(update={"checkpoint_seconds": 0.0})
    return replace(ready, recipe=ready.recipe.model_copy(update={"training": training}))


def press_ctrl_c_in_interval(monkeypatch: pytest.MonkeyPatch, when: int) -> None:
    ends: list[int] = []
    plain = Keeper.on_train_epoch_end
    # A library that some test loaded before may have put the system's own handler there, which ends the process.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def end(self: Keeper, *args: Any) -> None:
        plain(self, *args)
        ends.append(1)
        if len(ends) == when:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Keeper, "on_train_epoch_end", end)


def test_a_heal_that_was_killed_goes_on_to_the_same_weights(
    ready: Prepared, whole: FusionModel, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = with_checkpoints(ready)
    small = student_recipe(ready, ("note", "vitals")).fusion
    narrow = replace(ready, recipe=ready.recipe.model_copy(update={"fusion": small}))
    # Other widths: the projections are trained too, and must go on where they were.
    config = DistilConfig(embedding=1.0, hidden=1.0, attention=1.0, embedding_loss="mse")
    start = taught.fresh(narrow)

    def go(folder: str, **more: Any) -> tuple[FusionModel, HealReport]:
        student = copy.deepcopy(start)
        return student, heal(student, teacher, narrow, tmp_path / folder, config=config, epochs=5, **more)

    expected, report = go("whole")
    with monkeypatch.context() as patch:
        press_ctrl_c_in_interval(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            go("broken")
    got, again = go("broken")
    assert taught.same(expected.state_dict(), got.state_dict())
    assert (report.after, report.best_interval, report.steps) == (again.after, again.best_interval, again.steps)

    # Ended, it is loaded; another question in the same folder begins anew.
    with monkeypatch.context() as patch:
        patch.setattr(loop, "fit", None)
        loaded, told = go("broken")
        assert taught.same(expected.state_dict(), loaded.state_dict())
        assert told == again
    other, _ = go("broken", seed=1)
    assert not taught.same(expected.state_dict(), other.state_dict())


def test_only_what_was_cut_trains_and_what_is_frozen_comes_from_the_cache(
    ready: Prepared, whole: FusionModel, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = taught.frozen(ready, "note", "vitals")
    ready.reader.keep("note", whole.encoders[0])  # type: ignore[arg-type]
    student = cut(whole)
    with training_only(student, []):  # as the recipe left them
        flags = {n: p.requires_grad for n, p in student.named_parameters()}
        calls: list[str] = []
        for name, encoder in zip(student.names, student.encoders, strict=True):
            encoder.register_forward_hook(lambda *_, name=name: calls.append(name))
        before = taught.copied(student)
        heal(student, teacher, ready, tmp_path, parts=["note", "fusion.head"], epochs=2)
        changed = {k.split(".")[0] + k.split(".")[1] for k, v in student.state_dict().items() if (v != before[k]).any()}
        assert "encoders0" in changed
        assert "encoders1" not in changed
        assert {"adapters0", "adapters1", "headproject"} <= changed
        cells = len(np.flatnonzero(ready.part >= 0))
        assert calls.count("vitals") <= cells  # once a cell, and in no step
        assert calls.count("note") > 0
        assert {n: p.requires_grad for n, p in student.named_parameters()} == flags
        student.train()
        assert not student.encoders[0].training  # frozen as before
    ready.reader.let_go()


def test_the_best_by_the_validation_metric_where_that_is_wished(
    ready: Prepared, whole: FusionModel, teacher: Teacher, tmp_path: Path
) -> None:
    report = heal(cut(whole), teacher, ready, tmp_path, epochs=3, keep="best")
    lines = (tmp_path / "history.csv").read_text().splitlines()
    values = [float(line.split(",")[-1]) for line in lines[1:]]
    assert report.best_interval == int(np.argmax(values))
    assert report.after.metric == pytest.approx(max(values))


def test_without_validation_rows_the_last_weights_stay(ready: Prepared, whole: FusionModel, tmp_path: Path) -> None:
    ready = replace(ready, part=np.where(ready.part == 1, -1, ready.part))
    report = heal(cut(whole), Teacher.of_models([whole], ready), ready, tmp_path, epochs=3)
    assert report.rows == "train"
    assert report.best_interval == 2


def test_healing_on_labels_alone(ready: Prepared, whole: FusionModel, tmp_path: Path) -> None:
    student = cut(whole)
    report = heal(student, None, ready, tmp_path, epochs=3, learning_rate=3e-3)
    assert report.before.distance is None
    assert report.steps == 3 * loop.steps_per_epoch(len(ready.rows("train")), 16)
