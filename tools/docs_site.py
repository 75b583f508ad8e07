"""What mkdocs.yml has done by code: the page of the command line, and the proof that no page loads from afar."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROGRAM = [sys.executable, "-m", "typer", "fuseline.cli.app", "utils", "docs", "--name", "fuseline"]
TITLE = ["--title", "The command line"]
AFAR = "(?:https?:)?//"
LOADED = re.compile(
    rf"""<(?:script|img|iframe|source|audio|video|embed)\b[^>]*\b(?:src|srcset|data)\s*=\s*["']?{AFAR}[^>]*>"""
    rf"""|<link\b(?![^>]*\brel\s*=\s*["']?canonical)[^>]*\bhref\s*=\s*["']?{AFAR}[^>]*>"""
    rf"""|(?:@import|url\()\s*["']?{AFAR}[^\s)]*""",
    re.IGNORECASE,
)
LINKED = re.compile(r"""<a\b[^>]*\bhref="(https?://[^"]+)""")
links: set[str] = set()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds cli.md, which lies in no folder: it cannot say another thing than `fuseline VERB --help`."""
    made = subprocess.run([*PROGRAM, *TITLE], check=True, capture_output=True, text=True).stdout
    files.append(File.generated(config, "cli.md", content=made.replace("```console\n$ ", "```text\n")))
    return files


def loaded_from_afar(html: str) -> list[str]:
    """Tags and styles that a browser would fetch from another host."""
    return [found.group() for found in LOADED.finditer(html)]


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    if afar := loaded_from_afar(output):
        raise PluginError(f"{page.file.src_uri} loads from another host, and has readers without a network: {afar}")
    links.update(LINKED.findall(output))
    return output


def on_post_build(config: MkDocsConfig, **kwargs: Any) -> None:
    """Links to other hosts are listed and never fetched: whoever has a network may look at them."""
    Path(config.site_dir, "external-links.txt").write_text("".join(f"{link}\n" for link in sorted(links)))
