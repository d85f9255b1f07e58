"""How a command ends: what the operator is told, and the exit code."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from miner import systemd
from miner.errors import StartError
from miner.inference.background import is_at_work


def tell(error: StartError) -> None:
    """Print one line for each fault."""
    for handler in logging.getLogger().handlers:  # what was logged before is read before
        handler.flush()
    level = "<3>" if systemd.is_journal(sys.stderr) else ""  # the journal's mark of an error
    for line in str(error).splitlines():
        print(f"{level}error: {line}", file=sys.stderr)


@contextmanager
def errors_told() -> Iterator[None]:
    """End with one line a fault where an error is meant for the operator, and an exit code that says whose it is."""
    try:
        yield
    except StartError as error:
        tell(error)
        leave(error.exit_code)


def end_in_order_on_sigterm() -> None:
    """Have SIGTERM unwind this process as an error does, so that no process that it started outlives it."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def leave(code: int, *, hung: bool = False) -> NoReturn:
    """End the process; at once if a thread hangs in the model, for which Python would wait, or which it would crash."""
    if hung or is_at_work():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
