"""What a worker is told and what it says: one JSON object a line."""

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Job:
    """A competitor: a backend of ours at a precision, or the model's own library."""

    kind: Literal["ours", "reference"]
    detector: str
    config: str  # a name or path, as IMAGE_DETECTOR_CONFIG
    models_dir: str
    backend: str
    precision: str
    slots: int
    threads: int
    pictures: list[str]  # files
    revision: str | None = None  # of the original weights, which only the reference needs
    arena: bool | None = None  # onnxruntime's own memory pool; None: as suits the graph

    @property
    def name(self) -> str:
        """The competitor in the tables."""
        return self.backend if self.kind == "reference" else f"{self.backend} {self.precision}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A worker that is ready to be measured."""

    load_seconds: float  # from the start of the process: interpreter, imports, sums, graph
    first_seconds: float  # to its first answer
    pace: float  # seconds a warm picture takes
    loaded_bytes: float  # resident after loading
    warm_bytes: float  # resident after the warm-up
    probabilities: list[float]  # one for each picture
    imported: list[str]  # of the large packages, those in this process


@dataclass(frozen=True, slots=True)
class Ask:
    """One turn: `bursts` times `at_once` requests submitted together."""

    at_once: int
    bursts: int


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of requests submitted together: seconds until each was done, and which picture it had."""

    latencies: list[float]
    pictures: list[int]
    seconds: float  # until the last was done


def to_dict(line: Job | Loaded | Ask | Burst) -> dict[str, object]:
    """Return a line as what JSON knows."""
    return asdict(line)
