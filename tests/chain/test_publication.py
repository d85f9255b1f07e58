"""Our address on the chain, published by the unmodified SDK under the chain's own rules."""

import asyncio
import gc
import logging
import re

import pytest

from miner.chain.publication import AddressUnknown, PublicAddress
from tests.chain.conftest import NETUID, eventually, impatient, key
from tests.chain.node import Node

OWN = key(1).ss58_address
VALIDATOR = key(1000).ss58_address
SUBMIT = "author_submitAndWatchExtrinsic"


def published(node: Node) -> tuple[int, int]:
    return node.axons[OWN]["ip"], node.axons[OWN]["port"]


async def run_until(chain, condition) -> None:
    await chain.start()
    await chain.publish()
    await eventually(condition)
    await chain.stop()


async def test_published_once_and_not_again_after_a_restart(node: Node, chain_of, caplog) -> None:
    caplog.set_level(logging.INFO)
    node.register(7, OWN)
    chain = chain_of(node.url, PublicAddress(8091, ip="1.2.3.4"))
    assert chain.publication.endswith("not tried yet")
    await run_until(chain, lambda: chain.syncs >= 5 and chain.publication == "published 1.2.3.4:8091")
    assert published(node) == (0x01020304, 8091)
    assert (node.axons[OWN]["ip_type"], node.axons[OWN]["protocol"]) == (4, 4)
    again = chain_of(node.url, PublicAddress(8091, ip="1.2.3.4"))
    await run_until(again, lambda: again.syncs >= 3 and again.publication == "published 1.2.3.4:8091")
    assert node.requests[SUBMIT] == 1
    assert [r.getMessage() for r in caplog.records].count("published 1.2.3.4:8091") == 2


async def test_nothing_is_published_before_it_is_asked_for(node: Node, chain_of) -> None:
    node.register(7, OWN)
    chain = chain_of(node.url, PublicAddress(8091, ip="1.2.3.4"))
    await chain.start()
    await eventually(lambda: chain.syncs >= 3)
    await chain.stop()
    assert node.requests[SUBMIT] == 0


async def test_a_new_address_waits_for_the_rate_limit(node: Node, chain_of) -> None:
    node.register(7, OWN)
    node.store("ServingRateLimit", [NETUID], node.rate_limit)
    address, seen = "1.2.3.4", []

    async def find(known: str | None) -> str:
        seen.append(known)
        return address

    chain = chain_of(node.url, PublicAddress(8091, find_ip=find, lookup_seconds=0.0))
    await chain.start()
    await chain.publish()
    await eventually(lambda: chain.publication == "published 1.2.3.4:8091")
    address = "5.6.7.8"
    await eventually(lambda: "rate limited" in chain.publication)
    assert chain.publication.startswith("not published: rate limited")
    assert chain.publication.endswith(" 12 s"), "50 blocks of this chain's 0.25 s"
    assert node.requests[SUBMIT] == 1, "the limit is read, not tried out"
    node.block += node.rate_limit
    await eventually(lambda: chain.publication == "published 5.6.7.8:8091")
    assert published(node) == (0x05060708, 8091)
    assert node.requests[SUBMIT] == 2
    await chain.stop()
    assert (seen[0], seen[-1]) == (None, "5.6.7.8")
    seen.clear()
    again = chain_of(node.url, PublicAddress(8091, find_ip=find))
    await run_until(again, lambda: again.publication == "published 5.6.7.8:8091")
    assert seen == ["5.6.7.8"], "what stands on chain is known after a restart"


async def test_a_refusal_by_the_rate_limit_is_tried_again_later(node: Node, chain_of) -> None:
    """The chain counts one block further than the read did."""
    node.register(7, OWN)
    node.store("ServingRateLimit", [NETUID], 0)
    node.axons[OWN] = {"block": node.block, "version": 1, "ip": 9, "port": 9, "ip_type": 4, "protocol": 4}
    node.axons[OWN] |= {"placeholder1": 0, "placeholder2": 0}
    chain = chain_of(node.url, PublicAddress(8091, ip="1.2.3.4", retry_seconds=0.1))
    await chain.start()
    await chain.publish()
    await eventually(lambda: re.match("not published: rate limited, .* 0 s", chain.publication))
    assert chain.obstacle is None
    node.block += node.rate_limit
    await eventually(lambda: chain.publication == "published 1.2.3.4:8091")
    await chain.stop()


@pytest.mark.parametrize(
    ("axon", "poor", "words"),
    [
        (PublicAddress(8091, ip="127.0.0.1", own_chain=True), False, "take this address"),
        (PublicAddress(8091, ip="1.2.3.4"), True, "can't pay the fee"),
    ],
    ids=["loopback", "poor"],
)
async def test_a_refusal_is_said_in_words(node: Node, chain_of, axon, poor, words) -> None:
    node.register(7, OWN)
    node.poor = poor
    chain = chain_of(node.url, axon)
    await run_until(chain, lambda: words in chain.publication)
    assert chain.publication.startswith("not published: ")
    assert chain.publication.endswith(" 60 s")
    assert node.requests[SUBMIT] == 1
    assert chain.obstacle is None, "known validators are answered all the same"


async def test_published_as_soon_as_registered(node: Node, chain_of) -> None:
    chain = chain_of(node.url, PublicAddress(8091, ip="1.2.3.4"))
    await chain.start()
    await chain.publish()
    await eventually(lambda: chain.publication.endswith("is not registered"))
    assert node.requests[SUBMIT] == 0
    node.register(7, OWN)
    await eventually(lambda: chain.publication == "published 1.2.3.4:8091")
    await chain.stop()


async def test_an_address_nobody_can_tell_stops_nothing(node: Node, chain_of) -> None:
    node.register(7, OWN)

    async def find(known: str | None) -> str:
        raise AddressUnknown("none of 5 services could tell our address; set AXON_EXTERNAL_IP")

    chain = chain_of(node.url, PublicAddress(8091, find_ip=find))
    await run_until(chain, lambda: chain.syncs >= 3 and "set AXON_EXTERNAL_IP" in chain.publication)
    assert chain.obstacle is None


async def test_a_fault_of_our_own_is_said_and_stops_nothing(node: Node, chain_of, caplog) -> None:
    node.register(7, OWN)

    async def find(known: str | None) -> str:
        if chain.failures < 2:
            raise RuntimeError("planted")
        return "1.2.3.4"

    chain = chain_of(node.url, PublicAddress(8091, find_ip=find))
    await chain.start()
    await chain.publish()
    await eventually(lambda: "RuntimeError" in chain.publication)
    assert chain.obstacle is None
    assert "planted" in caplog.text
    await eventually(lambda: chain.publication == "published 1.2.3.4:8091")
    await chain.stop()


async def test_a_node_that_hangs_while_publishing(node: Node, chain_of) -> None:
    """Whether the extrinsic went through is unknown then; the chain is asked before anything is sent again."""
    node.register(7, OWN)
    chain = chain_of(node.url, PublicAddress(8091, ip="1.2.3.4", retry_seconds=0.1))
    await chain.start()
    node.mute_after = SUBMIT
    async with impatient(chain):
        await chain.publish()
        await eventually(lambda: node.requests[SUBMIT] == 1 and chain.failures >= 1)
    node.mute_after = ""
    node.fault = ""
    await eventually(lambda: chain.publication == "published 1.2.3.4:8091")
    assert node.requests[SUBMIT] == 1
    await chain.stop()


async def test_a_publication_that_hangs_holds_up_no_read(node: Node, chain_of) -> None:
    node.register(7, OWN)
    chain = chain_of(node.url, PublicAddress(8091, ip="1.2.3.4"), call_seconds=600.0)
    await chain.start()
    node.silent = SUBMIT
    await chain.publish()
    await eventually(lambda: node.requests[SUBMIT] == 1)
    syncs = chain.syncs
    node.members[0].permit = False
    await eventually(lambda: chain.syncs >= syncs + 3)
    assert not chain.snapshot.neurons[VALIDATOR].validator_permit
    assert chain.publication.endswith("not tried yet")
    assert (node.requests[SUBMIT], chain.failures) == (1, 0), "one step at a time"
    await chain.stop()


async def test_a_node_that_breaks_while_publishing_is_noticed_by_the_next_read(node: Node, chain_of) -> None:
    """The read's time limit counts, not the extrinsic's."""
    node.register(7, OWN)
    chain = chain_of(node.url, PublicAddress(8091, ip="1.2.3.4", retry_seconds=0.1))
    await chain.start()
    node.silent = SUBMIT
    await chain.publish()
    await eventually(lambda: node.requests[SUBMIT] == 1)
    async with impatient(chain):
        node.fault = "noise"
        await eventually(lambda: chain.failures >= 2)
    assert chain.publication.startswith("not published: ")
    assert chain.publication.endswith("was closed")
    node.fault = node.silent = ""
    await eventually(lambda: chain.publication == "published 1.2.3.4:8091")
    assert node.requests[SUBMIT] == 1
    await chain.stop()


async def test_a_node_that_dies_while_publishing_leaves_no_traceback(node: Node, chain_of, caplog) -> None:
    node.register(7, OWN)
    chain = chain_of(node.url, PublicAddress(8091, ip="1.2.3.4"), call_seconds=5.0, sync_seconds=1.0)
    await chain.start()
    node.silent = SUBMIT
    await chain.publish()
    await eventually(lambda: node.requests[SUBMIT] == 1)
    await asyncio.to_thread(node.stop)
    await eventually(lambda: chain.failures >= 3)
    await chain.stop()
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio" or record.exc_info]


async def test_ipv6(node: Node, chain_of) -> None:
    node.register(7, OWN)
    chain = chain_of(node.url, PublicAddress(8091, ip="2600::1", host="::"))
    await run_until(chain, lambda: chain.syncs >= 3 and chain.publication == "published [2600::1]:8091")
    assert node.axons[OWN]["ip_type"] == 6
    assert node.requests[SUBMIT] == 1


@pytest.mark.parametrize(
    "ip", ["192.168.1.20", "169.254.3.4", "100.64.0.1", "0.0.0.0", "127.0.0.1", "fe80::1", "2600::1"]
)
@pytest.mark.parametrize("found", [True, False])
async def test_what_validators_can_not_reach_never_gets_on_chain(node: Node, chain_of, caplog, ip, found) -> None:
    """The last guard, wherever the address came from; on a chain of one's own it may be right."""

    async def find(known: str | None) -> str:
        return ip

    node.register(7, OWN)
    axon = PublicAddress(8091, ip=None if found else ip, find_ip=find, metrics_port=9464)
    chain = chain_of(node.url, axon)
    await run_until(chain, lambda: chain.syncs >= 3 and f"not published: {ip} is " in chain.publication)
    assert "set AXON_EXTERNAL_IP" in chain.publication
    assert node.requests[SUBMIT] == 0
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING and ip in record.getMessage()]
    assert len(warnings) == 2


async def test_on_a_chain_of_ones_own_any_address_may_be_right(node: Node, chain_of) -> None:
    node.register(7, OWN)
    chain = chain_of(node.url, PublicAddress(8091, ip="192.168.1.20", own_chain=True))
    await run_until(chain, lambda: chain.publication == "published 192.168.1.20:8091")
    assert node.requests[SUBMIT] == 1


async def test_an_unreachable_address_on_chain_is_not_one_that_is_known(node: Node, chain_of) -> None:
    node.register(7, OWN)
    seen = []

    async def find(known: str | None) -> str:
        seen.append(known)
        return "1.2.3.4"

    node.store("ServingRateLimit", [NETUID], 0)
    record = {"block": node.block, "version": 1, "ip": 0xC0A80114, "port": 8091, "ip_type": 4, "protocol": 4}
    node.axons[OWN] = record | {"placeholder1": 0, "placeholder2": 0}
    chain = chain_of(node.url, PublicAddress(8091, find_ip=find))
    await run_until(chain, lambda: chain.publication == "published 1.2.3.4:8091" or node.requests[SUBMIT])
    assert seen[0] is None


async def test_the_metrics_address_is_published_too(node: Node, chain_of) -> None:
    node.register(7, OWN)
    chain = chain_of(node.url, PublicAddress(8091, ip="1.2.3.4", metrics_port=9464))
    await run_until(
        chain,
        lambda: chain.syncs >= 4 and chain.publication == "published 1.2.3.4:8091; metrics published 1.2.3.4:9464",
    )
    assert node.prometheus[OWN]["port"] == 9464
    assert node.requests[SUBMIT] == 2
