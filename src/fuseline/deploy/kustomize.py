"""kustomization.yaml: what `kubectl apply -k` applies, and how the image is changed in one place."""

from __future__ import annotations

from typing import Any

from fuseline.deploy.plan import Plan
from fuseline.deploy.yamlfile import to_yaml


def kustomization(plan: Plan) -> str:
    resources = ["namespace.yaml"] if plan.namespace else []
    resources += [
        "serviceaccount.yaml",
        "deployment.yaml",
        "service.yaml",
        "pdb.yaml",
        "networkpolicy.yaml",
        "hpa.yaml",
    ]
    image: dict[str, str] = {"name": plan.repository}
    if plan.digest:
        image["digest"] = plan.digest.removeprefix("@")
    else:
        image["newTag"] = plan.tag
    data: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
        "images": [image],
    }
    return to_yaml(
        data,
        "kubectl apply -k . applies these. Choices: scaledobject.yaml in the place of hpa.yaml where KEDA is "
        "installed; add servicemonitor.yaml (or podmonitor.yaml) where the Prometheus operator is. "
        "prometheus-adapter.yaml is for Helm, and not listed.",
        f"Another registry: kustomize edit set image {plan.repository}=registry.example.org/team/{plan.name}:TAG",
    )
