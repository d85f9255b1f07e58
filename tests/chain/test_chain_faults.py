"""A node that hangs, lies, restarts or is not there: the miner keeps what it knows and says so."""

import asyncio
import json
import logging
import math
import re
import socket
import time
from typing import Any

import pytest

from tests.chain.conftest import NETUID, PATIENCE, eventually, impatient, key
from tests.chain.node import Node

OWN = key(1).ss58_address
VALIDATOR = key(1000).ss58_address
NOW = 1.8e9


@pytest.fixture
def nobody() -> str:
    """An address that refuses connections."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"ws://127.0.0.1:{free.getsockname()[1]}"


@pytest.mark.parametrize("fault", ["hang", "noise", "garbage"])
async def test_a_broken_node_costs_freshness_only(node: Node, chain_of, caplog, fault) -> None:
    caplog.set_level(logging.INFO)
    node.register(7, OWN)
    chain = chain_of(node.url)
    await chain.start()
    async with impatient(chain):
        node.fault = fault
        await eventually(lambda: chain.failures >= 2)
    assert chain.obstacle is None
    assert chain.snapshot.neurons[VALIDATOR].validator_permit
    node.fault = ""
    node.block += 10
    await eventually(lambda: chain.snapshot.block == node.block)
    await chain.stop()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("miner")]
    assert not any("stuck" in line for line in lines)
    assert sum("can't be read" in line for line in lines) == sum("is read again" in line for line in lines) >= 1


async def test_a_restarted_node_is_found_again(node: Node, chain_of) -> None:
    node.register(7, OWN)
    chain = chain_of(node.url)
    await chain.start()
    await asyncio.to_thread(node.stop)
    await eventually(lambda: chain.failures >= 2)
    assert chain.obstacle is None
    node.block += 10
    node.start()
    await eventually(lambda: chain.snapshot.block == node.block)
    await chain.stop()


async def test_no_chain_and_no_memory_is_an_obstacle_not_an_end(nobody, node: Node, chain_of) -> None:
    chain = chain_of(nobody)
    await chain.start()
    assert "no snapshot" in chain.obstacle
    assert "connect" in chain.obstacle
    await eventually(lambda: chain.failures >= 3)
    assert not chain.snapshot.neurons
    await chain.stop()


async def test_a_node_that_comes_late_is_enough(node: Node, chain_of) -> None:
    node.register(7, OWN)
    await asyncio.to_thread(node.stop)
    chain = chain_of(node.url)
    await chain.start()
    assert chain.obstacle is not None
    node.start()
    await eventually(lambda: chain.obstacle is None)
    await chain.stop()


async def test_a_node_that_asks_for_patience_gets_it(node: Node, chain_of) -> None:
    node.fault = "policy"
    chain = chain_of(node.url)
    await chain.start()
    assert "429" in chain.obstacle
    assert chain.reader._pause() > 200, "it said 300 s"
    await chain.stop()


async def test_a_restart_without_the_chain_serves_on_what_was_stored(node: Node, chain_of, caplog) -> None:
    node.register(7, OWN, incentive=13107, trust=77, last_update=990)
    first = chain_of(node.url)
    await first.start()
    await first.stop()
    await asyncio.to_thread(node.stop)
    caplog.set_level(logging.INFO)
    chain = chain_of(node.url)
    await chain.start()
    await eventually(lambda: chain.fault)
    assert chain.obstacle is None
    assert chain.snapshot == first.snapshot
    assert any("the stored snapshot" in record.getMessage() for record in caplog.records)
    await chain.stop()


async def test_what_was_stored_is_gone_by_at_once_while_the_node_hangs(node: Node, chain_of) -> None:
    node.register(7, OWN)
    first = chain_of(node.url)
    await first.start()
    await first.stop()
    node.fault = "hang"
    chain = chain_of(node.url, call_seconds=10 * PATIENCE)
    async with asyncio.timeout(PATIENCE):
        await chain.start()
    assert (chain.obstacle, chain.uid, chain.syncs) == (None, 7, 0)
    await chain.stop()


async def test_a_node_that_stands_tells_nothing_new_however_often_it_is_asked(node: Node, chain_of, caplog) -> None:
    caplog.set_level(logging.INFO)
    node.register(7, OWN)
    now = 1e9
    chain = chain_of(node.url, clock=lambda: now, monotonic=lambda: now)

    async def reads() -> None:
        syncs = chain.syncs
        await eventually(lambda: chain.syncs >= syncs + 3)

    await chain.start()
    await reads()
    assert (chain.age, chain.fault) == (0, None), "a block takes its time"
    now += 200
    await reads()
    assert (chain.age, chain.fault.endswith(" block 1000")) == (200, True)
    now += 86400
    assert re.search(r"24\.1 h .* 24 h: .* block 1000", chain.obstacle)
    node.block += 1
    await eventually(lambda: chain.age == 0)
    assert (chain.obstacle, chain.fault, chain.snapshot.block) == (None, None, 1001)
    await chain.stop()
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "at block 1000;" in line]) == 1
    assert len([line for line in lines if line.endswith("again, at block 1001")]) == 1


async def test_a_node_that_fell_behind_takes_nothing_back(node: Node, chain_of) -> None:
    node.register(7, OWN)
    now = 1e9
    chain = chain_of(node.url, clock=lambda: now, monotonic=lambda: now)
    await chain.start()
    node.block, node.members[0].permit = 900, False
    syncs = chain.syncs
    await eventually(lambda: chain.syncs >= syncs + 3)
    assert chain.snapshot.block == 1000
    assert chain.snapshot.neurons[VALIDATOR].validator_permit
    now += 90000  # too old to go by: a chain that was begun anew is better than none
    await eventually(lambda: "stuck at block 900" in str(chain.obstacle))
    node.block = 901
    await eventually(lambda: chain.obstacle is None)
    assert chain.snapshot.block == 901
    await chain.stop()


async def test_what_was_stored_is_not_believed_for_ever(node: Node, chain_of) -> None:
    node.register(7, OWN)
    first = chain_of(node.url)
    await first.start()
    await first.stop()
    await asyncio.to_thread(node.stop)
    tomorrow = chain_of(node.url, clock=lambda: time.time() + 90000)
    await tomorrow.start()
    assert "no snapshot" in tomorrow.obstacle
    await tomorrow.stop()


async def test_a_snapshot_grows_too_old(node: Node, chain_of) -> None:
    node.register(7, OWN)
    later = 0.0
    chain = chain_of(node.url, clock=lambda: time.time() + later)
    await chain.start()
    await asyncio.to_thread(node.stop)
    later = 90000.0
    assert re.search(r"25\.0 h .* 24 h", chain.obstacle)
    assert chain.snapshot.neurons
    await chain.stop()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1]",
        '{"network": 1, "netuid": 2}',
        "\0",
        '{"network": "NOBODY", "netuid": 323, "block": 1, "taken_at": 1, "neurons": [[1, "key"]]}',
        '{"network": "NOBODY", "netuid": 323, "block": 1, "taken_at": 1, "neurons": [1]}',
        '{"network": "NOBODY", "netuid": 323, "block": 1e999, "taken_at": 1, "neurons": []}',
        "[" * 100_000,
    ],
)
async def test_a_broken_store_is_said_and_passed_over(nobody, chain_of, caplog, content) -> None:
    await _passed_over(nobody, chain_of, caplog, content.replace("NOBODY", nobody))


STORED: dict[str, Any] = {"netuid": NETUID, "block": 9, "neurons": [[7, OWN, 1.5, False, 0.5, 0.5, 3]]}


@pytest.mark.parametrize(
    "change",
    [
        *({"taken_at": value} for value in (math.nan, math.inf, -math.inf, None, "soon")),
        *({"block": value} for value in (math.nan, math.inf, "many")),
        *({"neurons": [[7, OWN, *row]]} for row in ([math.nan, True], [math.inf, True], [1.5, True, math.nan, 0, 0])),
        *({"neurons": [[7, OWN, *row]]} for row in ([1.5, True, 0, math.inf, 0], [1.5, True, 0, 0, math.inf])),
        *({"neurons": [[7, OWN, *row]]} for row in ([1.5, True, 0.5], [1.5, True, 0, 0, 0, 0])),
    ],
    ids=str,
)
async def test_a_damaged_store_is_said_and_passed_over(nobody, chain_of, caplog, change) -> None:
    text = json.dumps(STORED | {"network": nobody, "taken_at": NOW} | change)
    await _passed_over(nobody, chain_of, caplog, text, clock=lambda: NOW)


@pytest.mark.parametrize("ahead", [61, 3600, 365 * 86400])
async def test_a_store_of_a_time_to_come_is_said_once_and_used_when_the_clock_is_set(
    nobody, chain_of, caplog, ahead
) -> None:
    now = NOW
    chain = chain_of(nobody, clock=lambda: now)
    path = chain.reader._store.path
    path.parent.mkdir()
    path.write_text(json.dumps(STORED | {"network": nobody, "taken_at": NOW + ahead}))
    await chain.start()
    assert "no snapshot" in chain.obstacle
    assert chain.age == math.inf
    failures = chain.reader.failures
    await eventually(lambda: chain.reader.failures > failures)
    assert sum(str(path) in record.getMessage() for record in caplog.records) == 1
    now += ahead + 60
    await eventually(lambda: chain.obstacle is None)
    assert (chain.snapshot.block, chain.age) == (9, pytest.approx(60, abs=20))
    await chain.stop()


async def test_a_clock_that_is_set_forward_makes_nothing_older_once_the_chain_is_read(node: Node, chain_of) -> None:
    node.register(7, OWN)
    now = NOW - 6 * 365 * 86400
    chain = chain_of(node.url, clock=lambda: now)
    await chain.start()
    block, now = chain.snapshot.block, NOW
    await eventually(lambda: chain.obstacle is None)
    assert chain.snapshot.block == block, "nothing new came"
    assert chain.age < 60
    await chain.stop()


async def _passed_over(nobody: str, chain_of: Any, caplog: Any, text: str, **rest: Any) -> None:
    chain = chain_of(nobody, **rest)
    path = chain.reader._store.path
    path.parent.mkdir()
    path.write_text(text)
    await chain.start()
    assert "no snapshot" in chain.obstacle
    assert chain.age == math.inf, "which the alarm fires at"
    assert any("can't be read" in r.getMessage() and str(path) in r.getMessage() for r in caplog.records)
    await chain.stop()


async def test_a_clock_that_was_set_back_a_little_costs_no_store(nobody, chain_of) -> None:
    passed = 0.0
    chain = chain_of(nobody, clock=lambda: NOW, monotonic=lambda: passed)
    path = chain.reader._store.path
    path.parent.mkdir()
    path.write_text(json.dumps(STORED | {"network": nobody, "taken_at": NOW + 30}))
    await chain.start()
    assert (chain.obstacle, chain.age) == (None, 0)
    passed = 100.0
    assert chain.age == 100
    await chain.stop()


async def test_a_clock_that_is_set_back_makes_nothing_younger(node: Node, chain_of) -> None:
    node.register(7, OWN)
    now, passed = NOW, 0.0
    chain = chain_of(node.url, clock=lambda: now, monotonic=lambda: passed)
    await chain.start()
    await asyncio.to_thread(node.stop)
    now -= 365 * 86400
    assert chain.age == 0
    passed = 90000.0
    assert chain.age == 90000
    assert "25.0 h old" in chain.obstacle
    now += 2 * 365 * 86400  # and one that is set ahead, older: it may have slept
    assert chain.age > 300 * 86400
    await chain.stop()


async def test_the_store_holds_nothing_but_the_subnet(node: Node, chain_of) -> None:
    node.register(7, OWN)
    chain = chain_of(node.url)
    await chain.start()
    await chain.stop()
    content = json.loads(chain.reader._store.path.read_text())
    assert content.keys() == {"network", "netuid", "block", "taken_at", "neurons"}
    assert [7, OWN, 0.0, False, 0.0, 0.0, 0] in content["neurons"]
    assert not list(chain.reader._store.path.parent.glob("*.partial"))


async def test_a_provider_s_endpoint_is_in_no_word_and_no_file(node: Node, chain_of, tmp_path, caplog) -> None:
    caplog.set_level(logging.DEBUG, "miner")
    address = f"ws://alice:hunter2pw@127.0.0.1:{node.port}/APIKEY123"
    chain = chain_of(address)
    said = [chain.obstacle]
    await chain.start()
    said.append(chain.obstacle)
    node.fault = "garbage"
    await eventually(lambda: chain.failures >= 1)
    await asyncio.to_thread(node.stop)
    await eventually(lambda: chain.failures >= 4)
    await chain.stop()
    said += [record.getMessage() for record in caplog.records]
    said += [str(path) + path.read_text() for path in (tmp_path / "state").glob("chain*")]
    assert any(f"of subnet {NETUID}" in one and f" ws://127.0.0.1:{node.port}" in one for one in said)
    assert any("--network YOUR_ENDPOINT" in one for one in said)
    assert not [one for one in said if "hunter2pw" in one or "APIKEY123" in one]


async def test_a_store_of_before_the_scores_is_read_without_them(nobody, chain_of) -> None:
    chain = chain_of(nobody)
    path = chain.reader._store.path
    path.parent.mkdir()
    old = {"network": nobody, "netuid": NETUID, "block": 9, "taken_at": time.time(), "neurons": [[7, OWN, 1.5, False]]}
    path.write_text(json.dumps(old))
    await chain.start()
    assert chain.obstacle is None
    own = chain.snapshot.neurons[OWN]
    assert (own.uid, own.stake, own.last_update) == (7, 1.5, 0)
    assert math.isnan(own.incentive)
    assert math.isnan(own.trust)
    await chain.stop()


async def test_a_fault_of_our_own_is_an_obstacle(node: Node, chain_of, monkeypatch, caplog) -> None:
    """The refreshing never ends while the process looks healthy."""
    node.register(7, OWN)
    chain = chain_of(node.url)
    await chain.start()
    assert chain.obstacle is None
    monkeypatch.setattr("miner.chain.subtensor.changes", lambda *_: 1 / 0)
    await eventually(lambda: chain.obstacle is not None)
    assert "no longer read" in chain.obstacle
    await eventually(lambda: "ZeroDivisionError" in caplog.text)  # which is logged behind it
    await chain.stop()


async def test_stop_in_the_middle_of_a_hang(node: Node, chain_of) -> None:
    node.register(7, OWN)
    chain = chain_of(node.url, call_seconds=600.0)
    await chain.start()
    node.fault = "hang"
    before = node.requests.total()
    await eventually(lambda: node.requests.total() > before)
    await chain.stop()


async def test_a_stuck_client_is_left_behind(node: Node, chain_of, monkeypatch, caplog) -> None:
    """The SDK busy in its own code answers no time limit; only the thread around it can be given up."""
    from miner.chain import client

    monkeypatch.setattr(client, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(client, "CLOSE_SECONDS", 0.1)
    node.register(7, OWN)
    chain = chain_of(node.url)
    await chain.start()
    async with impatient(chain):
        with pytest.raises(client.ChainFault, match="stuck"):
            await chain.reader.call(lambda sdk: asyncio.sleep(0, time.sleep(2.5)))
    syncs = chain.syncs
    await eventually(lambda: chain.syncs > syncs)
    assert chain.obstacle is None
    await chain.stop()
    assert any("thread is left" in record.getMessage() for record in caplog.records)
