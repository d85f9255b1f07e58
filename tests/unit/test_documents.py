"""What the documents promise."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from dotenv import dotenv_values

from miner.settings.settings import Settings, setting_names, settings_table

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLES = sorted((ROOT / "env").glob("*.env"))


@pytest.fixture(autouse=True)
def _no_ambient_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in setting_names():
        monkeypatch.delenv(name, raising=False)


def test_there_is_an_example_for_each_network() -> None:
    networks = {path.stem: Settings.load(path) for path in EXAMPLES}
    assert {stem: (settings.subtensor_network, settings.netuid) for stem, settings in networks.items()} == {
        "standalone": ("standalone", 323),
        "testnet": ("test", 323),
        "mainnet": ("finney", 72),
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_key_of_an_example_is_known_and_has_one_comment_line(path: Path) -> None:
    assert Settings.load(path).notes(path) == []
    lines = path.read_text().splitlines()
    keys = [index for index, line in enumerate(lines) if not line.startswith("#")]
    assert len(lines) == 2 * len(keys)
    for index in keys:
        assert re.match(r"[A-Z_]+=", lines[index]), lines[index]
        assert lines[index - 1].startswith("# ")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_means_the_same_to_systemd_which_knows_no_inline_comments(path: Path) -> None:
    for key, value in dotenv_values(path).items():
        assert f"{key}={value}" in path.read_text().splitlines()


def test_the_readmes_settings_are_the_settings() -> None:
    assert settings_table() in README


def test_make_targets_in_the_documents_exist_and_each_has_a_help_text() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):.*## \S", makefile, flags=re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)[1].split())  # type: ignore[index]
    assert targets == phony
    others = [path for folder in ("deploy", "detectors") for path in (ROOT / folder).rglob("*.md")]
    documents = [README, *(path.read_text() for path in others)]
    named = {name for text in documents for name in re.findall(r"\bmake ([a-z][a-z-]+)\b(?=[`\s.,:)]|$)", text)}
    in_code = {name for name in named if any(f"make {name}" in code for text in documents for code in _code(text))}
    assert in_code <= targets


def _code(text: str) -> list[str]:
    return re.findall(r"```.*?```|`[^`]+`", text, flags=re.DOTALL)


def test_make_help_lists_every_target() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.split()[0] for line in listed.splitlines()} >= {"run", "query", "test", "models", "setup"}


def test_ci_calls_the_readmes_test_command() -> None:
    assert "make test" in README
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")


def test_the_pins_agree() -> None:
    serve = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / "env" / "serve.txt").read_text(), flags=re.MULTILINE))
    everything = dict(
        re.findall(r"^([a-z0-9-]+)==(\S+)$", (ROOT / "env" / "constraints.txt").read_text(), re.MULTILINE)
    )
    assert {name: everything.get(name) for name in serve} == serve
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.match(r"[a-z0-9-]+", requirement)[0] for requirement in needed} <= set(serve)  # type: ignore[index]
