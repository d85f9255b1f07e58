"""An axon whose detector answers at once, in a process of its own on one core: `python -m tests.bench.instant`.

    python -m tests.bench.instant STATE_DIR PORT [PROFILE]

Everything else is the daemon's: the wire, the signatures, the queue, the thread of the slot, the metrics. Told so by
SIGUSR1, it profiles its loop from then on, and writes the profile when it ends.
"""

import asyncio
import cProfile
import os
import signal
import sys
from pathlib import Path

import uvloop
from PIL import Image

from detectors.base import Budget, Detector, Judgement, Prediction
from miner.axon.app import Axon
from miner.axon.body import Limits
from miner.axon.caller import Rules
from miner.chain.standalone import StandaloneChain, own_wallet, standalone_file
from miner.http.server import listening
from miner.inference.queue import Queue
from miner.inference.scheduler import Scheduler
from miner.inference.service import Service
from miner.metrics import Metrics
from miner.status.history import History

DEPTH = 1024  # places: nobody is refused


class _AtOnce(Detector):
    def __init__(self) -> None:
        """Nothing to load."""

    def judge(self, picture: Image.Image, deadline: float | None = None, budget: Budget | None = None) -> Judgement:
        return Judgement(0.5, 0.0, 0.0)

    def predict(self, data: bytes, deadline: float | None = None, budget: Budget | None = None) -> Prediction:
        return Prediction(0.5, 0.0, 0.0, 0.0)


async def serve(state: Path, port: int, profiler: cProfile.Profile) -> None:
    """Answer until SIGTERM."""
    hotkey = own_wallet(state, "miner").hotkey.ss58_address
    scheduler = Scheduler(Queue(1, 1e-4, DEPTH))
    service = Service(_AtOnce(), scheduler)
    limits = Limits(max_body=16 * 2**20, body_stall=3.0, deadline_cap=12.0, deadline_margin=0.5)
    chain = StandaloneChain(standalone_file(state), hotkey)
    axon = Axon(service, chain, Rules(), limits, [Metrics(), History()])
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, profiler.enable)
    async with listening(axon.asgi(), "PORT", "127.0.0.1", port):
        scheduler.open()
        await stop.wait()
    service.close()


def main() -> None:
    """Serve on the first core this process may use; write the profile, if a file for it is given."""
    state, port, *profile = sys.argv[1:]
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    profiler = cProfile.Profile()
    uvloop.run(serve(Path(state), int(port), profiler))
    profiler.disable()
    if profile:
        profiler.dump_stats(profile[0])


if __name__ == "__main__":
    main()
