"""`fuseline monitor`: files for Prometheus, Alertmanager and Grafana."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

NAME = "monitor"
sub_app = typer.Typer(name=NAME, no_args_is_help=True, help="Watch a server with Prometheus, Alertmanager and Grafana.")


@sub_app.callback()
def group() -> None:
    """Watch a server with Prometheus, Alertmanager and Grafana."""


def init(
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write")] = Path("monitoring"),
    objective_ms: Annotated[
        float, typer.Option("--objective-ms", help="latency objective: a slower request spends budget")
    ] = 1000.0,
    slo: Annotated[
        float, typer.Option("--slo", help="percent of requests answered, and answered within the objective (95 to 100)")
    ] = 99.5,
    target: Annotated[
        list[str] | None, typer.Option("--target", help="a server to scrape, host:port; may be repeated")
    ] = None,
    alertmanager: Annotated[
        str, typer.Option("--alertmanager", help="the Alertmanager that Prometheus tells, host:port")
    ] = "127.0.0.1:9093",
    webhook: Annotated[str | None, typer.Option("--webhook", help="URL that alerts are posted to")] = None,
    force: Annotated[bool, typer.Option("--force", help="overwrite files that are there")] = False,
) -> None:
    """Write scrape configuration, rules with their unit tests, an Alertmanager route and a Grafana dashboard.

    The folder's README.md says how to start it. Nothing is started and nothing is contacted.
    """
    from rich.console import Console

    from fuseline.monitor import rules

    values = {"objective_ms": objective_ms, "slo": slo, "alertmanager": alertmanager, "webhook": webhook}
    options = rules.read(values | ({"targets": tuple(target)} if target else {}))
    console = Console(highlight=False, soft_wrap=True)
    for path in rules.write(out, options, force=force):
        console.print(f"wrote {path}", markup=False)
    if webhook is None:
        console.print(
            f"alerts reach nobody yet: set `url` in {out / 'alertmanager.yml'}, or use --webhook", markup=False
        )
    console.print(f"next:  read {out / 'README.md'}", markup=False)


def _register() -> None:
    from fuseline.cli.app import verb

    sub_app.command("init")(verb(init))


_register()
