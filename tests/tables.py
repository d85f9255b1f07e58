"""The tables that documents have from the code: `python -m tests.tables` (`make tables`) writes them anew."""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from miner import __version__
from miner.settings.settings import Settings
from tests.house import ROOT, counts, modules
from tests.unit.test_architecture import ORDER

CONTRIBUTING = ".github/CONTRIBUTING.md"
# Of version 0.1.0, as `counts` had them.
BEFORE = {
    "files": 283,
    "lines": 31015,
    "median file": 100,
    "largest file": "miner.queue (341)",
    "entries at the top of miner/": 62,
    "entries at the top of detectors/": 49,
    "rooms": 110,
    "files with one importer": 87,
    "public class names defined twice": 22,
    "cycles of files": 0,
    "cycles of rooms": 3,
}
TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)


def map_of(package: str) -> str:
    """Return the rooms of a package, each with the first line of its docstring."""
    known = modules()
    rows = [f"| room of `{package}/` | what it is |", "| --- | --- |"]
    for room in ORDER[package].split():
        path = known[f"{package}.{room}"]
        name = f"{room}/" if path.name == "__init__.py" else path.name
        rows.append(f"| `{name}` | {(ast.get_docstring(ast.parse(path.read_text())) or '').splitlines()[0]} |")
    return "\n".join(rows)


def settings_table() -> str:
    """Return the settings as the table of `env/README.md`."""
    rows = ["| setting | default | what it is for |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = (
            "" if field.default is None else str(field.default).lower() if field.annotation is bool else field.default
        )
        rows.append(f"| `{name.upper()}` | {f'`{default}`' if default != '' else ''} | {field.description} |")
    return "\n".join(rows)


def counts_table() -> str:
    """Return the figures of the house, beside those of the first version."""
    rows = [f"| count | 0.1.0 | {__version__} |", "| --- | --- | --- |"]
    return "\n".join([*rows, *(f"| {name} | {BEFORE[name]} | {value} |" for name, value in counts().items())])


# By document; a test holds them equal.
TABLES: Mapping[str, Sequence[Callable[[], str]]] = {
    "env/README.md": [settings_table],
    CONTRIBUTING: [partial(map_of, package) for package in ORDER],
}


def with_table(document: str, table: str) -> str:
    """Return a document with this in place of the table that begins with the same line."""
    head = table.splitlines()[0]
    found = [old[0] for old in TABLE.finditer(document) if old[0].startswith(head)]
    assert len(found) == 1, f"a table that begins with {head} is needed, once"
    return document.replace(found[0], table + "\n")


def main(root: Path = ROOT) -> None:
    for name, makers in [*TABLES.items(), (CONTRIBUTING, [counts_table])]:
        path = root / name
        text = path.read_text(encoding="utf-8")
        for make in makers:
            text = with_table(text, make())
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
