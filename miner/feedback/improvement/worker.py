"""The children of an improvement: commands and functions of this program that stand back for a miner.

They end with their parent, which itself does nothing that takes long: it shares its terminal's group, and that gets as
much of the cores as a miner.
"""

import ctypes
import os
import pickle
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Literal, Self, TypeVar, cast

from detectors.files import is_in_use, settle
from miner.errors import CouldNotStart

PR_SET_PDEATHSIG = 1
Priority = Literal["idle", "low", "normal"]
Result = TypeVar("Result")
NICE: Mapping[Priority, int] = {"idle": 19, "low": 10, "normal": 0}
KILL_FIRST = "1000"  # oom_score_adj
IOPRIO_SET = {"x86_64": 251, "aarch64": 30}  # system calls, which the C library has no function for
IOPRIO_WHO_PROCESS, IOPRIO_IDLE = 1, 3 << 13
MODULE = "miner"
SAME_SIGNAL = 0.5  # seconds
LOOK_SECONDS, DYING_LOOKS = 0.1, 100

_libc = ctypes.CDLL(None)


class Interrupted(CouldNotStart):
    """A signal has ended the work; what is done is kept."""


class Children:
    """Runs commands, one after the other; within the context a signal is handed on to the one that runs.

    The first SIGINT or SIGTERM asks it to end in order, the second kills it.
    """

    def __init__(self, environment: Mapping[str, str], priority: Priority = "idle") -> None:
        self.is_stopped = False
        self._stopped: float | None = None  # when the first signal came
        self._priority: Priority = priority
        self._environment = dict(environment)
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def refuse_stopped(self) -> None:
        """End here where a signal has come.

        Raises:
            Interrupted: it has.
        """
        if self.is_stopped:
            raise Interrupted("stopped by a signal; `roadwork-miner improve` goes on from here")

    def run(self, arguments: Sequence[str], out: Path) -> int:
        """Run a command of this program, and return its exit code.

        Args:
            arguments: the command's name and its own.
            out: gets what it prints, as a whole once it has ended; what it says on stderr is said at once.

        Raises:
            Interrupted: a signal came; the command has ended.
        """
        self.refuse_stopped()
        unfinished = out.with_name(out.name + ".partial")
        unfinished.unlink(missing_ok=True)
        with unfinished.open("xb") as file:
            self._child = subprocess.Popen(  # noqa: S603 - this program
                command_of(arguments), stdin=subprocess.DEVNULL, stdout=file, env=self._environment,
                preexec_fn=partial(stand_back, self._priority, os.getpid()),
            )  # fmt: skip
            if self.is_stopped:  # between the look and the start
                self._child.terminate()
            code = self._child.wait()
            self._child = None
        self.refuse_stopped()
        settle(unfinished, out)
        return code

    def compute(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Call a function of this program in a process of its own, and return or raise what it does.

        It takes seconds, so no signal cuts it short; what comes after it looks for one.

        Args:
            function: of a module.
            arguments: its own; they are pickled, as is the result.

        Raises:
            CouldNotStart: something has killed the process.
        """
        done = subprocess.run(  # noqa: S603 - this program
            [sys.executable, "-c", f"from {__name__} import answer; answer()"], stdout=subprocess.PIPE, check=False,
            input=pickle.dumps((function, arguments)), preexec_fn=partial(stand_back, self._priority, os.getpid()),
        )  # fmt: skip
        if done.returncode:
            name = getattr(function, "__name__", function)
            raise CouldNotStart(
                f"{name}: its process has ended with exit code {done.returncode}; the next call goes on"
            )
        result, error = pickle.loads(done.stdout)  # noqa: S301 - of this program
        if error is not None:
            raise error
        return cast(Result, result)

    def _stop(self, number: int, _: FrameType | None) -> None:
        child, now = self._child, time.monotonic()
        first = self._stopped if self._stopped is not None else now
        is_second, self._stopped = self.is_stopped, first
        if is_second and now - first < SAME_SIGNAL:
            return  # a launcher may hand on what its whole group has got already
        self.is_stopped = True
        if child is not None and child.returncode is None:
            with suppress(ProcessLookupError):
                if is_second:
                    os.killpg(child.pid, signal.SIGKILL)
                else:
                    os.kill(child.pid, signal.SIGTERM)
        elif is_second:
            signal.signal(number, self._before[signal.Signals(number)])
            os.kill(os.getpid(), number)


def answer() -> None:
    """Call the function on stdin, and leave what it returns or raises on stdout; whatever it prints goes to stderr."""
    result, error = None, None
    function, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - of this program
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        try:
            result = function(*arguments)
        except Exception as raised:  # noqa: BLE001 - whoever called it is told
            error = raised
            error.add_note(traceback.format_exc())  # which pickle leaves out
        pickle.dump((result, error), out)


def command_of(arguments: Sequence[str]) -> list[str]:
    """Return a command of this program with its interpreter."""
    return [sys.executable, "-m", MODULE, *arguments]


def stand_back(priority: Priority, parent: int) -> None:
    """Make this process give way to a miner, be the first to go where memory is short, and end with its parent.

    The idle class gets what nobody else wants: whoever wakes up takes its core at once, where a nice process of the
    usual class would keep it for some milliseconds. It counts within a group of processes alone, and the kernel makes
    one of each session: so the process gets a session of its own, whose group has the lowest weight. The weight of a
    control group is the operator's to set (`CPUWeight=idle` of systemd).

    Args:
        priority: how far.
        parent: its process; where that has died already, nobody would say so any more.
    """
    os.setsid()
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    _tell("oom_score_adj", KILL_FIRST)
    with suppress(OSError):
        os.nice(NICE[priority])
    if priority != "normal":
        _tell("autogroup", str(NICE[priority]))
    if priority == "idle":
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        if (call := IOPRIO_SET.get(platform.machine())) is not None:
            _libc.syscall(call, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE)


def _tell(file: str, text: str) -> None:
    with suppress(OSError):  # a kernel without it, or a container that forbids it
        Path("/proc/self", file).write_text(text, encoding="ascii")


def await_end(run: Path) -> None:
    """Wait until a training whose parent was killed has ended, too."""
    for _ in range(DYING_LOOKS):
        if not is_in_use(run):
            return
        time.sleep(LOOK_SECONDS)
