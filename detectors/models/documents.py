"""JSON and YAML documents from elsewhere: read once, into typed models, with one line for what is wrong.

What is wrong with a file is a type of error, so that a command can end with the code for a wrong configuration; the
line names the file, the key, its value and what is allowed.
"""

import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from detectors.errors import DetectorConfigError, ModelError, ModelFileError

Model = TypeVar("Model", bound=BaseModel)

# What PyYAML's own constructors raise for a tag or a date that can't be one, and for nesting without end.
BROKEN_YAML = (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

MERGE = "tag:yaml.org,2002:merge"  # of the key `<<`, which may stand there again
LFS_POINTER = b"version https://git-lfs"  # how the file begins that git-LFS leaves in place of a large one

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxdict = _short.maxlist = _short.maxtuple = 8
_short.maxlevel = 3


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file, in which every number is finite and every key stands once.

    Raises:
        ModelError: the file can't be read.
        ModelFileError: it holds something else.
    """
    try:
        values = json.loads(
            path.read_text(encoding="utf-8"), parse_float=_finite, parse_constant=_finite, object_pairs_hook=_once
        )
        json.dumps(values, ensure_ascii=False).encode()  # half a character, such as \ud800, can be written nowhere
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        if path.read_bytes().startswith(LFS_POINTER):
            raise ModelFileError(f"{path} is a git-LFS pointer, not the file: fetch it with `git lfs pull`") from error
        raise ModelFileError(f"{path}: can't be read as JSON: {first_line(error)}") from error
    except RecursionError as error:
        raise ModelFileError(f"{path}: can't be read as JSON: it is nested too deeply") from error
    if not isinstance(values, dict):
        raise ModelFileError(f"{path}: an object of keys and values is needed; found {shown(values)}")
    return values


def read_yaml(path: Path) -> dict[Any, Any]:
    """Read the mapping in a YAML file.

    Raises:
        DetectorConfigError: it can't be read, or is no mapping.
    """
    try:
        values = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except (OSError, *BROKEN_YAML) as error:
        raise DetectorConfigError(f"{path.name}: can't be read as YAML: {_fault_of_yaml(error)}") from error
    if not isinstance(values, dict):
        raise DetectorConfigError(f"{path.name}: a mapping of keys to values is needed; found {shown(values)}")
    return values


def _fault_of_yaml(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return first_line(error)


def validated(model: type[Model], values: Mapping[str, Any], path: Path) -> Model:
    """Return the values of a file as a typed model.

    Raises:
        ModelFileError: a value is not what its key allows.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ModelFileError(f"{path}: {faults(error)}") from error


def faults(error: ValidationError) -> str:
    """Return each fault of a typed model as key, value and what is allowed, on one line."""
    lines = []
    for fault in error.errors(include_url=False):
        if fault["type"] == "default_factory_not_called":  # it follows from another fault
            continue
        key = ".".join(map(str, fault["loc"]))  # none where two keys contradict each other, and the message names both
        told = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "missing":  # its input is all that is around it
            lines.append(f"{key} is needed")
            continue
        if fault["type"] == "literal_error":
            told = f"{fault['ctx']['expected']} is allowed"
        lines.append(f"{key}={shown(fault['input'])}: {told}" if key else told)
    return "; ".join(lines)


def shown(value: object) -> str:
    """Return a value on one line, cut where it is long, in characters that can be printed everywhere."""
    return _short.repr(value).encode("utf-8", "backslashreplace").decode()


def some(names: Sequence[str], most: int = 4) -> str:
    """Return names for a message, not too many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def first_line(error: Exception) -> str:
    """Return the first line of an error, or its kind where it says nothing."""
    lines = str(error).splitlines()
    return shown(lines[0])[1:-1] if lines else type(error).__name__


class _Loader(yaml.SafeLoader):
    """YAML's plain types, every key once, and text that can be a path and can be printed."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.tag != MERGE:
                twice = f"the key {shown(key.value)} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, twice, key.start_mark)
            seen.add(str(key.value))
        return node

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        value.encode()
        if "\0" in value:
            raise ValueError(f"{shown(value)} has a NUL in it")
        return value

    def construct_yaml_int(self, node: Any) -> int:
        value = super().construct_yaml_int(node)
        str(value)  # raises for what has too many digits to be printed, as a long hexadecimal number may
        return value


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)} stands there twice")
    return values
