"""Every fenced block of README.md and docs/: read by what would read it, and run where the page can be.

A block of Python or shell without a comment before it is run, in the order of its page, in the world that docs/start.md
makes. One that cannot be is preceded by ``<!-- not run: reason -->``, and is still read: the command line parses its
commands, and Python's names are looked up.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from docs.blocks import (
    BLOCKS,
    LANGUAGES,
    PAGES,
    ROOT,
    Block,
    blocks_of,
    check_command,
    check_inline,
    check_names,
    check_recipe,
    commands_of,
    in_language,
    inline_commands,
)

from fuseline.errors import FuselineError


def each(*languages: str) -> pytest.MarkDecorator:
    found = in_language(*languages)
    return pytest.mark.parametrize("block", found, ids=[block.place for block in found])


def test_every_block_has_a_known_language() -> None:
    wrong = [f"{block.place}: {block.language or 'none'}" for block in BLOCKS if block.language not in LANGUAGES]
    assert not wrong, f"of these blocks the language is none of {sorted(LANGUAGES)}: {wrong}"


def test_what_is_not_run_says_why() -> None:
    said = sum(len(re.findall(r"<!-- *not run", page.read_text(encoding="utf-8"))) for page in PAGES)
    kept = [block for block in BLOCKS if block.reason is not None]
    assert said == len(kept), (
        "a comment `<!-- not run: reason -->` stands in the line before its block, and nowhere else"
    )
    vague = [block.place for block in kept if len((block.reason or "").split()) < 3]
    assert not vague, f"say why these are not run: {vague}"
    needless = [block.place for block in kept if block.language not in ("python", "sh")]
    assert not needless, f"these are never run; take the comment away: {needless}"


@each("yaml")
def test_yaml_is_a_recipe_or_sections_of_one(block: Block) -> None:
    check_recipe(yaml.safe_load(block.text))


@each("json")
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@each("sh")
def test_commands_are_as_the_command_line_reads_them(block: Block) -> None:
    for words in commands_of(block.text):
        check_command(words)


@each("python")
def test_python_names_are_there(block: Block) -> None:
    check_names(block.text)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_commands_in_running_text(page: Path) -> None:
    for command, options in inline_commands(page):
        check_inline(command, options)


def test_files_and_tests_that_pages_name_are_there() -> None:
    for page in PAGES:
        text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT)
        for path in re.findall(r"(?<![\w/])(?:tests|benchmarks|tools)/[\w/]+\.(?:py|json)\b", text):
            assert (ROOT / path).is_file(), f"{name} names {path}, which is not there"
        for path, test in re.findall(r"\b(tests/[\w/]+\.py)::(\w+)", text):
            assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{name}: {path} has no {test}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fuseline", "trian", "a.yaml"], "no verb"),
        (["fuseline", "train", "a.yaml", "--epoch", "3"], "epoch"),
        (["fuseline", "train", "a.yaml", "--workers", "none"], "integer"),
        (["fuseline", "predict", "runs/a"], "fuseline predict"),
        (["make", "everything"], "no such target"),
        (["pip", "install", "fuseline[servers]"], "no such extra"),
        (["python", "benchmarks/nothing.py"], "no such file"),
        (["python", "benchmarks/stacked.py", "--nothing"], "knows no"),
        (["rm", "-r", "."], "no known program"),
    ],
)
def test_a_wrong_command_is_found(words: list[str], said: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)):
        check_command(words)


def test_a_wrong_command_in_running_text_is_found() -> None:
    with pytest.raises(AssertionError, match="no such option"):
        check_inline("fuseline train --everything", ["--everything"])
    with pytest.raises(AssertionError, match="no verb"):
        check_inline("fuseline teach", [])


@pytest.mark.parametrize(
    "data",
    [
        {"trainig": {"epochs": 3}},
        {"training": {"epoch": 3}},
        {"inputs": {"x": {"modality": "image", "encoder": {"kind": "small", "layer": 2}}}},
        {"inputs": {"x": {"modality": "image", "augment": {"rotates": 3}}}},
        {"task": {"kind": "classification", "targets": "sick"}},
        {"fusion": {"kind": "attention", "layer": 2}},
        {"fusion": {"kind": "auto", "trees": {"leafs": 2}}},
        ["a list"],
    ],
)
def test_a_wrong_recipe_is_found(data: object) -> None:
    with pytest.raises(FuselineError):
        check_recipe(data)


@pytest.mark.parametrize(
    "text",
    [
        "fuseline.trains('a.csv')",
        "fuseline.train('a.csv', targets='b')",
        "from fuseline.runtime import Answers",
        "fuseline.api.nothing",
    ],
)
def test_a_wrong_name_is_found(text: str) -> None:
    with pytest.raises(AssertionError):
        check_names(text)


def test_blocks_are_found_with_their_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "- a list\n\n  <!-- not run: it costs money -->\n  ```sh\n  fuseline demo\n  ```\n\n```\nplain\n```\n"
    )
    monkeypatch.setattr("docs.blocks.ROOT", tmp_path)
    first, second = blocks_of(page)
    assert (first.language, first.text, first.reason, first.line) == ("sh", "fuseline demo\n", "it costs money", 4)
    assert (second.language, second.reason) == ("", None)
    page.write_text("```sh\nfuseline demo\n")
    with pytest.raises(ValueError, match=r"page\.md:1"):
        blocks_of(page)
