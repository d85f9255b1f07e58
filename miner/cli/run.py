"""`roadwork-miner run`: the daemon."""

import asyncio
import contextlib
import faulthandler
import gc
import logging
import sys

from miner import logs
from miner.cli.common import EnvFile, Set, leave, load_settings, read_settings
from miner.errors import Stuck
from miner.settings.env_file import refuse_replaced
from miner.settings.settings import Settings


def run(env_file: EnvFile = None, set_: Set = None) -> None:
    """Answer validators until SIGTERM. SIGHUP reloads the model.

    Settings: flags, else --set, else the environment, else --env-file or ./miner.env, else defaults: no chain, the
    starter. The flags of StreetVision's own miner (--wallet.name, --axon.port, …) are understood.
    """
    settings = load_settings(env_file, set_)
    logs.in_background(settings.log_format, settings.log_file)
    if sys.stderr is not None:
        faulthandler.enable()  # what a library dies of, such as a mapped file that was cut short, is said
    from miner.inference import memory
    from miner.inference.loader import ModelLoader

    memory.keep_large_blocks_apart()
    loader = ModelLoader(settings)
    loader.begin()
    # Side by side with the model: importing all of this takes as long.
    import resource

    import uvloop

    from miner.app import Daemon

    gc.freeze()  # what was imported stays: no later collection looks through it
    gc.enable()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # idle connections shall not shut validators out

    def reread() -> Settings:
        refuse_replaced(env_file)
        return read_settings(env_file, set_)

    daemon = Daemon(settings, loader, reread)
    code = 0
    try:
        # A CancelledError that gets here: told to stop while starting.
        with contextlib.suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(daemon.run())
    except Stuck as error:
        logging.getLogger(__name__).critical("ending, to be started again: %s", error)
        code = error.exit_code
    leave(code, hung=daemon.hung)
