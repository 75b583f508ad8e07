"""Run inside the image while it is built: `python -m fuseline.deploy.verify FOLDER=VERSION...`.

Every member's sha256 is checked against the manifest, and the manifest against the version that the manifests of the
deployment name: an image cannot hold another model than its labels say. Ends with status 1 where one differs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fuseline.errors import FuselineError
from fuseline.package import read_package


def verify(folder: Path, version: str) -> str:
    """One line of what was found. Raises FuselineError ``bad_package`` where the folder holds another version."""
    package = read_package(folder)
    if package.version != version:
        raise FuselineError(
            "bad_package",
            f"{folder} holds version {package.version}, the deployment was written for {version}",
            "run `fuseline deploy` again, so that the manifests and the image agree",
        )
    return f"{folder}: {package.name} {version}, {len(package.manifest['members'])} members, sha256 as packaged"


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        print("usage: python -m fuseline.deploy.verify FOLDER=VERSION...", file=sys.stderr)
        return 2
    for argument in arguments:
        folder, _, version = argument.rpartition("=")
        try:
            print(verify(Path(folder), version))
        except FuselineError as error:
            print(f"error ({error.code}): {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
