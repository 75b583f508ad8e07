"""The command line: one file a verb; a verb parses, calls the api, prints."""

from __future__ import annotations

from fuseline.cli.app import app, main

__all__ = ["app", "main"]
