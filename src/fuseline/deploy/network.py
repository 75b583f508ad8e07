"""Service and NetworkPolicy."""

from __future__ import annotations

from typing import Any

from fuseline.deploy.plan import GRPC_PORT, HTTP_PORT, Plan
from fuseline.deploy.yamlfile import to_yaml

CALLERS = "fuseline-callers"
"""label of a namespace whose pods may call: ingress controllers, the monitoring, other teams' services"""


def service(plan: Plan) -> str:
    ports: list[dict[str, Any]] = [{"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"}]
    if plan.grpc:
        ports.append({"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "appProtocol": "kubernetes.io/h2c"})
    data = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": plan.head(),
        "spec": {"type": "ClusterIP", "selector": plan.selector, "ports": ports},
    }
    comments = ["Inside the cluster only; put a Gateway or an Ingress with TLS in front for callers outside."]
    if plan.grpc:
        comments.append(
            "gRPC keeps one connection open, which a ClusterIP pins to one pod: spread it by a mesh, a gateway that "
            "speaks h2c, or round_robin in the client over a headless Service."
        )
    return to_yaml(data, *comments)


def network_policy(plan: Plan) -> str:
    ports = [{"protocol": "TCP", "port": HTTP_PORT}] + ([{"protocol": "TCP", "port": GRPC_PORT}] if plan.grpc else [])
    data = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": plan.head(),
        "spec": {
            "podSelector": {"matchLabels": plan.selector},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {CALLERS: "true"}}}],
                    "ports": ports,
                }
            ],
            "egress": [],
        },
    }
    return to_yaml(
        data,
        f"In: pods of this namespace, and of namespaces with the label {CALLERS}=true (label your ingress controller's "
        "and your monitoring's). Out: nothing; the server calls nobody, not even DNS. Traces need a rule.",
        "Works only where the cluster's network enforces policies (Calico, Cilium and others do).",
    )
