"""Makes candidates and keeps them: what is finished in a folder is never made again, so an interrupted search goes on.

OUT/structures/KEY/model.fuse: a cut and healed model with float weights. OUT/trials/KEY/: a measured candidate, its
package (model.fuse) and what was found of it (trial.json, written last).
"""

from __future__ import annotations

import copy
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from fuseline.errors import FuselineError
from fuseline.lab.compress.budget import Budget
from fuseline.lab.compress.candidate import Candidate, key_of
from fuseline.lab.compress.cutting import Scores, cut_model
from fuseline.lab.compress.distil import DistilConfig
from fuseline.lab.compress.heal import heal
from fuseline.lab.compress.measure import Outputs, Ruler, quartiles
from fuseline.lab.compress.quantise import quantise
from fuseline.lab.compress.seal import seal
from fuseline.lab.compress.students import Student
from fuseline.lab.compress.subject import Subject, lineage, rebuild
from fuseline.lab.compress.teacher import Teacher
from fuseline.lab.export.package import export_package
from fuseline.lab.model import FusionModel
from fuseline.lab.training.prepare import Prepared
from fuseline.lab.training.reader import Batch, Reader
from fuseline.modalities.rows import RowParser, lengths_of
from fuseline.package import Package, read_package
from fuseline.package.files import finite, write_json
from fuseline.progress import Voice
from fuseline.recipe import Frozen
from fuseline.runtime import Predictor, load

PARITY_ROWS = 8
BATCHES = (1, 8)
"""rows at once that a candidate is timed with"""


class Settings(Frozen):
    """How candidates are made and measured. Part of every key: other settings, other trials."""

    metric: str = "auto"
    seed: int = 0
    epochs: int = Field(10, ge=0, description="of healing a cut model; 0: none")
    learning_rate: float = Field(5e-4, gt=0)
    calibration_rows: int = Field(96, ge=1, description="training rows that set the ranges of integers")
    select_rows: int = Field(2000, ge=1, description="rows that choose between candidates, at most")
    bootstrap: int = Field(300, ge=0)
    threads: int | None = None
    distil: DistilConfig = DistilConfig()


@dataclass
class Made:
    """A model in torch with the rows as it reads them."""

    model: FusionModel
    prepared: Prepared


@dataclass
class Workshop:
    """Where candidates are made. Use :meth:`trial`; everything else serves it."""

    subject: Subject
    folder: Path
    settings: Settings
    budget: Budget
    voice: Voice
    teacher: Teacher
    students: Mapping[str, Student] = field(default_factory=dict)

    def __post_init__(self) -> None:
        prepared = self.subject.prepared
        rows = _sample(prepared.rows("val"), self.settings.select_rows, self.settings.seed)
        metric = prepared.task.metric if self.settings.metric == "auto" else self.settings.metric
        self.ruler = Ruler(prepared, rows, metric=metric, bootstrap=self.settings.bootstrap, seed=self.settings.seed)
        self.higher_is_better = _direction(self.subject.model, self.ruler)
        described = self.settings.model_dump(mode="json") | {"threads": None}
        described["students"] = {name: s.key for name, s in self.students.items()}
        self.context = [self.subject.package.version, prepared.fingerprint(), described, self.teacher.key]
        self._models: dict[str, Made] = {"": Made(self.subject.model, prepared)}
        self._scores: dict[str, Scores] = {}
        self._base: tuple[Predictor, Outputs] | None = None

    # --- models -----------------------------------------------------------------------------------------------------

    def root(self, student: str) -> Made:
        """The whole model: the subject's own, or a student's, taught once."""
        if student not in self._models:
            path = self.folder / "structures" / key_of(self.context, "student", student) / "model.fuse"
            if not (path / "manifest.json").exists():
                prepared, model = self.students[student].teach(self.teacher, path.parent, self.settings, self.voice)
                self._write(Made(model, prepared), path, {"student": student})
            self._models[student] = self._reopen(path)
        return self._models[student]

    def scores(self, student: str) -> Scores:
        """The importance of a whole model's layers, measured once."""
        return self._scores.setdefault(student, {})

    def structure(self, candidate: Candidate) -> Path:
        """The folder of the float package of a candidate's structure, cut and healed."""
        aware = sorted(candidate.numbers.precision.items()) if candidate.numbers.aware else []
        key = key_of(self.context, "structure", candidate.student, candidate.cut, aware)
        folder = self.folder / "structures" / key
        path = folder / "model.fuse"
        if (path / "manifest.json").exists():
            return path
        folder.mkdir(parents=True, exist_ok=True)
        root = self.root(candidate.student)
        made = Made(copy.deepcopy(root.model), root.prepared)
        record: dict[str, Any] = {"student": candidate.student} if candidate.student else {}
        if candidate.cut:
            with self.voice_for("cutting"):
                batches = self.some_batches(root.prepared)
                cut = cut_model(made.model, candidate.cut, root.prepared, batches, self.scores(candidate.student))
            record |= cut.record
            made = Made(made.model, cut.prepared)
            if self.settings.epochs and cut.parts:
                unhealed = {name: value.clone() for name, value in made.model.state_dict().items()}
                healed = heal(
                    made.model,
                    self.teacher,
                    made.prepared,
                    folder / "heal",
                    config=self.settings.distil,
                    epochs=max(1, self.settings.epochs // (3 if candidate.cut.thorough else 1)),
                    learning_rate=self.settings.learning_rate,
                    seed=self.settings.seed,
                    voice=self.voice,
                    parts=self._healed(cut.parts, made.prepared, candidate.cut.thorough),
                )
                before, after = healed.before.distance, healed.after.distance
                helped = before is None or (after is not None and after < before)
                if not helped:  # few rows pull a small cut further from the whole model than the cut itself did
                    made.model.load_state_dict(unhealed)
                record["healed"] = {**healed.to_dict(), "kept": helped}
        if aware:
            from fuseline.lab.compress.qat import quantisation_aware

            report = quantisation_aware(
                made.model,
                self.teacher,
                made.prepared,
                folder / "aware",
                parts=[part for part, precision in aware if precision == "int8"],
                config=self.settings.distil,
                epochs=max(1, self.settings.epochs // 2),
                learning_rate=self.settings.learning_rate / 5,
                seed=self.settings.seed,
                voice=self.voice,
            )
            record["aware"] = report.to_dict()
        self._write(made, path, record)
        for name in ("heal", "aware"):
            shutil.rmtree(folder / name, ignore_errors=True)
        return path

    @staticmethod
    def _healed(parts: Sequence[str], prepared: Prepared, thorough: bool) -> list[str]:
        """The encoders that train while a cut is healed. One that the recipe froze is costly to train, and what stands
        behind it can often take up what changed, from tokens that are made once: that is tried first."""
        return [n for n in parts if n in prepared.plans and (thorough or prepared.plans[n].tune != "frozen")]

    def _write(self, made: Made, path: Path, record: Mapping[str, Any]) -> None:
        prepared, parent = made.prepared, self.subject.package
        path.parent.mkdir(parents=True, exist_ok=True)
        layers = {**lineage(parent).get("layers", {}), **record.get("layers", {})}
        export_package(
            made.model,
            recipe=prepared.recipe,
            parser=prepared.parser,
            task=prepared.task,
            rows=self._parity_rows(prepared),
            target=path,
            name=parent.name,
            run=_described(prepared, parent),
            metrics=parent.read_json("metrics.json") or {},
            profile=parent.read_json("profile.json") or {},
            extra={
                "compression.json": finite(
                    {
                        "parent": {"name": parent.name, "version": parent.version},
                        "made": dict(record),
                        "layers": layers,
                    }
                )
            },
        )

    def _reopen(self, path: Path) -> Made:
        package = read_package(path)
        base = self.subject.prepared
        parser = RowParser.from_states(package.recipe, package.columns)
        from fuseline.lab.build import plan_inputs

        plans = plan_inputs(package.recipe)
        model = rebuild(package, plans, parser, base.task)
        reader = Reader(base.table, parser, base.task, base.reader.media, base.reader.cache)
        return Made(model, replace(base, recipe=package.recipe, plans=plans, parser=parser, reader=reader))

    def _parity_rows(self, prepared: Prepared) -> list[Mapping[str, Any]]:
        rows = prepared.rows("val") if len(prepared.rows("val")) else prepared.rows("train")
        chosen = rows[np.linspace(0, len(rows) - 1, min(PARITY_ROWS, len(rows))).astype(int)]
        return [row.values for row in _read(prepared, chosen)]

    def some_batches(self, prepared: Prepared, rows: int = 48, size: int = 16) -> list[Batch]:
        """Training rows, of any length: what importance is measured on."""
        chosen = np.sort(_sample(prepared.rows("train"), rows, self.settings.seed))
        return list(prepared.reader.batches(chosen, size))

    def calibration(self, package: Package) -> list[dict[str, np.ndarray]]:
        """Real training rows in small batches of like length, as the package's graph takes them."""
        prepared = self.subject.prepared
        parser = RowParser.from_states(package.recipe, package.columns)
        reader = Reader(prepared.table, parser, prepared.task, prepared.reader.media, prepared.reader.cache)
        chosen = np.sort(_sample(prepared.rows("train"), self.settings.calibration_rows, self.settings.seed))
        values = [row.values for row in _read(replace(prepared, parser=parser, reader=reader), chosen)]
        values.sort(key=lambda row: float(lengths_of(parser.modalities, row).sum()))
        return [parser.arrays(values[i : i + 8]) for i in range(0, len(values), 8)]

    # --- trials -----------------------------------------------------------------------------------------------------

    @property
    def base(self) -> tuple[Predictor, Outputs]:
        """The float model as it is served, and its answers on the rows that choose."""
        if self._base is None:
            predictor = load(self.structure(Candidate()), threads=self.settings.threads)
            self._base = predictor, self.ruler.outputs(predictor, self.voice, "measuring the model as it is")
        return self._base

    def key(self, candidate: Candidate) -> str:
        return key_of(self.context, "trial", candidate)

    def kept(self, candidate: Candidate) -> dict[str, Any] | None:
        """A trial that was finished before."""
        try:
            text = (self.folder / "trials" / self.key(candidate) / "trial.json").read_text(encoding="utf-8")
            trial: dict[str, Any] = json.loads(text)
        except (OSError, ValueError):
            return None
        return self._judged(trial)

    def trial(self, candidate: Candidate) -> dict[str, Any]:
        """Make and measure a candidate, or read what was found of it before. A candidate that cannot be made is a
        failed trial, which says why; Ctrl-C is not."""
        done = self.kept(candidate)
        if done is not None:
            return done
        folder = self.folder / "trials" / self.key(candidate)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.voice.say(f"· trying {candidate.words()}")
        clock: dict[str, float] = {}
        try:
            trial = self._measured(candidate, folder, clock)
        except FuselineError as error:
            trial = self._failed(candidate, str(error))
        trial["seconds"] = {k: round(v, 1) for k, v in clock.items()}
        write_json(folder / "trial.json", finite(trial))
        return self._judged(finite(trial))

    def _measured(self, candidate: Candidate, folder: Path, clock: dict[str, float]) -> dict[str, Any]:
        with timed(clock, "structure"):
            structure = read_package(self.structure(candidate))
        path = folder / "model.fuse"
        notes: list[str] = []
        with timed(clock, "quantise"):
            if not any(p != "float32" for p in candidate.numbers.precision.values()) and (
                candidate.numbers.backend == "onnxruntime"
            ):
                shutil.copytree(structure.folder, path)
            else:
                new = folder / "model.new"
                shutil.rmtree(new, ignore_errors=True)
                new.mkdir()
                made = quantise(
                    structure.folder,
                    new,
                    names=tuple(structure.recipe.inputs),
                    backend=candidate.numbers.backend,
                    precision=candidate.numbers.precision,
                    keep_float=candidate.numbers.keep_float,
                    calibration=self.calibration(structure),
                    voice=self.voice,
                )
                notes += made.notes
                seal(structure, new, candidate, made.runtime)
                new.rename(path)
        with timed(clock, "measure"):
            return self._weigh(candidate, path, notes)

    def _weigh(self, candidate: Candidate, path: Path, notes: Sequence[str]) -> dict[str, Any]:
        base, before = self.base
        predictor = load(path, threads=self.settings.threads)
        after = self.ruler.outputs(predictor, self.voice, "measuring")
        verdict = self.ruler.compare(before, after)
        latency, speedup = {}, {}
        itself = candidate == Candidate()
        for batch in BATCHES:
            first, own = self.ruler.race([base, predictor], batch)
            latency[str(batch)] = quartiles(own)
            speedup[str(batch)] = 1.0 if itself else float(np.median(first) / np.median(own))
        return {
            "key": self.key(candidate),
            "words": candidate.words(),
            "candidate": candidate.model_dump(mode="json"),
            "size_bytes": predictor.package.bytes,
            "latency": latency,
            "speedup": speedup,
            **vars(verdict),
            "notes": list(notes),
            "failed": None,
        }

    def _failed(self, candidate: Candidate, why: str) -> dict[str, Any]:
        return {
            "key": self.key(candidate),
            "words": candidate.words(),
            "candidate": candidate.model_dump(mode="json"),
            "size_bytes": None,
            "latency": None,
            "speedup": None,
            "score": None,
            "drop": {"value": None, "low": None, "high": None},
            "subsets": [],
            "same_answer": None,
            "change": None,
            "notes": [],
            "failed": why,
        }

    def _judged(self, trial: dict[str, Any]) -> dict[str, Any]:
        trial["why_not"] = self.budget.why_not(trial)
        trial["feasible"] = not trial["why_not"]
        return trial

    def package_of(self, trial: Mapping[str, Any]) -> Path:
        return self.folder / "trials" / str(trial["key"]) / "model.fuse"

    @contextmanager
    def voice_for(self, title: str) -> Iterator[None]:
        with self.voice.track(title, 1) as advance:
            yield
            advance()


@contextmanager
def timed(clock: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        clock[name] = clock.get(name, 0.0) + time.monotonic() - start


@torch.no_grad()
def _direction(model: FusionModel, ruler: Ruler) -> bool:
    """Whether more is better. Raises FuselineError ``bad_metric`` for a metric that the task does not have."""
    prepared = ruler.prepared
    batch = prepared.reader.batch(ruler.rows[:1])
    one = {k: v.float().numpy() for k, v in model(batch.arrays, batch.present_BM).items()}
    # What the metrics are called hangs on the targets (one of several tasks may have none here), not on the answers.
    out = {k: np.repeat(v, len(ruler.targets), axis=0) for k, v in one.items()}
    known = prepared.task.score(ruler.targets, out, details=False).metrics
    if ruler.metric not in known:
        raise FuselineError("bad_metric", f"the task has no metric {ruler.metric!r}", f"known: {', '.join(known)}")
    return known[ruler.metric].higher_is_better


def _sample(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    return np.random.default_rng(seed).choice(rows, most, replace=False)


def _read(prepared: Prepared, rows: np.ndarray) -> list[Any]:
    read = prepared.reader.read(rows)
    for row in read:
        if row.error is not None:
            raise row.error
    return read


def _described(prepared: Prepared, parent: Package) -> dict[str, Any]:
    """What the model card says of the inputs."""
    return {
        "inputs": [
            {
                "name": name,
                "modality": plan.modality,
                "columns": list(prepared.parser.modalities[name].columns),
                "encoder": plan.encoder,
                "tune": plan.tune,
            }
            for name, plan in prepared.plans.items()
        ]
    }
