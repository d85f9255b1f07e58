"""The worker of a bench: one competitor, in a process of its own.

It loads once, then answers each line of JSON on stdin with one on stdout.
"""

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from detectors.base import RunOptions, Way, is_plain, ways_in_words
from detectors.errors import DetectorError
from detectors.machine import read_memory
from miner.inference import memory

if TYPE_CHECKING:
    from detectors.models.config import DetectorConfig

LARGE_PACKAGES = ("torch", "transformers", "ultralytics", "openvino", "onnxruntime", "bittensor")
WARM_UP_ROUNDS = 3  # times each picture, before anything is measured
Predict = Callable[[bytes], float]


@dataclass(frozen=True, slots=True)
class BenchJob:
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
    branches: dict[str, Way] = field(default_factory=dict)  # of an ensemble, where they are not all alike in turn
    branch: str = ""  # of an ensemble, the one that is measured alone

    def __post_init__(self) -> None:
        """Take the ways as JSON has them, too."""
        ways = {name: way if isinstance(way, Way) else Way(**way) for name, way in self.branches.items()}
        object.__setattr__(self, "branches", ways)

    @property
    def name(self) -> str:
        """The competitor in the tables."""
        if self.kind == "reference":
            return self.backend
        one = f"{self.backend} {self.precision}" if is_plain(self.branches) else ways_in_words(self.branches)
        return f"{self.branch}: {one}" if self.branch else one


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """A worker that is ready to be measured."""

    load_seconds: float  # from the start of the process: interpreter, imports, sums, graph
    first_seconds: float  # to its first answer
    pace: float  # seconds a warm picture takes
    loaded_bytes: float  # resident after loading
    warm_bytes: float  # resident after the warm-up
    probabilities: list[float]  # one for each picture
    imported: list[str]  # of the large packages, those in this process


@dataclass(frozen=True, slots=True)
class BurstRequest:
    """One turn: `bursts` times `at_once` requests submitted together."""

    at_once: int
    bursts: int


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of requests submitted together: seconds until each was done, and which picture it had."""

    latencies: list[float]
    pictures: list[int]
    seconds: float  # until the last was done
    cpu_seconds: float = 0.0  # of this process meanwhile
    preemptions: int = 0  # times that the kernel gave its core to another


def to_dict(line: BenchJob | WorkerReady | BurstRequest | Burst) -> dict[str, object]:
    """Return a line as what JSON knows."""
    return asdict(line)


def main() -> None:
    """Speak with the parent until it closes stdin."""
    started = float(sys.argv[1])  # on time.monotonic, which all processes share
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)  # libraries print
        job = BenchJob(**json.loads(sys.stdin.readline()))
        pictures = [Path(path).read_bytes() for path in job.pictures]
        try:
            predict = _load(job)
            loaded, resident = time.monotonic() - started, read_memory().resident
            answers = [predict(pictures[0])]
            first = time.monotonic() - started
            answers += [predict(picture) for picture in pictures[1:]]
            with ThreadPoolExecutor(job.slots) as pool:
                pace = _warm_up(pool, predict, job, pictures)
                imported = [name for name in LARGE_PACKAGES if name in sys.modules]
                warm = read_memory().resident
                _say(out, to_dict(WorkerReady(loaded, first, pace, resident, warm, answers, imported)))
                _serve(out, pool, predict, pictures)
        except (DetectorError, ModuleNotFoundError) as error:
            _say(out, {"fault": str(error)})


def burst(pool: ThreadPoolExecutor, predict: Predict, pictures: list[tuple[int, bytes]]) -> Burst:
    """Submit all pictures at once; they are worked off first come, first served, as in `miner.inference.service`."""

    def timed(data: bytes) -> float:
        predict(data)
        return time.perf_counter()

    submitted = []
    jobs = []
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _, data in pictures:
        submitted.append(time.perf_counter())
        jobs.append(pool.submit(timed, data))
    done = [job.result() for job in jobs]
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    latencies = [end - start for start, end in zip(submitted, done, strict=True)]
    numbers = [number for number, _ in pictures]
    return Burst(latencies, numbers, max(done) - submitted[0], cpu_seconds, after.ru_nivcsw - before.ru_nivcsw)


def _load(job: BenchJob) -> Predict:
    from detectors.models.config import read_config

    config = read_config(job.config)
    if job.kind == "reference":
        return _reference(job, config)
    from detectors.load import load_detector

    memory.keep_large_blocks_apart()  # as the daemon does
    options = RunOptions(job.slots, job.threads, job.arena)
    if job.branch:
        assert config.branches is not None
        config = config.branches[job.branch]
    config = config.model_copy(update={"stages": []})  # every stage of every picture: an easy one would hide the dear
    name = config.detector if job.branch else job.detector
    models = Path(job.models_dir)
    detector = load_detector(name, config, models, job.backend, options, job.precision, job.branches)
    detector.verify()  # what the daemon would refuse to serve is no competitor
    memory.keep_pictures_together()
    return lambda data: detector.predict(data).probability


def _reference(job: BenchJob, config: "DetectorConfig") -> Predict:
    """Return the library's own pipeline; of an ensemble, its branches' own, fused as ours are."""
    from detectors.models.manifest import Manifest
    from detectors.models.sources import find_original, model_folder
    from detectors.registry import exporter_class

    if config.branches is None:
        return exporter_class(job.detector)(find_original(config, job.revision).path, config).reference()
    fusion, each = config.fusion, {}
    assert fusion is not None
    for name, branch in config.branches.items():
        revision = Manifest.read(model_folder(branch, Path(job.models_dir))).revision
        each[name] = exporter_class(branch.detector)(find_original(branch, revision).path, branch).reference()
    return lambda data: float(fusion({name: pipeline(data) for name, pipeline in each.items()}))


def _warm_up(pool: ThreadPoolExecutor, predict: Predict, job: BenchJob, pictures: list[bytes]) -> float:
    """Use every thread, and return the seconds a picture takes alone."""
    if job.kind == "reference":
        import torch

        torch.set_num_threads(job.threads)  # only now: Ultralytics sets a number of its own at its first prediction
    list(pool.map(predict, pictures * job.slots))
    seconds = []
    for data in pictures * WARM_UP_ROUNDS:
        began = time.perf_counter()
        pool.submit(predict, data).result()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _serve(out: IO[str], pool: ThreadPoolExecutor, predict: Predict, pictures: list[bytes]) -> None:
    order = cycle(enumerate(pictures))
    for line in sys.stdin:
        ask = BurstRequest(**json.loads(line))
        bursts = [burst(pool, predict, list(islice(order, ask.at_once))) for _ in range(ask.bursts)]
        _say(out, {"bursts": [to_dict(one) for one in bursts], "peak_bytes": read_memory().peak})


def _say(out: IO[str], line: dict[str, object]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
