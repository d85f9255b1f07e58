"""What the check-up says: a line for each thing looked at, and one sentence at the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do where it is not ok."""

    name: str
    level: Level
    words: str
    todo: str = ""


def ok(name: str, words: str) -> Finding:
    """It is as it should be."""
    return Finding(name, "ok", words)


def warning(name: str, words: str, todo: str = "") -> Finding:
    """It works so far, or could not be looked at."""
    return Finding(name, "warning", words, todo)


def problem(name: str, words: str, todo: str) -> Finding:
    """With this, nothing is earned."""
    return Finding(name, "problem", words, todo)


def verdict(findings: Sequence[Finding], *, running: bool, standalone: bool) -> str:
    """Return the one sentence: ready to earn, or the first reason why not."""
    first = next((finding for finding in findings if finding.level == "problem"), None)
    if first is not None:
        return f"not ready to earn: {first.name}: {first.words}"
    if standalone:
        return "ready, and earning nothing: SUBTENSOR_NETWORK=standalone contacts no chain"
    if not running:
        return "ready to earn as soon as the miner runs: roadwork-miner run"
    return "ready to earn"
