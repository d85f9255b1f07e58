"""The remote backend: other machines run the graph, and this one may stand in for them.

Detectors call it from threads, while the endpoints are asked from one event loop, on a thread of its own.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from detectors.base import ModelFiles, RunOptions
from detectors.errors import ModelError, NoEndpoint, OutOfTime
from detectors.registry import backend_class
from detectors.remote.endpoints import MARGIN, Endpoint
from detectors.remote.engine import Engine, Proof, in_words

log = logging.getLogger(__name__)

T = TypeVar("T")

UNLIMITED_SECONDS = 12.0  # seconds for a picture without a deadline


class RemoteBackend:
    """Endpoints of the Open Inference Protocol v2, asked from an event loop in a thread of its own."""

    name = "remote"

    def __init__(self, files: ModelFiles, shape: tuple[int, int, int, int], options: RunOptions) -> None:
        if options.engine is None or not options.engine.endpoints:
            raise ModelError("the remote backend needs REMOTE_ENDPOINTS")
        self._options = options.engine
        self._model = options.engine.model or files.manifest.name
        self._shape = shape
        self._endpoints = [Endpoint(index, address) for index, address in enumerate(options.engine.endpoints)]
        self._local = LocalFallback(files, shape, options) if options.engine.fallback is not None else None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="remote", daemon=True)
        self._engine: Engine | None = None

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """The endpoints as they are now; read only."""
        return self._endpoints

    @property
    def obstacle(self) -> str | None:
        """Why no picture can be scored at the moment, or None."""
        if self._local is not None or self._usable:
            return None
        return f"no remote endpoint is healthy: {in_words(self._endpoints)}"

    @property
    def state(self) -> str:
        """How many endpoints can be asked, and who stands in for them."""
        said = f"{self._usable} of {len(self._endpoints)} endpoints"
        return said if self._usable or self._local is None else f"{said}, served here by {self._options.fallback}"

    def open(
        self, labels: Sequence[str], array: NDArray[np.float32], judge: Callable[[NDArray[np.float32]], None]
    ) -> None:
        """Have each endpoint answer the known picture, now and whenever it comes back.

        Raises:
            ModelError: none does, or the graph that stands in for them does not.
        """
        if self._local is not None:
            judge(self._local.run(array, time.monotonic() + UNLIMITED_SECONDS))
        self._thread.start()
        proof = Proof(self._shape, tuple(labels), array, judge)
        self._submit(self._open(proof))
        if self.obstacle is not None:
            reason = self.obstacle
            self.close()
            raise ModelError(reason)
        if not self._usable:
            log.warning("no remote endpoint is healthy: pictures are scored here, by %s", self._options.fallback)

    def run(self, array: NDArray[np.float32], deadline: float | None = None) -> NDArray[np.float32]:
        """Have the graph run once, elsewhere or, if nobody there can, here.

        Raises:
            NoEndpoint: nobody can.
            OutOfTime: not before the deadline.
        """
        assert self._engine is not None
        deadline = time.monotonic() + UNLIMITED_SECONDS if deadline is None else deadline
        try:
            return self._submit(self._engine.infer(array, deadline))
        except NoEndpoint:
            if self._local is None:
                raise
        self._options.observer.served_locally()
        return self._local.run(array, deadline)

    def close(self) -> None:
        """End the thread; what is under way ends with it."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(NoEndpoint):
            self._submit(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def _usable(self) -> int:
        return sum(endpoint.state != "down" for endpoint in self._endpoints)

    async def _open(self, proof: Proof) -> None:
        self._engine = Engine(self._endpoints, self._model, proof, self._options.observer)
        await self._engine.open()

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._engine is not None:
            await self._engine.close()

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the engine's loop and wait for it; each has an end of its own."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
        except CancelledError as error:
            raise NoEndpoint("this process is ending") from error


class LocalFallback:
    """The graph on this machine: one picture at a time on all cores, each only if it can be done in time."""

    def __init__(self, files: ModelFiles, shape: tuple[int, int, int, int], options: RunOptions) -> None:
        assert options.engine is not None
        assert options.engine.fallback is not None
        own = RunOptions(1, options.engine.fallback_threads, options.arena)
        self._backend = backend_class(options.engine.fallback)(files, shape, own)
        self._turn = threading.Lock()
        self._usual = 0.0  # seconds, of the last picture

    def run(self, array: NDArray[np.float32], deadline: float) -> NDArray[np.float32]:
        """Run the graph once.

        Raises:
            OutOfTime: others are before it for too long.
        """
        if not self._turn.acquire(timeout=max(0.0, deadline - MARGIN - self._usual - time.monotonic())):
            raise OutOfTime("this machine is too slow to stand in for all of the engine")
        try:
            started = time.monotonic()
            scores = self._backend.run(array)
            self._usual = time.monotonic() - started
        finally:
            self._turn.release()
        return scores
