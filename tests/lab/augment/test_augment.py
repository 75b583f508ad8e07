"""Augmentation: what changes, what must not, and that the same numbers give the same cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest
import torch
from torch import Tensor

from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.augment import AUGMENTED, augment_class
from fuseline.lab.augment.base import Augment, Draw
from fuseline.lab.augment.mixup import mix, partners
from fuseline.lab.augment.plan import plan_augment
from fuseline.lab.augment.words import read_synonyms
from fuseline.lab.build import plan_inputs
from fuseline.lab.tokens import Tokens
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import Prepared, prepare
from fuseline.progress import voice
from fuseline.recipe import parse_recipe

NAMES = tuple(n for n, spec in made.INPUTS.items() if spec["modality"] in AUGMENTED)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("augment")
    recipe = parse_recipe(made.recipe(made.make_table(folder, 24), inputs={n: made.INPUTS[n] for n in NAMES}))
    table = Table.open(folder / "table.csv")
    return prepare(recipe, table, folder=folder, voice=voice("quiet"), cache=Cache(64))


def arrays_of(prepared: Prepared, name: str) -> tuple[dict[str, Tensor], Tensor]:
    batch = prepared.reader.batch(np.arange(prepared.table.n_rows))
    own = {k.split(".", 1)[1]: v for k, v in batch.arrays.items() if k.startswith(name + ".")}
    return own, batch.present_BM[:, prepared.parser.names.index(name)]


def part_of(prepared: Prepared, name: str, **options: Any) -> Augment:
    cls = augment_class(prepared.parser.modalities[name].name)
    assert cls is not None
    return cls(cls.Config(**options), prepared.parser.modalities[name])


def off(prepared: Prepared, name: str) -> dict[str, Any]:
    """Every option of this input's augmentation at nothing."""
    fields = part_of(prepared, name).Config.model_fields
    return {k: type(f.default)(0) for k, f in fields.items() if isinstance(f.default, (bool, float))}


@pytest.mark.parametrize("name", NAMES)
def test_arrays_stay_what_they_are_and_cells_change(prepared: Prepared, name: str) -> None:
    cls = augment_class(prepared.parser.modalities[name].name)
    assert cls is not None
    part = part_of(prepared, name, **cls.strong)
    own, present_B = arrays_of(prepared, name)
    before = {k: v.clone() for k, v in own.items()}
    one = part(own, present_B, Draw(CPU, 0, 1))
    same, other = part(own, present_B, Draw(CPU, 0, 1)), part(own, present_B, Draw(CPU, 0, 2))
    assert all(torch.equal(own[k], before[k]) for k in own), "what the cache holds was written to"
    assert {k: v.dtype for k, v in one.items()} == {k: v.dtype for k, v in own.items()}
    assert all(one[k].ndim == own[k].ndim and len(one[k]) == len(own[k]) for k in own)
    assert all(torch.isfinite(v.float()).all() for v in one.values())
    assert all(torch.equal(one[k], same[k]) for k in one)
    assert any(one[k].shape != other[k].shape or not torch.equal(one[k], other[k]) for k in one)
    assert any(one[k].shape != own[k].shape or not torch.equal(one[k], own[k]) for k in one)


@pytest.mark.parametrize("name", NAMES)
def test_every_option_off_changes_nothing(prepared: Prepared, name: str) -> None:
    own, present_B = arrays_of(prepared, name)
    still = part_of(prepared, name, **off(prepared, name))(own, present_B, Draw(CPU, 0))
    assert all(torch.equal(still[k], own[k]) for k in own)


def test_pictures_are_turned_and_clips_are_turned_alike(prepared: Prepared) -> None:
    square = torch.zeros(8, 33, 33, 3, dtype=torch.uint8)
    square[:, 14:19, 20:25] = 255
    turned = part_of(prepared, "picture", **{**off(prepared, "picture"), "rotate": 180.0})
    seen = turned({"pixels": square}, torch.ones(8, dtype=torch.bool), Draw(CPU, 3))["pixels"].float()[..., 0]
    axes = torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")
    at = torch.stack([(seen * axis).sum((1, 2)) / seen.sum((1, 2)) for axis in axes])
    assert torch.allclose((at - 16).norm(dim=0), torch.full((8,), 6.0), atol=0.5), "the same distance from the middle"
    assert (at[1] - 22).abs().max() > 5, "and not where it was"
    frames = square[:, None].expand(-1, 3, -1, -1, -1)
    clip = part_of(prepared, "clip", noise=0.0)
    moved = clip({"frames": frames}, torch.ones(8, dtype=torch.bool), Draw(CPU, 3))["frames"]
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert torch.equal(moved[:, 0], moved[:, 2])
    assert not torch.equal(moved[0], moved[1])


def test_grey_pictures_stay_grey(prepared: Prepared) -> None:
    grey = torch.randint(0, 255, (4, 16, 16, 1), dtype=torch.uint8).expand(-1, -1, -1, 3)
    tint = part_of(prepared, "picture", **{**off(prepared, "picture"), "colour": 1.0})
    seen = tint({"pixels": grey}, torch.ones(4, dtype=torch.bool), Draw(CPU, 0))["pixels"].int()
    assert (seen.amax(dim=-1) - seen.amin(dim=-1)).max() <= 1


def test_sounds_change_length_and_lose_a_band(prepared: Prepared) -> None:
    own, present_B = arrays_of(prepared, "sound")
    fast = part_of(prepared, "sound", **{**off(prepared, "sound"), "speed": 0.5})(own, present_B, Draw(CPU, 1))
    ratio = fast["length"][present_B] / own["length"][present_B]
    assert 0.6 < ratio.min() < 0.95
    assert 1.05 < ratio.max() < 1.6
    assert fast["length"].max() <= prepared.parser.modalities["sound"].lengths["S"][1]
    after = torch.arange(fast["waveform"].shape[1]) >= fast["length"][:, None]
    assert not fast["waveform"][after].any()
    masked = part_of(prepared, "sound", **{**off(prepared, "sound"), "frequency_mask": 0.5})
    heard = masked(own, present_B, Draw(CPU, 1))["waveform"]
    powers = [torch.fft.rfft(w[present_B]).abs().square() for w in (own["waveform"], heard)]
    assert ((powers[1] < 1e-3 * powers[0]) & (powers[0] > 1e-4)).any(dim=1).float().mean() > 0.5


def test_special_tokens_stay_and_some_word_is_left(prepared: Prepared) -> None:
    own, present_B = arrays_of(prepared, "note")
    part: Any = part_of(prepared, "note", drop=0.9)
    kept = part(own, present_B, Draw(CPU, 0))["mask"]
    special = torch.isin(own["ids"], part.special)
    assert torch.equal(kept[special], own["mask"][special])
    assert ((kept * ~special).sum(dim=1) >= 1)[present_B].all()
    words = ~special & (own["mask"] != 0)
    assert kept[words].float().mean() < 0.6


def test_synonyms_keep_the_case_and_know_every_alphabet(prepared: Prepared) -> None:
    said = {"fever": ("temperature",), "咳嗽": ("咳",), "ruhig": ("still",)}
    part = part_of(prepared, "note", synonyms=said, replace=1.0)
    cells = [{"note": "Fever, FEVERISH fever; 咳嗽"}, {"note": None}, {"note": "Ruhig."}]
    assert part.reword(cells, Draw(CPU, 0)) == [
        {"note": "Temperature, FEVERISH temperature; 咳"},
        {"note": None},
        {"note": "Still."},
    ]
    several = part_of(prepared, "remarks", synonyms=said, replace=1.0)
    assert several.reword([{"remarks": '["fever", "calm"]'}], Draw(CPU, 0)) == [{"remarks": ["temperature", "calm"]}]


def test_tables_of_synonyms(tmp_path: Path) -> None:
    path = tmp_path / "said.csv"
    path.write_text("Cough,hack, bark\n\ncough,tussis\nalone\n", encoding="utf-8")
    assert read_synonyms(str(path)) == {"cough": ("hack", "bark", "tussis")}
    for text, code in (("two words,one\n", "bad_synonyms"), ("", "bad_synonyms")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(FuselineError) as caught:
            read_synonyms(str(path))
        assert caught.value.code == code
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FuselineError, match="UTF-8"):
        read_synonyms(str(path))
    with pytest.raises(FuselineError) as caught:
        read_synonyms(str(tmp_path / "none.csv"))
    assert caught.value.code == "no_such_file"


def test_jitter_is_in_the_columns_own_deviations(prepared: Prepared) -> None:
    own, present_B = arrays_of(prepared, "vitals")
    part = part_of(prepared, "vitals", jitter=0.1, drop=0.0)
    moved = torch.stack([part(own, present_B, Draw(CPU, i))["numbers"] - own["numbers"] for i in range(200)])
    std_N = torch.as_tensor(prepared.parser.modalities["vitals"].std)  # type: ignore[attr-defined]
    known = own["numbers_present"]
    assert torch.allclose((moved.std(dim=0) / std_N)[known], torch.tensor(0.1), atol=0.03)
    dropped = part_of(prepared, "vitals", jitter=1.0, drop=0.5)(own, present_B, Draw(CPU, 0))
    assert not (dropped["numbers_present"] & ~known).any()
    assert not dropped["numbers"][~dropped["numbers_present"]].any()
    assert not dropped["categories"][own["categories"] == 0].any()


def test_gaps_stay_and_no_series_is_all_gap(prepared: Prepared) -> None:
    own, present_B = arrays_of(prepared, "pulse")
    for step in range(20):
        seen = part_of(prepared, "pulse", mask=0.99)(own, present_B, Draw(CPU, step))
        assert not (seen["known"] & ~own["known"]).any()
        assert not seen["values"][~seen["known"]].any()
        assert torch.equal(seen["known"].any(dim=1), own["known"].any(dim=1))


def test_silent_channels_are_silent_for_the_whole_row_and_never_all(prepared: Prepared) -> None:
    own, present_B = arrays_of(prepared, "pulse")
    shares = []
    for step in range(40):
        seen = part_of(prepared, "pulse", jitter=0, scale=0, mask=0, silent=0.9)(own, present_B, Draw(CPU, step))
        gone = own["known"] & ~seen["known"]
        whole = gone.any(dim=1)
        assert torch.equal(gone, own["known"] & whole[:, None]), "a channel fell silent for a part of its steps"
        assert torch.equal(seen["known"].any(dim=(1, 2)), own["known"].any(dim=(1, 2)))
        assert torch.equal(seen["values"][seen["known"]], own["values"][seen["known"]])
        shares.append(float(whole.float().mean()))
    assert 0.1 < sum(shares) / len(shares) < 0.6  # up to 0.9, 0.45 in the mean, less where all would have gone


@pytest.mark.parametrize(
    ("modality", "wanted", "fixed", "words"),
    [
        ("image", "storng", (), "strong"),
        ("image", {"rotate": 500}, (), "augment.rotate"),
        ("image", {"rotat": 5}, (), "rotate"),
        ("image", {"preset": "none", "rotate": 5}, (), "no options"),
        ("image", {"mirror": True}, ("mirror", "rotate"), "truth"),
        ("timeseries", {"scale": 0.2}, ("scale",), "truth"),
        ("graph", "default", (), "graph"),
    ],
)
def test_what_cannot_be_is_said(modality: str, wanted: Any, fixed: tuple[str, ...], words: str) -> None:
    with pytest.raises(FuselineError) as caught:
        plan_augment(modality, wanted, fixed, "inputs.x.augment")
    assert words in str(caught.value)


def test_presets() -> None:
    assert plan_augment("image", "auto", (), "") == (None, True)
    assert plan_augment("graph", "none", (), "") == (None, False)
    still, _ = plan_augment("image", "strong", ("rotate", "scale", "shift", "crop", "mirror"), "")
    assert still is not None
    assert still.model_dump() == {
        **dict.fromkeys(("rotate", "scale", "shift", "crop"), 0.0),
        **{"mirror": False, "light": 0.4, "colour": 0.4, "noise": 0.05},
    }


def test_the_recipe_decides_who_changes_cells_and_what_may_be_kept() -> None:
    inputs = {
        "picture": {**made.INPUTS["picture"], "augment": "default"},
        "note": {"modality": "text", "augment": "strong", "encoder": {"kind": "minilm"}},
        "remarks": {"modality": "text", "encoder": {"kind": "minilm"}},
        "vitals": {**made.INPUTS["vitals"], "augment": "none"},
    }
    plans = plan_inputs(parse_recipe(made.recipe(inputs=inputs)))
    assert plans["picture"].encoder_config.augment == 0, "or pictures would be changed twice"
    assert plans["vitals"].encoder_config.feature_dropout == 0
    assert plans["note"].tune == plans["remarks"].tune == "frozen"
    assert not plans["note"].stays
    assert plans["remarks"].stays
    assert "every step" in plans["note"].notes[-1]


def test_boxes_and_forecasts_hold_what_their_truth_hangs_on() -> None:
    boxes = {"task": {"kind": "detection", "target": "boxes"}}
    plain = {**made.INPUTS["picture"], "augment": "strong"}
    plans = plan_inputs(parse_recipe({**made.recipe(inputs={"picture": plain}), **boxes}))
    config: Any = plans["picture"].augment
    assert (config.rotate, config.shift, config.mirror, config.light) == (0, 0, False, 0.4)
    turned = {**plain, "augment": {"rotate": 5}}
    with pytest.raises(FuselineError, match=r"inputs\.picture\.augment\.rotate"):
        plan_inputs(parse_recipe({**made.recipe(inputs={"picture": turned}), **boxes}))


def test_mixup_pairs_rows_of_the_same_inputs() -> None:
    rng = np.random.default_rng(0)
    present = rng.random((40, 3)) < 0.6
    found = partners(present, rng)
    assert sorted(found) == list(range(40))
    assert (present[found] == present).all()
    assert (found != np.arange(40)).any()
    values, mask = torch.randn(40, 4, 8), torch.ones(40, 4, dtype=torch.bool)
    mask[::2, 2:] = False
    mixed = mix({"x": Tokens(values, mask)}, torch.from_numpy(present), 0.4, np.random.default_rng(1))
    other = values[mixed.partner_B]
    both = mask & mask[mixed.partner_B]
    wanted = mixed.share * values + (1 - mixed.share) * other
    assert torch.allclose(mixed.tokens["x"].values_BTD[both], wanted[both])
    alone = mask & ~mask[mixed.partner_B]
    assert torch.equal(mixed.tokens["x"].values_BTD[alone], values[alone])
    assert torch.equal(mixed.tokens["x"].mask_BT, mask | mask[mixed.partner_B])
