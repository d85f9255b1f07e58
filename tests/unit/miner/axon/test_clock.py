"""A wrong clock of ours costs every request: it is noticed by the nonces of those who may ask, and said."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from miner.axon import BTAUTH_PATH
from miner.axon.caller import Caller
from miner.axon.clock import MIN_REQUESTS, ClockWatch
from miner.chain.standalone import own_wallet
from miner.recorder.records import Wire
from tests.unit.miner.axon.wire_in_process import Port

SECOND = 10**9
HOUR = 3600 * SECOND
TRUTH = 1_700_000_000 * SECOND
BODY = b'{"image": "aGk="}'


class Machine:
    """A machine whose clocks are moved by hand; validators live by the truth."""

    def __init__(self) -> None:
        self.ran = 0
        self.ahead = 0

    @property
    def truth(self) -> int:
        return TRUTH + self.ran

    def wall(self) -> int:
        return self.truth + self.ahead

    def monotonic(self) -> int:
        return self.ran


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def clock(machine: Machine) -> ClockWatch:
    return ClockWatch(machine.wall, machine.monotonic)


def caller(hotkey: str, nonce: int, wire: Wire = "dendrite") -> Caller:
    return Caller(hotkey, nonce, "uuid", 9.0, wire)


def ask(machine: Machine, clock: ClockWatch, hotkey: str, off: int = 0, count: int = MIN_REQUESTS) -> None:
    """Have a caller ask whose clock is `off`, and each time 20 s later."""
    for _ in range(count):
        machine.ran += 20 * SECOND
        clock.heard(caller(hotkey, machine.truth + off))


@pytest.mark.parametrize("wire", ["dendrite", "btauth"])
@pytest.mark.parametrize(("ahead", "words"), [(HOUR, "ahead of"), (-HOUR, "behind"), (14 * SECOND, "ahead of")])
def test_a_wrong_clock_is_an_obstacle_until_it_is_set_right(
    machine: Machine, clock: ClockWatch, wire: Wire, ahead: int, words: str
) -> None:
    machine.ahead = ahead
    for _ in range(MIN_REQUESTS):
        assert clock.obstacle is None
        machine.ran += 20 * SECOND
        clock.heard(caller("validator", machine.truth, wire))
    assert clock.obstacle is not None
    assert words in clock.obstacle
    assert clock.ahead == pytest.approx(ahead / SECOND)
    machine.ahead = 0
    assert clock.obstacle is None  # without waiting for the next request
    assert clock.ahead == pytest.approx(0)


def test_a_clock_that_is_set_wrong_is_told_before_anybody_is_refused(machine: Machine, clock: ClockWatch) -> None:
    ask(machine, clock, "validator")
    assert clock.obstacle is None
    machine.ahead = -HOUR
    assert clock.obstacle is not None


def test_one_caller_with_a_wrong_clock_is_no_fault_of_ours(machine: Machine, clock: ClockWatch) -> None:
    ask(machine, clock, "odd", off=HOUR)
    ask(machine, clock, "right", count=1)
    assert clock.obstacle is None


def test_callers_who_are_off_on_both_sides_say_nothing_of_our_clock(machine: Machine, clock: ClockWatch) -> None:
    ask(machine, clock, "early", off=-HOUR)
    ask(machine, clock, "late", off=HOUR)
    assert clock.obstacle is None


def test_requests_that_are_sent_again_say_nothing(machine: Machine, clock: ClockWatch) -> None:
    ask(machine, clock, "validator")
    old = machine.truth
    machine.ran += 600 * SECOND
    for _ in range(10):
        clock.heard(caller("validator", old))
        clock.heard(caller("validator", old + 1))
    assert clock.ahead == pytest.approx(0)
    assert clock.obstacle is None


def test_a_caller_whose_clock_was_wrong_for_a_while_is_right_again(machine: Machine, clock: ClockWatch) -> None:
    ask(machine, clock, "validator", off=HOUR)
    assert clock.obstacle is not None
    ask(machine, clock, "validator", count=1)
    assert clock.obstacle is None
    ask(machine, clock, "validator", off=HOUR)
    assert clock.obstacle is None


def test_one_request_sent_again_and_again_is_one(machine: Machine, clock: ClockWatch) -> None:
    machine.ran = HOUR
    for _ in range(10):
        clock.heard(caller("validator", TRUTH))
    assert clock.obstacle is None


def test_what_was_heard_is_forgotten_after_an_hour(machine: Machine, clock: ClockWatch) -> None:
    machine.ahead = HOUR
    ask(machine, clock, "validator")
    machine.ran += HOUR + SECOND
    assert clock.ahead is None
    assert clock.obstacle is None


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.name == "miner.axon.clock"]


def test_refusals_are_told_once_a_minute(machine: Machine, clock: ClockWatch, caplog: pytest.LogCaptureFixture) -> None:
    machine.ahead = HOUR
    for _ in range(10):  # in 200 s
        machine.ran += 20 * SECOND
        clock.refused(caller("validator", machine.truth))
    assert [int(line.split()[0]) for line in warnings(caplog)] == [1, 3, 3, 3]


@pytest.mark.parametrize(("step", "lines"), [(HOUR, 1), (-2 * SECOND, 1), (SECOND // 2, 0)])
def test_a_step_of_the_clock_is_told_once(
    machine: Machine, clock: ClockWatch, caplog: pytest.LogCaptureFixture, step: int, lines: int
) -> None:
    told: list[float] = []
    clock.told.append(told.append)
    machine.ran += 5 * SECOND
    clock.look()
    machine.ahead += step
    for _ in range(2):
        machine.ran += SECOND
        clock.look()
    assert len(warnings(caplog)) == lines
    assert told == [step / SECOND] * lines


@pytest.fixture
def port(tmp_path: Path, machine: Machine) -> Iterator[Port]:
    port = Port(tmp_path, ClockWatch(machine.wall, machine.monotonic))
    yield port
    port.close()


def send(port: Port, machine: Machine, wire: Wire, role: str = "validator", ago: int = 0, **changes: str) -> int:
    """Send a request, signed at the true time or before; return the status."""
    machine.ran += 20 * SECOND
    port.client.wallet = own_wallet(port.state, role)
    nonce = machine.truth - ago
    signed = port.client.btauth_headers(BTAUTH_PATH, BODY, nonce)
    if wire == "dendrite":
        signed = port.client.dendrite_headers(nonce)
    ((status, answer),) = port.feed([port.request(wire, BODY, **signed | changes)])
    assert status == 200 or set(answer) == {"message"}
    return status


@pytest.mark.parametrize("wire", ["dendrite", "btauth"])
def test_an_hour_ahead_at_the_start_and_set_back(port: Port, machine: Machine, wire: Wire) -> None:
    machine.ahead = HOUR
    for _ in range(MIN_REQUESTS):
        assert send(port, machine, wire) == 401
    assert port.axon.clock.obstacle is not None
    machine.ahead = 0
    assert port.axon.clock.obstacle is None
    assert send(port, machine, wire) == 200


@pytest.mark.parametrize("wire", ["dendrite", "btauth"])
def test_strangers_and_forgeries_say_nothing_of_our_clock(port: Port, machine: Machine, wire: Wire) -> None:
    name = "X-Bittensor-Signature" if wire == "btauth" else "bt_header_dendrite_signature"
    for _ in range(MIN_REQUESTS):
        assert send(port, machine, wire, "stranger", HOUR) in (401, 403)
        assert send(port, machine, wire, "validator", HOUR, **{name: "0x" + "00" * 64}) == 401
    assert port.axon.clock.ahead is None
