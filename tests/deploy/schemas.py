"""Every manifest against the schema that a cluster would hold it to, offline.

Kubernetes' own kinds: the OpenAPI schemas in `kubernetes-validate`, strict (an unknown field fails), for the oldest and
the newest version that the manifests are for. KEDA and the Prometheus operator: models made from their CRDs
(`cloudcoil-models-*`); these pass over unknown fields, so that what they give back must equal what went in. KServe has
no package that fits beside ours: kserve.json is a smaller schema made from the kserve package's field tables.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
from referencing import Registry, Resource

VERSIONS = ("1.27", "1.37")
"""1.27: unhealthyPodEvictionPolicy came; 1.37: the newest that the schemas know"""
KSERVE = Path(__file__).with_name("kserve.json")


def check(manifest: dict[str, Any], versions: Sequence[str] = VERSIONS) -> None:
    """Raises on the first thing that a cluster would refuse, or silently drop."""
    group = manifest["apiVersion"].rpartition("/")[0]
    match group:
        case "keda.sh":
            from cloudcoil.models.keda import v1alpha1

            _round_trip(manifest, v1alpha1.ScaledObject)
        case "monitoring.coreos.com":
            from cloudcoil.models.prometheus_operator import v1

            _round_trip(manifest, {"ServiceMonitor": v1.ServiceMonitor, "PodMonitor": v1.PodMonitor}[manifest["kind"]])
        case "serving.kserve.io":
            _kserve_validator().validate(manifest)
        case _:
            for version in versions:
                kubernetes_validate.validate(manifest, version, strict=True)


def _round_trip(manifest: dict[str, Any], model: Any) -> None:
    kept = model.model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert kept == manifest, f"fields that {manifest['kind']} does not know: {_lost(manifest, kept)}"


def _lost(wanted: Any, kept: Any, path: str = "") -> list[str]:
    if isinstance(wanted, dict) and isinstance(kept, dict):
        return [
            x for k, v in wanted.items() for x in (_lost(v, kept[k], f"{path}.{k}") if k in kept else [f"{path}.{k}"])
        ]
    if isinstance(wanted, list) and isinstance(kept, list):
        return [x for i, (w, k) in enumerate(zip(wanted, kept, strict=True)) for x in _lost(w, k, f"{path}[{i}]")]
    return [] if wanted == kept else [path]


@cache
def _kserve_validator() -> jsonschema.Draft202012Validator:
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{VERSIONS[-1]}.0-local-strict"
    kubernetes = Resource.from_contents(json.loads((folder / "_definitions.json").read_text(encoding="utf-8")))
    registry: Registry[Any] = kubernetes @ Registry()
    return jsonschema.Draft202012Validator(json.loads(KSERVE.read_text(encoding="utf-8")), registry=registry)
