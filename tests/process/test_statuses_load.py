"""When it is too much: refusals by the queue and by the deadline, on both wires."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from miner.chain import standalone
from miner.errors import MESSAGES
from tests.process.conftest import Settings, StartDaemon
from tests.process.daemon import PATIENCE, Daemon, eventually
from tests.process.inspection import message_of, probability_of
from tests.process.wire import DOORS, Door, Signer

all_doors = pytest.mark.parametrize("door", DOORS, ids=lambda door: f"{door.wire}{door.path}")


@all_doors
def test_a_deadline_that_can_not_be_met_is_refused(miner: Daemon, door: Door, street: bytes) -> None:
    """The newer wire signs the body, which is not read then: nobody knows whose request that was."""
    outcome = "refused" if door.wire == "dendrite" else "unproven"
    refusals, before = miner.metric("refusals_total", reason="deadline"), miner.outcomes().get(outcome, 0)
    answer = miner.ask(street, door, timeout="0.2")
    assert message_of(answer, 503) == MESSAGES["deadline"]
    assert miner.outcomes()[outcome] == before + 1
    assert miner.metric("refusals_total", reason="deadline") == refusals + (outcome == "refused")


@all_doors
def test_a_deadline_that_can_not_be_met_is_refused_unread(miner: Daemon, door: Door) -> None:
    with miner.raw(miner.validator.sign(b"", door, timeout="0.2")) as raw:
        message_of(raw.send_head(length=10**6).answer(), 503)


def test_an_overloaded_miner_refuses_at_once(moody: Daemon, street: bytes, white: bytes) -> None:
    with ThreadPoolExecutor(2) as pool:
        with moody.held():
            running = pool.submit(moody.ask_patiently, white)
            eventually(lambda: moody.metric("running"))
            waiting = pool.submit(moody.ask_patiently, street)
            eventually(lambda: moody.metric("queue_depth"))
            for door in DOORS:
                assert message_of(moody.ask(street + b"2", door, timeout=str(PATIENCE)), 503) == MESSAGES["queue_full"]
            assert moody.load() == (1, 1)  # so nobody waited for them
        probability_of(running.result())
        probability_of(waiting.result())


def test_a_share_binds_while_others_wait_and_the_last_place_goes_to_the_higher_stake(
    start_daemon: StartDaemon, moods: Settings, white: bytes, street: bytes
) -> None:
    daemon = start_daemon(**moods, QUEUE_DEPTH=2, DEADLINE_CAP_SECONDS=PATIENCE)
    wallets = [standalone.own_wallet(daemon.state, role) for role in ("validator", "poor", "middling", "rich")]
    lines = [f"  - {{hotkey: {one.hotkey.ss58_address}, stake: {10**n}}}" for n, one in enumerate(wallets, start=1)]
    (daemon.state / standalone.CALLERS_FILE).write_text("\n".join(["validators:", *lines, ""]), encoding="utf-8")
    daemon.ready()
    eventually(lambda: daemon.metric("chain_neurons") == 5)
    first, poor, middling, rich = (daemon.signer(wallet) for wallet in wallets)

    def ask(signer: Signer, picture: bytes) -> httpx.Response:
        return daemon.post(signer.sign(picture, Door(), timeout=str(PATIENCE)))

    with ThreadPoolExecutor(5) as pool:
        with daemon.held():
            running = pool.submit(ask, first, white)
            eventually(lambda: daemon.load() == (1, 0))
            evicted = pool.submit(ask, poor, street)
            eventually(lambda: daemon.load() == (1, 1))
            surplus = pool.submit(ask, poor, street + b"2")  # nobody else waits for this place
            eventually(lambda: daemon.load() == (1, 2))
            waiting = [pool.submit(ask, middling, street + b"3")]
            assert message_of(surplus.result(), 503) == MESSAGES["evicted"]
            assert message_of(ask(poor, street + b"4"), 503) == MESSAGES["queue_full"]
            assert message_of(ask(first, street + b"5"), 503) == MESSAGES["queue_full"]
            waiting.append(pool.submit(ask, rich, street + b"6"))
            assert message_of(evicted.result(), 503) == MESSAGES["evicted"]
            assert daemon.load() == (1, 2)  # so it was told at once
        for future in (running, *waiting):
            probability_of(future.result())
    for reason, count in {"share": 0, "queue_full": 2, "evicted": 2}.items():
        assert daemon.metric("refusals_total", reason=reason) == count


def test_a_dendrite_finds_the_refusal_in_the_headers_too(miner: Daemon, street: bytes) -> None:
    answer = miner.ask(street, Door(), timeout="0.2")
    assert answer.headers["bt_header_axon_status_code"] == "503"
    assert answer.headers["bt_header_axon_status_message"] == answer.json()["message"]
