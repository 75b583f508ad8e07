"""model-embedded.onnx: texts and files in, the package's answers out; what cannot be the same stays outside."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_extensions
import pytest
import served
import soundfile
from lab.export.test_standalone import differences, run_bare, snippets
from PIL import Image as Pillow
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from fuseline.errors import FuselineError
from fuseline.lab.export import embed_trials
from fuseline.lab.export.embed_parts import feed_of, make_part
from fuseline.lab.export.embed_trials import ADVERSARIAL, try_texts
from fuseline.lab.export.embed_wordpiece import character_class, character_table
from fuseline.lab.export.nodes import NotEmbeddedError
from fuseline.lab.export.runners import OnnxFile
from fuseline.lab.export.samples import picture, sound
from fuseline.lab.export.standalone import Exported, export_to
from fuseline.modalities import MediaRoot, Modality
from fuseline.modalities.audio import Audio, AudioConfig
from fuseline.modalities.image import Image, ImageConfig
from fuseline.modalities.text import Text, TextConfig, train_tokenizer
from fuseline.runtime import load

LIBRARY = onnxruntime_extensions.get_library_path()
Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]
RNG = np.random.default_rng(0)


def runner(modality: Modality) -> Run:
    return OnnxFile(make_part("x", modality).model(), 1, extensions=LIBRARY).run


def wordpiece(lowercase: bool = True, **special: Any) -> Tokenizer:
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "the",
        "a",
        "b",
        "x",
        "y",
        "cough",
        "fever",
        "##s",
        "##ing",
        "##b",
        "##c",
        "!",
        ",",
        ".",
        "hello",
        "σ",
        "##ς",
        "e",
        "##e",
        "é",
        "漢",
    ]
    vocab = {w: i for i, w in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(words[:5])
    return tokenizer


def roberta() -> Tokenizer:
    """As RoBERTa's: no blank before a text, its own special tokens, the post-processor of that name."""
    trained = json.loads(train_tokenizer([*ADVERSARIAL[3:12], "heavy cough and fever"] * 3, 600).to_str())
    names = {"[PAD]": "<pad>", "[UNK]": "<unk>", "[CLS]": "<s>", "[SEP]": "</s>"}
    for token in trained["added_tokens"]:
        token["content"] = names[token["content"]]
    trained["model"]["vocab"] = {names.get(k, k): v for k, v in trained["model"]["vocab"].items()}
    trained["pre_tokenizer"]["add_prefix_space"] = False
    trained["post_processor"] = {
        "type": "RobertaProcessing", "sep": ["</s>", 3], "cls": ["<s>", 2], "trim_offsets": True,
        "add_prefix_space": False,
    }  # fmt: skip
    return Tokenizer.from_str(json.dumps(trained))


@pytest.mark.parametrize("length", [4, 16, 200])
@pytest.mark.parametrize("kind", ["wordpiece", "cased", "trained", "roberta"])
def test_ids_are_the_packages_on_every_text(kind: str, length: int) -> None:
    """`try_texts` itself looks at all of Unicode; it has to see a wrong one, see below."""
    match kind:
        case "wordpiece" | "cased":
            tokenizer = wordpiece(lowercase=kind == "wordpiece")
        case "trained":
            tokenizer = train_tokenizer([*ADVERSARIAL[3:12], "heavy cough and fever"] * 3, 600)
        case _:
            tokenizer = roberta()
    modality = Text(TextConfig(max_length=length), "x", tokenizer)
    figures = try_texts(runner(modality), "x", modality, ["the coughs, FEVER!", "[MASK]x", "hello\u00a0"])
    assert figures["texts"] > 6000


def test_a_batch_of_any_texts_keeps_its_rows() -> None:
    for tokenizer in (wordpiece(), train_tokenizer(["heavy cough and fever"] * 3, 300)):
        modality = Text(TextConfig(max_length=12), "x", tokenizer)
        run = runner(modality)
        texts = ["", "the cough", "a b x y a b x y a b x y a b", "", "!", "hi😀 the"]
        for some in (texts, texts[::-1], texts[:1], ["", ""], texts[2:3]):
            got = run(feed_of("x", some))
            assert got["given"].tolist() == [bool(t) for t in some]
            assert got["ids"].dtype == got["mask"].dtype == np.int64
            values = [modality.parse({"x": text}, MediaRoot(None)) for text in some]
            wanted = modality.collate(values)
            assert (got["mask"].sum(axis=1) > 0).all()
            rows = [i for i, v in enumerate(values) if v is not None]
            if not rows:
                continue
            width = max(len(values[i]) for i in rows)  # type: ignore[arg-type]
            np.testing.assert_array_equal(got["ids"][rows, :width], wanted["ids"][rows])
            np.testing.assert_array_equal(got["mask"][rows, :width], wanted["mask"][rows])


def test_a_tokenizer_that_differs_anywhere_is_seen() -> None:
    right = Text(TextConfig(max_length=16), "x", wordpiece())
    wrong = Text(TextConfig(max_length=16), "x", wordpiece(lowercase=False))
    with pytest.raises(NotEmbeddedError, match="as other tokens"):
        try_texts(runner(right), "x", wrong, [])
    longer = Text(TextConfig(max_length=15), "x", wordpiece())
    with pytest.raises(NotEmbeddedError, match="as other tokens"):
        try_texts(runner(right), "x", longer, [])


def test_a_text_of_the_sample_that_differs_is_quoted_nowhere() -> None:
    modality = Text(TextConfig(max_length=16), "x", wordpiece())
    true = runner(modality)

    def wrong(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        got = true(arrays)
        hit = np.array(["secret" in text for text in arrays["x.text"]])
        return {**got, "ids": got["ids"] + hit[:, None]}

    with pytest.raises(NotEmbeddedError, match="a text of the sample") as caught:
        try_texts(wrong, "x", modality, ["a secret"])
    assert "secret" not in str(caught.value)


def test_tokenizers_of_other_kinds_are_refused_with_the_reason() -> None:
    lower = TextConfig(max_length=8, lowercase=True)
    swallowing = wordpiece()
    swallowing.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    word = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    unigram = Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], unk_id=0))
    split = wordpiece()
    split.pre_tokenizer = pre_tokenizers.Whitespace()
    for config, tokenizer, said in [
        (TextConfig(), word, "WordLevel"),
        (TextConfig(), unigram, "Unigram"),
        (TextConfig(), split, "another rule"),
        (TextConfig(), swallowing, "swallow"),
        (lower, train_tokenizer(["a b"], 300), "lower-cased"),
    ]:
        with pytest.raises(NotEmbeddedError, match=said):
            make_part("x", Text(config, "x", tokenizer))


def test_characters_are_read_off_the_tokenizer() -> None:
    table = character_table(wordpiece(), lowercase=False)
    assert table["É"] == "e"
    assert table["!"] == " ! "
    assert table["漢"] == " 漢 "
    assert table["\u0301"] == ""
    assert table["\u3000"] == " "
    assert table["각"] == "\u1100\u1161\u11a8"  # its letters: the normaliser decomposes
    assert "e" not in table
    assert character_class("acb\U0001f600") == "[\\x{61}-\\x{63}\\x{1f600}-\\x{1f600}]"


PICTURES = [
    ("PNG", "RGB", (40, 30), 1),
    ("PNG", "L", (31, 57), 1),
    ("PNG", "P", (24, 18), 1),
    ("PNG", "RGB", (200, 20), 1),
    ("JPEG", "L", (90, 61), 1),
    ("JPEG", "L", (320, 256), 8),  # the package decodes it at a half first
    ("JPEG", "RGB", (90, 61), 60),  # and spreads colours otherwise
]


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_pixels_are_nearly_the_packages(resize: str) -> None:
    modality = Image(ImageConfig(size=32, resize=resize), "x")  # type: ignore[arg-type]
    run = runner(modality)
    files = [picture(RNG, *size, kind, mode) for kind, mode, size, _ in PICTURES]
    got = run(feed_of("x", [b"", *files]))
    assert got["pixels"].shape == (len(files) + 1, 32, 32, 3)
    assert got["pixels"].dtype == np.uint8
    assert not got["pixels"][0].any()
    assert got["given"].tolist() == [False] + [True] * len(files)
    for pixels, file, (kind, mode, (width, height), most) in zip(got["pixels"][1:], files, PICTURES, strict=True):
        wanted = modality.parse({"x": file}, MediaRoot(None))
        gap = np.abs(pixels.astype(int) - wanted)
        if resize == "crop":  # its outermost pixels see a little of what was cut away; an odd rest moves it by a half
            gap, most = gap[1:-1, 1:-1], most if (width - height) % 2 == 0 else 255
        assert gap.max() <= most, (kind, mode)
        assert gap.mean() < 4


def _rejected(run: Run, raw: bytes) -> str:
    with pytest.raises(Exception, match="refused: ") as caught:
        run(feed_of("x", [raw]))
    return str(caught.value)


def test_what_is_no_picture_is_an_error_and_not_the_end_of_the_process() -> None:
    """The operator alone would call exit() on the first and never return from the second."""
    run = runner(Image(ImageConfig(size=16), "x"))
    whole = picture(RNG, 60, 40, "JPEG")
    gif = io.BytesIO()
    Pillow.new("RGB", (9, 9)).save(gif, "GIF")
    for raw in (b"no picture at all", b"x", whole[:400], gif.getvalue()):
        assert "neither a PNG nor a whole JPEG" in _rejected(run, raw)
    cmyk = io.BytesIO()
    Pillow.new("CMYK", (30, 20)).save(cmyk, "JPEG")
    for raw in (picture(RNG, 60, 40, "PNG")[:200], cmyk.getvalue()):
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            run(feed_of("x", [raw]))
    assert run(feed_of("x", [whole]))["pixels"].any()


def test_sides_of_pictures_are_the_packages() -> None:
    modality = Image(ImageConfig(size=16, sides=True), "x")
    files = [picture(RNG, 60, 40, "JPEG"), b"", picture(RNG, 33, 90, "PNG", "L")]
    got = runner(modality)(feed_of("x", files))
    wanted = modality.collate([modality.parse({"x": f or None}, MediaRoot(None)) for f in files])
    assert got["sides"].dtype == np.float32
    np.testing.assert_array_equal(got["sides"], wanted["sides"])
    assert got["sides"].tolist() == [[60, 40], [16, 16], [33, 90]]


@pytest.mark.parametrize(
    ("kind", "subtype"), [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "PCM_16")]
)
def test_samples_are_the_packages(kind: str, subtype: str) -> None:
    modality = Audio(AudioConfig(sample_rate=8000, max_seconds=1.01, min_seconds=0.1), "x")
    run = runner(modality)
    files = [sound(RNG, 8000, s, kind, c, subtype) for c in (1, 2) for s in (0.01, 0.3, 0.7, 1.5)]
    for some in (files, files[:1], [b"", files[2]], [b""]):
        got = run(feed_of("x", some))
        wanted = modality.collate([modality.parse({"x": f or None}, MediaRoot(None)) for f in some])
        np.testing.assert_array_equal(got["length"], wanted["length"])
        np.testing.assert_array_equal(got["waveform"], wanted["waveform"])
        assert got["given"].tolist() == [bool(f) for f in some]


def test_sounds_that_would_be_read_otherwise_are_refused() -> None:
    run = runner(Audio(AudioConfig(sample_rate=8000, max_seconds=1.0), "x"))
    extra = io.BytesIO()
    soundfile.write(extra, np.zeros(800), 8000, format="WAV", subtype="PCM_U8")
    for raw in (
        sound(RNG, 16_000, 0.2),
        sound(RNG, 44_100, 0.2, "FLAC"),
        sound(RNG, 8000, 0.2, "WAV", 3),
        sound(RNG, 8000, 0.2, "FLAC", 3),
        sound(RNG, 8000, 0.2, "OGG", 1, "VORBIS"),
        sound(RNG, 8000, 0.2)[:900],
        extra.getvalue(),
        b"no sound",
        b"R",
    ):
        assert "no WAV or FLAC of 8000 Hz" in _rejected(run, raw)
    with pytest.raises(NotEmbeddedError, match="samples"):
        make_part("x", Audio(AudioConfig(sample_rate=48_000, max_seconds=600), "x"))


@pytest.fixture(scope="module")
def embedded(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_to(package, "onnx", tmp_path_factory.mktemp("embedded") / "out", embed=True, threads=1)


def test_raw_rows_get_the_packages_answers(embedded: Exported, package: Path) -> None:
    """Real rows with absent cells; `present` all true: what is empty is absent all the same."""
    predictor = load(package, threads=1)
    whole = OnnxFile(embedded.folder / "model-embedded.onnx", 1, extensions=LIBRARY)
    rows = served.rows(9)
    for start in (0, 3, 8):
        some = rows[start : start + 3]
        parsed = [predictor.rows.parse(row, MediaRoot(None)).values for row in some]
        arrays = predictor.rows.arrays(parsed)
        feed = {k: v for k, v in arrays.items() if k in whole.inputs}
        feed["present"] = arrays["present"].copy()
        feed["present"][:, :3] = True
        for name in ("picture", "sound"):
            feed |= feed_of(name, [row.get(name, b"") for row in some])
        feed |= feed_of("note", [row.get("note", "") for row in some])
        wanted, got = predictor.run(parsed), whole.run(feed)
        np.testing.assert_allclose(got["logits"], wanted["logits"], atol=2e-3)  # pixels differ by one of 255
        feed["present"][:] = False
        nothing = predictor.run([dict.fromkeys(predictor.names)] * len(some))
        np.testing.assert_allclose(whole.run(feed)["logits"], nothing["logits"], atol=1e-5)


def test_it_says_what_is_in_and_what_is_left_out(embedded: Exported) -> None:
    said = json.loads((embedded.folder / "signature.json").read_text(encoding="utf-8"))["embedded"]
    assert set(said["left_out"]) == {"vitals"}
    assert said["measured"]["note"]["differ"] == 0
    assert said["measured"]["sound"]["largest_difference"] == 0
    assert 0 < said["measured"]["picture"]["answer_change"] < embed_trials.PICTURE_TOLERANCE
    names = {e["name"] for e in said["inputs"]}
    whole = OnnxFile(embedded.folder / "model-embedded.onnx", 1, extensions=LIBRARY)
    assert names == set(whole.inputs)
    readme = (embedded.folder / "README.md").read_text(encoding="utf-8")
    assert "left out: vitals" in readme
    assert "EXIF" in readme


def test_the_readmes_python_runs_with_the_extensions(embedded: Exported) -> None:
    *_, snippet = snippets(embedded.folder)
    assert "get_library_path" in snippet
    # The extensions' own Python imports onnx; nothing of ours is there.
    said = run_bare(snippet, embedded.folder, allowed=("onnx",))
    assert max(differences(said)) < 1e-4


def test_a_model_whose_weights_lie_beside_shares_them(package: Path, tmp_path: Path) -> None:
    done = export_to(package, "onnx", tmp_path / "out", embed=True, external_data=True, threads=1)
    assert done.files["model-embedded.onnx"] < done.files["model.onnx.data"] / 5
    assert max(differences(run_bare(snippets(done.folder)[-1], done.folder, allowed=("onnx",)))) < 1e-4


def test_pictures_that_change_answers_too_much_are_left_out(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_trials, "PICTURE_TOLERANCE", 1e-9)
    done = export_to(package, "onnx", tmp_path / "out", embed=True, threads=1)
    assert done.embedded is not None
    assert "changes answers by more than 1e-09" in done.embedded["left_out"]["picture"]
    assert "picture.pixels" in {e["name"] for e in done.embedded["inputs"]}


def test_nothing_to_embed_is_an_error(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fuseline.lab.export import embed

    def no(name: str, modality: Modality) -> None:
        raise NotEmbeddedError("it is new")

    monkeypatch.setattr(embed, "make_part", no)
    with pytest.raises(FuselineError, match="note: it is new") as caught:
        export_to(package, "onnx", tmp_path / "out", embed=True, threads=1)
    assert caught.value.code == "cannot_export"
    assert not (tmp_path / "out").exists()
