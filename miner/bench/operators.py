"""The profile of a graph by operator, from onnxruntime; run as a program, in a process of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from detectors.backends.ort_cache import ensure_graph
from detectors.models import MODEL_FILE
from detectors.models.config import read_config
from detectors.models.manifest import Manifest
from detectors.models.sources import model_folder, variant_folder
from miner.bench.worker import BenchJob
from miner.errors import CouldNotStart

WARM, RUNS = 5, 20  # pictures


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator's part of a picture, in seconds, its share of all of them, and how often it runs."""

    name: str
    seconds: float
    share: float
    calls: int


def profile(job: BenchJob, environment: Mapping[str, str]) -> list[Operator]:
    """Return the operators of a job's graph on onnxruntime, the longest first, measured in another process.

    Raises:
        CouldNotStart: it fails there.
    """
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(  # noqa: S603 - this program
        command, input=json.dumps(asdict(job)), check=False, capture_output=True, text=True, env=dict(environment)
    )
    if done.returncode != 0:
        raise CouldNotStart(f"{job.name}: {(done.stderr.strip().splitlines() or ['its profiler was killed'])[-1]}")
    return [Operator(**one) for one in json.loads(done.stdout)]


def sum_up(events: Sequence[Mapping[str, object]], runs: int) -> list[Operator]:
    """Sum up the last `runs` pictures of a profile; `dur` is in microseconds."""
    kernels: list[tuple[str, float]] = []
    ends: list[int] = []  # of each picture
    for event in events:
        name, arguments = str(event["name"]), event.get("args")
        if name == "model_run":
            ends.append(len(kernels))
        elif name.endswith("_kernel_time") and isinstance(arguments, dict):
            kernels.append((str(arguments["op_name"]), float(str(event["dur"])) / 1e6))
    counted = kernels[ends[-runs - 1] : ends[-1]]
    whole = sum(seconds for _, seconds in counted)
    found: dict[str, list[float]] = {}
    for name, seconds in counted:
        found.setdefault(name, []).append(seconds)
    operators = [Operator(name, sum(each) / runs, sum(each) / whole, len(each) // runs) for name, each in found.items()]
    return sorted(operators, key=lambda one: -one.seconds)


def _run(job: BenchJob) -> list[Operator]:
    import numpy as np
    import onnxruntime

    config = read_config(job.config)
    if job.branch:
        assert config.branches is not None
        config = config.branches[job.branch]
    folder = model_folder(config, Path(job.models_dir))
    if job.precision != "fp32":
        folder = variant_folder(Manifest.read(folder), Path(job.models_dir), job.precision, job.backend)
    optimized = ensure_graph(folder, Manifest.read(folder))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.slots * job.threads
    options.enable_profiling = True
    if optimized is not None:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as place:
        options.profile_file_prefix = str(Path(place, "profile"))
        path = str(optimized or folder / MODEL_FILE)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        array = np.random.default_rng(0).standard_normal(given.shape, dtype=np.float32)
        for _ in range(WARM + RUNS):
            session.run(None, {given.name: array})
        events = json.loads(Path(session.end_profiling()).read_bytes())
    return sum_up(events, RUNS)


if __name__ == "__main__":
    json.dump([asdict(one) for one in _run(BenchJob(**json.load(sys.stdin)))], sys.stdout)
