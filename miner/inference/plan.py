"""The plan of backend, precision, slots and threads: as set, as tuned, or by default; and where it is kept."""

import hashlib
import json
import logging
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from detectors.base import RunOptions, Way, Ways, is_plain, ways_in_words
from detectors.errors import DetectorConfigError, ModelError
from detectors.files import as_owner, write_safely
from detectors.load import PreparedModel, Sums
from detectors.machine import read_cpu
from detectors.models.documents import faults
from detectors.quantize.gate import measured_best
from detectors.registry import BACKENDS, PRECISIONS, default_backend
from miner.errors import CouldNotStart
from miner.settings.settings import Settings
from miner.settings.validators import AUTO, REMOTE, StageMode

log = logging.getLogger(__name__)

SLOTS_PER_ENDPOINT = 2  # one picture runs there, the next is unpacked here and on its way
FORMAT = 2


def split_cores(cores: int, slots: int = 0, threads: int = 0) -> RunOptions:
    """Return slots × threads ≤ cores; 0 leaves a number open, a number given is kept.

    One slot on all cores is the default: it answers a lone request soonest, and a burst ends within a tenth of the
    time that any other split needs.
    """
    slots = slots or max(1, cores // (threads or cores))
    return RunOptions(slots, threads or max(1, cores // slots))


def _known(names: Collection[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"one of {', '.join(names)} is allowed")
        return name

    return AfterValidator(check)


def _known_ways(ways: dict[str, Way]) -> dict[str, Way]:
    for name, way in ways.items():
        if way.backend not in BACKENDS or way.precision not in PRECISIONS or way.threads < 0:
            raise ValueError(f"{name}: {way} is no way to run a branch")
    return ways


def fitting(ways: Ways, threads: int) -> dict[str, Way]:
    """Return the ways of an ensemble's branches on so many threads: what does not fit side by side takes turns."""
    if sum(way.threads for way in ways.values()) <= threads:
        return dict(ways)
    return {name: replace(way, threads=0) for name, way in ways.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """How to serve a model on this machine, and why; the limits are for a plan that was read from a file.

    Attributes:
        backend: of an ensemble whose branches have ways of their own, the first one's.
        precision: the same.
        slots: pictures at once.
        threads: of each.
        arena: onnxruntime's own memory pool; None: as suits the graph.
        why: in words.
        branches: the ways of an ensemble's branches, where they are not alike or run side by side; else none.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    backend: Annotated[str, _known(BACKENDS)]
    precision: Annotated[str, _known(PRECISIONS)]
    slots: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
    arena: bool | None
    why: str
    branches: Annotated[dict[str, Way], AfterValidator(_known_ways)] = field(default_factory=dict)

    @property
    def options(self) -> RunOptions:
        """What the backend is told."""
        return RunOptions(self.slots, self.threads, self.arena)

    @property
    def runs_on(self) -> str:
        """Backend and precision, or those of each branch, in words."""
        return ways_in_words(self.branches) if not is_plain(self.branches) else f"{self.backend} {self.precision}"

    def settles(self, backend: str, precision: str) -> bool:
        """Return whether it keeps to the settings: `auto` leaves it open."""
        ways = self.branches.values() or (Way(self.precision, self.backend),)
        return all(backend in (AUTO, way.backend) and precision in (AUTO, way.precision) for way in ways)


def choose(settings: Settings, cores: int, tuned: Plan | None, measured: str | None = None) -> Plan:
    """Return the plan: what the settings leave open is taken from `tuned` where it fits them, else by default.

    `measured` is the backend that was the best at the set precision when its variants were made.
    """
    backend, precision = settings.image_detector_backend, settings.image_detector_precision
    if backend == REMOTE:
        count = len(settings.remote_endpoints.split(","))
        slots = settings.inference_slots or SLOTS_PER_ENDPOINT * count
        return Plan(backend, "fp32" if precision == AUTO else precision, slots, 1, None, f"{count} remote endpoints")
    fits = tuned is not None and tuned.settles(backend, precision)
    if tuned is not None and fits and not (settings.inference_slots or settings.inference_threads):
        return tuned
    split = split_cores(cores, settings.inference_slots, settings.inference_threads)
    why = "as set" if AUTO not in (backend, precision) else "not tuned for this machine: `roadwork-miner tune` measures"
    if tuned is not None and fits:
        branches, why = fitting(tuned.branches, split.threads), f"{tuned.why}; split as set"
        return replace(tuned, slots=split.slots, threads=split.threads, branches=branches, why=why)
    if backend == AUTO and measured is not None:
        backend, why = measured, f"the best {precision} when it was made; {why}"
    elif backend == AUTO:
        backend = default_backend(precision)
    return Plan(backend, "fp32" if precision == AUTO else precision, split.slots, split.threads, None, why)


PLAN = TypeAdapter(Plan)


def stored_plan(settings: Settings, model: PreparedModel, cores: int) -> Plan | None:
    """Return the plan that was tuned for a model on this machine; none where its variants are gone."""
    tuned = read_plan(folders(settings), key_of(model, cores))
    if tuned is None:
        return None
    if not model.branches:
        return tuned if model.has(tuned.precision, tuned.backend) else None
    try:
        model.fused(tuned.branches or dict.fromkeys(model.branches, Way(tuned.precision, tuned.backend)))
    except (DetectorConfigError, ModelError) as error:
        log.warning("the plan for %s is not followed (%s): %s", model.manifest.name, tuned.why, error)
        return None
    return tuned


def plan_of(settings: Settings, model: PreparedModel, cores: int) -> Plan:
    """Return how to serve a model."""
    precision, tuned = settings.image_detector_precision, stored_plan(settings, model, cores)
    return choose(settings, cores, tuned, measured_best(model, precision) if is_measured(settings) else None)


def is_measured(settings: Settings) -> bool:
    """Return whether the backend is left to what was measured when the variants of the set precision were made."""
    return settings.image_detector_backend == AUTO and settings.image_detector_precision not in (AUTO, "fp32")


def key_of(model: PreparedModel, cores: int) -> str:
    """Return the key of a model's plan on this machine."""
    return plan_key(model.sums, cores, cpu_model(), library_versions())


def folders(settings: Settings) -> list[Path]:
    """Return where a plan may be: beside the models, which a service may only read, or with the state."""
    return [settings.models_dir / "plans", settings.state_dir / "plans"]


def writable(places: Sequence[Path]) -> Path:
    """Return the first folder that takes a file; asked before a minute of measuring.

    Raises:
        CouldNotStart: none does.
    """
    reasons = []
    for place in places:
        try:
            with as_owner(place):
                place.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=place):
                    return place
        except OSError as error:
            reasons.append(f"{place}: {error.strerror or error}")
    raise CouldNotStart(f"a plan can't be stored: {'; '.join(reasons)}")


def plan_key(sums: Sums, cores: int, cpu: str, versions: Sequence[str]) -> str:
    """Return the key of a plan: another model or variant of it, CPU, quota or library version is another plan."""
    facts = [FORMAT, sums, cores, cpu, list(versions)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def read_plan(places: Sequence[Path], key: str) -> Plan | None:
    """Return the newest stored plan, or None where there is none that can be read."""
    found: list[tuple[float, Plan]] = []
    for path in (place / f"{key}.json" for place in places):
        try:
            found.append((path.stat().st_mtime, PLAN.validate_json(path.read_bytes())))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValidationError) as error:
            reason = faults(error) if isinstance(error, ValidationError) else error
            log.warning("the tuning plan %s can't be read and is ignored: %s", path, reason)
    return max(found, key=lambda one: one[0])[1] if found else None


def write_plan(place: Path, key: str, plan: Plan) -> Path:
    """Store a plan for the next start.

    Raises:
        CouldNotStart: the folder does not take it.
    """
    path = place / f"{key}.json"
    try:
        with as_owner(place):  # root may have tuned for the service's user
            place.mkdir(parents=True, exist_ok=True)
            write_safely(path, (json.dumps(asdict(plan), indent=2) + "\n").encode())
    except OSError as error:
        raise CouldNotStart(f"{path} can't be written: {error.strerror or error}") from error
    return path


def library_versions() -> list[str]:
    """Return name and version of what decides how fast a graph runs."""
    found = []
    runners = [package for entry in BACKENDS.values() if not entry.original for package in entry.packages[:1]]
    for name in dict.fromkeys((*runners, "roadwork-miner")):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def cpu_model(root: Path = Path("/")) -> str:
    """Return the CPU's name and its instruction sets in short."""
    name, flags = read_cpu(root)
    if not flags:
        return name or "unknown"
    return f"{name or 'unknown'} {hashlib.sha256(' '.join(sorted(flags)).encode()).hexdigest()[:8]}"


def planned_paces(mode: StageMode, paces: Sequence[float]) -> tuple[float, ...]:
    """Return the seconds of each stage that the queue decides about; with `all` the model was loaded without any."""
    return tuple(paces[:1] if mode == "cheapest" else paces)
