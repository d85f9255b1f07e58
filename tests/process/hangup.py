"""A command that gets SIGHUP in the middle of its imports: whenever one of some modules is first wanted."""

import os
import runpy
import signal
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOMENTS = {
    "miner.cli", "typer", "pydantic", "miner.settings.settings", "miner.cli.run", "miner.inference.loader",
    "onnxruntime", "uvloop", "miner.app", "uvicorn", "starlette", "prometheus_client",
}  # fmt: skip


class Hangup(MetaPathFinder):
    """Finds nothing; its being asked is the moment."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in MOMENTS:
            os.kill(os.getpid(), signal.SIGHUP)
        return None


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # where the tests run under nohup it is ignored
    sys.meta_path.insert(0, Hangup())
    runpy.run_module("miner", run_name="__main__", alter_sys=True)
