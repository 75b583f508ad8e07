"""Compiles open_inference.proto to the descriptor beside it, which the gRPC door reads. Needs grpcio-tools.

A descriptor and not generated Python: generated code works with one line of protobuf versions only, and registers its
messages for the whole process, where a client library of the same protocol (tritonclient) registers them too.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "src" / "fuseline" / "serve" / "v2"
PROTO = FOLDER / "open_inference.proto"
DESCRIPTOR = FOLDER / "open_inference.desc"


def compiled() -> bytes:
    """The proto file's FileDescriptorSet, without comments."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.desc"
        code = protoc.main(["protoc", f"-I{FOLDER}", f"--descriptor_set_out={target}", PROTO.name])
        if code != 0:
            raise SystemExit(code)
        return FileDescriptorSet.FromString(target.read_bytes()).SerializeToString(deterministic=True)


if __name__ == "__main__":
    DESCRIPTOR.write_bytes(compiled())
    print(f"{DESCRIPTOR.name}: {DESCRIPTOR.stat().st_size} bytes")
