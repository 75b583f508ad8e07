"""Writes the deployment's folder: image/, kubernetes/, kserve/, and a README that says what to run."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from fuseline.deploy import dockerfile, kserve, kustomize, monitors, network, scaling, workload
from fuseline.deploy.guide import guide
from fuseline.deploy.plan import Plan
from fuseline.deploy.source import Source, constraints, copy_source, find_source
from fuseline.errors import FuselineError
from fuseline.package.files import replace_folder, settle

MARK = "README.md"


def manifests(plan: Plan) -> dict[str, str]:
    """File name -> text. This is the table of what is written for a cluster."""
    files = {
        "kubernetes/serviceaccount.yaml": workload.service_account(plan),
        "kubernetes/deployment.yaml": workload.deployment(plan),
        "kubernetes/service.yaml": network.service(plan),
        "kubernetes/pdb.yaml": workload.disruption_budget(plan),
        "kubernetes/networkpolicy.yaml": network.network_policy(plan),
        "kubernetes/hpa.yaml": scaling.horizontal(plan),
        "kubernetes/scaledobject.yaml": scaling.keda(plan),
        "kubernetes/servicemonitor.yaml": monitors.service_monitor(plan),
        "kubernetes/podmonitor.yaml": monitors.pod_monitor(plan),
        "kubernetes/prometheus-adapter.yaml": scaling.adapter_rule(plan),
        "kubernetes/kustomization.yaml": kustomize.kustomization(plan),
        "kserve/inferenceservice.yaml": kserve.inference_service(plan),
    }
    if plan.namespace:
        files["kubernetes/namespace.yaml"] = workload.namespace(plan)
    return files


def write(plan: Plan, out: str | Path, *, wheel: str | None = None, force: bool = False) -> Path:
    """Write the whole folder or nothing. Raises FuselineError ``exists`` where it is there and `force` is not set."""
    target = settle(Path(out))
    also = {"grpc": plan.grpc, "openvino": any(m.package.backend == "openvino" for m in plan.models)}
    extras = ",".join(["serve", *(extra for extra, wanted in also.items() if wanted)])
    source = find_source(wheel, extras)
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise FuselineError("exists", f"{target} is no folder", "name another place: -o deploy/")
    if target.exists() and any(target.iterdir()):
        if not force:
            raise FuselineError(
                "exists", f"{target} is there already", "--force replaces it, or name another: -o FOLDER"
            )
        if not _ours(target):  # --force replaces a deployment, never somebody's home
            raise FuselineError("exists", f"{target} holds other files than a deployment", "name another: -o FOLDER")
    for model in plan.models:  # a package inside the old folder would be gone before it is copied
        if target.resolve() in model.package.folder.resolve().parents:
            raise FuselineError("bad_setting", f"{model.package.folder} lies in {target}", "name another: -o FOLDER")
    target.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _fill(new, plan, source, extras)
        new.chmod(0o755)
        replace_folder(new, target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return target


def _ours(target: Path) -> bool:
    return {p.name for p in target.iterdir()} <= {"image", "kubernetes", "kserve", MARK} and (target / MARK).is_file()


def _fill(folder: Path, plan: Plan, source: Source, extras: str) -> None:
    image = folder / "image"
    copy_source(source, image / "fuseline")
    for model in plan.models:
        _copy_package(model.package.folder, image / "models" / model.folder, model.package.manifest["members"])
    files = {
        "image/Dockerfile": dockerfile.dockerfile(plan, source),
        "image/.dockerignore": dockerfile.dockerignore(),
        "image/constraints.txt": constraints(extras),
        MARK: guide(plan),
        **manifests(plan),
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _copy_package(source: Path, target: Path, members: dict[str, object]) -> None:
    """The manifest and its members alone, readable by any user: what else lies in the folder stays here."""
    for name in ("manifest.json", *members):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, path)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
