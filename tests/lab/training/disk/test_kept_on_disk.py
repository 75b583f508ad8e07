"""What stands on disk changes no number, is used by every later run, and never stands for another encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch

from fuseline.data.table import Table
from fuseline.lab.build import build_model
from fuseline.lab.encoders.tuning import apply_tuning
from fuseline.lab.model import FusionModel
from fuseline.lab.tokens import Tokens
from fuseline.lab.training import loop
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.disk.store import Store, files_in
from fuseline.lab.training.identity import encoder_digest
from fuseline.lab.training.prepare import Prepared, prepare
from fuseline.progress import Silent
from fuseline.recipe import parse_recipe

NAMES = ("picture", "note", "pulse")
ROWS = 24


class Told(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.make_table(tmp_path_factory.mktemp("made"), ROWS)


def ready(table: Path, folder: Path, cache: Cache, frozen: tuple[str, ...] = NAMES, **training: Any) -> Prepared:
    """A table of a picture, a text, and a series whose encoder hands arrays over beside its tokens."""
    folder.mkdir(exist_ok=True)
    spec = made.recipe(table, inputs={name: made.INPUTS[name] for name in NAMES})
    spec["training"] = {**spec["training"], **training}
    done = prepare(parse_recipe(spec), Table.open(table), folder=folder, voice=Silent(), cache=cache)
    plans = {n: replace(p, tune="frozen") if n in frozen else p for n, p in done.plans.items()}
    done.reader.addressed = frozenset(frozen) if cache.store else frozenset()
    return replace(done, plans=plans)


def model_of(done: Prepared) -> FusionModel:
    model = build_model(done.recipe, done.plans, done.parser.modalities, done.task)
    for name, encoder in zip(model.names, model.encoders, strict=True):
        apply_tuning(encoder, done.plans[name].tune)
    return model


def calls_of(model: FusionModel) -> list[str]:
    """Filled with an encoder's input name whenever it runs."""
    calls: list[str] = []
    for name, encoder in zip(model.names, model.encoders, strict=True):
        encoder.register_forward_hook(lambda *_, name=name: calls.append(name))
    return calls


def trained(done: Prepared, folder: Path) -> tuple[dict[str, torch.Tensor], list[str], dict[str, Any]]:
    """(weights after training, which encoders ran, what the disk gave)."""
    model = model_of(done)
    calls = calls_of(model)
    found = loop.keep_frozen(done, model, Silent())
    loop.fit(done, model, folder, Silent(), resume=False, precision="float32")
    return model.state_dict(), calls, found


def test_the_same_weights_from_memory_from_a_new_disk_and_from_a_full_one(table: Path, tmp_path: Path) -> None:
    runs = {}
    for name, cache in {
        "memory": Cache(64),
        "first": Cache(64, Store(tmp_path / "kept", 64)),
        "second": Cache(64, Store(tmp_path / "kept", 64)),
    }.items():
        runs[name] = trained(ready(table, tmp_path / name, cache), tmp_path / name)
    weights, _, none = runs["memory"]
    assert none == {}
    for name in ("first", "second"):
        assert all(torch.equal(weights[k], v) for k, v in runs[name][0].items())
    first, second = runs["first"][2], runs["second"][2]
    assert first["written"] > 0
    assert first["hits"] + first["written"] == second["hits"]
    assert second["written"] == 0
    assert second["damaged"] == 0
    # An absent cell's dummy alone, where arrays are handed over beside the tokens, and no cell.
    assert len(runs["second"][1]) <= len(NAMES) < len(runs["first"][1])


def test_another_fold_another_head_and_a_copied_table_find_the_same(table: Path, tmp_path: Path) -> None:
    store = tmp_path / "kept"
    first = ready(table, tmp_path / "a", Cache(64, Store(store, 64)))
    loop.keep_frozen(first, model_of(first), Silent())
    copy = made.make_table(tmp_path / "elsewhere", ROWS)  # the same cells in files of another place and time
    spec = made.recipe(copy, inputs={"picture": made.INPUTS["picture"]}, task={"kind": "regression", "target": "score"})
    spec |= {"split": {"kind": "random", "seed": 5}, "fusion": {"kind": "concat", "width": 16}}
    recipe = parse_recipe(spec)
    done = prepare(recipe, Table.open(copy), folder=tmp_path, voice=Silent(), cache=Cache(64, Store(store, 64)))
    done = replace(done, plans={n: replace(p, tune="frozen") for n, p in done.plans.items()})
    model, other = model_of(done), model_of(first)
    model.encoders[0].load_state_dict(other.encoders[0].state_dict())
    calls = calls_of(model)
    found = loop.keep_frozen(done, model, Silent())
    assert found["written"] == 0
    assert found["hits"] > 0
    assert calls.count("picture") <= 1


def _weight(encoder: Any) -> None:
    next(encoder.parameters()).data.view(-1)[0] += 1e-6


def _buffer(encoder: Any) -> None:
    encoder.mean[1] += 1  # one that no state dict holds, as the means of pixels


def _attribute(encoder: Any) -> None:
    encoder.pooled = True


def _constant(encoder: Any) -> None:
    norm = next(m for m in encoder.modules() if isinstance(m, torch.nn.LayerNorm))
    norm.eps = 1e-3


@pytest.mark.parametrize("change", [_weight, _buffer, _attribute, _constant])
def test_another_encoder_has_another_digest(table: Path, tmp_path: Path, change: Callable[[Any], None]) -> None:
    done = ready(table, tmp_path / "a", Cache(64))
    first, second = (model_of(done).encoders[NAMES.index("pulse")] for _ in range(2))
    for encoder in (first, second):
        encoder.register_buffer("mean", torch.zeros(3), persistent=False)
    digest = encoder_digest(first, "tokens='all'")
    assert encoder_digest(second, "tokens='all'") == digest
    assert encoder_digest(second, "tokens='pooled'") != digest
    change(second)
    assert encoder_digest(second, "tokens='all'") != digest


def test_what_trains_is_never_kept_on_disk(table: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "kept", 64)
    done = ready(table, tmp_path / "a", Cache(64, store), frozen=("note",))
    model = model_of(done)
    apply_tuning(model.encoders[1], "lora", 4, 8)  # its plan says frozen, and it is not
    loop.keep_frozen(done, model, Silent())
    other = build_model(done.recipe, done.plans, done.parser.modalities, done.task).encoders[0]
    other.requires_grad_(False).train()  # dropout and random views
    done.reader.keep("picture", other)  # type: ignore[arg-type]
    done.reader.read(done.rows("train"))
    assert list(files_in(store.folder)) == []
    assert store.counts.written == 0


class Chance(torch.nn.Module):
    """An encoder that draws, whatever its mode."""

    width = 4

    def forward(self, pixels: torch.Tensor) -> Tokens:
        values = torch.randn(len(pixels), 2, 4)
        return Tokens(values, torch.ones(len(pixels), 2, dtype=torch.bool))


def test_an_encoder_with_chance_in_it_is_not_kept_on_disk(table: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "kept", 64)
    done = ready(table, tmp_path / "a", Cache(64, store), frozen=("picture",))
    model = model_of(done)
    model.encoders[0] = Chance().eval()
    done.reader.keep("picture", model.encoders[0])  # type: ignore[arg-type]
    done.reader.read(done.rows("train"))
    assert store.counts.written == 0
    assert done.reader.unsteady == {"picture"}


def test_more_tokens_than_memory_holds_stay_on_disk(table: Path, tmp_path: Path) -> None:
    """Without the disk they are given up; with it every batch is what memory would have given."""
    small = Cache(64)
    done = ready(table, tmp_path / "a", small)
    loop.keep_frozen(done, model_of(done), Silent())
    wanted = done.reader.batch(done.rows("train"))
    cache = Cache(64, Store(tmp_path / "kept", 64))
    done = ready(table, tmp_path / "b", cache)
    cache.limit = 10_000  # less than the pictures' tokens
    told = Told()
    loop.keep_frozen(done, model_of(done), told)
    assert done.reader.frozen
    assert "from disk" in told.lines[0]
    rows = done.rows("train")
    done.reader._forget_rows()
    done.reader.read(rows[:6])
    done.reader.read(rows)
    assert not done.reader.holds(rows)  # nor are they gathered in memory row by row
    got = done.reader.batch(done.rows("train"))
    assert got.arrays.keys() == wanted.arrays.keys()
    for key, array in wanted.arrays.items():
        assert torch.equal(got.arrays[key], array)


def test_a_disk_that_is_full_leaves_memory(table: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "kept", 64)
    store.limit = 4000
    done = ready(table, tmp_path / "a", Cache(64, store))
    told = Told()
    found = loop.keep_frozen(done, model_of(done), told)
    assert "full" in found["trouble"]
    assert any("stay in memory" in line for line in told.lines)
    assert done.reader.frozen
    again = done.reader.batch(done.rows("train"))
    assert torch.isfinite(again.arrays["picture.tokens"]).all()


def test_tokens_do_not_depend_on_the_number_of_threads(table: Path, tmp_path: Path) -> None:
    done = ready(table, tmp_path / "a", Cache(64))
    before, values = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            loop.keep_frozen(done, model_of(done), Silent())
            values.append(done.reader.batch(done.rows("train")).arrays)
            assert torch.get_num_threads() == count
            done.reader.cache = Cache(64)
    finally:
        torch.set_num_threads(before)
    for key, array in values[0].items():
        np.testing.assert_array_equal(array.numpy(), values[1][key].numpy())
