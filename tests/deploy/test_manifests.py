"""What is written for a cluster is what a cluster takes, and holds together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer
import yaml
from deploy.packages import make
from deploy.schemas import VERSIONS, check

from fuseline.cli import serve
from fuseline.deploy import Plan, manifests
from fuseline.deploy.dockerfile import entrypoint
from fuseline.serve.settings import Settings

NOT_OBJECTS = ("kubernetes/prometheus-adapter.yaml", "kubernetes/kustomization.yaml")
VARIANTS: list[dict[str, Any]] = [
    {},
    {"namespace": "clinics", "keys": True, "grpc": True, "cpu": "1500m", "memory": "2Gi"},
    {"image": "registry.example.org:5000/team/chest@sha256:" + "a" * 64, "replicas": 1, "max_replicas": 1},
]


def read(plan: Plan) -> dict[str, Any]:
    return {name: yaml.safe_load(text) for name, text in manifests(plan).items()}


@pytest.mark.parametrize("options", VARIANTS, ids=["plain", "everything", "digest"])
def test_every_manifest_meets_its_schema(planned: Callable[..., Plan], options: dict[str, Any]) -> None:
    files = read(planned(**options))
    objects = {name: data for name, data in files.items() if name not in NOT_OBJECTS}
    assert len(objects) == (11 if "namespace" in options else 10)
    for data in objects.values():
        check(data)


def paths(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every mapping in the object that a schema, not a user, names the keys of."""
    if isinstance(data, dict):
        if not path or path[-1] not in ("labels", "matchLabels", "annotations", "requests", "limits", "metadata"):
            yield path
        for key, value in data.items():
            yield from paths(value, (*path, key))
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from paths(value, (*path, i))


def test_the_schemas_find_a_misspelt_field_anywhere(planned: Callable[..., Plan]) -> None:
    tried = set()
    for name, data in read(planned(namespace="clinics", keys=True)).items():
        if name in NOT_OBJECTS:
            continue
        for path in paths(data):
            shape = (data["kind"], *(step for step in path if isinstance(step, str)))
            if shape in tried:  # items of one list are alike
                continue
            tried.add(shape)
            broken = copy.deepcopy(data)
            place = broken
            for step in path:
                place = place[step]
            place["misspelt"] = {}
            with pytest.raises(Exception, match="misspelt"):
                check(broken, VERSIONS[-1:])
    assert len(tried) > 80


def test_the_pod_may_do_nothing_it_need_not(planned: Callable[..., Plan]) -> None:
    files = read(planned(keys=True))
    kserve = files["kserve/inferenceservice.yaml"]["spec"]["predictor"]
    for pod in (files["kubernetes/deployment.yaml"]["spec"]["template"]["spec"], kserve):
        [container] = pod["containers"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "capabilities": {"drop": ["ALL"]},
        }
        mounted = {m["name"]: m for m in container["volumeMounts"]}
        assert set(mounted) == {v["name"] for v in pod["volumes"]} == {"tmp", "keys"}
        assert mounted["keys"]["readOnly"] is True
        assert "sizeLimit" in next(v for v in pod["volumes"] if v["name"] == "tmp")["emptyDir"]
    policy = files["kubernetes/networkpolicy.yaml"]["spec"]
    assert policy["egress"] == []
    assert "Egress" in policy["policyTypes"]


def test_selectors_ports_and_names_agree(planned: Callable[..., Plan]) -> None:
    files = read(planned(namespace="clinics", grpc=True, name="xray"))
    deployment = files["kubernetes/deployment.yaml"]
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    for name, selector in {
        "deployment": deployment["spec"]["selector"]["matchLabels"],
        "service": files["kubernetes/service.yaml"]["spec"]["selector"],
        "pdb": files["kubernetes/pdb.yaml"]["spec"]["selector"]["matchLabels"],
        "networkpolicy": files["kubernetes/networkpolicy.yaml"]["spec"]["podSelector"]["matchLabels"],
        "podmonitor": files["kubernetes/podmonitor.yaml"]["spec"]["selector"]["matchLabels"],
    }.items():
        assert selector.items() <= labels, name
    service = files["kubernetes/service.yaml"]
    monitor = files["kubernetes/servicemonitor.yaml"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert {p["targetPort"] for p in service["spec"]["ports"]} == set(ports) == {"http", "grpc"}
    assert monitor["endpoints"][0]["port"] in {p["name"] for p in service["spec"]["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == ports["http"]
    assert container["args"][container["args"].index("--grpc-port") + 1] == str(ports["grpc"])
    allowed = files["kubernetes/networkpolicy.yaml"]["spec"]["ingress"][0]["ports"]
    assert {p["port"] for p in allowed} == set(ports.values())
    for scaler in ("hpa", "scaledobject"):
        target = files[f"kubernetes/{scaler}.yaml"]["spec"]["scaleTargetRef"]
        assert (
            (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"]) == ("Deployment", "xray")
        )
    for name, data in files.items():
        if name not in (*NOT_OBJECTS, "kubernetes/namespace.yaml"):
            assert data["metadata"]["namespace"] == "clinics", name


def test_the_grace_period_outlasts_the_drain(planned: Callable[..., Plan]) -> None:
    plan = planned(settings=Settings(drain_seconds=42.5))
    pod = read(plan)["kubernetes/deployment.yaml"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = float(container["args"][container["args"].index("--drain-seconds") + 1])
    assert drain == 42.5
    assert pod["terminationGracePeriodSeconds"] >= sleep + drain + 5


def test_queue_targets_of_both_scalers_are_one_number(planned: Callable[..., Plan]) -> None:
    # 32 rows in 0.4 s are 80 rows/s; half of the 1 s objective holds 40 of the 256 rows
    files = read(planned())
    hpa = files["kubernetes/hpa.yaml"]["spec"]
    assert hpa["metrics"][0]["pods"]["target"]["averageValue"] == f"{round(40 / 256 * 1000)}m"
    keda = files["kubernetes/scaledobject.yaml"]["spec"]
    assert float(keda["triggers"][0]["metadata"]["threshold"]) == pytest.approx(40 / 256, abs=1e-4)
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (hpa["minReplicas"], hpa["maxReplicas"]) == (2, 10)
    assert "replicas" not in files["kubernetes/deployment.yaml"]["spec"]
    rule = files["kubernetes/prometheus-adapter.yaml"]["rules"]["custom"][0]
    assert rule["name"]["as"] == hpa["metrics"][0]["pods"]["metric"]["name"]
    for metric in ("fuseline_waiting_rows", "fuseline_queue_limit_rows"):
        assert metric in rule["metricsQuery"]
        assert metric in keda["triggers"][0]["metadata"]["query"]


@pytest.mark.parametrize("options", VARIANTS, ids=["plain", "everything", "digest"])
def test_kustomization_lists_files_that_are_written_and_one_scaler(
    planned: Callable[..., Plan], options: dict[str, Any]
) -> None:
    plan = planned(**options)
    files = read(plan)
    kustomization = files["kubernetes/kustomization.yaml"]
    listed = kustomization["resources"]
    assert {f"kubernetes/{r}" for r in listed} <= set(files)
    assert len(listed) == len(set(listed))
    assert "hpa.yaml" in listed
    assert "scaledobject.yaml" not in listed
    assert ("namespace.yaml" in listed) == (plan.namespace is not None)
    [image] = kustomization["images"]
    rest = f"@{image['digest']}" if plan.digest else f":{image['newTag']}"
    assert image["name"] + rest == plan.image


def test_two_versions_of_one_model_stand_beside_each_other(planned: Callable[..., Plan], tmp_path: Any) -> None:
    a, b = make(tmp_path / "a.fuse"), make(tmp_path / "b.fuse", text="other")
    plan = planned(a, b, make(tmp_path / "c.fuse", "voice"))
    folders = [m.folder for m in plan.models]
    assert folders[:2] == [f"chest-{m.package.version}.fuse" for m in plan.models[:2]]
    assert folders[2] == "voice.fuse"
    assert len(set(folders)) == 3


def test_comments_are_comments(planned: Callable[..., Plan]) -> None:
    for name, text in manifests(planned(namespace="clinics", keys=True, grpc=True)).items():
        head = [line for line in text.splitlines() if line.startswith("#")]
        assert head, name
        assert text.splitlines()[: len(head)] == head, f"{name}: comments stand at the head alone"
        assert max(map(len, head)) <= 110


def test_the_server_takes_these_arguments_and_they_mean_the_same(planned: Callable[..., Plan]) -> None:
    settings = Settings(
        workers=3, max_batch_rows=8, queue_rows=64, objective_ms=250, deadline_ms=9000, drain_seconds=7.5, max_body_mb=4
    )
    plan = planned(settings=settings, keys=True, grpc=True)
    app = typer.Typer()
    app.command(serve.NAME)(serve.command)
    arguments = entrypoint(plan)[2:] + plan.arguments
    said = typer.main.get_command(app).make_context("serve", arguments).params
    for option, field in {"batch": "max_batch_rows", "queue": "queue_rows"}.items():
        said[field] = said[option]
    for field in (
        "workers",
        "max_batch_rows",
        "queue_rows",
        "objective_ms",
        "deadline_ms",
        "drain_seconds",
        "max_body_mb",
    ):
        assert said[field] == getattr(settings, field), field
    assert said["models"] == ["/models/chest.fuse"]
    assert (said["host"], said["port"], said["grpc_port"]) == ("0.0.0.0", 8080, 8081)
    assert str(said["keys"]) == "/etc/fuseline/keys/keys"


def test_prometheus_has_a_key_where_keys_are_asked_for(planned: Callable[..., Plan]) -> None:
    for keys in (True, False):
        files = read(planned(keys=keys))
        for name, field in {"servicemonitor": "endpoints", "podmonitor": "podMetricsEndpoints"}.items():
            [endpoint] = files[f"kubernetes/{name}.yaml"]["spec"][field]
            assert ("authorization" in endpoint) == keys
