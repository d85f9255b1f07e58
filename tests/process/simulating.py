"""`roadwork-miner simulate` as a test calls it."""

import json
import subprocess
import sys
from typing import Any

from tests.process.daemon import PATIENCE, clean_environment


def simulate(
    *arguments: object, code: int | None = 0, settings: dict[str, object] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "miner", "simulate", *map(str, arguments)], capture_output=True, text=True,
        timeout=PATIENCE, env=clean_environment(**{key: str(value) for key, value in (settings or {}).items()}),
    )  # fmt: skip
    assert done.returncode == code or (code is None and done.stdout), done.stderr
    assert "Traceback" not in done.stderr
    return done


def told(*arguments: object, **how: Any) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(simulate(*arguments, "--json", **how).stdout)
    return result


def asked_of(rows: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    keys = ("number", "at", "delay", "validator", "picture", "roadwork", "organic")
    return [tuple(row[key] for key in keys) for row in rows]
