"""Which command installs what is missing: it depends on how this program was installed."""

from pathlib import Path

import pytest

from detectors.registry import how_to_install

HERE = Path(__file__).parents[3]
ELSEWHERE = Path("/usr/lib/python3/site-packages")


def test_a_clone_has_targets_of_make() -> None:
    assert how_to_install("eval") == how_to_install("eval", HERE) == "`make setup-eval`"
    assert how_to_install("train", HERE) == how_to_install("", HERE) == "`make setup-all`"


@pytest.mark.parametrize(
    ("prefix", "begins"),
    [
        ("/home/me/.local/share/pipx/venvs/roadwork-miner", "`pipx inject roadwork-miner "),
        (
            "/home/me/.local/share/uv/tools/roadwork-miner",
            "`uv pip install --python /home/me/.local/share/uv/tools/roadwork-miner ",
        ),
        ("/opt/roadwork-miner/0.2.0-1a2b3c4d", "`/opt/roadwork-miner/0.2.0-1a2b3c4d/bin/python -m pip install "),
    ],
)
def test_others_are_told_their_own_tools_command_with_the_packages(prefix: str, begins: str) -> None:
    found = how_to_install("plot", ELSEWHERE, Path(prefix))
    assert found.startswith(begins)
    assert "'matplotlib>=" in found
    assert "torch" not in found
    whole = how_to_install("", ELSEWHERE, Path(prefix))
    assert "'torch>=" in whole
    assert "pytest" not in whole
    assert "ray" not in whole
