"""The door: every format on every backend, for parts of every modality."""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conformance.subjects import cases, missing_package
from lab.compress import rounded
from lab.compress.rounded import FUSION, Source

from fuseline.errors import FuselineError
from fuseline.lab.compress import quantise as door
from fuseline.lab.compress.names import part_of
from fuseline.lab.compress.quantise import PRECISIONS, Quantised

pytest.importorskip("openvino")

POSSIBLE = [(b, p) for b in ("onnxruntime", "openvino") for p in PRECISIONS if (b, p) not in door.CANNOT]
TOLERANCE = {
    "float32": 1e-4,
    "bfloat16": 0.15,
    "int8": 0.15,
    "int8-dynamic": 0.15,
    "weights-int8": 0.08,
    "weights-int4": 0.5,
}
"""of the mean change of any output, in units of its spread over the rows. Models of a few thousand weights, some barely
trained, whose answers differ little from row to row."""
STEADY = ("float32", "int8", "weights-int8", "weights-int4")
"""formats in which a row does not see its neighbours"""
KINDS = {
    "text-hf-bert": (("openvino", "int8"),),
    "image-efficientnet-lite0": (("onnxruntime", "int8"), ("openvino", "int8")),
    "audio-hf-wav2vec2": (("onnxruntime", "weights-int8"),),
    "fusion-gated": (("onnxruntime", "int8"),),
}
"""what is not in the clinic's model. Each export takes long, and so not every format of every kind"""


@pytest.fixture(scope="session")
def clinic(package: Path) -> Source:
    return rounded.package_source(package)


@pytest.fixture(scope="module")
def written(clinic: Source, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Path, Quantised]]:
    """The whole model in one format: made once, looked at by several tests."""
    root = tmp_path_factory.mktemp("written")

    @functools.cache
    def get(backend: str, precision: str) -> tuple[Path, Quantised]:
        folder = root / f"{backend}-{precision}"
        return folder, rounded.make(clinic, folder, backend, clinic.whole(precision))

    return get


Written = Callable[[str, str], tuple[Path, Quantised]]


@pytest.mark.parametrize(("backend", "precision"), POSSIBLE)
def test_every_format_answers_nearly_the_same(clinic: Source, written: Written, backend: str, precision: str) -> None:
    folder, made = written(backend, precision)
    assert sorted(p.name for p in folder.iterdir()) == sorted(made.files)
    assert made.bytes == sum((folder / name).stat().st_size for name in made.files)
    assert made.precision == clinic.whole(precision)
    assert made.runtime["backend"] == backend
    assert made.runtime["precision"] == precision
    assert rounded.moved(clinic, folder, made) < TOLERANCE[precision]
    float_size = sum((clinic.folder / n).stat().st_size for n in ("graph.onnx", "weights.safetensors"))
    words = 0.3 if backend == "openvino" else 0.06  # XML, which grows with nodes and not with weights
    share = {
        "float32": 1,
        "bfloat16": 0.52,
        "int8": 0.29,
        "int8-dynamic": 0.8,
        "weights-int8": 0.3,
        "weights-int4": 0.28,
    }
    assert made.bytes < (share[precision] + words) * float_size


@pytest.mark.parametrize(("backend", "precision"), [bp for bp in POSSIBLE if bp[1] in STEADY])
def test_a_row_does_not_see_its_neighbours(clinic: Source, written: Written, backend: str, precision: str) -> None:
    opened = rounded.runner_of(*written(backend, precision))
    places = [i % len(clinic.rows) for i in range(64)]
    alone = rounded.joined(opened, [clinic.batch([i]) for i in range(len(clinic.rows))])
    for size in (2, 3, 7, 64):
        together = rounded.run(opened, clinic.batch(places[:size]))
        for name, values in together.items():
            # A sum in another order may end on the other side of a step of uint8: one step, in few rows.
            gap = np.abs(values - alone[name][places[:size]]) / alone[name].std()
            assert gap.mean() < 1e-3
            assert gap.max() < (1e-4 if precision == "float32" else 0.1)


@pytest.mark.parametrize("case", [c.name for c in cases() if c.name in KINDS and missing_package(c) is None])
def test_encoders_from_elsewhere(tmp_path: Path, case: str) -> None:
    source = rounded.exported_source(case, tmp_path)
    for backend, precision in KINDS[case]:
        folder = tmp_path / f"{backend}-{precision}"
        made = rounded.make(source, folder, backend, source.whole(precision))
        assert rounded.moved(source, folder, made) < 2 * TOLERANCE[precision]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_lengths_from_shortest_to_longest(clinic: Source, written: Written, backend: str) -> None:
    before, after = rounded.runner_of(clinic.folder), rounded.runner_of(*written(backend, "int8"))
    batch = clinic.batch(range(3))
    spread = {k: v.std() for k, v in rounded.joined(before, clinic.batches()).items()}
    for length in range(1, 17):
        batch["note.ids"] = np.full((3, length), 5, np.int64)
        batch["note.mask"] = np.ones((3, length), np.int64)
        for name, values in rounded.run(after, batch).items():
            assert np.abs(values - rounded.run(before, batch)[name]).mean() / spread[name] < 0.4


MIXED = {"picture": "int8", "note": "weights-int8", "sound": "weights-int4", FUSION: "float32"}


def test_parts_have_their_own_formats(clinic: Source, tmp_path: Path) -> None:
    made = rounded.make(clinic, tmp_path / "made", "onnxruntime", MIXED)
    assert made.runtime["precision"] == "int8+weights-int8+weights-int4"
    assert made.precision == {**MIXED, "vitals": "float32"}
    kinds: dict[str | None, set[str]] = {}
    for name, node in rounded.nodes_of(tmp_path / "made").items():
        bits = next((a.i for a in node.attribute if a.name == "bits"), "")
        kinds.setdefault(part_of(name, clinic.names), set()).add(f"{node.op_type}{bits}")
    assert "DequantizeLinear" in kinds["picture"]
    assert "MatMulNBits8" in kinds["note"]
    assert "MatMulNBits4" in kinds["sound"]
    assert not any(k.startswith(("MatMulNBits", "Dequantize", "Quantize")) for k in kinds[FUSION] | kinds["vitals"])
    assert rounded.moved(clinic, tmp_path / "made", made) < 0.5


def test_openvino_mixes_int8_and_bfloat16(clinic: Source, tmp_path: Path) -> None:
    precision = {"picture": "int8", "note": "bfloat16", FUSION: "bfloat16"}
    made = rounded.make(clinic, tmp_path / "made", "openvino", precision)
    assert made.runtime == {"backend": "openvino", "precision": "bfloat16+int8", "options": {}}
    assert rounded.moved(clinic, tmp_path / "made", made) < 0.2


def test_modules_are_kept_in_float(clinic: Source, tmp_path: Path) -> None:
    kept = ("encoders.0.stages.1", "encoders.1.embed", "fusion.blocks.0")
    rounded.make(clinic, tmp_path / "made", "onnxruntime", clinic.whole("int8"), keep_float=kept)
    graph = onnx.load(tmp_path / "made" / "graph.onnx").graph
    constants = {t.name: onnx.numpy_helper.to_array(t).dtype for t in graph.initializer}
    makers = {o: n for n in graph.node for o in n.output}
    seen: dict[bool, int] = {True: 0, False: 0}
    for node in graph.node:
        if node.op_type in ("Conv", "MatMul"):
            rounded_weight = node.input[1] in makers and makers[node.input[1]].op_type == "DequantizeLinear"
            inside = node.name.split("/")[0].startswith(kept)
            seen[inside] += rounded_weight
    assert seen[True] == 0
    assert seen[False] > 10
    tables = [n for n in graph.node if n.name.startswith("encoders.1.embed/") and n.op_type == "Gather"]
    assert all(constants[n.input[0]] == np.float32 for n in tables)
    # A path is whole: stages.1 is not stages.10, nor is `fusion.blocks.0` `fusion.blocks.01`.
    rounded.make(clinic, tmp_path / "other", "onnxruntime", clinic.whole("int8"), keep_float=("encoders.0.stage",))
    assert "encoders.0.stages.1.conv_in" in " ".join(
        n for n, node in rounded.nodes_of(tmp_path / "other").items() if node.op_type == "DequantizeLinear"
    )


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_names_and_open_shapes_stay(clinic: Source, written: Written, backend: str) -> None:
    folder, made = written(backend, "int8")
    proto = onnx.load(clinic.folder / "graph.onnx", load_external_data=False).graph
    weighted = {n.name for n in proto.node if n.op_type in ("Conv", "MatMul") and not n.name.startswith("/")}
    if backend == "onnxruntime":
        written = onnx.load(folder / "graph.onnx").graph
        assert weighted <= {n.name for n in written.node}
        assert [i.SerializeToString() for i in written.input] == [i.SerializeToString() for i in proto.input]
        assert [o.name for o in written.output] == [o.name for o in proto.output]
        used = {name for n in written.node for name in n.input}
        assert {t.name for t in written.initializer} <= used  # nothing is written that nobody reads
    else:
        xml = (folder / "openvino.xml").read_text(encoding="utf-8")
        layers = re.findall(r'<layer id="\d+" name="([^"]*)" type="(\w*Convolution|MatMul)"', xml)
        named = {name.removesuffix("/WithoutBiases") for name, _ in layers}
        assert len(named & weighted) > 0.9 * len(layers)
        assert str(folder) not in xml
        assert "tmp" not in re.sub(r'name="[^"]*"', "", xml)
        opened = rounded.runner_of(folder, made)
        assert opened.inputs == {i.name for i in proto.input}  # type: ignore[attr-defined]


@pytest.mark.parametrize(("backend", "precision"), [("onnxruntime", MIXED), ("openvino", MIXED)])
def test_the_same_input_gives_the_same_bytes(
    clinic: Source, tmp_path: Path, backend: str, precision: dict[str, str]
) -> None:
    seen = []
    for turn in ("first", "second"):
        made = rounded.make(clinic, tmp_path / turn, backend, precision)
        seen.append({n: hashlib.sha256((tmp_path / turn / n).read_bytes()).hexdigest() for n in made.files})
    assert seen[0] == seen[1]


@pytest.mark.parametrize("method", ["percentile", "entropy", "minmax"])
def test_every_method_of_calibration(clinic: Source, tmp_path: Path, method: str) -> None:
    made = rounded.make(clinic, tmp_path / "made", "onnxruntime", clinic.whole("int8"), method=method)
    assert rounded.moved(clinic, tmp_path / "made", made) < (0.5 if method == "entropy" else TOLERANCE["int8"])


def test_dynamic_int8_says_what_it_does(clinic: Source, tmp_path: Path) -> None:
    made = rounded.make(clinic, tmp_path / "made", "onnxruntime", {"note": "int8-dynamic", "picture": "int8-dynamic"})
    assert any("depends a little on the other rows" in note for note in made.notes)


def test_rows_are_needed_for_ranges_only(clinic: Source, tmp_path: Path) -> None:
    empty: list[object] = []
    with pytest.raises(FuselineError, match="rows that set its ranges") as caught:
        rounded.make(clinic, tmp_path / "a", "onnxruntime", {"note": "int8"}, calibration=empty)
    assert caught.value.code == "no_calibration"
    for precision in ("weights-int8", "int8-dynamic"):
        made = rounded.make(clinic, tmp_path / precision, "onnxruntime", clinic.whole(precision), calibration=empty)
        assert any("no rows" in note for note in made.notes)
        assert rounded.moved(clinic, tmp_path / precision, made) < 0.15


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"precision": {"nothing": "int8"}}, "unknown_kind"),
        ({"precision": {"note": "int3"}}, "unknown_kind"),
        ({"backend": "tensorrt"}, "unknown_kind"),
        ({"method": "guess"}, "unknown_kind"),
        ({"precision": {"note": "bfloat16"}}, "bad_precision"),
        ({"precision": {"note": "int8-dynamic"}, "backend": "openvino"}, "bad_precision"),
    ],
)
def test_what_there_is_not(clinic: Source, tmp_path: Path, change: dict[str, object], code: str) -> None:
    given: dict[str, object] = {"backend": "onnxruntime", "precision": {"note": "int8"}, **change}
    with pytest.raises(FuselineError) as caught:
        rounded.make(clinic, tmp_path / "made", **given)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert not list((tmp_path / "made").iterdir())


def test_without_openvino(clinic: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(FuselineError, match=re.escape("fuseline[compress]")) as caught:
        rounded.make(clinic, tmp_path / "made", "openvino", {"note": "int8"})
    assert caught.value.code == "missing_extra"


@pytest.mark.parametrize("damage", [np.nan, 0.0])
def test_a_broken_part_is_named(clinic: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: float) -> None:
    """A part whose rounding loses everything: its scales are set to `damage`."""
    whole = door.round_graph

    def broken(graph: object, precision: dict[str, str], *more: object) -> list[str]:
        notes = whole(graph, precision, *more)  # type: ignore[arg-type]
        if precision.get(FUSION) == "int8":
            for name in graph.arrays:  # type: ignore[attr-defined]
                if name.startswith("fusion.blocks") and name.endswith("scale"):
                    graph.arrays[name] = np.full_like(graph.arrays[name], damage)  # type: ignore[attr-defined]
            for name in ("model.fusion.norm.weight",):
                graph.arrays[name] = np.full_like(graph.arrays[name], damage)  # type: ignore[attr-defined]
        return notes

    monkeypatch.setattr(door, "round_graph", broken)
    with pytest.raises(FuselineError, match=r"fusion\.head in int8") as caught:
        rounded.make(clinic, tmp_path / "made", "onnxruntime", {"note": "weights-int8", FUSION: "int8"})
    assert caught.value.code == "quantise_failed"


def test_a_folder_that_holds_no_float_model(clinic: Source, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    bare = Source(tmp_path / "empty", clinic.names, clinic.rows, clinic.parser)
    with pytest.raises(FuselineError) as caught:
        rounded.make(bare, tmp_path / "made", "onnxruntime", {})
    assert caught.value.code == "quantise_failed"


def test_formats_are_in_no_order(clinic: Source, tmp_path: Path) -> None:
    """The order in which parts are told of does not matter."""
    seen = set()
    for turn, items in enumerate(itertools.islice(itertools.permutations(MIXED.items()), 0, 24, 11)):
        rounded.make(clinic, tmp_path / str(turn), "onnxruntime", dict(items))
        seen.add((tmp_path / str(turn) / "weights.bin").read_bytes())
    assert len(seen) == 1
