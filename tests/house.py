"""The shape of the house in numbers: `python -m tests.house`; the architecture test holds the code to it."""

import ast
import json
import statistics
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("miner", "detectors")

Graph = Mapping[str, set[str]]


@cache
def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return the product's modules, by their dotted names."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    """Return a file's syntax tree; once, since a dozen tests look at each."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(module: str, root: Path = ROOT) -> frozenset[str]:
    """Return what a module imports anywhere; an import for annotations alone is none."""
    return frozenset(_imports(modules(root)[module], modules(root)))


def _imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    for node in _statements(tree_of(path).body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known else node.module or ""


def _statements(block: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a block, however deep, but for what only a type checker reads."""
    for node in block:
        yield node
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from _statements(getattr(node, "body", []))
        yield from _statements(getattr(node, "orelse", []))
        yield from _statements(getattr(node, "finalbody", []))
        for part in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
            yield from _statements(part.body)


@cache
def graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Return which modules of ours each module imports."""
    known = modules(root)
    return {name: {one for one in imports(name, root) if one in known} - {name} for name in known}


def room_of(module: str) -> str:
    """Return the room of a module: the package or module below `miner` or `detectors` that it is in."""
    return ".".join(module.split(".")[:2])


def rooms(files: Graph) -> dict[str, set[str]]:
    """Return which rooms each room imports from."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, targets in files.items():
        found[room_of(name)] |= {room_of(target) for target in targets} - {room_of(name)}
    return found


def cycles(of: Graph) -> list[list[str]]:
    """Return the sets of nodes that import each other in a circle (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in of.get(node, ()):
            if target not in index:
                visit(target)
            if target in stack:
                low[node] = min(low[node], low[target])
        if low[node] == index[node]:
            circle = [stack.pop()]
            while circle[-1] != node:
                circle.append(stack.pop())
            if len(circle) > 1:
                found.append(sorted(circle))

    for node in of:
        if node not in index:
            visit(node)
    return found


def public_classes(root: Path = ROOT) -> Counter[str]:
    """Count the public classes by name."""
    trees = map(tree_of, modules(root).values())
    return Counter(
        node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_"
    )


def from_imports(module: str, root: Path = ROOT) -> set[str]:
    """Return what a module takes out of others by name: `os.environ` of `from os import environ`."""
    found = (node for node in ast.walk(tree_of(modules(root)[module])) if isinstance(node, ast.ImportFrom))
    return {f"{node.module}.{alias.name}" for node in found for alias in node.names}


def tracked(root: Path = ROOT) -> set[str]:
    """Return the entries at the top of the repository; an operator's own files beside them are none."""
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    return {line.partition("/")[0] for line in listed.splitlines()}


def top(package: str, root: Path = ROOT) -> list[str]:
    """Return the entries at the top of a package, data folders too; of a room that was moved, the compiled is left."""
    files = [path.relative_to(root / package) for path in (root / package).rglob("*") if path.is_file()]
    return sorted({file.parts[0] for file in files if "__pycache__" not in file.parts} - {"__init__.py"})


def counts(root: Path = ROOT) -> dict[str, object]:
    """Return the figures of the house."""
    files = graph(root)
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules(root).items()}
    importers = Counter(target for targets in files.values() for target in targets)
    largest = max(lines, key=lambda name: lines[name])
    return {
        "files": len(lines),
        "lines": sum(lines.values()),
        "median file": int(statistics.median(lines.values())),
        "largest file": f"{largest} ({lines[largest]})",
        **{f"entries at the top of {package}/": len(top(package, root)) for package in PACKAGES},
        "rooms": len(rooms(files)),
        "files with one importer": sum(count == 1 for count in importers.values()),
        "public class names defined twice": sum(count > 1 for count in public_classes(root).values()),
        "cycles of files": len(cycles(files)),
        "cycles of rooms": len(cycles(rooms(files))),
    }


if __name__ == "__main__":
    print(json.dumps(counts(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT), indent=1))
