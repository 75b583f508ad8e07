"""Namespace, ServiceAccount, Deployment, PodDisruptionBudget."""

from __future__ import annotations

from fuseline.deploy.plan import Plan
from fuseline.deploy.pod import container, pod_fields, reasons, spread, which_models
from fuseline.deploy.yamlfile import to_yaml


def namespace(plan: Plan) -> str:
    assert plan.namespace is not None
    # The server's pods pass Kubernetes' strictest pod security standard, so the namespace may demand it of all.
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    data = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": plan.namespace, "labels": levels}}
    return to_yaml(data, "Pods that do not meet the restricted pod security standard are refused here.")


def service_account(plan: Plan) -> str:
    data = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": plan.head(),
        "automountServiceAccountToken": False,
    }
    return to_yaml(data, "The server never speaks to the cluster's API, so its pods hold no token.")


def deployment(plan: Plan) -> str:
    data = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": plan.head(annotations=which_models(plan)),
        "spec": {
            "revisionHistoryLimit": 5,
            "progressDeadlineSeconds": max(600, 2 * plan.sizing.startup_failures),
            "selector": {"matchLabels": plan.selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": plan.head()["labels"], "annotations": which_models(plan)},
                "spec": {
                    **pod_fields(plan),
                    "topologySpreadConstraints": spread(plan),
                    "containers": [container(plan, "fuseline")],
                },
            },
        },
    }
    return to_yaml(
        data,
        *reasons(plan),
        "spec.replicas is left out: the autoscaler owns it, and applying this file again must not undo its work.",
        "rolling update: a new pod is ready before an old one ends (maxUnavailable 0).",
    )


def disruption_budget(plan: Plan) -> str:
    data = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": plan.head(),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": plan.selector},
        },
    }
    return to_yaml(
        data,
        "Draining nodes takes one pod at a time. maxUnavailable, and not minAvailable, so that a node with the only "
        "replica can still be drained; a pod that never became ready protects nobody and may always go.",
    )
