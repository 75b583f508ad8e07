"""`fuseline keys`: who may ask a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from fuseline.errors import FuselineError

NAME = "keys"


def command(
    action: Annotated[Literal["add", "list", "remove"], typer.Argument(help="add, list or remove")],
    name: Annotated[str | None, typer.Argument(help="who the key is for")] = None,
    file: Annotated[Path, typer.Option("--file", "-f", help="the key file that the server is given")] = Path(
        "keys.json"
    ),
    per_minute: Annotated[float | None, typer.Option(min=1, help="requests a minute; default: no limit")] = None,
) -> None:
    """Make, list and remove API keys for `fuseline serve --keys FILE`.

    The file holds hashes only. A key is shown once, when it is made; a running server notices changes.
    """
    from fuseline.serve import keys

    console = Console(highlight=False)
    if action == "list":
        for entry in keys.read_entries(file):
            rate = f"{entry['per_minute']:g} a minute" if entry.get("per_minute") else "no limit"
            console.print(f"{entry['name']}  made {entry.get('created', '?')}  {rate}", markup=False)
        return
    if name is None:
        raise FuselineError("bad_keys", "whose key?", f"fuseline keys {action} NAME")
    if action == "add":
        secret = keys.add(file, name, per_minute)
        console.print(secret, markup=False, soft_wrap=True)
        Console(stderr=True).print("shown this once; send it as Authorization: Bearer KEY", style="dim")
    else:
        keys.remove(file, name)
        console.print(f"{name} may no longer ask", markup=False)
