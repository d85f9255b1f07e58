"""What the daemon does on a signal: SIGTERM and SIGINT stop it, the second one at once; SIGHUP reloads the model."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable

log = logging.getLogger(__name__)


def listen(stop: asyncio.Event, is_started: Callable[[], bool], reload: Callable[[], None]) -> None:
    """Listen from now on; a start that is not over yet is cancelled, as there is nothing to drain."""
    loop, main = asyncio.get_running_loop(), asyncio.current_task()
    assert main is not None

    def ask_to_stop(number: int) -> None:
        if stop.is_set():
            log.warning("stopped at once, on a second signal")
            logging.shutdown()
            os._exit(128 + number)
        stop.set()
        if not is_started():
            main.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop, number)
    loop.add_signal_handler(signal.SIGHUP, reload)
