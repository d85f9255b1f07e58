"""`roadwork-miner run`: the daemon."""

import asyncio
import contextlib
import faulthandler
import logging
import sys
from typing import Annotated

from miner import logs
from miner.cli.common import Config, Detector, EnvFile, Set, leave, load_settings, of_setting, read_settings
from miner.errors import Stuck
from miner.settings.validators import BACKEND_CHOICES


def run(
    env_file: EnvFile = None,
    network: Annotated[str | None, of_setting("subtensor_network", "standalone, test, finney, local or ws://…")] = None,
    netuid: Annotated[str | None, of_setting("netuid", "72 on mainnet, 323 on testnet")] = None,
    port: Annotated[str | None, of_setting("miner_axon_port", "Port the validators ask")] = None,
    status_port: Annotated[str | None, of_setting("status_port", "The operator's port")] = None,
    detector: Detector = None,
    config: Config = None,
    backend: Annotated[str | None, of_setting("image_detector_backend", f"One of {', '.join(BACKEND_CHOICES)}")] = None,
    log_level: Annotated[str | None, of_setting("log_level", "DEBUG, INFO, WARNING, ERROR or CRITICAL")] = None,
    set_: Set = None,
) -> None:
    """Answer validators until SIGTERM. SIGHUP reloads the model.

    Settings: flags, else the environment, else --env-file or ./miner.env, else defaults: no chain, the starter.
    """
    flags = {
        "subtensor_network": network,
        "netuid": netuid,
        "miner_axon_port": port,
        "status_port": status_port,
        "image_detector": detector,
        "image_detector_config": config,
        "image_detector_backend": backend,
        "log_level": log_level,
    }
    settings = load_settings(env_file, set_, **flags)
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

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # idle connections shall not shut validators out
    daemon = Daemon(settings, loader, lambda: read_settings(env_file, set_, **flags))
    code = 0
    try:
        # A CancelledError that gets here: told to stop while starting.
        with contextlib.suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(daemon.run())
    except Stuck as error:
        logging.getLogger(__name__).critical("ending, to be started again: %s", error)
        code = error.exit_code
    leave(code, hung=daemon.hung)
