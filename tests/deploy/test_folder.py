"""The written folder: whole or not at all, never over somebody's files, and nothing hostile in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy.packages import make
from runtime.graphs import sealed

from fuseline.deploy import Plan, write
from fuseline.errors import FuselineError
from fuseline.package import read_package

WHEEL = "fuseline-0.1.0-py3-none-any.whl"


@pytest.fixture
def wheel(tmp_path: Path) -> str:
    (tmp_path / WHEEL).write_bytes(b"wheel")
    return str(tmp_path / WHEEL)


def test_everything_is_there_and_the_packages_are_the_same(
    planned: Callable[..., Plan], tmp_path: Path, chest: Path, wheel: str
) -> None:
    (chest / "stray.txt").write_text("not a member")
    plan = planned()
    folder = write(plan, tmp_path / "out/deploy", wheel=wheel)
    assert {p.name for p in folder.iterdir()} == {"README.md", "image", "kubernetes", "kserve"}
    copied = folder / "image/models/chest.fuse"
    assert read_package(copied).version == read_package(chest).version
    assert not (copied / "stray.txt").exists()
    assert (folder / "image/fuseline" / WHEEL).read_bytes() == b"wheel"
    for path in (folder, *folder.rglob("*")):  # the image's user is another one than the writer
        assert path.stat().st_mode & 0o444 == 0o444, path
    constraints = (folder / "image/constraints.txt").read_text()
    assert "\nfastapi==" in constraints
    assert "\nonnxruntime==" in constraints
    assert "torch" not in constraints
    assert not list(folder.parent.glob(".*")), "no half-written sibling stays"


def test_the_image_has_what_runs_the_packages(
    planned: Callable[..., Plan], tmp_path: Path, chest: Path, wheel: str
) -> None:
    other = make(tmp_path / "other.fuse", name="other")
    (other / "graph.onnx").rename(other / "openvino.xml")
    (other / "openvino.bin").write_bytes(b"weights")
    folder = write(planned(chest, sealed(other)), tmp_path / "deploy", wheel=wheel)
    assert "[serve,openvino]" in (folder / "image/Dockerfile").read_text()
    assert "\nopenvino==" in (folder / "image/constraints.txt").read_text()


def test_an_existing_folder_is_kept_without_force(planned: Callable[..., Plan], tmp_path: Path, wheel: str) -> None:
    out = tmp_path / "deploy"
    write(planned(), out, wheel=wheel)
    with pytest.raises(FuselineError, match="is there already"):
        write(planned(replicas=3), out, wheel=wheel)
    assert "minReplicas: 2" in (out / "kubernetes/hpa.yaml").read_text()
    write(planned(replicas=3), out, wheel=wheel, force=True)
    assert "minReplicas: 3" in (out / "kubernetes/hpa.yaml").read_text()


def test_force_replaces_deployments_alone(planned: Callable[..., Plan], tmp_path: Path, wheel: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(FuselineError, match="other files than a deployment"):
        write(planned(), home, wheel=wheel, force=True)
    assert (home / "thesis.tex").read_text() == "years of work"
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "file").write_text("x")
    for place in ("link", "file"):
        with pytest.raises(FuselineError, match="is no folder"):
            write(planned(), tmp_path / place, wheel=wheel, force=True)


def test_a_package_inside_the_folder_it_would_replace_survives(
    planned: Callable[..., Plan], tmp_path: Path, wheel: str
) -> None:
    out = write(planned(), tmp_path / "deploy", wheel=wheel)
    inside = out / "image/models/chest.fuse"
    with pytest.raises(FuselineError, match="lies in"):
        write(planned(inside), out, wheel=wheel, force=True)
    assert read_package(inside)


def test_a_failed_write_leaves_the_old_folder(
    planned: Callable[..., Plan], tmp_path: Path, chest: Path, wheel: str
) -> None:
    plan = planned()
    out = write(plan, tmp_path / "deploy", wheel=wheel)
    (chest / "graph.onnx").unlink()
    with pytest.raises(FileNotFoundError):
        write(plan, out, wheel=wheel, force=True)
    assert (out / "image/models/chest.fuse/graph.onnx").is_file()
    assert not list(tmp_path.glob(".deploy-*"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nowhere/fuseline.whl", "no file"),
        ("fuseline; rm -rf /", "no file"),
        ("--index-url=http://evil", "no file"),
        ("fuseline @ http://evil/x.whl", "no file"),
    ],
)
def test_what_is_no_source_is_refused(planned: Callable[..., Plan], tmp_path: Path, given: str, words: str) -> None:
    with pytest.raises(FuselineError, match=words):
        write(planned(), tmp_path / "deploy", wheel=given)
    assert not (tmp_path / "deploy").exists()


def test_files_that_are_no_wheel_are_refused(planned: Callable[..., Plan], tmp_path: Path) -> None:
    for name in ("fuseline.txt", 'a"b.whl', "a\nb.whl", "a b.whl"):
        (tmp_path / name).write_text("x")
        with pytest.raises(FuselineError, match="is no wheel"):
            write(planned(), tmp_path / "deploy", wheel=str(tmp_path / name))
    with pytest.raises(FuselineError, match="is no source"):
        write(planned(), tmp_path / "deploy", wheel=str(tmp_path))


def test_a_source_folder_gives_only_what_builds_a_wheel(planned: Callable[..., Plan], tmp_path: Path) -> None:
    source = tmp_path / "repo"
    (source / "src/fuseline/__pycache__").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", "secrets.env", "src/fuseline/__init__.py"):
        (source / name).write_text(name)
    (source / "src/fuseline/__pycache__/x.pyc").write_bytes(b"x")
    out = write(planned(), tmp_path / "deploy", wheel=str(source))
    files = {
        p.relative_to(out / "image/fuseline").as_posix() for p in (out / "image/fuseline").rglob("*") if p.is_file()
    }
    assert files == {f"source/{n}" for n in ("pyproject.toml", "README.md", "LICENSE", "src/fuseline/__init__.py")}


HOSTILE = ["", "-a", "a-", "A", "a_b", "a" * 49, "a/b", "a b", "a\n", "ä", "1a", 'a"', "a: b", "${HOME}", "../a"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(planned: Callable[..., Plan], name: str) -> None:
    for option in ("name", "namespace"):
        with pytest.raises(FuselineError, match="not a name that Kubernetes takes"):
            planned(**{option: name})


@pytest.mark.parametrize(
    "image", ["chest", "chest:latest", "chest:", "Chest:1", "a b:1", "x:1\nUSER root", "x@sha256:12"]
)
def test_images_without_a_fixed_tag_are_refused(planned: Callable[..., Plan], image: str) -> None:
    with pytest.raises(FuselineError) as error:
        planned(image=image)
    assert error.value.code == "bad_name"


@pytest.mark.parametrize("image", ["chest:1", "localhost:5000/a/b_c:v1.2-rc.1", "ghcr.io/x/y@sha256:" + "0" * 64])
def test_good_images_are_kept(planned: Callable[..., Plan], image: str) -> None:
    assert planned(image=image).image == image


@pytest.mark.parametrize(
    "options",
    [
        {"cpu": "0"}, {"cpu": "two"}, {"cpu": "-1"}, {"cpu": "1e3"}, {"cpu": "2; x"},
        {"memory": "1G"}, {"memory": "1"}, {"memory": "1Mi"}, {"memory": "1Gi\n"},
        {"replicas": 0}, {"replicas": 5, "max_replicas": 4}, {"max_replicas": 5000},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(planned: Callable[..., Plan], options: dict[str, object]) -> None:
    with pytest.raises(FuselineError) as error:
        planned(**options)
    assert error.value.code == "bad_setting"


def test_packages_are_checked_before_anything_is_written(planned: Callable[..., Plan], tmp_path: Path) -> None:
    broken = make(tmp_path / "broken.fuse")
    (broken / "graph.onnx").write_bytes(b"grape")
    with pytest.raises(FuselineError, match="is not the file that was packaged"):
        planned(broken)
    with pytest.raises(FuselineError, match="named twice"):
        planned(make(tmp_path / "a.fuse"), make(tmp_path / "b.fuse"))
    for hostile in ("../../etc", 'x", "--keys', "a b", "x\nRUN evil"):
        folder = tmp_path / f"h{abs(hash(hostile))}.fuse"
        with pytest.raises(FuselineError, match="cannot be a folder's name"):
            planned(make(folder, hostile))


def test_a_name_is_made_of_the_packages(planned: Callable[..., Plan], tmp_path: Path) -> None:
    assert planned(make(tmp_path / "a.fuse", "Chest_XRay.v2")).name == "chest-xray-v2"
    with pytest.raises(FuselineError, match="no Kubernetes name"):
        planned(make(tmp_path / "b.fuse", "123"))


def test_the_readme_names_every_package(planned: Callable[..., Plan], tmp_path: Path, wheel: str) -> None:
    plan = planned(keys=True, namespace="clinics")
    text = (write(plan, tmp_path / "deploy", wheel=wheel) / "README.md").read_text()
    assert plan.models[0].package.version in text
    assert "kubectl create secret generic chest-keys" in text
    assert json.loads((tmp_path / "deploy/image/models/chest.fuse/manifest.json").read_text())["name"] == "chest"
