"""The rooms of the house, and the arrows between them."""

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import (
    ROOT,
    cycles,
    from_imports,
    graph,
    imports,
    modules,
    public_classes,
    room_of,
    rooms,
    top,
    tracked,
    tree_of,
)

# A room may import from those above it in its list, and from itself. `miner` may import from `detectors`, never the
# other way round.
ORDER = {
    "detectors": """
        errors redact registry machine console files photos models preprocess builders base network remote ensemble
        backends evaluation load export quantize training
    """,
    "miner": """
        errors formats systemd lock logs recorder settings http chain natix metrics
        cascade inference axon shadow feedback status app doctor bench support simulate cli __main__
    """,
}
# Packages that nothing but these rooms may import, as they are large or not there.
ONLY = {
    "bittensor": {"miner.axon", "miner.chain"},
    "bittensor_core": {"miner.axon", "miner.chain"},
    "prometheus_client": {
        "miner.bench",
        "miner.doctor",
        "miner.inference",
        "miner.metrics",
        "miner.cascade",
        "miner.status",
    },
    "jinja2": {"miner.cli", "miner.feedback", "miner.status"},
    "starlette": {"miner.axon", "miner.feedback", "miner.http", "miner.status"},
    "textual": {"miner.status"},
    "torch": {
        "detectors.backends",
        "detectors.export",
        "detectors.training",
        "miner.bench",
    },
    "detectors.training": {"miner.cli"},
}
LARGEST = 400  # lines of a module
MOST_MODULES = 12  # of a package; a command each, a part of training each are more
MOST = {"miner": 24, "detectors": 24}  # entries at the top


@pytest.mark.parametrize("package", ORDER)
def test_every_room_stands_in_the_order(package: str) -> None:
    standing = [f"{package}.{name}" for name in ORDER[package].split()]
    assert set(standing) == {room_of(name) for name in modules() if name.startswith(package + ".")}
    assert len(standing) == len(set(standing))


@pytest.mark.parametrize("package", ORDER)
def test_rooms_import_from_those_above_them(package: str) -> None:
    above: set[str] = set()
    for name in ORDER[package].split():
        room = f"{package}.{name}"
        wrong = {target for target in rooms(graph())[room] if target.startswith(package + ".")} - above
        assert not wrong, f"{room} imports from {wrong}"
        above.add(room)


def test_the_detectors_know_nothing_of_the_miner() -> None:
    below = {name: targets for name, targets in graph().items() if name.startswith("detectors")}
    assert not {name for name, targets in below.items() if any(target.startswith("miner") for target in targets)}


def test_no_files_import_each_other_in_a_circle() -> None:
    assert cycles(graph()) == []


@pytest.mark.parametrize("package", ONLY)
def test_what_is_heavy_is_imported_in_few_rooms(package: str) -> None:
    found = {
        room_of(name)
        for name in modules()
        for target in imports(name)
        if (target == package or target.startswith(package + ".")) and not name.startswith(package)
    }
    assert found == ONLY[package]


def test_the_queue_decides_without_a_loop_a_clock_or_a_model() -> None:
    assert imports("miner.inference.queue") & set(modules()) == {"miner.errors", "miner.inference.pace"}
    assert not imports("miner.inference.pace") & set(modules())


@pytest.mark.parametrize("package", MOST)
def test_the_top_of_a_package_can_be_held_in_the_head(package: str) -> None:
    assert len(top(package)) <= MOST[package], top(package)


def test_no_public_class_is_defined_twice() -> None:
    assert not [name for name, count in public_classes().items() if count > 1]


def test_files_and_packages_stay_small() -> None:
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert not [name for name, count in lines.items() if count > LARGEST]
    inside = Counter(name.rpartition(".")[0] for name, path in modules().items() if path.name != "__init__.py")
    crowded = {name for name, count in inside.items() if count > MOST_MODULES}
    assert crowded <= {"miner.cli", "detectors.training"}


def test_every_package_is_installed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {name for name, path in modules().items() if path.name == "__init__.py"}
    assert set(setuptools["packages"]) == packages


def test_the_environment_is_read_in_one_place() -> None:
    allowed = {
        "miner.settings.env_file",
        "miner.settings.settings",  # all of ours
        "miner.systemd",  # NOTIFY_SOCKET, systemd's own protocol
        "detectors",  # keeps libraries from reporting to their makers, before any is imported
        "detectors.backends.torch",  # sets what ultralytics reads at its import
        "miner.chain.client",  # sets where the SDK caches the chain's metadata
        "miner.cli.preparation",  # sets how much transformers says
        "miner.cli.training",  # the same
    }
    readers = {name for name, path in modules().items() if {"os.environ", "os.getenv"} & _attributes(path)}
    assert readers == allowed
    named = {"environ", "environb", "getenv", "putenv"}
    assert not [name for name in modules() if {f"os.{one}" for one in named} & from_imports(name)]


def _attributes(path: Path) -> set[str]:
    return {ast.unparse(node) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}


def test_the_top_level_is_what_the_design_says() -> None:
    names = {name for name in tracked() if not name.startswith(".")}
    assert names == {
        "LICENSE",
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "Makefile",
        "miner",
        "detectors",
        "env",
        "tests",
        "deploy",
    }


# What of a test is held against what the product says: its assertions, waits and what it expects, and the columns of
# its tables that hold words. Five words in a row are a sentence; a name, a value and two or three words tell one error
# from another.
HELD_BY = {"eventually", "expect", "fault", "hears", "says", "until"}
WORDS = {"fault", "line", "message", "reason", "said", "sentence", "told", "words"}
SENTENCE = re.compile(r"\b[A-Za-z][A-Za-z'-]*(?:[,;:]? [A-Za-z][A-Za-z'-]*){4}")
WHERE_SENTENCES_ARE = {"test_messages.py"}


def test_only_one_file_of_tests_quotes_sentences() -> None:
    """Whoever rewords a message changes the message, and that file."""
    quoted = {
        f"{path.relative_to(ROOT)}:{constant.lineno}: {constant.value}"
        for path in (ROOT / "tests").rglob("test_*.py")
        if path.name not in WHERE_SENTENCES_ARE
        for held in _held(ast.parse(path.read_text(encoding="utf-8")))
        for constant in ast.walk(held)
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str) and SENTENCE.search(constant.value)
    }
    assert not quoted


def _held(tree: ast.Module) -> Iterator[ast.expr]:
    """Return the expressions of a test file that what the product says is held against."""
    for node in ast.walk(tree):
        match node:
            case ast.Assert():
                yield node.test
            case ast.keyword(arg="match"):
                yield node.value
            case ast.Call(func=ast.Attribute(attr="parametrize"), args=[names, ast.List(elts=rows), *_]):
                given = ast.literal_eval(names)
                columns = given.split(",") if isinstance(given, str) else given
                for row in rows:
                    cells = row.args if isinstance(row, ast.Call) else getattr(row, "elts", [row])
                    yield from (cell for name, cell in zip(columns, cells, strict=False) if name in WORDS)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in HELD_BY:
                yield node
