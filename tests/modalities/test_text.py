import datetime
import decimal
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.modalities.text import Text, clean

NO_FILES = MediaRoot(None)
NOTES = ["the patient has fever and cough", "no fever, no cough", "Fièvre et toux", "熱と咳", "сухой кашель"] * 4


def made(texts: list[object] = NOTES, **options: object) -> Text:  # type: ignore[assignment]
    config = Text.Config.model_validate({"vocab_size": 400, "max_length": 32, **options})
    return Text.fit(config, {"x": ""}, [{"x": t} for t in texts], NO_FILES)


def read(text: Text, cell: object) -> list[int] | None:
    value = text.parse({"x": cell}, NO_FILES)
    assert value is None or value.dtype == np.int64
    return None if value is None else value.tolist()


def given() -> str:
    """A tokenizer as a pretrained model brings it: its own pad id, padding and truncation switched on."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "fever", "cough", "no"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.enable_padding(length=20, pad_id=1, pad_token="<pad>")
    tokenizer.enable_truncation(5)
    return tokenizer.to_str()


def test_a_trained_tokenizer_reads_every_alphabet_back() -> None:
    text = made()
    for sentence in ("fever, no cough", "Fièvre", "まったく新しい文", "العربية", "🫁 lungs 🫀", "ß ﬁ"):
        ids = read(text, sentence)
        assert ids is not None
        assert (ids[0], ids[-1]) == (2, 3)
        assert 1 not in ids, "byte-level BPE knows every character"
        assert text.tokenizer.decode(ids[1:-1]).strip() == sentence
    assert max(i for t in NOTES for i in read(text, t) or []) < text.vocab_size <= 400
    assert text.pad_id == 0


def test_training_learns_the_words_of_the_table() -> None:
    assert len(read(made(), "fever") or []) < len(read(made(["x"]), "fever") or [])


def test_training_does_not_depend_on_the_hash_seed() -> None:
    code = (
        "import hashlib; from fuseline.modalities import MediaRoot; from fuseline.modalities.text import Text;"
        "t = Text.fit(Text.Config(vocab_size=600), {'x': ''},"
        " ({'x': f'{a} {b} fever {a}{b}'} for a in 'abcdefgh' for b in ('cough', 'toux', 'rash')), MediaRoot(None));"
        "print(hashlib.sha256(t.state()['tokenizer'].encode()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(seen) == 1


def test_a_given_tokenizer_is_taken_without_its_padding_and_truncation() -> None:
    text = made(tokenizer=given(), max_length=6)
    assert read(text, "no fever") == [0, 6, 4, 2]
    assert read(text, "NO cough zebra fever no no no no") == [0, 6, 5, 3, 4, 2]
    assert text.pad_id == 1
    assert text.vocab_size == 7
    batch = text.collate([text.parse({"x": "no fever"}, NO_FILES), None])
    assert batch["ids"].tolist() == [[0, 6, 4, 2], [1, 1, 1, 1]]
    assert batch["mask"].tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    value = text.parse({"x": "zebra fever"}, NO_FILES)
    assert value is not None
    assert text.summary(value)["unknown"] == 0.25
    assert text.state()["config"].get("tokenizer") is None, "its text is kept once"


def test_a_broken_tokenizer_is_named() -> None:
    with pytest.raises(FuselineError) as caught:
        made(tokenizer="{}")
    assert caught.value.code == "bad_tokenizer"


def test_lowercase() -> None:
    assert read(made(lowercase=True), "FEVER") == read(made(lowercase=True), "fever")
    assert read(made(), "FEVER") != read(made(), "fever")


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        ("a\x00b\x07c", "abc"),
        (" a\tb\r\nc\u2028d ", "a b  c d"),
        ("e\u0301", "é"),
        ("\ufeffbom", "bom"),
        ("half \ud83d pair", "half ? pair"),
        ("\x00\x01", ""),
    ],
)
def test_cleaning(raw: str, wanted: str) -> None:
    assert clean(raw, lowercase=False) == wanted


@pytest.mark.parametrize("cell", [None, "", "  \n\t ", "\x00\x01", float("nan"), np.float32("nan"), "\u00a0"])
def test_absent(cell: object) -> None:
    assert read(made(), cell) is None


@pytest.mark.parametrize(
    ("cell", "same"),
    [
        (12, "12"),
        (3.5, "3.5"),
        (True, "True"),
        (np.int32(7), "7"),
        (decimal.Decimal("1.10"), "1.10"),
        (datetime.date(2020, 3, 1), "2020-03-01"),
        ("Fièvre".encode(), "Fièvre"),
        (np.str_("cough"), "cough"),
    ],
)
def test_other_cells_are_read_as_their_text(cell: object, same: str) -> None:
    assert read(made(), cell) == read(made(), same)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (b"caf\xe9", "not UTF-8"),
        (["a", "b"], "is a list"),
        (np.array(["a"]), "is a list"),
        ({"a": 1}, "is a dict"),
        (object(), "is a object"),
        pytest.param(10**9000, "thousands of digits", id="huge"),
    ],
)
def test_bad_cells(cell: object, words: str) -> None:
    with pytest.raises(FuselineError) as caught:
        read(made(), cell)
    assert (caught.value.code, caught.value.column) == ("bad_cell", "x")
    assert words in caught.value.message


def test_long_texts_are_cut_and_say_so() -> None:
    text = made(max_length=8)
    long = text.parse({"x": "fever and cough " * 10}, NO_FILES)
    assert long is not None
    assert len(long) == 8
    assert (long[0], long[-1]) == (2, 3)
    assert text.summary(long)["cut"] == 1.0
    short = text.parse({"x": "fever"}, NO_FILES)
    assert short is not None
    assert text.summary(short) == {"tokens": float(len(short)), "unknown": 0.0, "characters": 5.0, "cut": 0.0}
    endless = text.parse({"x": "a" * 50_000_000}, NO_FILES)
    assert endless is not None
    assert text.summary(endless)["characters"] == 256


def test_batches_and_dummies() -> None:
    text = made()
    values = [text.parse({"x": t}, NO_FILES) for t in ("fever", None, "no fever, no cough at all")]
    batch = text.collate(values)
    longest = len(values[2])  # type: ignore[arg-type]
    assert batch["ids"].shape == batch["mask"].shape == (3, longest)
    assert batch["mask"].sum(1).tolist() == [len(values[0]), 1, longest]  # type: ignore[arg-type]
    assert (batch["ids"][batch["mask"] == 0] == text.pad_id).all()
    assert text.collate([None, None])["ids"].shape == (2, 1)
    assert {k: (v.dtype.name, type(v)) for k, v in batch.items()} == dict.fromkeys(
        ("ids", "mask"), ("int64", np.ndarray)
    )
    assert set(text.arrays()) == set(batch)
    assert text.lengths == {"T": (1, 32)}


@pytest.mark.parametrize("options", [{}, {"tokenizer": given()}, {"lowercase": True}])
def test_state_goes_through_json(options: dict[str, object]) -> None:
    text = made(**options)
    state = json.loads(json.dumps(text.state(), sort_keys=True))
    again = Text.from_state(state)
    assert again.state() == text.state()
    for cell in (*NOTES[:5], "Unseen WORDS ☃", 12.5, None):
        assert read(again, cell) == read(text, cell)
    assert (again.pad_id, again.vocab_size, again.lengths) == (text.pad_id, text.vocab_size, text.lengths)


def test_nothing_to_learn_from_is_noted() -> None:
    text = made([None, "", ["broken"]])
    assert "no training text" in text.notes[0]
    assert read(text, "fever") is not None
    assert made().notes == ()


def test_fitting_streams_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuseline.modalities.text._MOST_TEXTS", 10)

    def endless():  # type: ignore[no-untyped-def]
        while True:
            yield {"x": "fever and cough"}

    assert Text.fit(Text.Config(vocab_size=300), {"x": ""}, endless(), NO_FILES).vocab_size <= 300


def test_parsing_is_thread_safe_and_digests_tell_texts_apart() -> None:
    text = made()
    sentences = [f"fever {i} days" for i in range(40)]
    wanted = [read(text, s) for s in sentences]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda s: read(text, s), sentences)) == wanted
    digests = {text.digest(text.parse({"x": s}, NO_FILES)) for s in sentences * 2}  # type: ignore[arg-type]
    assert len(digests) == 40
