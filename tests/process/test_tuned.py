"""From an export to what serves: a faster precision, a plan for this machine, and the start that reads it."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from miner.inference.plan import Plan
from tests.process.daemon import Daemon, eventually

EXPORT = ("export", "--precision", "int8", "--backend", "onnx", "--max-flips", "0.2")


def run(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*daemon.command, *arguments], capture_output=True, text=True, env=daemon.environment)


def tune(daemon: Daemon) -> dict[str, Any]:
    """Tune in fifteen seconds, or, where the machine is too busy for that, in the minute it has by default."""
    done = run(daemon, "tune", "--seconds", "15", "--json")
    if done.returncode == 3:
        assert "more --seconds may help" in done.stderr
        done = run(daemon, "tune", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_tuned_int8_is_what_the_next_start_serves(tmp_path: Path, street: bytes) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "plans").write_text("in the way: the plan goes with the state, as where the models are read-only")
    daemon = Daemon(tmp_path, {"MODELS_DIR": models, "IMAGE_DETECTOR_PRECISION": "int8", "TUNE_ON_START": "true"})
    said = run(daemon, *EXPORT).stderr
    assert "of fp32's time" in said or "not be measured" in said  # beside other programs
    assert re.search("^warning: .*--pictures$", said, re.MULTILINE)
    tuned = tune(daemon)
    plan = Plan(**tuned["plan"])
    assert Path(tuned["file"]).parent == daemon.state / "plans"
    assert (plan.backend, plan.precision) == ("onnx", "int8")
    assert plan.why.startswith("tuned: ")
    try:
        daemon.start().ready()
        eventually(lambda: f"serving with onnx int8, {plan.slots} × {plan.threads} threads ({plan.why})" in daemon.log)
        assert "tuning" not in daemon.log
        assert daemon.metric("model_info", precision="int8", backend="onnx") == 1
        assert daemon.ask_patiently(street).status_code == 200
        assert daemon.stop() == 0
    finally:
        daemon.close()
