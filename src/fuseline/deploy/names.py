"""What a name may be: everything here ends up in YAML, in a Dockerfile or in a shell, so it is refused early."""

from __future__ import annotations

import re

from fuseline.errors import FuselineError

_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
"""RFC 1123 label that also begins with a letter, as a Service's name must (RFC 1035)."""
LONGEST = 48
"""of a Kubernetes name's 63: what is derived from it (NAME-keys, a pod's suffix) must fit too"""
_HOST = r"[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*(:[0-9]{1,5})?"
_PATH = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?P<repository>({_HOST}/)?{_PATH}(/{_PATH})*)(:(?P<tag>[\w][\w.-]{{0,127}}))?(?P<digest>@sha256:[0-9a-f]{{64}})?",
    re.ASCII,
)
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_CPU = re.compile(r"([0-9]{1,4})m|([0-9]{1,3}(?:\.[0-9]{1,3})?)")
_BYTES = re.compile(r"([0-9]{1,6})(Mi|Gi)")


def label(text: str, what: str) -> str:
    """`text`, if Kubernetes takes it as a name."""
    if len(text) > LONGEST or not _LABEL.fullmatch(text):
        raise FuselineError(
            "bad_name",
            f"{what} {text[:80]!r} is not a name that Kubernetes takes",
            f"a letter a-z, then a-z, 0-9 and -, no - at the end, at most {LONGEST} characters (RFC 1123)",
        )
    return text


def suggested(text: str) -> str:
    """The nearest valid name, or "" where nothing of `text` can stay."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower())
    return re.sub(r"^[^a-z]+", "", plain)[:LONGEST].strip("-")


def model(text: str) -> str:
    """A package's own name, fit for a folder's name in an image."""
    if not _MODEL.fullmatch(text):
        raise FuselineError(
            "bad_name",
            f"the package's name {text[:80]!r} cannot be a folder's name in an image",
            "letters, digits, '.', '_' and '-', 63 at most; export the run under such a name",
        )
    return text


def image(text: str) -> tuple[str, str, str]:
    """(repository, tag, digest) of an image's reference; a moving `latest` or no tag at all is refused."""
    found = _IMAGE.fullmatch(text)
    if found is None or len(text) > 255:
        raise FuselineError("bad_name", f"{text[:80]!r} is not an image", "e.g. registry.example.org/team/chest:1.0")
    tag, digest = found["tag"] or "", found["digest"] or ""
    if not digest and tag in ("", "latest"):
        raise FuselineError(
            "bad_name",
            f"the image {text!r} has no fixed tag: two pods of one deployment could run different models",
            f"name a version, e.g. {found['repository']}:1.0",
        )
    return found["repository"], tag, digest


def cpu(text: str) -> float:
    """Processors from a Kubernetes quantity: 2, 1.5, 500m."""
    found = _CPU.fullmatch(text)
    cores = 0.0 if found is None else int(found[1]) / 1000 if found[1] else float(found[2])
    if cores < 0.1:
        raise FuselineError("bad_setting", f"cpu {text[:80]!r} is no number of processors", "e.g. 2, 1.5 or 500m")
    return cores


def mebibytes(text: str) -> int:
    """MiB from a Kubernetes quantity: 512Mi, 1Gi."""
    found = _BYTES.fullmatch(text)
    size = 0 if found is None else int(found[1]) * (1024 if found[2] == "Gi" else 1)
    if size < 64:
        raise FuselineError("bad_setting", f"memory {text[:80]!r} is no useful size", "e.g. 512Mi or 2Gi")
    return size
