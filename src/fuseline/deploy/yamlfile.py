"""Objects to YAML text. Comments stand at a file's head: what was decided, and why."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

Object = dict[str, Any]


class _Dumper(yaml.SafeDumper):
    """Lists indented under their key, and no anchors: manifests are read by people."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def to_yaml(data: Object | Sequence[Object], *comments: str) -> str:
    """One document or several, with `comments` (a paragraph each) at the head."""
    head = "".join(
        textwrap.fill(" ".join(c.split()), 110, initial_indent="# ", subsequent_indent="#   ") + "\n" for c in comments
    )
    documents = [data] if isinstance(data, dict) else list(data)
    text = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return head + text
