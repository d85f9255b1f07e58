"""Which backend, precision and split of the machine to serve with: as set, as tuned, or by default."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from detectors.base import RunOptions
from detectors.registry import BACKENDS, PRECISIONS
from miner.inference.threads import make_plan
from miner.settings.settings import AUTO, REMOTE, Settings

SLOTS_PER_ENDPOINT = 2  # one picture runs there, the next is unpacked here and on its way


def _known(names: Collection[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"one of {', '.join(names)} is allowed")
        return name

    return AfterValidator(check)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to serve a model on this machine, and why; the limits are for a plan that was read from a file."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    backend: Annotated[str, _known(BACKENDS)]
    precision: Annotated[str, _known(PRECISIONS)]
    slots: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=1)]
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
