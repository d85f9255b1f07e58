"""The environment file and the environment: unknown keys, comments in values, lines that set nothing.

StreetVision's own `miner.env` works as it is, inline comments included.
"""

import io
import os
import re
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

from detectors.files import write_safely
from detectors.redact import HIDDEN, shown_within
from miner.errors import ConfigurationError
from miner.settings.addresses import ADDRESSES, secrets_within, shown_each
from miner.settings.validators import nearest

HUB = "HF_"  # HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, …: huggingface_hub's own
# What python-dotenv takes for a comment outside quotes. systemd drops the space before one that is all there is.
COMMENT = re.compile(r"^#\s.*|\s+#.*")
# What stands before the value, a comment, and the end of the line.
ASSIGNMENT = re.compile(r"(\s*(?:export\s+)?[^\s=]+[ \t]*=).*?([ \t]+#[^\n]*)?(\s*)", re.DOTALL)
QUOTED = re.compile(r"\s*(?:'[^']*'|\"[^\"]*\")\s*")
SET_BY_US = "HF_HUB_DISABLE_TELEMETRY"  # by `detectors`, for every command
HUB_TOKEN = "HF_TOKEN"  # noqa: S105 - a key
OLD_TOKENS = ("HUGGING_FACE_TOKEN", "HUGGINGFACE_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")
# Of StreetVision's own miner.env: the subnet asks for images only, and this miner calls no proxy.
UNUSED_KEYS = ("VIDEO_DETECTOR", "VIDEO_DETECTOR_CONFIG", "VIDEO_DETECTOR_DEVICE", "PROXY_CLIENT_URL")
REPLACED = "another file is in its place outside of this container, which sees the old one until it is restarted"
SECRET_WORDS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "MNEMONIC", "API_KEY", "PRIVATE")


def refuse_unreadable_lines(env_file: Path | None, names: Container[str]) -> None:
    """Raise an error that names the lines that set nothing: python-dotenv would pass over them.

    Their text is left out, which may be a secret's. What is not ours may stand alone (`export PATH`).
    """
    if env_file is None:
        return
    with env_file.open(encoding="utf-8") as file:
        lines = [
            _line_of(binding)
            for binding in parse_stream(file)
            if binding.error or (binding.value is None and (binding.key or "").upper() in names)
        ]
    if lines:
        raise ConfigurationError(
            "\n".join(f"{env_file}, line {line}: KEY=value is needed, or # before a comment" for line in lines)
        )


def is_replaced(env_file: Path | None) -> bool:
    """Return whether the file is another than whoever wrote it last means.

    A container mounts a file, not its name: many editors write a new file in its place, which the container does not
    see. The old one has no name any more. (Neither has what was read from a pipe, which nobody replaces.) That a file
    is gone or shut, whoever reads it says.
    """
    if env_file is None or env_file.is_relative_to("/proc"):
        return False
    try:
        return env_file.stat().st_nlink == 0
    except OSError:
        return False


def refuse_replaced(env_file: Path | None) -> None:
    """Raise an error where to read the settings again would be to read the old ones."""
    if is_replaced(env_file):
        raise ConfigurationError(f"{env_file}: {REPLACED}")


def lines_of(env_file: Path) -> dict[str, int]:
    """Return the line that gives each key of the file its value, by the key in small letters."""
    with env_file.open(encoding="utf-8") as file:
        return {binding.key.lower(): _line_of(binding) for binding in parse_stream(file) if binding.key is not None}


def _line_of(binding: Binding) -> int:
    """Return the line a binding begins in; the empty ones before it are part of it to python-dotenv."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def commented(flags: Container[str], names: Container[str]) -> Iterator[tuple[str, str]]:
    """Yield each value of a setting in the environment that ends in a comment, and what is to be said of it.

    Docker's `--env-file` and systemd's `EnvironmentFile=` keep what python-dotenv leaves out, so the value is not what
    the operator means. A flag takes its place.
    """
    for key, value in os.environ.items():
        if key.lower() in flags or not (key.upper() in names or key.startswith(HUB)) or QUOTED.fullmatch(value):
            continue
        if comment := COMMENT.search(value):
            show = shown_each if key.lower() in ADDRESSES else shown_within
            meant = HIDDEN if key.startswith(HUB) else show(value[: comment.start()])
            yield (
                value,
                f"{key}={meant}{shown_within(comment[0])}: an inline comment, which the reader of that file keeps "
                "(docker --env-file, EnvironmentFile=); remove it, or give the file to the miner as --env-file",
            )


def lend_to_hub(env_file: Path | None) -> None:
    """Put the file's HF_… keys into the environment, where huggingface_hub and our children look; what is there wins.

    To be called before huggingface_hub is imported, which reads them once.
    """
    for key, value in dotenv_values(env_file).items() if env_file is not None else ():
        if key.startswith(HUB) and value:
            os.environ.setdefault(key, value)


def hub_keys(env_file: Path | None) -> Iterator[tuple[str, str, bool]]:
    """Yield the HF_… keys that have a value, once `lend_to_hub` was called, and whether the file gave it."""
    given = dotenv_values(env_file) if env_file is not None else {}
    for key, value in sorted(os.environ.items()):
        if key.startswith(HUB) and value and key != SET_BY_US:
            yield key, value, given.get(key) == value


def secrets_of_environment(names: Container[str], env_file: Path | None = None) -> list[str]:
    """Return what others must not read: values that are named like secrets, and those of keys that are not ours.

    Of the keys that StreetVision's own miner has and this one does not use: only what an address hides.
    """
    given = dotenv_values(env_file) if env_file is not None else {}
    found = [value for key, value in os.environ.items() if any(word in key.upper() for word in SECRET_WORDS)]
    for key, value in (*os.environ.items(), *given.items()):
        if key.upper() in UNUSED_KEYS and value:
            found += secrets_within(value)
    others = (key for key in given if key.upper() not in names and key.upper() not in UNUSED_KEYS)
    return [*found, *(value for key in others if (value := given[key]))]


def key_notes(names: Collection[str], env_file: Path | None) -> Iterator[str]:
    """Yield what the operator should know of keys that are not read."""
    given = dotenv_values(env_file) if env_file is not None else {}
    if is_replaced(env_file):
        yield f"{env_file}: {REPLACED}"
    for key in given:
        if key.upper() not in names and key.upper() not in UNUSED_KEYS and not key.startswith(HUB):
            near = HUB_TOKEN if key.upper() in OLD_TOKENS else nearest(key.upper(), list(names))
            yield f"unknown key {key} in {env_file}" + (f"; did you mean {near}?" if near else "")
    if not os.environ.get(HUB_TOKEN):  # where `lend_to_hub` has put the file's
        yield from (f"{key} is not read: the hub's token is {HUB_TOKEN}" for key in OLD_TOKENS if os.environ.get(key))
    unused = {key.upper() for key, value in (*os.environ.items(), *given.items()) if value} & set(UNUSED_KEYS)
    if unused:
        yield f"{', '.join(sorted(unused))}: accepted and unused; this miner answers images only and calls no proxy"


def set_in_file(env_file: Path, name: str, value: str) -> None:
    """Write a setting into the file, and leave every other line as it is; a crash leaves the old file or the new one.

    Raises:
        ConfigurationError: it can't be read or written.
    """
    _rewrite(env_file, lambda text: with_setting(text, name, value))


def read_file(env_file: Path) -> str:
    """Return a settings file's text as it is, ends of lines and all; nothing where there is none.

    Raises:
        ConfigurationError: it can't be read.
    """
    try:
        return env_file.read_bytes().decode() if env_file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigurationError(f"--env-file={env_file}: can't be read: {reason}") from error


def write_file(env_file: Path, text: str) -> None:
    """Write a settings file's text; a crash leaves the old file or the new one, of the same owner and mode.

    Raises:
        ConfigurationError: it can't be written.
    """
    _rewrite(env_file, lambda _: text)


def with_lines(text: str, lines: Mapping[str, str | None]) -> str:
    """Return a settings file's text with these values, as they are to be spelt; None: no line of that setting."""
    for name, value in lines.items():
        text = without_setting(text, name) if value is None else with_setting(text, name, value)
    return text


def try_file(env_file: Path) -> None:
    """Write the file as it is, before work whose outcome is to be written into it.

    Raises:
        ConfigurationError: it can't be read or written.
    """
    if _rewrite(env_file, lambda text: text):
        env_file.resolve().unlink(missing_ok=True)


def _rewrite(env_file: Path, change: Callable[[str], str]) -> bool:
    """Return whether the file is new."""
    path = env_file.resolve()
    try:
        found = path.stat() if path.exists() else None
        text = path.read_bytes().decode() if found is not None else ""  # its ends of lines stay
        write_safely(path, change(text).encode(), like=found, mode=0o600)
        return found is None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigurationError(f"--env-file={env_file}: can't be written: {reason}") from error


def spelt(text: str, name: str) -> str | None:
    """Return a setting's value in a settings file as it is spelt there, quotes and all; None: it has no line."""
    found = [one for one in _assignments(text) if one[0] == name]
    return found[-1][1] if found else None


def without_setting(text: str, name: str) -> str:
    """Return a settings file's text without the lines of a setting."""
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    lines = [
        line[: len(line) - len(line.lstrip())] if (binding.key or "").upper() == name else line
        for binding in parse_stream(io.StringIO(text.removeprefix(mark)))
        for line in [binding.original.string]
    ]
    return mark + "".join(lines)


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for binding in parse_stream(io.StringIO(text)):
        line = binding.original.string
        if binding.key is not None and (found := ASSIGNMENT.fullmatch(line)):
            yield binding.key.upper(), line[len(found[1]) : len(line) - len(found[2] or "") - len(found[3])]


def in_quotes(value: str) -> str:
    """Return a value as a settings file takes it: in quotes where a blank, a comment or a variable would be read."""
    return value if re.fullmatch(r"[\w./:@%+,~-]+", value) else "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"


def with_setting(text: str, name: str, value: str) -> str:
    """Return a settings file's text with this value for a setting: where it stands, else on a line of its own."""
    lines, is_there = [], False
    for binding in parse_stream(io.StringIO(text)):
        line = binding.original.string
        if (binding.key or "").upper() == name and (found := ASSIGNMENT.fullmatch(line)):
            line, is_there = f"{found[1]}{value}{found[2] or ''}{found[3]}", True
        lines.append(line)
    mark = "\ufeff" if text.startswith("\ufeff") else ""  # of the order of bytes, which python-dotenv takes away
    whole = mark + "".join(lines).removeprefix(mark)
    if is_there:
        return whole
    end = "\r\n" if "\r\n" in whole else "\n"
    return f"{whole}{'' if whole.endswith(chr(10)) or not whole else end}{name}={value}{end}"
