"""Everything the writers need, checked once: names, packages, sizes. Writers only turn a Plan into text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuseline.deploy import names
from fuseline.deploy.measure import Measured, measure
from fuseline.deploy.sizing import Server, Sizing, size
from fuseline.errors import FuselineError
from fuseline.package import Package, read_package

HTTP_PORT = 8080
GRPC_PORT = 8081
USER = 10001
"""a number: Kubernetes can prove it is not root without looking into the image"""
MODELS = "/models"
KEYS = "/etc/fuseline/keys"
"""folder of the mounted Secret; its one file is `keys`"""


@dataclass(frozen=True)
class Options:
    """What the caller says; `fuseline deploy`'s options."""

    name: str | None = None
    image: str | None = None
    namespace: str | None = None
    replicas: int = 2
    max_replicas: int = 10
    cpu: str = "2"
    memory: str | None = None
    """None: worked out from what was measured"""
    keys: bool = False
    grpc: bool = False


@dataclass(frozen=True)
class Model:
    package: Package
    folder: str
    """name of its folder in the image"""

    @property
    def path(self) -> str:
        return f"{MODELS}/{self.folder}"


@dataclass(frozen=True)
class Plan:
    name: str
    repository: str
    tag: str
    digest: str
    namespace: str | None
    replicas: int
    max_replicas: int
    cpu: float
    memory_mib: int
    keys: bool
    grpc: bool
    models: tuple[Model, ...]
    server: Server
    sizing: Sizing
    measured: Measured
    notes: tuple[str, ...] = ()
    """what the caller should hear"""

    @property
    def image(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + self.digest

    @property
    def selector(self) -> dict[str, str]:
        """Never changes between versions: a Deployment's selector may not."""
        return {"app.kubernetes.io/name": "fuseline", "app.kubernetes.io/instance": self.name}

    def head(self, *, labels: dict[str, str] | None = None, **extra: Any) -> dict[str, Any]:
        """An object's metadata."""
        more = {"app.kubernetes.io/component": "model-server", "app.kubernetes.io/managed-by": "fuseline-deploy"}
        place = {"namespace": self.namespace} if self.namespace else {}
        return {"name": self.name, **place, "labels": {**self.selector, **more, **(labels or {})}, **extra}

    @property
    def arguments(self) -> list[str]:
        """Arguments after the packages' paths: only what the manifests' numbers rest on, so that both agree."""
        server = self.server
        out = ["--workers", str(server.workers)]
        out += ["--batch", str(server.max_batch_rows), "--queue", str(server.queue_rows)]
        out += ["--objective-ms", f"{server.objective_ms:g}", "--drain-seconds", f"{server.drain_seconds:g}"]
        out += ["--deadline-ms", f"{server.deadline_ms:g}", "--max-body-mb", f"{server.max_body_mb:g}", "--json-logs"]
        out += ["--grpc-port", str(GRPC_PORT)] if self.grpc else []
        out += ["--keys", f"{KEYS}/keys"] if self.keys else []
        return out


def make_plan(
    packages: Sequence[str | Path], options: Options, server: Server, *, measured: Measured | None = None
) -> Plan:
    """Verify the packages, measure them (unless `measured` is given), and work out the numbers."""
    if not packages:
        raise FuselineError("bad_setting", "no package named", "fuseline deploy MODEL.fuse -o deploy/")
    if not 1 <= options.replicas <= options.max_replicas <= 1000:
        raise FuselineError(
            "bad_setting",
            f"replicas {options.replicas} and max-replicas {options.max_replicas} do not fit",
            "1 <= replicas <= max-replicas <= 1000",
        )
    cores = names.cpu(options.cpu)
    if options.memory is not None:
        names.mebibytes(options.memory)
    models = _models([read_package(p) for p in packages])
    name = _name(options.name, models[0].package.name)
    image = options.image or f"{name}:{models[0].package.version}"
    repository, tag, digest = names.image(image)
    namespace = names.label(options.namespace, "the namespace") if options.namespace is not None else None
    threads = max(1, int(cores) // server.workers)
    measured = measured or measure([m.package.folder for m in models], server.max_batch_rows, threads)
    sizing = size(measured, server)
    memory = names.mebibytes(options.memory) if options.memory is not None else sizing.memory_mib
    notes = []
    if measured.busy > 1:
        notes.append(
            f"this machine was busy while it measured ({measured.busy:.1f} processes for each processor): the times "
            "are too long, and the autoscaler's target too low; run this again on a quiet machine"
        )
    if memory < sizing.memory_mib:
        notes.append(
            f"memory {options.memory} is below what was worked out, {sizing.memory_mib}Mi: {sizing.why['memory_mib']}"
        )
    if cores < server.workers:
        notes.append(f"{server.workers} workers share {cores:g} processors: they will wait for each other")
    if cores != int(cores):
        notes.append(f"cpu {options.cpu}: threads are whole, so {max(1, int(cores))} will compute")
    if options.replicas == 1:
        notes.append("one replica: a node's end is an outage until the next pod is ready")
    if 2 * measured.batch_seconds * 1000 > server.objective_ms:
        notes.append(
            f"a full batch of the largest rows took {measured.batch_seconds:.2f} s here, and the objective is "
            f"{server.objective_ms:g} ms: set --batch lower or give more cpu"
        )
    return Plan(
        name, repository, tag, digest, namespace, options.replicas, options.max_replicas, cores, memory,
        options.keys, options.grpc, models, server, sizing, measured, tuple(notes),
    )  # fmt: skip


def _name(given: str | None, package: str) -> str:
    if given is not None:
        return names.label(given, "the name")
    near = names.suggested(package)
    if not near:
        raise FuselineError("bad_name", f"no Kubernetes name can be made of {package[:80]!r}", "give one: --name chest")
    return names.label(near, "the name")


def _models(packages: Sequence[Package]) -> tuple[Model, ...]:
    """One folder a package; versions of one name stand beside each other."""
    versions: dict[str, list[str]] = {}
    for package in packages:
        seen = versions.setdefault(names.model(package.name), [])
        if package.version in seen:
            raise FuselineError(
                "bad_setting", f"{package.name} {package.version} is named twice", "name each package once"
            )
        seen.append(package.version)
    alone = {name for name, seen in versions.items() if len(seen) == 1}
    return tuple(Model(p, f"{p.name}.fuse" if p.name in alone else f"{p.name}-{p.version}.fuse") for p in packages)
