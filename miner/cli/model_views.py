"""What `models show` says of a prepared model: facts of its manifests, of its files, and of this machine."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from detectors.errors import ModelError
from detectors.load import PreparedModel
from detectors.machine import allowed_cores
from detectors.models import MODEL_FILE
from detectors.models.calibration import Stage
from detectors.models.config import DetectorConfig, read_config
from detectors.models.inventory import faults_of, named, size_of, stored_models
from detectors.models.labels import class_doubt
from detectors.models.manifest import NAME, NO_REFERENCE, Manifest, architecture, as_served
from detectors.quantize.gate import judged_variant, renewal
from miner.bench.machine import multiply_adds
from miner.errors import ConfigurationError
from miner.inference.plan import plan_of
from miner.settings.settings import Settings

SECOND_COLUMN = 14  # characters before it


@dataclass(frozen=True, slots=True)
class PartView:
    """A model in one precision: where, how large, whether it is whole, and how it does beside fp32."""

    precision: str
    backend: str
    folder: str
    bytes: int
    files: int
    fault: str
    speed: float | None = None  # its time as a share of fp32's
    seconds: float | None = None  # of a picture, when it was made
    flips: float | None = None
    recipe: str = ""
    merging: str = ""  # of tokens


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model: what it is, and all that is there of it."""

    name: str
    revision: str
    detector: str
    architecture: str
    source: str
    source_revision: str
    labels: list[str]
    roadwork: str
    doubts: list[str]
    threshold: float
    temperature: float
    calibration: str
    parity: str
    known_answer: float
    multiply_adds: int
    made_with: dict[str, str]
    serves: str
    branch: str = ""
    views: str = ""  # of each picture that are judged; nothing: the whole
    stages: list[str] = field(default_factory=list)  # of a cascade, cheap to dear
    parts: list[PartView] = field(default_factory=list)


def views_of(settings: Settings, name: str | None) -> list[ModelDescription]:
    """Return the facts of a model, or of the configured one; of an ensemble, of its branches too.

    Raises:
        DetectorError: it is not prepared, or can't be read.
        ConfigurationError: nothing has this name.
    """
    model = PreparedModel.find(_config(settings, name), settings.models_dir)
    cores = allowed_cores()
    plan = plan_of(settings, model, cores)
    serves = f"{plan.runs_on}, {plan.slots} × {plan.threads} threads: {plan.why}"
    outdated = ": ".join(filter(None, renewal(model, plan.precision, plan.backend, plan.branches)))
    return [_facts(model, "", serves, outdated), *(_facts(one, name, "") for name, one in model.branches.items())]


def _config(settings: Settings, name: str | None) -> DetectorConfig:
    if name is None:
        return read_config(settings.detector_config)
    folder = Path(name).expanduser()
    if not (folder / NAME).is_file():
        if name.endswith((".yaml", ".yml")):
            return read_config(name)
        found = [one for one in named(stored_models(settings.models_dir), name) if one.is_whole]
        whole = [one for one in found if Manifest.read(one.folder).backend == "any"]
        if len(whole) != 1:
            known = ", ".join(one.name for one in whole or stored_models(settings.models_dir)) or "none"
            raise ConfigurationError(f"MODEL={name}: a YAML file, a model folder, or one of these is needed: {known}")
        folder = whole[0].folder
    return DetectorConfig.model_validate({"model_folder": folder.resolve(), "path": folder / NAME})


def _facts(model: PreparedModel, branch: str, serves: str, outdated: str = "") -> ModelDescription:
    manifest, calibration = model.manifest, model.manifest.calibration
    evidence = calibration.evidence if calibration is not None else None
    doubts = [class_doubt(model.config, manifest), manifest.judged_doubt, manifest.parity.caveat, outdated]
    stored = as_served(Manifest.read(model.folder), None, model.config.pooled_views).calibration
    if model.config.threshold is not None and stored is not None:
        doubts.append(f"its calibration ({stored.threshold:.3f}) is passed over: the YAML file has a threshold")
    if not branch:  # of a branch, what all say together counts
        doubts += _gate_doubts(model)
    parts, graph = list(_parts(model)), model.folder / MODEL_FILE
    return ModelDescription(
        name=manifest.name, revision=manifest.revision, detector=manifest.detector, branch=branch, serves=serves,
        architecture=architecture(model.folder), source=manifest.source.origin,
        source_revision=manifest.source.revision, labels=manifest.output.labels,
        roadwork=model.roadwork, doubts=[doubt for doubt in doubts if doubt],
        threshold=manifest.decides_at,
        temperature=calibration.temperature if calibration is not None else 1.0,
        calibration=f"threshold in {model.config.path.name}" if model.config.threshold is not None
        else "" if evidence is None else (
            f"expected reward {evidence.reward_before:.3f} -> {evidence.reward:.3f} on {evidence.photos} photos"
        ),
        parity=manifest.parity.words if manifest.parity.reference == NO_REFERENCE else (
            f"{manifest.parity.max_difference:.1e} from {manifest.parity.reference} at most, "
            f"{manifest.parity.pictures} pictures"
        ),
        views=manifest.view_words, stages=list(_stages(model.config)),
        known_answer=manifest.known_answer, made_with=manifest.made_with,
        multiply_adds=multiply_adds(graph) if graph.is_file() and not parts[0].fault else 0, parts=parts,
    )  # fmt: skip


def _stages(config: DetectorConfig) -> Iterator[str]:
    """Yield each stage of a cascade in words, with where it is unsure and what it was measured to earn."""
    for stage in (*config.stages, *filter(None, (config.fusion if config.stages else None,))):
        goes_on = "{:g} to {:g} goes on".format(*stage.band) if isinstance(stage, Stage) else "the last"
        found = stage.measured
        earns = f": expected reward {found.reward:.3f} on {found.photos} photos" if found is not None else ""
        yield f"{stage.words}, {goes_on}{earns}"


def _gate_doubts(model: PreparedModel) -> Iterator[str]:
    """Yield why the judgement of a faster precision that is there does not count."""
    for precision, backend in model.variants:
        try:
            doubt = judged_variant(model, precision, backend).gate_doubt
        except ModelError as error:
            doubt = str(error)
        if doubt:
            yield f"{precision} for {backend}: {doubt}"


def _parts(model: PreparedModel) -> Iterator[PartView]:
    folders = [(model.folder, model.manifest)]
    folders += [(model.variant_folder(*key), manifest) for key, manifest in model.variants.items()]
    for folder, manifest in folders:
        gate = manifest.gate
        yield PartView(
            precision=manifest.precision, backend=manifest.backend, folder=str(folder), bytes=size_of(folder),
            files=len(manifest.files), fault=faults_of(folder, manifest),
            speed=gate.speed if gate is not None else None, seconds=gate.seconds if gate is not None else None,
            flips=gate.flips if gate is not None else None, recipe=gate.recipe if gate is not None else "",
            merging=gate.merging.words if gate is not None and gate.merging is not None else "",
        )  # fmt: skip


def print_views(views: list[ModelDescription]) -> None:
    """Print the facts in two columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for view in views:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(width=SECOND_COLUMN, no_wrap=True)
        table.add_column(overflow="fold")
        for name, words in _rows(view):
            table.add_row(name, Text(words))
        if view is not views[0]:
            console.print()
        console.print(table)


def _rows(view: ModelDescription) -> Iterator[tuple[str, str]]:
    yield "branch" if view.branch else "model", f"{view.branch}: {view.name}" if view.branch else view.name
    yield "revision", view.revision
    kind = f"{view.detector}{f', {view.architecture}' if view.architecture else ''}"
    yield "kind", f"{kind}, {view.multiply_adds / 1e9:.2f} G multiply-adds" if view.multiply_adds else kind
    yield "source", f"{view.source} at {view.source_revision}"
    yield "classes", ", ".join(view.labels)
    yield "roadwork is", view.roadwork
    if view.views:
        yield "views", view.views
    for number, stage in enumerate(view.stages, 1):
        yield f"stage {number}", stage
    yield (
        "threshold",
        f"{view.threshold:.3f}, temperature {view.temperature:.2f}"
        + (f": {view.calibration}" if view.calibration else ", not calibrated"),
    )
    yield "export", view.parity
    if view.serves:
        yield "is served as", view.serves
    for doubt in view.doubts:
        yield "warning", doubt
    for part in view.parts:
        yield part.precision, _of_part(part)
        yield "", part.folder


def _of_part(part: PartView) -> str:
    words = f"{part.bytes / 1e6:.1f} MB for {part.backend if part.backend != 'any' else 'all backends'}"
    if part.seconds is not None:
        speed = f" ({part.speed:.2f} of fp32)" if part.speed is not None else ""
        recipe = f"{part.recipe}{f', {part.merging}' if part.merging else ''}"
        words += f", {part.seconds * 1e3:.1f} ms{speed}, {part.flips or 0:.2%} change sides, {recipe}"
    return f"{words}; {part.fault or f'{part.files} files match their sums'}"
