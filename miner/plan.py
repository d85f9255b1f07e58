"""Which backend, precision and split of the machine to serve with: as set, as tuned, or by default."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from detectors.base import RunOptions
from detectors.manifest import Manifest
from miner.settings import AUTO, REMOTE, Settings
from miner.threads import make_plan

log = logging.getLogger(__name__)

LIBRARIES = ("onnxruntime", "openvino", "roadwork-miner")
FORMAT = 1
SLOTS_PER_ENDPOINT = 2  # one picture runs there, the next is unpacked here and on its way


@dataclass(frozen=True, slots=True)
class Plan:
    """How to serve a model on this machine, and why."""

    backend: str
    precision: str
    slots: int
    threads: int
    arena: bool | None
    why: str

    @property
    def options(self) -> RunOptions:
        """What the backend is told."""
        return RunOptions(self.slots, self.threads, self.arena)


def choose(settings: Settings, cores: int, tuned: Plan | None) -> Plan:
    """Return the plan: what the settings leave open is taken from `tuned` where it fits them, else by default."""
    backend, precision = settings.image_detector_backend, settings.image_detector_precision
    if backend == REMOTE:
        count = len(settings.remote_endpoints.split(","))
        slots = settings.inference_slots or SLOTS_PER_ENDPOINT * count
        return Plan(backend, "fp32" if precision == AUTO else precision, slots, 1, None, f"{count} remote endpoints")
    fits = tuned is not None and backend in (AUTO, tuned.backend) and precision in (AUTO, tuned.precision)
    if tuned is not None and fits and not (settings.inference_slots or settings.inference_threads):
        return tuned
    split = make_plan(cores, settings.inference_slots, settings.inference_threads)
    why = "as set" if AUTO not in (backend, precision) else "not tuned for this machine: `roadwork-miner tune` measures"
    if tuned is not None and fits:
        return Plan(
            tuned.backend, tuned.precision, split.slots, split.threads, tuned.arena, f"{tuned.why}; split as set"
        )
    if backend == AUTO:
        backend = "openvino" if precision == "bf16" else "onnx"
    return Plan(backend, "fp32" if precision == AUTO else precision, split.slots, split.threads, None, why)


def plan_key(manifest: Manifest, cores: int, cpu: str, versions: Sequence[str]) -> str:
    """Return the key of a plan: another model, CPU, quota or library version is another plan."""
    facts = [FORMAT, sorted(manifest.files.items()), cores, cpu, list(versions)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def read_plan(models_dir: Path, key: str) -> Plan | None:
    """Return the stored plan, or None where there is none that can be read."""
    try:
        return Plan(**json.loads((models_dir / "plans" / f"{key}.json").read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        log.warning("the tuning plan %s can't be read and is passed over: %s", key, error)
        return None


def write_plan(models_dir: Path, key: str, plan: Plan) -> Path:
    """Store a plan for the next start."""
    path = models_dir / "plans" / f"{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(plan), indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
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
