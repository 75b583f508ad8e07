"""The documentation site holds every page and every public name. `make docs` builds it, and ends on a broken link."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import fuseline

ROOT = Path(__file__).resolve().parents[2]
MADE = {"cli.md"}  # by tools/docs_site.py, while the site is built


def pages_in(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from pages_in(item)


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "tools" / "docs_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_has_its_place() -> None:
    listed = list(pages_in(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    for name in sorted(there - set(listed)):
        pytest.fail(
            f"docs/{name} is in no section under `nav` in mkdocs.yml: add `- Its title: {name}` where it belongs"
        )
    assert set(listed) - there == MADE, "mkdocs.yml, nav: a page that is not in docs/"
    assert len(listed) == len(set(listed)), "mkdocs.yml, nav: a page stands there twice"


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    shown = {path.rpartition(".")[2] for path in re.findall(r"^::: (\S+)", text, re.MULTILINE)}
    missing = sorted(set(fuseline.__all__) - shown - {"__version__"})
    assert not missing, f"docs/reference.md lacks a line `::: fuseline.MODULE.NAME` for {missing}"


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://unpkg.com/x.js"></script>',
        "<script async src=//cdn.example/x.js></script>",
        '<link rel="stylesheet" href="https://fonts.googleapis.com/css?family=Roboto">',
        '<img alt="x" src="http://example.org/x.png">',
        "<style>@import 'https://example.org/x.css'</style>",
        '<p style="background: url(https://example.org/x.png)">',
    ],
)
def test_a_page_that_loads_from_afar_is_found(html: str, site: ModuleType) -> None:
    assert site.loaded_from_afar(f"<html>{html}</html>")


@pytest.mark.parametrize(
    "html",
    [
        '<a href="https://arxiv.org/abs/1705.07115">a link</a>',
        '<link rel="canonical" href="https://example.org/">',
        '<script src="assets/x.js"></script>',
        "<code>curl http://localhost:8080/</code>",
    ],
)
def test_links_and_own_files_are_no_loads(html: str, site: ModuleType) -> None:
    assert not site.loaded_from_afar(html)
