"""`fuseline deploy`: Dockerfile and manifests for packages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

NAME = "deploy"


def command(
    models: Annotated[list[Path], typer.Argument(help="packages NAME.fuse, or runs' folders")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the folder to write")],
    name: Annotated[str | None, typer.Option(help="name in the cluster; default: the first package's")] = None,
    image: Annotated[
        str | None, typer.Option(help="IMAGE:TAG that is built and run; default: NAME:VERSION of the first package")
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="also write the namespace, and put everything in it")] = None,
    replicas: Annotated[int, typer.Option(help="pods at least")] = 2,
    max_replicas: Annotated[int, typer.Option(help="pods at most")] = 10,
    cpu: Annotated[str, typer.Option(help="processors of a pod, as Kubernetes writes them: 2, 1500m")] = "2",
    memory: Annotated[
        str | None, typer.Option(help="memory of a pod: 1Gi; default: worked out from a measured batch")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="processes that compute, in a pod")] = 1,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="rows of a batch at most")] = 32,
    queue: Annotated[int, typer.Option(min=1, help="rows accepted and not yet answered, in a pod")] = 256,
    objective_ms: Annotated[float, typer.Option(min=1, help="latency objective")] = 1000.0,
    drain_seconds: Annotated[float, typer.Option(min=0, help="how long an ending pod answers what it has")] = 20.0,
    keys: Annotated[bool, typer.Option("--keys", help="ask for API keys, from the Secret NAME-keys")] = False,
    grpc: Annotated[bool, typer.Option("--grpc", help="also open the gRPC port")] = False,
    wheel: Annotated[
        str | None,
        typer.Option(
            help="Fuseline for the image: a wheel, sdist or source folder, or fuseline==X; default: this version"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a deployment that is there")] = False,
) -> None:
    """Write a Dockerfile, Kubernetes manifests and a KServe InferenceService for packages.

    Verifies every package, runs one full batch to measure what it needs, and works the manifests' numbers out from
    that; each has its reason in a comment. Builds and applies nothing.
    """
    from fuseline.deploy import Options, make_plan, write
    from fuseline.serve.settings import Settings

    server = Settings(
        workers=workers,
        max_batch_rows=batch,
        queue_rows=queue,
        objective_ms=objective_ms,
        drain_seconds=drain_seconds,
    )
    options = Options(name, image, namespace, replicas, max_replicas, cpu, memory, keys, grpc)
    plan = make_plan(models, options, server)
    folder = write(plan, out, wheel=wheel, force=force)
    console = Console(highlight=False)
    for note in plan.notes:
        console.print(f"[yellow]note[/]: {note}", soft_wrap=True)
    console.print(f"{plan.image}: {', '.join(m.folder for m in plan.models)}; {plan.memory_mib}Mi a pod", markup=False)
    console.print(f"written: {folder}; what to run next is in {folder / 'README.md'}", markup=False)
