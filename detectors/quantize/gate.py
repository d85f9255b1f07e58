"""The gate: what a faster graph's answers cost, and whether that is too much.

Measurements come in, a verdict goes out: nothing here runs a model.
"""

import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detectors.base import Backend, ModelFiles, RunOptions, Way, Ways
from detectors.evaluation.answers import differences, flips, labelled
from detectors.load import PreparedModel
from detectors.machine import LOUD, others, spent
from detectors.models.manifest import MAKE_ANEW, Gate, Manifest, is_outdated
from detectors.models.store import write_manifest
from detectors.network import Network
from detectors.photos.image import decode
from detectors.photos.synthetic import known_picture
from detectors.registry import BACKENDS, DEFAULT, VARIANTS, backend_class, network_class

__all__ = ("differences", "flips", "labelled")  # which whoever asks the gate finds here

log = logging.getLogger(__name__)

EQUAL_SPEED = 1.1  # within a tenth of the fastest, the more faithful one is taken
MAX_FLIPS = 0.005  # share of the photos whose answer may cross 0.5
FEW_PHOTOS = 100  # of which none changes sides: up to 3 % may (at 95 %; the rule of three, Hanley 1983)
MIN_SPREAD = 0.1  # of probability; answers that vary less tell pictures hardly apart

TIMED_ROUNDS = 15
LEAST_SECONDS = 0.5  # of a measurement: the kernel counts CPU time in ticks of 10 ms
TRIES = 3  # of a measurement that other programs disturb


def best(gates: Mapping[str, Gate]) -> str:
    """Return the name of the fastest, in times of fp32 in the same rounds, or of a more faithful one nearly as fast.

    Where a machine was too busy to tell, it is the most faithful of all: noise decides nothing.
    """
    speeds = {name: gate.speed for name, gate in gates.items()}
    known = {name: speed for name, speed in speeds.items() if speed is not None}
    limit = min(known.values()) * EQUAL_SPEED if len(known) == len(gates) else None
    near = [name for name in gates if limit is None or known[name] <= limit]
    return min(near, key=lambda name: gates[name].mean_difference)


def of_precision(model: PreparedModel, precision: str) -> list[str]:
    """Return the backends, of those that are installed, that a prepared model has a variant of this precision for."""
    return [
        backend
        for kind, backend in VARIANTS
        if kind == precision and BACKENDS[backend].is_installed and model.has(precision, backend)
    ]


def judged_variant(model: PreparedModel, precision: str, backend: str) -> Manifest:
    """Return the manifest of a faster precision with its gate; of an ensemble, as it is judged today.

    Raises:
        NotPrepared: it is not there, or a branch is another one by now.
        ModelError: too many of an ensemble's answers are on the other side of today's threshold.
    """
    if model.branches:
        return model.fused(dict.fromkeys(model.branches, Way(precision, backend)))
    return model.variant(precision, backend)[1]


def measured_best(model: PreparedModel, precision: str) -> str | None:
    """Return the backend whose variant was the best when they were made; None where there is none."""
    gates = {
        backend: gate
        for backend in of_precision(model, precision)
        if (gate := judged_variant(model, precision, backend).gate) is not None
    }
    if not gates:
        return None
    chosen = best(gates)
    if len(gates) > 1 and any(gate.speed is None for gate in gates.values()):
        log.warning(
            "%s: which backend serves %s fastest could not be measured when it was made, as other programs were busy: "
            "%s is taken, whose answers differ least from fp32's; `roadwork-miner tune` measures",
            model.manifest.name, precision, chosen
        )  # fmt: skip
    return chosen


def renewal(model: PreparedModel, precision: str, backend: str, ways: Ways) -> tuple[str, str]:
    """Say which of the graphs that are served an older exporter made, and what makes them anew; nothing if none.

    Args:
        model: in the precision and on the backend, or its branches.
        precision: of all branches that are not in `ways`.
        backend: the same.
        ways: of an ensemble's branches.
    """
    every, names, cures = Way(precision, backend), [], dict[str, None]()
    for name, part in (model.branches or {model.manifest.name: model}).items():
        variant = ways.get(name, every).variant
        folder, manifest = part.variant(*variant) if part.has(*variant) else (part.folder, part.manifest)
        if is_outdated(manifest, folder):
            names.append(name)
            if is_outdated(part.manifest, part.folder):
                gone = part.config.model_folder is not None
                cures[f"{MAKE_ANEW}{' with the YAML file of its original weights' if gone else ''}"] = None
            if manifest.precision != "fp32":
                cures[f"roadwork-miner export --precision {manifest.precision} --pictures FOLDER"] = None
    if not names:
        return "", ""
    words = "an older exporter made the graph of {}: one of today is faster, or its tokens can be merged"
    return words.format(" and ".join(names)), ", then ".join(sorted(cures, key=lambda cure: MAKE_ANEW not in cure))


def speed_in_words(gate: Gate) -> str:
    """Return how fast a graph is, as far as it was measured."""
    return f"{gate.speed:.2f} of fp32's time" if gate.speed is not None else "of a speed that could not be measured"


def doubts(gate: Gate) -> list[str]:
    """Return why the judgement proves less than it seems."""
    found = []
    if gate.made_pictures:
        found.append("judged on made pictures, not on photos: give --pictures")
    elif gate.pictures < FEW_PHOTOS:
        found.append(f"judged on {gate.pictures} photos, which is little proof: give {FEW_PHOTOS} or more")
    if gate.speed is None:
        found.append(
            f"how fast it is could not be measured: other programs had {gate.others:.0%} of the CPU's time; make it "
            "again on a quiet machine, or have `roadwork-miner tune` measure"
        )
    elif gate.speed >= 1:
        found.append("it is no faster than fp32 on this machine: fp32 serves better")
    if gate.answers is not None and gate.answers[1] - gate.answers[0] < MIN_SPREAD:
        low, high = gate.answers
        found.append(
            f"unproven: the model's answers hardly vary over the judged pictures ({low:.2f} to {high:.2f}), so that "
            "none changes sides says little"
        )
    return found


@dataclass(frozen=True, slots=True)
class RunTimes:
    """The median seconds of a run of each, and the share of the CPU's time that other programs had meanwhile."""

    seconds: list[float]
    others: float


def interleaved(backends: Sequence[Backend], array: NDArray[np.float32], rounds: int = TIMED_ROUNDS) -> RunTimes:
    """Measure a run of each in turn; once more where other programs disturb, and the quietest time counts."""
    best = _measured(backends, array, rounds)
    for _ in range(TRIES - 1):
        if best.others <= LOUD:
            break
        best = min(best, _measured(backends, array, rounds), key=lambda timed: timed.others)
    return best


def _measured(backends: Sequence[Backend], array: NDArray[np.float32], rounds: int) -> RunTimes:
    times: list[list[float]] = [[] for _ in backends]
    before, began = spent(()), time.perf_counter()
    while len(times[0]) < rounds or time.perf_counter() - began < LEAST_SECONDS:
        for backend, mine in zip(backends, times, strict=True):
            started = time.perf_counter()
            backend.run(array)
            mine.append(time.perf_counter() - started)
    return RunTimes([statistics.median(mine) for mine in times], others(before, spent(())))


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
    fp32 = _open(folder, DEFAULT, options)
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
