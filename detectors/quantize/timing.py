"""What several graphs take in turn: only times of the same rounds compare."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectors.base import Backend, ModelFiles, RunOptions
from detectors.files import write_manifest
from detectors.models.manifest import Gate, Manifest
from detectors.network import Network
from detectors.photos.image import decode
from detectors.photos.synthetic import known_picture
from detectors.quiet import LOUD, others, spent
from detectors.registry import backend_class, network_class

ROUNDS = 15
LEAST_SECONDS = 0.5  # of a measurement: the kernel counts CPU time in ticks of 10 ms
TRIES = 3  # of a measurement that other programs disturb


@dataclass(frozen=True, slots=True)
class Timed:
    """The median seconds of a run of each, and the share of the CPU's time that other programs had meanwhile."""

    seconds: list[float]
    others: float


def interleaved(backends: Sequence[Backend], array: NDArray[np.float32], rounds: int = ROUNDS) -> Timed:
    """Measure a run of each in turn; once more where other programs disturb, and the quietest time counts."""
    best = _measured(backends, array, rounds)
    for _ in range(TRIES - 1):
        if best.others <= LOUD:
            break
        best = min(best, _measured(backends, array, rounds), key=lambda timed: timed.others)
    return best


def _measured(backends: Sequence[Backend], array: NDArray[np.float32], rounds: int) -> Timed:
    times: list[list[float]] = [[] for _ in backends]
    before, began = spent(()), time.perf_counter()
    while len(times[0]) < rounds or time.perf_counter() - began < LEAST_SECONDS:
        for backend, mine in zip(backends, times, strict=True):
            started = time.perf_counter()
            backend.run(array)
            mine.append(time.perf_counter() - started)
    return Timed([statistics.median(mine) for mine in times], others(before, spent(())))


def compare(folder: Path, variants: Mapping[str, Path], options: RunOptions) -> dict[str, Gate]:
    """Measure fp32 and its variants for several backends in turn, and write it into the variants' manifests.

    Args:
        folder: of the fp32 model.
        variants: the folder of each backend's variant, of one precision.
        options: how they are to run.

    Returns:
        What each variant's manifest now says.
    """
    # Threads that wait for one graph's next run would keep the next graph's from working.
    options = replace(options, shared=True)
    fp32 = _open(folder, "onnx", options)
    graphs = {backend: _open(path, backend, options) for backend, path in variants.items()}
    array = fp32.preprocessing(decode(known_picture()))
    timed = interleaved([fp32.backend, *(graph.backend for graph in graphs.values())], array)
    seconds_fp32, *seconds = timed.seconds
    gates = {}
    for (backend, graph), mine in zip(graphs.items(), seconds, strict=True):
        assert graph.manifest.gate is not None
        update = {"seconds": mine, "seconds_fp32": seconds_fp32, "others": timed.others}
        gates[backend] = graph.manifest.gate.model_copy(update=update)
        write_manifest(graph.manifest.model_copy(update={"gate": gates[backend]}), variants[backend])
    return gates


def _open(folder: Path, backend: str, options: RunOptions) -> Network:
    manifest = Manifest.read(folder)
    return network_class(manifest.detector)(ModelFiles(folder, manifest, None), backend_class(backend), options)
