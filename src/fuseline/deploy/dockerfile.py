"""The image: a build stage that installs and verifies, and a slim one that only serves. No torch in either."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence

from fuseline.deploy.plan import GRPC_PORT, HTTP_PORT, MODELS, USER, Plan
from fuseline.deploy.source import Source

DEBIAN = "bookworm"


def base_image() -> str:
    """The Python that this machine tested the packages with, so that the same wheels fit."""
    major, minor, _ = platform.python_version_tuple()
    return f"python:{major}.{minor}-slim-{DEBIAN}"


def entrypoint(plan: Plan) -> list[str]:
    paths = [m.path for m in plan.models]
    return ["fuseline", "serve", *paths, "--host", "0.0.0.0", "--port", str(HTTP_PORT)]


def healthcheck() -> list[str]:
    """Python is there in any case; curl would be one more thing to patch. `urlopen` raises on a status of 503."""
    program = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{HTTP_PORT}/readyz', timeout=3)"
    return ["python", "-c", program]


def verify_command(models: Sequence[tuple[str, str]]) -> list[str]:
    """(path, version) of every package, checked with the Fuseline that will serve them."""
    return ["python", "-m", "fuseline.deploy.verify", *(f"{path}={version}" for path, version in models)]


def dockerfile(plan: Plan, source: Source) -> str:
    verify = json.dumps(verify_command([(m.path, m.package.version) for m in plan.models]))
    ports = f"{HTTP_PORT} {GRPC_PORT}" if plan.grpc else f"{HTTP_PORT}"
    start = plan.sizing.startup_failures
    return f"""\
# Written by `fuseline deploy`. Build in this folder: docker build -t {plan.image.split("@")[0]} .
# The tag moves with security fixes. For the same bytes every time, pin it:
#   --build-arg BASE={base_image()}@sha256:...
ARG BASE={base_image()}

FROM ${{BASE}} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN ["python", "-m", "venv", "/opt/fuseline"]
ENV PATH=/opt/fuseline/bin:$PATH
# Libraries before packages: a new model leaves this layer as it is.
COPY constraints.txt /build/
COPY fuseline/ /build/fuseline/
RUN ["pip", "install", "--no-cache-dir", "-c", "/build/constraints.txt", {json.dumps(source.requirement)}]
COPY models/ {MODELS}/
# Every member's sha256 against its manifest, every package's version against the one deployed: else no image.
RUN {verify}

FROM ${{BASE}}
COPY --from=build /opt/fuseline /opt/fuseline
COPY --from=build {MODELS} {MODELS}
# Nothing but /tmp is ever written, so the root file system may be read-only.
ENV PATH=/opt/fuseline/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /tmp
# A number, so that Kubernetes can prove it is not root. All files above belong to root and are only read.
USER {USER}:{USER}
EXPOSE {ports}
HEALTHCHECK --interval=10s --timeout=5s --start-period={start}s --retries=3 CMD {json.dumps(healthcheck())}
# Exec form: the server is process 1 and gets SIGTERM itself, which starts the drain.
STOPSIGNAL SIGTERM
ENTRYPOINT {json.dumps(entrypoint(plan))}
"""


def dockerignore() -> str:
    """Only what the Dockerfile copies may enter the build context."""
    return "*\n!constraints.txt\n!fuseline\n!models\n**/__pycache__\n**/*.pyc\n"
