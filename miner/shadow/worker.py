"""The shadow's process: `python -m miner.shadow.worker`, a picture in, a line of JSON out.

It is a process and not a thread because a thread of low priority that holds Python's lock makes the event loop wait for
it, and because one that breaks, or grows too large, shall not take the miner with it.
"""

import ctypes
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from detectors.base import Detector, RunOptions
from detectors.errors import DetectorError
from detectors.load import load_detector
from detectors.models.config import read_config
from miner.shadow import LENGTH_PREFIX

PR_SET_PDEATHSIG = 1
NICE = 10  # above the miner; lower still, and a busy machine would never let it get anywhere
KILL_FIRST = "1000"  # oom_score_adj


def main() -> None:
    """Load the model that the first line names, then score pictures until there are no more."""
    source, told = sys.stdin.buffer, os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints
    try:
        give_way()
        detector = loaded(json.loads(source.readline()))
    except Exception as error:  # noqa: BLE001 - its traceback is seen by nobody
        kind = "" if isinstance(error, DetectorError) else f"{type(error).__name__}: "
        print(json.dumps({"fault": kind + " ".join(str(error).splitlines())}), file=told)
        return
    model = detector.manifest
    print(json.dumps({"name": f"{model.name}@{model.revision[:12]}"}), file=told)
    while (picture := next_picture(source)) is not None:
        print(json.dumps(scored(detector, picture)), file=told)


def loaded(job: dict[str, str]) -> Detector:
    """Return the detector, which has proved itself."""
    config, models_dir = read_config(job["config"]), Path(job["models_dir"])
    detector = load_detector(job["detector"], config, models_dir, job["backend"], RunOptions(), job["precision"])
    detector.verify()
    return detector


def give_way() -> None:
    """Stand back for others, be the first to go when memory is short, and end with the parent."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # also while stopped
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(KILL_FIRST, encoding="ascii")
    with suppress(OSError):  # a service's filter of system calls may forbid it
        os.nice(NICE)


def next_picture(source: BinaryIO) -> bytes | None:
    """Read a picture; None at the end."""
    head = source.read(LENGTH_PREFIX.size)
    if len(head) < LENGTH_PREFIX.size:
        return None
    (length,) = LENGTH_PREFIX.unpack(head)
    return source.read(length)


def scored(detector: Detector, picture: bytes) -> dict[str, object]:
    """Return the probability and the CPU seconds it took; time in which the process is held does not count."""
    started = time.process_time()
    try:
        probability = detector.predict(picture).probability
    except DetectorError as error:
        return {"failed": str(error)}
    return {"probability": probability, "seconds": time.process_time() - started}


if __name__ == "__main__":
    main()
