"""What the commands that train share: the machine as a training sees it, and errors as the command line's."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from miner.errors import ConfigurationError, CouldNotStart

if TYPE_CHECKING:
    from detectors.console import Screen
    from detectors.training.budget import Machine, Probe, Reading

CACHE = Path("~/.cache/roadwork-miner/training")


def cache_folder(named: str | Path | None) -> Path:
    """Return the folder of features, for all runs.

    Raises:
        ConfigurationError: it would be in a home that is not known.
    """
    try:
        return Path(named or CACHE).expanduser()
    except RuntimeError:
        raise ConfigurationError(
            f"--cache={named or CACHE}: nobody's home is known: set HOME, or give a path without ~"
        ) from None


def make_screen() -> "Screen":
    """Return what says things on stderr, so that stdout holds results alone."""
    from rich.console import Console

    from detectors.console import Screen

    return Screen(Console(file=sys.stderr, soft_wrap=True))


def read_machine() -> "Machine":
    """Read what this process may use."""
    from detectors.machine import read_cpu
    from detectors.training.budget import Machine
    from miner.inference.threads import allowed_cores, cpu_quota

    reading = make_probe()()
    cpu, features = read_cpu()
    return Machine(allowed_cores(), cpu_quota(), reading.memory, reading.available, cpu, features)


def make_probe() -> "Probe":
    """Return what reads memory, swap and throttling now; limits of a cgroup count as the machine's end."""
    import psutil

    from detectors.machine import read_memory, read_throttling
    from detectors.training.budget import Reading
    from miner.inference.allocator import give_back

    whole = float(psutil.virtual_memory().total)

    def read() -> Reading:
        memory = read_memory()
        within = memory.cgroup_limit - memory.cgroup_usage + memory.cgroup_reclaimable
        times = os.times()
        return Reading(
            resident=memory.resident,
            available=max(0.0, min(memory.machine_available, within)),
            memory=min(whole, memory.cgroup_limit),
            swapped_out=float(psutil.swap_memory().sout),
            throttled=read_throttling().seconds,
            cpu=times.user + times.system + times.children_user + times.children_system,
        )

    return patient(read, give_back)


def patient(read: "Probe", release: Callable[[], None]) -> "Probe":
    """Return what reads again, where memory is short, once what the allocator holds but nobody uses was given back."""

    def probe() -> "Reading":
        reading = read()
        if not reading.is_short:
            return reading
        release()
        return read()

    return probe


def parse(assignments: list[str] | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Return the values of `--set key=value` and of the flags that were given; `augment.blur=0` names an inner one.

    Raises:
        ConfigurationError: no `=`, no YAML behind it, or an inner key of what has none.
    """
    from detectors.models.documents import BROKEN_YAML, first_line

    values: dict[str, Any] = {}
    for assignment in assignments or []:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigurationError(f"--set {assignment}: key=value is needed; --print-config lists the keys")
        outer, _, inner = key.partition(".")
        try:
            value = yaml.safe_load(text)
        except BROKEN_YAML as error:
            raise ConfigurationError(f"--set {assignment}: can't be read as YAML: {first_line(error)}") from error
        if inner and not isinstance(values.setdefault(outer, {}), dict):
            raise ConfigurationError(f"--set {assignment}: {outer} was given a value of its own before")
        if inner:
            values[outer][inner] = value
        else:
            values[outer] = value
    return values | {key: value for key, value in flags.items() if value is not None}


@contextmanager
def training_errors(hint: str = "") -> Iterator[None]:
    """Turn the detectors' errors into the command line's, and hold the libraries' own chatter back.

    Args:
        hint: what to do after a failure of the machine, such as a full disk.
    """
    from detectors.errors import DetectorConfigError, DetectorError
    from detectors.training.budget import is_out_of_memory

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.simplefilter("ignore")
    try:
        yield
    except DetectorConfigError as error:
        raise ConfigurationError(str(error)) from error
    except DetectorError as error:
        raise CouldNotStart(str(error)) from error
    except ModuleNotFoundError as error:
        raise CouldNotStart(
            f"training needs the package {error.name!r}, which is not installed; `make setup-all` installs it"
        ) from error
    except (OSError, MemoryError, RuntimeError) as error:  # above all a full disk, and a full memory
        if is_out_of_memory(error):
            words = "memory is full even with one photo at a time: stop other programs, or choose a smaller --model"
        elif isinstance(error, OSError):
            words = str(error)
        else:
            raise
        raise CouldNotStart(f"{words}; {hint}" if hint else words) from error
