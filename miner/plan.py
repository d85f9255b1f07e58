"""Which backend, precision and split of the machine to serve with: as set, as tuned, or by default."""

from dataclasses import dataclass

from detectors.base import RunOptions
from miner.settings import AUTO, REMOTE, Settings
from miner.threads import make_plan

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


def choose(settings: Settings, cores: int, tuned: Plan | None, measured: str | None = None) -> Plan:
    """Return the plan: what the settings leave open is taken from `tuned` where it fits them, else by default.

    `measured` is the backend that was the best at the set precision when its variants were made.
    """
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
    if backend == AUTO and measured is not None:
        backend, why = measured, f"the best {precision} when it was made; {why}"
    elif backend == AUTO:
        backend = "openvino" if precision == "bf16" else "onnx"
    return Plan(backend, "fp32" if precision == AUTO else precision, split.slots, split.threads, None, why)
