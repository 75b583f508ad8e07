"""What a column holds, guessed from a sample of its cells. Each guess says why."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from fuseline.data.boxlike import box_like
from fuseline.data.guess_items import guess_items, words_kind
from fuseline.data.media import MEDIA, embedded_bytes, is_url, kind_of_bytes, kind_of_ending, read_head, word_set
from fuseline.data.series import looks_like_series

Kind = Literal[
    "image",
    "audio",
    "video",
    "images",
    "text",
    "texts",
    "words",
    "category",
    "number",
    "boolean",
    "date",
    "group",
    "split",
    "ignored",
    "timeseries",
]
Slash = Literal["dmy", "mdy"]

TRUE, FALSE = frozenset({"true", "t", "yes", "y", "1", "1.0"}), frozenset({"false", "f", "no", "n", "0", "0.0"})
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("val", "valid", "validation", "dev"), 1),
    **dict.fromkeys(("test", "testing"), 2),
}
_PEOPLE = word_set(
    "patient subject actor speaker user customer client participant person household session respondent player "
    "student mrn spk subj paciente patientin patienten utilisateur kunde nutzer usuario sujeto sujet sprecher "
    "locuteur пациент пользователь испытуемый спикер 患者 病人 用户 ユーザー 被験者 话者 話者 환자 사용자 مريض"
)
_IDS = word_set("id ids no nr num number code key name hash uuid guid idx index pk ид номер 编号 番号")
_BOOKKEEPING = word_set("licence license copyright attribution citation credit credits doi лицензия lizenz")
_CODES = word_set("code zip zipcode postcode plz class type cluster category label group")
_NAMELIKE = word_set("name nom nombre имя 名前 姓名 filename")
# Scripts that put no spaces between words: Thai to Khmer, kana, Han.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_TIME = r"(?:[T ]\s*\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?\s*(?:[AaPp][Mm])?\s*(?:Z|UTC|[+-]\d{2}:?\d{2})?)?"
_MONTH = r"[A-Za-z]{3,9}\.?"
_DATES = re.compile(
    rf"(?:\d{{4}}-\d{{1,2}}-\d{{1,2}}|\d{{4}}/\d{{1,2}}/\d{{1,2}}|\d{{1,2}}\.\d{{1,2}}\.\d{{4}}"
    rf"|\d{{1,2}}[ -]{_MONTH}[ -]\d{{4}}|{_MONTH} \d{{1,2}},? \d{{4}}){_TIME}",
    re.ASCII,
)
_SLASHED = re.compile(rf"(\d{{1,2}})/(\d{{1,2}})/\d{{4}}{_TIME}", re.ASCII)
_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
_LOOKED_AT = 60
FEWEST_GROUPS = 5


@dataclass(frozen=True)
class Guess:
    kind: Kind
    reason: str
    slash: Slash | None = None
    """date: what 1/3/2020 means"""


def guess_column(name: str, kind: pl.DataType, cells: Sequence[Any], rows: Sequence[int], folder: Path | None) -> Guess:
    """Args:
    name: the header.
    kind: the column's kind in the table.
    cells: a sample of cells, None where absent.
    rows: their row numbers.
    folder: where relative paths start (a real path); None: no file is looked up.
    """
    there = [(v, r) for v, r in zip(cells, rows, strict=True) if not is_blank(v)]
    values = [v for v, _ in there]
    if not values:
        return Guess("ignored", "no row has a value")
    if words_kind(values):
        return Guess("words", "words with boxes on a page")
    items = guess_items(values, folder, _words)
    if items:
        return Guess(items.kind, items.reason)
    media = _guess_media(values, folder)
    if media:
        return media
    if box_like(values):
        return Guess("ignored", "boxes on a picture: to predict them, name the column as the target")
    if looks_like_series(values[:_LOOKED_AT]):
        return Guess("timeseries", "lists of numbers")
    if any(isinstance(v, (list, dict)) for v in values):
        return Guess("ignored", "lists or mappings: no modality reads them")
    words = [key_of(v) for v in values]
    count = Counter(words)
    if len(count) == 1 and len(cells) > 1:
        return Guess("ignored", f"the same in every row that has one: {_shown(values[0])}")
    return (
        _guess_role(name, values, count)
        or _guess_plain_kind(name, kind, values, [r for _, r in there], count)
        or _guess_words(name, [str(v).strip() for v in values], count)
    )


def is_blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and (not cell or cell.isspace())) or cell != cell


def key_of(cell: Any) -> str:
    """One text for cells that mean the same value: 1, 1.0 and "1"; "a" and " a"."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def name_tokens(name: str) -> list[str]:
    """patient_id, PatientID, "patient id" -> [patient, id]"""
    spaced = re.sub(r"(?<=[a-zа-я0-9])(?=[A-ZА-Я])", " ", name)
    return [t for t in re.split(r"[\W_]+", spaced.casefold()) if t]


def is_person(name: str) -> bool:
    """Whether rows that share a value of this column show the same person or the like."""
    tokens = name_tokens(name)
    return any(t in _PEOPLE for t in tokens) and all(t in _PEOPLE or t in _IDS for t in tokens)


def to_number(text: str) -> float | None:
    """As the tabular modality reads a number: ASCII, no separators of thousands, finite."""
    if "_" in text or not text.isascii():
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _guess_media(values: list[Any], folder: Path | None) -> Guess | None:
    if all(isinstance(v, bytes) for v in values):
        kinds = Counter(kind_of_bytes(v[:256]) for v in values[:_LOOKED_AT])
        held, hits = kinds.most_common(1)[0]
        if held:
            return Guess(held, f"{hits} of {sum(kinds.values())} cells looked at hold the bytes of such a file")
        return Guess("ignored", "bytes of no kind of picture or sound that is known here")
    texts = [v for v in values if isinstance(v, str)]
    if len(texts) < 0.9 * len(values):
        return None
    some = _spread(texts)
    inside = [kind_of_bytes(data[:256]) for data in map(embedded_bytes, some) if data]
    for kind in MEDIA:
        if inside.count(kind) >= 0.9 * len(some):
            return Guess(kind, f"base64 text that holds such files ({len(some)} cells looked at)")
    if sum(map(is_url, some)) >= 0.9 * len(some):
        ending = Counter(kind_of_ending(v.partition("?")[0]) for v in some).most_common(1)[0][0]
        what = f"addresses of {ending} files: download them and give paths" if ending else "addresses on the web"
        return Guess("ignored", what)
    many = _spread(texts, 2000)
    named, hits = Counter(kind_of_ending(v.strip()) for v in many).most_common(1)[0]
    if named is None or hits < 0.9 * len(many):
        return None
    if folder is None:
        return Guess(named, f"names of {named} files; set table.media_root to their folder")
    heads = [h for h in (read_head(v, folder) for v in some) if h is not None]
    if not heads:
        return Guess(named, f"names of {named} files, but none of the {len(some)} looked for is there")
    seen, hits = Counter(map(kind_of_bytes, heads)).most_common(1)[0]
    lost = f"; {len(some) - len(heads)} of {len(some)} looked for are missing" if len(heads) < len(some) else ""
    if seen is None and hits == len(heads):
        return Guess("ignored", f"named like {named} files, but their content is none that is known here")
    return Guess(seen or named, f"paths of {seen or named} files, {hits} of {len(heads)} opened are{lost}")


def _guess_role(name: str, values: list[Any], count: Counter[str]) -> Guess | None:
    """Columns that are about the row and not about what it shows."""
    tokens = name_tokens(name)
    folded = {w.casefold() for w in count}
    if folded <= set(SPLIT_WORDS) and len({SPLIT_WORDS[w] for w in folded}) > 1:
        return Guess("split", "says which rows train, validate and test")
    if any(t in _BOOKKEEPING for t in tokens):
        return Guess("ignored", f"bookkeeping about the row: {len(count)} different values")
    if is_person(name) and not folded <= TRUE | FALSE and _is_whole(values):
        if len(count) == len(values):
            return Guess("ignored", "an identifier: every row has another")
        if len(count) < FEWEST_GROUPS:
            return Guess("category", f"{len(count)} different: too few to keep apart in a split")
        return Guess("group", f"{len(count)} different over {len(values)} rows: rows that belong together")
    if _is_identifier(tokens) and _is_whole(values):
        if len(count) > 0.98 * len(values):
            return Guess("ignored", "an identifier: nearly every row has another")
        if len(count) >= max(FEWEST_GROUPS, 0.1 * len(values)):
            return Guess("group", f"an identifier that repeats: {len(count)} different over {len(values)} rows")
    return None


def _is_identifier(tokens: list[str]) -> bool:
    return bool(tokens) and tokens[-1] in ("id", "uuid", "guid", "key", "pk", "hash", "ид", "编号", "番号")


def _is_whole(values: list[Any]) -> bool:
    """No fractions: identifiers have none."""
    numbers = [to_number(str(v)) for v in values[:1000]]
    return all(n is None or n.is_integer() for n in numbers)


def _guess_plain_kind(
    name: str, kind: pl.DataType, values: list[Any], rows: list[int], count: Counter[str]
) -> Guess | None:
    """Booleans, dates, lists in JSON, numbers."""
    folded = {w.casefold() for w in count}
    if kind == pl.Boolean or (folded <= TRUE | FALSE and folded & TRUE and folded & FALSE):
        return Guess("boolean", " or ".join(sorted(count)[:4]))
    if kind.is_temporal():
        if isinstance(values[0], datetime.date):
            return Guess("date", f"{min(values)} to {max(values)}")
        return Guess("ignored", "times of day or durations: give them as numbers")
    texts = [str(v).strip() for v in values]
    if not kind.is_numeric():
        other = _guess_list(texts) or _guess_date(texts)
        if other:
            return other
    numbers = [to_number(t) for t in texts]
    good = [n for n in numbers if n is not None]
    if len(good) < 0.98 * len(texts):
        if sum(bool(_COMMA.fullmatch(t)) for t in texts) > 0.5 * len(texts):
            return Guess("ignored", "numbers with a comma: write 12.5 for 12,5 to use them")
        return None
    whole = all(n.is_integer() for n in good)
    if whole and len(good) == len(texts) > 2 and len({n - r for n, r in zip(good, rows, strict=True)}) == 1:
        return Guess("ignored", "the row's number")
    if any(len(t) > 1 and t[0] == "0" and t.isdigit() for t in texts):
        return _guess_words(name, texts, count, what="codes with leading zeros, ")
    if whole and _is_compact_date(texts):
        return Guess("date", f"{min(texts)} to {max(texts)}")
    tokens = name_tokens(name)
    if whole and tokens and tokens[-1] in _CODES and len(count) <= min(1000, 0.5 * len(texts)):
        return Guess("category", f"{len(count)} different codes")
    bad = [t for t, n in zip(texts, numbers, strict=True) if n is None]
    but = f"; but {len(bad)} cells are no numbers, e.g. {_shown(bad[0])}" if bad else ""
    return Guess("number", f"{len(count)} different from {min(good):g} to {max(good):g}{but}")


def _guess_list(texts: list[str]) -> Guess | None:
    some = _spread(texts)
    if sum(_json_is(t, "[") for t in some) >= 0.9 * len(some):
        return Guess("ignored", "lists in JSON: no modality reads them")
    if sum(_json_is(t, "{") for t in some) >= 0.9 * len(some):
        return Guess("ignored", "mappings in JSON: no modality reads them")
    return None


def _json_is(text: str, opening: str) -> bool:
    if not text.startswith(opening):
        return False
    try:
        return isinstance(json.loads(text), (list, dict))
    except (ValueError, RecursionError):
        return False


def _guess_date(texts: list[str]) -> Guess | None:
    plain = sum(bool(_DATES.fullmatch(t)) for t in texts)
    slashed = [m for m in map(_SLASHED.fullmatch, texts) if m]
    if plain + len(slashed) < 0.98 * len(texts):
        return None
    if not slashed:
        return Guess("date", f"e.g. {_shown(texts[0])}")
    first, second = (max(int(m[i]) for m in slashed) for i in (1, 2))
    if first > 12 >= second:
        return Guess("date", f"day/month/year, e.g. {_shown(texts[0])}", "dmy")
    if second > 12 >= first:
        return Guess("date", f"month/day/year, e.g. {_shown(texts[0])}", "mdy")
    return Guess("ignored", f"dates, but {_shown(texts[0])} may be day/month or month/day: set slash_dates to use them")


def _is_compact_date(texts: list[str]) -> bool:
    def fits(text: str) -> bool:
        if len(text) != 8 or not text.isdigit():
            return False
        try:
            return 1900 <= datetime.datetime.strptime(text, "%Y%m%d").year <= 2100
        except ValueError:
            return False

    return len(texts) >= 5 and all(map(fits, texts))


def _guess_words(name: str, texts: list[str], count: Counter[str], what: str = "") -> Guess:
    """Category, free text or identifier: by how much repeats and how many words a cell has."""
    rows, different = len(texts), len(count)
    repeats = different / rows
    some = _spread(texts, 2000)
    words = sum(map(_words, some)) / len(some)
    top = _shown(count.most_common(1)[0][0])
    category = Guess("category", f"{what}{different} different over {rows} rows, most often {top}")
    few = different < rows and different <= max(2, min(50, 0.1 * rows))
    if few or (words < 8 and repeats <= 0.3) or (rows < 20 and repeats <= 0.5):
        return category
    if name_tokens(name)[-1:] and name_tokens(name)[-1] in _NAMELIKE and words <= 3 and repeats > 0.5:
        return Guess("ignored", f"names, nearly all different ({different} over {rows} rows)")
    if words >= 1.5:
        return Guess("text", f"{words:.0f} words a cell, {different} different over {rows} rows")
    if repeats > 0.5 and rows >= 5:
        return Guess("ignored", f"{what or 'an identifier: '}{different} different words over {rows} rows")
    return category


def _words(text: str) -> float:
    return len(text.split()) + len(_UNSPACED.findall(text)) / 2


def _spread(values: list[Any], limit: int = _LOOKED_AT) -> list[Any]:
    """At most `limit` of them, from the whole range."""
    return values[:: -(-len(values) // limit)]


def _shown(value: Any) -> str:
    text = f"{len(value)} bytes" if isinstance(value, bytes) else " ".join(str(value)[:200].split())
    return repr(text[:40] + "…") if len(text) > 40 else repr(text)
