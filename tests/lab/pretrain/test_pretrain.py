"""Pretraining: what is hidden and said, what is learned, what travels, and what a recipe takes of it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import shared_signal as signal
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from typer.testing import CliRunner

from fuseline import api
from fuseline.cli.app import app
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.pretrain import run as module
from fuseline.lab.pretrain.cells import draw_hidden, hide
from fuseline.lab.pretrain.folder import read_folder
from fuseline.lab.pretrain.objective import Contrast, targets_of
from fuseline.lab.pretrain.rows import unlabelled_split
from fuseline.lab.tokens import Tokens
from fuseline.lab.training.callbacks import Keeper
from fuseline.recipe import PretrainSpec, load_recipe, parse_recipe

SHORT = {**signal.RECIPE, "pretrain": {"epochs": 2, "batch_size": 32, "dim": 8}}


class Named:
    """A modality by its name alone."""

    def __init__(self, name: str) -> None:
        self.name = name


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained") / "p"
    return api.pretrain(signal.RECIPE, table=signal.signal_table(600), out=folder, quiet=True).folder


def test_a_linear_probe_on_pretrained_encoders_beats_one_on_random_ones(learned: Path, tmp_path: Path) -> None:
    table = signal.signal_table(600)
    random = signal.probe(table, None, tmp_path, labels=20)
    ours = signal.probe(table, learned, tmp_path, labels=20)
    assert ours > random + 0.07, (random, ours)
    held, first = api.Pretrained(learned).learned["held_out"], api.Pretrained(learned).learned["held_out_first"]
    assert held["contrast"] < first["contrast"] - 0.3
    assert held["masked.vitals"] < 0.8 < first["masked.vitals"]
    assert (learned / "curve.svg").stat().st_size > 1000
    assert (learned / "history.csv").read_text().startswith("interval,step")


def test_the_verb_shows_what_was_learned_and_goes_on_where_nothing_is_left(learned: Path, tmp_path: Path) -> None:
    before = (learned / "weights.safetensors").stat().st_mtime_ns
    result = CliRunner().invoke(app, ["pretrain", "--resume", str(learned), "--quiet"])
    assert result.exit_code == 0, result.output
    assert "recall_at_1.note.vitals" in result.output
    assert "by lot" in result.output
    assert (learned / "weights.safetensors").stat().st_mtime_ns == before
    for words in ([], ["--resume", str(tmp_path)], ["x.yaml", "--resume", str(learned)]):
        assert CliRunner().invoke(app, ["pretrain", *words]).exit_code == 2


def test_hidden_tokens_are_a_share_and_never_all() -> None:
    mask_BT = torch.tensor([[True] * 10, [True] * 3 + [False] * 7, [True] + [False] * 9, [False] * 10])
    generator = torch.Generator().manual_seed(0)
    hidden_BT = draw_hidden(mask_BT, 0.5, generator)
    assert not (hidden_BT & ~mask_BT).any()
    assert hidden_BT.sum(dim=1)[:2].tolist() == [5, 2]
    assert torch.equal(hidden_BT, draw_hidden(mask_BT, 0.5, torch.Generator().manual_seed(0)))
    lone = [int(draw_hidden(mask_BT[2:3], 0.5, generator).sum()) for _ in range(200)]
    assert 60 < sum(lone) < 140


def test_what_hidden_tokens_were_made_of_is_gone() -> None:
    hidden_BT = torch.tensor([[True, False, False, True]])
    picture = torch.arange(48, dtype=torch.uint8).reshape(1, 4, 4, 3)
    pixels = hide(Named("image"), {"pixels": picture}, hidden_BT)["pixels"]  # type: ignore[arg-type]
    assert torch.equal(pixels[0, :2, 2:], picture[0, :2, 2:])
    assert pixels[0, :2, :2].reshape(-1, 3).unique(dim=0).tolist() == [[22, 23, 24]]

    sound = {"waveform": torch.ones(1, 8), "length": torch.tensor([8])}
    assert hide(Named("audio"), sound, hidden_BT)["waveform"].tolist() == [[0, 0, 1, 1, 1, 1, 0, 0]]  # type: ignore[arg-type]

    series = {"values": torch.ones(1, 3, 2), "known": torch.ones(1, 3, 2, dtype=torch.bool)}
    known = hide(Named("timeseries"), series, hidden_BT)["known"]  # type: ignore[arg-type]
    assert known[0].T.tolist() == [[False, True, True], [True, False, False]]  # the first patch is the short one

    record = {
        "numbers": torch.ones(1, 3),
        "numbers_present": torch.ones(1, 3, dtype=torch.bool),
        "categories": torch.tensor([[4]]),
    }
    features = hide(Named("tabular"), record, hidden_BT)  # type: ignore[arg-type]
    assert features["numbers_present"].tolist() == [[False, True, True]]
    assert features["categories"].tolist() == [[0]]
    frames = {"frames": torch.ones(1, 2)}
    assert hide(Named("video"), frames, hidden_BT)["frames"] is frames["frames"]  # type: ignore[arg-type]


@torch.no_grad()
def test_the_contrast_is_info_nce_of_each_pair_without_equal_rows() -> None:
    contrast = Contrast(("a", "b", "c"), PretrainSpec(temperature=0.5, dim=4), 8)
    vectors_BME = F.normalize(torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1)), dim=2)
    vectors_BME[:, 2] = 0  # nobody has c
    vectors_BME[4, 1] = 0
    digests_BM = torch.arange(15).reshape(5, 3) + 1
    digests_BM[1, 0] = digests_BM[0, 0]  # rows 0 and 1 hold the same a
    lost_B = contrast.lost(vectors_BME, digests_BM)
    assert lost_B[4].isnan()
    s = (vectors_BME[:, 0] @ vectors_BME[:, 1].T / 0.5).tolist()
    for row, others in ((0, (2, 3)), (2, (0, 1, 3))):
        right = s[row][row]
        to_b = math.log(sum(math.exp(s[row][j]) for j in (row, *others))) - right
        to_a = math.log(sum(math.exp(s[j][row]) for j in (row, *others))) - right
        assert float(lost_B[row]) == pytest.approx((to_a + to_b) / 2, abs=1e-5)


def test_targets_have_no_scale_and_cannot_be_agreed_upon() -> None:
    values_BTD = 7 + 3 * torch.randn(6, 5, 16, generator=torch.Generator().manual_seed(0))
    mask_BT = torch.ones(6, 5, dtype=torch.bool)
    mask_BT[3:, 2:] = False
    found = targets_of(Tokens(values_BTD, mask_BT))[mask_BT]
    assert float(found.mean()) == pytest.approx(0, abs=1e-5)
    assert float(found.var(dim=0, unbiased=False).mean()) == pytest.approx(1, abs=1e-2)
    alike = targets_of(Tokens(torch.ones(6, 5, 16), mask_BT))
    assert not alike.isnan().any()


def test_rows_need_no_label_and_test_rows_are_not_read(tmp_path: Path) -> None:
    frame = signal.signal_table(80)
    recipe = parse_recipe(SHORT)
    labelled = unlabelled_split(recipe, Table.open(frame)).part
    few = frame.with_columns(pl.when(pl.int_range(80) % 2 == 0).then("kind").alias("kind"))
    split = unlabelled_split(recipe, Table.open(few))
    assert (split.part[1::2] == 0).all()
    assert (split.part == 2).sum() > 0
    bare = unlabelled_split(recipe, Table.open(frame.drop("kind")))
    assert not (bare.part == 2).any()
    assert any("no kind" in note for note in bare.notes)
    unnamed = unlabelled_split(recipe, Table.open(frame.with_columns(kind=pl.lit(None, pl.String))))
    assert (unnamed.part == bare.part).all(), "an empty column of labels is as good as none"
    assert unnamed.notes == bare.notes
    grouped = few.with_columns(pl.Series("who", [f"p{i // 4}" for i in range(80)]))
    by_group = parse_recipe({**SHORT, "split": {"kind": "group", "group": "who", "val": 0.2, "test": 0.3}})
    part = unlabelled_split(by_group, Table.open(grouped)).part
    for group in range(20):
        assert len(set(part[4 * group : 4 * group + 4].tolist()) - {-1}) == 1, "a group stands on one side only"

    broken = pl.DataFrame({**frame.to_dict(as_series=False), "a": [str(v) for v in frame["a"]]})
    at = int(np.flatnonzero(labelled == 2)[0])
    broken = broken.with_columns(a=pl.when(pl.int_range(80) == at).then(pl.lit("not a number")).otherwise("a"))
    got = api.pretrain(SHORT, table=broken, out=tmp_path / "p", epochs=1, quiet=True).learned
    assert got["rows"]["train"] == (labelled == 0).sum()


def test_one_input_and_rows_that_lack_one_still_teach(tmp_path: Path) -> None:
    alone = {**SHORT, "inputs": {"note": SHORT["inputs"]["note"]}}
    got = api.pretrain(alone, table=signal.signal_table(60, labelled=False), out=tmp_path / "p", quiet=True).learned
    assert "contrast" not in got["held_out"]
    with pytest.raises(FuselineError, match="needs two inputs"):
        api.pretrain(
            {**alone, "pretrain": {"masked": 0}}, table=signal.signal_table(20), out=tmp_path / "q", quiet=True
        )
    halves = signal.signal_table(60, labelled=False)
    halves = halves.with_columns(
        note=pl.when(pl.int_range(60) % 2 == 0).then("note"),
        **{c: pl.when(pl.int_range(60) % 2 == 1).then(c) for c in "abc"},
    )
    notes = api.pretrain(SHORT, table=halves, out=tmp_path / "r", quiet=True).learned["notes"]
    assert any("0 training rows have two inputs" in note for note in notes)
    for empty in (halves[:2].clear(), halves[:1], halves.with_columns(pl.lit(None).alias(c) for c in ("note", *"abc"))):
        with pytest.raises(FuselineError):
            api.pretrain(SHORT, table=empty, out=tmp_path / "s", quiet=True)


def test_what_no_row_has_is_not_handed_on(tmp_path: Path) -> None:
    """A state that was fitted on nothing would blind the later training to the values that its table has."""
    frame = signal.signal_table(60)
    for empty, kept in ((["note"], {"vitals"}), (["b"], {"note"})):
        folder = tmp_path / empty[0]
        bare = frame.drop("kind").with_columns(pl.lit(None, frame.schema[c]).alias(c) for c in empty)
        got = api.pretrain(SHORT, table=bare, out=folder, epochs=1, quiet=True).learned
        assert set(read_folder(folder).inputs) == kept
        assert any("not handed on" in note and empty[0] in note for note in got["notes"])
    run = api.train(SHORT, table=frame, out=tmp_path / "run", init=tmp_path / "b", quiet=True)
    assert run.record["init"]["not_taken"]["vitals"] == "it was not pretrained"
    alone = {**SHORT, "inputs": {"vitals": SHORT["inputs"]["vitals"]}}
    with pytest.raises(FuselineError, match=r"not handed on.* b"):
        api.pretrain(alone, table=frame.with_columns(b=pl.lit(None, pl.Float64)), out=tmp_path / "x", quiet=True)


def test_an_interrupted_one_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    signal.signal_table(80).write_parquet(path)
    training = {**SHORT["training"], "checkpoint_seconds": 0}
    recipe = {**SHORT, "training": training, "table": {"path": str(path)}, "pretrain": {"epochs": 4, "dim": 8}}
    whole = api.pretrain(recipe, out=tmp_path / "whole", quiet=True)
    save = Keeper._save

    def killed(self: Keeper, trainer: Any) -> None:
        save(self, trainer)
        if self.interval == 2:
            raise MemoryError("as if killed")

    monkeypatch.setattr(Keeper, "_save", killed)
    with pytest.raises(MemoryError):
        api.pretrain(recipe, out=tmp_path / "broken", quiet=True)
    monkeypatch.setattr(Keeper, "_save", save)
    with pytest.raises(FuselineError, match="not finished"):
        read_folder(tmp_path / "broken")
    with pytest.raises(FuselineError, match="holds a run"):
        api.pretrain(recipe, out=tmp_path / "broken", quiet=True)
    resumed = api.pretrain(resume=tmp_path / "broken", quiet=True)
    a, b = (load_file(p.folder / "weights.safetensors") for p in (whole, resumed))
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert resumed.learned["held_out"] == whole.learned["held_out"]
    assert json.loads((resumed.folder / module.FILE).read_text())["stage"] == "done"


def test_a_training_begins_from_it_and_goes_on_without_it(
    learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "pretrained"
    shutil.copytree(learned, source)
    path = tmp_path / "few.parquet"
    signal.signal_table(60, seed=5).write_parquet(path)  # another table: its own vocabulary would be another
    recipe = {**signal.RECIPE, "table": {"path": str(path)}}
    recipe["training"] = {**recipe["training"], "epochs": 3, "learning_rate": 1e-6, "checkpoint_seconds": 0}
    save = Keeper._save

    def killed(self: Keeper, trainer: Any) -> None:
        save(self, trainer)
        raise MemoryError("as if killed")

    monkeypatch.setattr(Keeper, "_save", killed)
    with pytest.raises(MemoryError):
        api.train(recipe, out=tmp_path / "run", init=source, quiet=True)
    monkeypatch.setattr(Keeper, "_save", save)
    shutil.rmtree(source)
    (tmp_path / "run").rename(tmp_path / "moved")
    run = api.resume(tmp_path / "moved", quiet=True)
    told = run.record["init"]
    assert told["digest"] == read_folder(learned).digest
    assert set(told["loaded"]) == {"note", "vitals", "note's adapter", "vitals's adapter", "fusion"}
    assert not told["not_taken"]
    assert load_recipe(run.folder / "recipe.yaml").init == str((run.folder / "init").resolve())
    given = load_file(learned / "weights.safetensors")["encoder/note/embed.weight"]
    kept = load_file(run.folder / "checkpoints" / "best.safetensors")["encoders.0.embed.weight"]
    assert np.abs(kept - given).max() < 1e-4, "the learning rate moved it no further"


def test_what_does_not_fit_is_told_and_nothing_that_fits_is_an_error(learned: Path, tmp_path: Path) -> None:
    wider = {**signal.RECIPE["inputs"]["vitals"], "encoder": {"kind": "small", "width": 64, "dropout": 0.2}}
    recipe = {**signal.RECIPE, "inputs": {"note": signal.RECIPE["inputs"]["note"], "vitals": wider}}
    recipe["fusion"] = {"kind": "sum", "width": 32}
    recipe["training"] = {**recipe["training"], "epochs": 1}
    run = api.train(recipe, table=signal.signal_table(60), out=tmp_path / "run", init=learned, quiet=True)
    told = run.record["init"]
    assert set(told["loaded"]) == {"note", "note's adapter"}
    assert "width" in told["not_taken"]["vitals"]
    assert "sum" in told["not_taken"]["fusion"]
    assert any(note.startswith("began from pretrained note") for note in run.record["notes"])
    for inputs in ({"vitals": wider}, {"text": {**signal.RECIPE["inputs"]["note"], "column": "note"}}):
        with pytest.raises(FuselineError, match="no pretrained input fits"):
            api.train(
                {**recipe, "inputs": inputs},
                table=signal.signal_table(60),
                out=tmp_path / "x",
                init=learned,
                quiet=True,
            )


@pytest.mark.parametrize("harm", ["weights", "facts", "format", "no json", "none"])
def test_a_folder_that_was_changed_is_refused(learned: Path, tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "p"
    shutil.copytree(learned, folder)
    facts = folder / "pretrained.json"
    match harm:
        case "weights":
            (folder / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes()[:-1] + b"\0")
        case "facts":
            facts.write_text(facts.read_text().replace('"vitals"', '"vitaly"'))
        case "format":
            facts.write_text(json.dumps({**json.loads(facts.read_text()), "format": 9}))
        case "no json":
            facts.write_text("[" * 100_000)
        case "none":
            shutil.rmtree(folder)
    with pytest.raises(FuselineError) as found:
        read_folder(folder).weights()
    assert found.value.code == {"format": "init_version", "none": "no_such_file"}.get(harm, "bad_init")
    assert found.value.hint
    if harm == "weights":  # before any work, of the folder that the user named, which stays free for another start
        with pytest.raises(FuselineError, match=str(folder)):
            api.train(SHORT, table=signal.signal_table(60), out=tmp_path / "run", init=folder, quiet=True)
        assert not (tmp_path / "run" / "init").exists()
