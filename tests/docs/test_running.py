"""Blocks of Python and shell are run, page by page, in the world that docs/start.md makes.

The page's own commands make the table, draft the recipe and train; only the drafted model is made smaller (small
encoders, two epochs). What takes long is done once: a later command to train the same table gets a copy of that run.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from docs.blocks import BLOCKS, ROOT, Block, commands_of, program

from fuseline import api
from fuseline.api import Run

START = ROOT / "docs" / "start.md"
RUN = [block for block in BLOCKS if block.language in ("python", "sh") and block.reason is None]
OTHERS = list(dict.fromkeys(block.page for block in RUN if block.page != START))
SMALL = """
fusion: {kind: sum, width: 32}
training: {epochs: 2, loggers: []}
evaluation: {bootstrap: 20, parts: [test]}
"""
SIZES = {
    "image": "    encoder: {kind: small, size: 32}",
    "text": "    max_length: 16\n    vocab_size: 300\n    encoder: {kind: small, width: 32, layers: 1}",
}
HINT = "mend it, or write `<!-- not run: reason -->` in the line before"


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Drafts of recipes whose training takes seconds. All else is as users have it."""
    from fuseline.api import sources

    draft = sources.draft_recipe

    def smaller(*args: Any, **kwargs: Any) -> str:
        text = draft(*args, **kwargs)
        for modality, options in SIZES.items():
            text = text.replace(f"modality: {modality}\n", f"modality: {modality}\n{options}\n")
        return text + SMALL

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fuseline.lab.build._installed", lambda module: False)  # no pretrained encoders
        patch.setattr(sources, "draft_recipe", smaller)
        yield


@pytest.fixture(scope="module")
def world(small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after docs/start.md, with what other pages take for granted beside it."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FUSELINE_CACHE", str(folder / "kept"))
        run_blocks([block for block in RUN if block.page == START])
    shutil.copy(folder / "xrays" / "0.png", folder / "x.png")
    pl.read_csv(folder / "new.csv").write_parquet(folder / "big.parquet")
    (folder / "runs" / "NAME").symlink_to("visits")
    return folder


def run_blocks(blocks: list[Block]) -> None:
    """In the working folder; the page's Python shares its names."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        try:
            if block.language == "python":
                exec(compile(block.text, block.place, "exec"), names)
            else:
                for words in commands_of(block.text):
                    run_command(words)
        except Exception as error:
            raise AssertionError(f"{block.place}: {type(error).__name__}: {error}\n{HINT}") from error


def run_command(words: list[str]) -> None:
    if words[0] == "pip":
        return  # installed already, and the name of the extra is checked elsewhere
    assert words[0] == "fuseline", f"cannot run {words[0]}"
    status = program().main(words[1:], prog_name="fuseline", standalone_mode=False)
    assert not status, f"{' '.join(words)}: status {status}"


def test_the_first_page_runs(world: Path) -> None:
    answers = pl.read_csv(world / "answers.csv")
    assert answers.height == 40
    assert answers["error"].null_count() == 40, "every row has an answer"
    assert answers["absent"].str.contains("xray").any(), "rows without a picture are answered, too"
    assert (world / "runs" / "visits" / "report.html").is_file()


@pytest.mark.parametrize("page", OTHERS, ids=[str(page.relative_to(ROOT)) for page in OTHERS])
def test_a_page_runs(page: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "page"
    shutil.copytree(world, folder, symlinks=True)
    trained = inspect.signature(api.train)

    def train_again(*args: Any, **kwargs: Any) -> Run:
        given = trained.bind(*args, **kwargs).arguments
        assert Path(given["source"]).is_file(), f"there is no {given['source']}"
        out = Path(given.get("out") or f"runs/again-{len(list(Path('runs').iterdir()))}")
        shutil.copytree("runs/visits", out)
        return Run(out)

    (folder / "visits.yaml").unlink()  # pages begin with `init`, too
    monkeypatch.setattr(api, "train", train_again)
    monkeypatch.setenv("FUSELINE_CACHE", str(folder / "kept"))
    monkeypatch.chdir(folder)
    run_blocks([block for block in RUN if block.page == page])
