"""How many pods: HorizontalPodAutoscaler with the adapter's rule for its metric, or KEDA's ScaledObject instead."""

from __future__ import annotations

from typing import Any

from fuseline.deploy.plan import Plan
from fuseline.deploy.yamlfile import to_yaml

METRIC = "fuseline_queue_share"
"""waiting rows of a pod's fullest model over its limit; made by the Prometheus adapter, see `adapter_rule`"""
CPU_PERCENT = 70
PROMETHEUS = "http://prometheus-operated.monitoring.svc:9090"

_BEHAVIOR: dict[str, Any] = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 30},
            {"type": "Pods", "value": 2, "periodSeconds": 30},
        ],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "policies": [{"type": "Percent", "value": 25, "periodSeconds": 60}],
    },
}
_WHY_BEHAVIOR = "Up at once and at most twofold every 30 s; down by a quarter a minute, and only after 5 quiet minutes."


def _share(plan: Plan) -> float:
    return plan.sizing.share(plan.server.queue_rows)


def _why_target(plan: Plan) -> str:
    return (
        f"queue: another pod when a pod holds more than {plan.sizing.waiting_target} of its {plan.server.queue_rows} "
        f"rows: {plan.sizing.why['waiting_target']}. Measure again on your nodes."
    )


def horizontal(plan: Plan) -> str:
    data = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": plan.head(),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": plan.name},
            "minReplicas": plan.replicas,
            "maxReplicas": plan.max_replicas,
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": METRIC},
                        "target": {"type": "AverageValue", "averageValue": f"{max(1, round(_share(plan) * 1000))}m"},
                    },
                },
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": CPU_PERCENT},
                    },
                },
            ],
            "behavior": _BEHAVIOR,
        },
    }
    return to_yaml(
        data,
        _why_target(plan),
        f"The metric {METRIC} comes from the Prometheus adapter: prometheus-adapter.yaml is its rule. Without the "
        f"adapter the CPU target alone works, and this object says so in its conditions. CPU {CPU_PERCENT} %: room "
        "for a pod's start.",
        _WHY_BEHAVIOR,
    )


def adapter_rule(plan: Plan) -> str:
    """Values for the prometheus-adapter Helm chart; not a Kubernetes object."""
    waiting, limit = "fuseline_waiting_rows", "fuseline_queue_limit_rows"
    rule = {
        "seriesQuery": f'{waiting}{{namespace!="",pod!=""}}',
        "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}},
        "name": {"matches": f"^{waiting}$", "as": METRIC},
        "metricsQuery": f"max({waiting}{{<<.LabelMatchers>>}} / {limit}{{<<.LabelMatchers>>}}) by (<<.GroupBy>>)",
    }
    return to_yaml(
        {"rules": {"custom": [rule]}},
        "Values for the prometheus-adapter Helm chart (helm upgrade ... -f prometheus-adapter.yaml); one rule serves "
        "every Fuseline deployment of the cluster. Prometheus must give the series the labels namespace and pod, as "
        "servicemonitor.yaml and podmonitor.yaml do.",
    )


def keda(plan: Plan) -> str:
    place = f'namespace="{plan.namespace}",' if plan.namespace else ""
    # NAME-(replica set)-(five letters): another deployment whose name only begins alike must not count
    labels = f'{{{place}pod=~"{plan.name}-[a-z0-9]+-[a-z0-9]{{5}}"}}'
    per_pod = f"max by (pod) (fuseline_waiting_rows{labels} / fuseline_queue_limit_rows{labels})"
    data = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": plan.head(),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": plan.name},
            "minReplicaCount": plan.replicas,
            "maxReplicaCount": plan.max_replicas,
            "pollingInterval": 15,
            "fallback": {"failureThreshold": 3, "replicas": plan.max_replicas},
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _BEHAVIOR}},
            "triggers": [
                {
                    "type": "prometheus",
                    "metricType": "AverageValue",
                    "metadata": {
                        "serverAddress": PROMETHEUS,
                        "query": f"sum({per_pod})",
                        "threshold": f"{_share(plan):.4g}",
                        "ignoreNullValues": "false",
                    },
                },
                {"type": "cpu", "metricType": "Utilization", "metadata": {"value": str(CPU_PERCENT)}},
            ],
        },
    }
    return to_yaml(
        data,
        "Instead of hpa.yaml, where KEDA is installed (both at once would fight over the Deployment). Set "
        "serverAddress to your Prometheus.",
        _why_target(plan),
        "The query is the sum over pods, which KEDA divides by their number. When Prometheus cannot be asked, pods "
        "go to the maximum: too many pods cost money, too few cost answers.",
        _WHY_BEHAVIOR,
    )
