"""The arrows between the packages."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Who must not know whom. `miner.app` is the composition root and knows everybody.
FORBIDDEN = [
    ("detectors", "miner"),
    ("detectors", "prometheus_client"),
    ("detectors", "bittensor"),
    ("detectors", "starlette"),
    ("detectors.photos", "detectors.base"),
    ("detectors.photos", "detectors.models"),
    ("miner", "detectors.training"),
    ("miner.inference.queue", "miner.axon"),
    ("miner.inference.queue", "detectors"),
    ("miner.inference.scheduler", "miner.axon"),
    ("miner.inference.scheduler", "detectors"),
    ("miner.axon.policy", "miner.axon"),
    ("miner.inference.service", "miner.axon"),
    ("miner.inference.service", "miner.chain"),
    ("miner.chain", "miner.axon"),
    ("miner.chain", "detectors"),
    ("miner.inference.threads", "miner"),
    ("miner.status.app", "miner.axon"),
]

# The commands that train and judge, and what they share; `detectors.training` is nobody else's.
TRAINERS = {
    "miner.cli.branches", "miner.cli.calibrate", "miner.cli.evaluate", "miner.cli.fuse", "miner.cli.photos",
    "miner.cli.precompute", "miner.cli.train", "miner.cli.training",
}  # fmt: skip


def modules() -> dict[str, Path]:
    found = {}
    for package in ("miner", "detectors"):
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize(("who", "whom"), FORBIDDEN)
def test_the_arrows_point_one_way(who: str, whom: str) -> None:
    guilty = [
        f"{name} imports {target}"
        for name, path in modules().items()
        if within(name, who) and not (whom == "detectors.training" and name in TRAINERS)
        for target in imports(path)
        if within(target, whom) and not within(target, who)
    ]
    assert not guilty


def test_every_package_is_installed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {name for name, path in modules().items() if path.name == "__init__.py"}
    assert set(setuptools["packages"]) == packages


def test_the_environment_is_read_in_one_place() -> None:
    allowed = {
        "miner.settings.settings",  # all of ours
        "miner.systemd",  # NOTIFY_SOCKET, systemd's own protocol
        "detectors",  # keeps libraries from reporting to their makers, before any is imported
        "detectors.export.yolo",  # sets what ultralytics reads at its import
        "miner.chain.client",  # sets where the SDK caches the chain's metadata
        "miner.cli.preparation",  # sets how much transformers says
        "miner.cli.training",  # the same
    }
    readers = {name for name, path in modules().items() if {"os.environ", "os.getenv"} & _attributes(path)}
    assert readers <= allowed


def _attributes(path: Path) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}


def test_the_top_level_is_what_the_design_says() -> None:
    ignored = {"LICENSE", "models", "state", "build", "dist"}
    names = {
        path.name
        for path in ROOT.iterdir()
        if not path.name.startswith(".") and path.suffix != ".egg-info" and path.name not in ignored
    }
    assert names == {"pyproject.toml", "README.md", "Makefile", "miner", "detectors", "env", "tests", "deploy"}
