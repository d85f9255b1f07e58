"""Where plans are kept from one start to the next: beside the models, or with the state where those are read-only."""

import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from detectors.models.config import read_config
from detectors.models.documents import faults
from detectors.quantize.variants import Sums, measured_best, model_sums
from miner.errors import CouldNotStart
from miner.inference.plan import Plan, choose
from miner.settings.settings import AUTO, Settings

log = logging.getLogger(__name__)

LIBRARIES = ("onnxruntime", "openvino", "roadwork-miner")
FORMAT = 2
PLAN = TypeAdapter(Plan)


def stored_plan(settings: Settings, cores: int) -> Plan | None:
    """Return the plan that was tuned for the configured model on this machine, or None.

    Raises:
        DetectorError: the configuration or the model can't be read.
    """
    return read_plan(folders(settings), key_of(settings, cores))


def plan_of(settings: Settings, cores: int, tuned: Plan | None) -> Plan:
    """Return how to serve the configured model.

    Raises:
        DetectorError: the configuration or the model can't be read.
    """
    return choose(settings, cores, tuned, measured_backend(settings, settings.detector_config))


def measured_backend(settings: Settings, config: str) -> str | None:
    """Return the backend that serves a model's set precision best, where it is left open and was measured."""
    precision, backend = settings.image_detector_precision, settings.image_detector_backend
    if backend != AUTO or precision in (AUTO, "fp32"):
        return None
    return measured_best(read_config(config), settings.models_dir, precision)


def key_of(settings: Settings, cores: int) -> str:
    """Return the key of the configured model's plan on this machine."""
    sums = model_sums(read_config(settings.detector_config), settings.models_dir)
    return plan_key(sums, cores, cpu_model(), library_versions())


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
            log.warning("the tuning plan %s can't be read and is passed over: %s", path, reason)
    return max(found, key=lambda one: one[0])[1] if found else None


def write_plan(place: Path, key: str, plan: Plan) -> Path:
    """Store a plan for the next start.

    Raises:
        CouldNotStart: the folder does not take it.
    """
    path = place / f"{key}.json"
    partial = path.with_suffix(".partial")
    try:
        place.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(plan), indent=2) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise CouldNotStart(f"{path} can't be written: {error.strerror or error}") from error
    return path


def library_versions() -> list[str]:
    """Return name and version of what decides how fast a graph runs."""
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def cpu_model(root: Path = Path("/")) -> str:
    """Return the CPU's name and its instruction sets in short."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return "unknown"
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = hashlib.sha256(facts.get("flags", facts.get("Features", "")).encode()).hexdigest()[:8]
    return f"{facts.get('model name', facts.get('CPU part', 'unknown'))} {flags}"
