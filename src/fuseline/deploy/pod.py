"""The pod: one container, and nothing it could do harm with. Deployment and KServe share it."""

from __future__ import annotations

from typing import Any

from fuseline.deploy.plan import GRPC_PORT, HTTP_PORT, KEYS, USER, Plan
from fuseline.deploy.sizing import PRE_STOP


def quantity(cores: float) -> str:
    return str(int(cores)) if cores == int(cores) else f"{round(cores * 1000)}m"


def container(plan: Plan, name: str) -> dict[str, Any]:
    ports = [{"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"}]
    if plan.grpc:
        ports.append({"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"})
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]
    if plan.keys:
        mounts.append({"name": "keys", "mountPath": KEYS, "readOnly": True})
    # Limits equal to requests: the cgroup's quota is what the server counts its threads by, and the Guaranteed
    # class is the last that a node in need evicts.
    resources = {"cpu": quantity(plan.cpu), "memory": f"{plan.memory_mib}Mi"}
    return {
        "name": name,
        "image": plan.image,
        "imagePullPolicy": "IfNotPresent",
        "args": plan.arguments,
        "ports": ports,
        "resources": {"requests": dict(resources), "limits": dict(resources)},
        **probes(plan),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(PRE_STOP)]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": USER,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def probes(plan: Plan) -> dict[str, Any]:
    def get(path: str, **numbers: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": HTTP_PORT}, **numbers}

    return {
        "startupProbe": get(
            "/readyz", periodSeconds=1, timeoutSeconds=1, failureThreshold=plan.sizing.startup_failures
        ),
        "readinessProbe": get("/readyz", periodSeconds=2, timeoutSeconds=2, failureThreshold=2),
        "livenessProbe": get("/healthz", periodSeconds=10, timeoutSeconds=5, failureThreshold=3),
    }


def pod_fields(plan: Plan) -> dict[str, Any]:
    """Fields of a pod's spec beside its containers."""
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": f"{plan.sizing.tmp_mib}Mi"}}]
    if plan.keys:
        volumes.append({"name": "keys", "secret": {"secretName": f"{plan.name}-keys", "defaultMode": 0o440}})
    return {
        "serviceAccountName": plan.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": plan.sizing.grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": volumes,
    }


def spread(plan: Plan) -> list[dict[str, Any]]:
    """Over zones and nodes where there are several; a full or small cluster still runs every pod."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": plan.selector},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


def which_models(plan: Plan) -> dict[str, str]:
    """Which packages run here; the image's build checks the same versions."""
    return {"fuseline/models": ", ".join(f"{m.package.name}={m.package.version}" for m in plan.models)}


def reasons(plan: Plan) -> tuple[str, ...]:
    """Comments: why the numbers of a pod are what they are."""
    why = plan.sizing.why
    worked_out = plan.memory_mib == plan.sizing.memory_mib
    memory = (
        why["memory_mib"] if worked_out else f"as asked; worked out: {plan.sizing.memory_mib}Mi ({why['memory_mib']})"
    )
    return (
        f"memory {plan.memory_mib}Mi: {memory}.",
        f"cpu {quantity(plan.cpu)}: the quota gives the compute threads (whole processors of it); requests equal "
        "limits, so the pod is of the Guaranteed class.",
        f"startupProbe {plan.sizing.startup_failures} x 1 s: {why['startup_failures']}. It asks /readyz, which answers "
        "after the warm-up prediction.",
        "readinessProbe: every 2 s, out after 2 failures; /readyz fails as soon as a drain begins. livenessProbe: "
        "/healthz, 3 failures of 5 s: a server that is only busy must not be restarted.",
        f"terminationGracePeriodSeconds {plan.sizing.grace_seconds}: {why['grace_seconds']}.",
        f"/tmp {plan.sizing.tmp_mib}Mi: {why['tmp_mib']}; it is the only place that can be written.",
    )
