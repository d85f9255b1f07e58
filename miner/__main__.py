"""`python -m miner`, the same as the `roadwork-miner` command."""

import gc
import os
import signal
import sys
from contextlib import suppress
from types import FrameType


def main() -> None:
    """Run a command; the daemon is deaf to SIGHUP from here on, which would end it while it imports for a second.

    It collects no garbage meanwhile either, of which imports leave next to none: that took an eighth of their time.
    """
    if sys.argv[1:2] == ["run"]:
        gc.disable()  # until `miner.cli.run` has imported everything
        signal.signal(signal.SIGHUP, _ignore)  # until `miner.app` listens
    from miner.cli import main as run_command

    run_command()


def _ignore(_: int, __: FrameType | None) -> None:
    with suppress(OSError):  # written as it is: logging may not be set up yet, or be in the middle of a line
        os.write(2, b"reload ignored: the first model is still loading\n")


if __name__ == "__main__":
    main()
