"""A Ray cluster to work on: the one that runs, or one that lasts as long as the work. The extra `ray`."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import socket
from collections.abc import Iterator

from fuseline.errors import FuselineError
from fuseline.runtime.backend import cpu_quota

NAMESPACE = "fuseline"


@contextlib.contextmanager
def joined(address: str | None = None, *, cpus: int = 1, logs: bool = True) -> Iterator[None]:
    """Connected to Ray inside the block. A cluster that was started here ends with it.

    Ray's processes listen to one another on ports of every interface, guarded by a token of Ray's own.

    Args:
        address: of a cluster; None: where RAY_ADDRESS or a cluster on this machine leads, else a new one on this
            machine; "local": a new one in any case.
        cpus: cores that a new one must count at least. More than there are only share them.
        logs: what the workers print is shown here, too.

    Raises:
        FuselineError: ``missing_extra``, ``no_such_cluster``.
    """
    if importlib.util.find_spec("ray") is None:
        raise FuselineError("missing_extra", "this engine needs ray", "pip install 'fuseline[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = address or os.environ.get("RAY_ADDRESS")
    import ray

    if ray.is_initialized():  # the caller's own program is on a cluster already
        yield
        return
    _connect(address, cpus, logs)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str | None, cpus: int, logs: bool) -> None:
    import ray

    if address != "local":
        _knock(address or "auto")
        try:
            ray.init(
                address=address or "auto",
                logging_level=logging.WARNING,
                log_to_driver=logs,
                namespace=NAMESPACE,
            )
            return
        except (ConnectionError, ValueError) as error:
            if address is not None:
                raise FuselineError("no_such_cluster", f"no Ray cluster at {address}: {error}", "") from None
    ray.init(
        address="local",
        num_cpus=max(cpu_quota(), cpus),
        include_dashboard=False,
        object_store_memory=512 * 2**20,
        logging_level=logging.WARNING,
        log_to_driver=logs,
        namespace=NAMESPACE,
    )


def _knock(address: str) -> None:
    """Raises ``no_such_cluster`` where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        except (OSError, OverflowError) as error:
            raise FuselineError("no_such_cluster", f"no Ray cluster at {address}: {error}", "HOST:PORT") from None
