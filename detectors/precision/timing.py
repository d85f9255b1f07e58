"""What several graphs take in turn: only times of the same rounds compare."""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectors.base import Backend, ModelFiles, RunOptions
from detectors.image import decode
from detectors.manifest import Gate, Manifest
from detectors.network import Network
from detectors.pictures import known_picture
from detectors.registry import backend_class, network_class
from detectors.storing import write_manifest

ROUNDS = 15


def interleaved(backends: Sequence[Backend], array: NDArray[np.float32], rounds: int = ROUNDS) -> list[float]:
    """Return the median seconds of a run of each."""
    times: list[list[float]] = [[] for _ in backends]
    for _ in range(rounds):
        for backend, mine in zip(backends, times, strict=True):
            started = time.perf_counter()
            backend.run(array)
            mine.append(time.perf_counter() - started)
    return [statistics.median(mine) for mine in times]


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
    seconds_fp32, *seconds = interleaved([fp32.backend, *(graph.backend for graph in graphs.values())], array)
    gates = {}
    for (backend, graph), mine in zip(graphs.items(), seconds, strict=True):
        assert graph.manifest.gate is not None
        gates[backend] = graph.manifest.gate.model_copy(update={"seconds": mine, "seconds_fp32": seconds_fp32})
        write_manifest(graph.manifest.model_copy(update={"gate": gates[backend]}), variants[backend])
    return gates


def _open(folder: Path, backend: str, options: RunOptions) -> Network:
    manifest = Manifest.read(folder)
    return network_class(manifest.detector)(ModelFiles(folder, manifest, None), backend_class(backend), options)
