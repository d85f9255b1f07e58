"""No nonce twice, within bounded memory."""

import tracemalloc

import pytest

from miner.axon import replay
from miner.axon.replay import SeenNonces

SECOND = 10**9


def test_a_nonce_is_new_once_for_each_key_and_each_of_its_clients() -> None:
    seen = SeenNonces(started_ns=0, retention_ns=20 * SECOND)
    assert seen.check_and_store("a", 5, now=5)
    assert not seen.check_and_store("a", 5, now=5)
    assert seen.check_and_store("b", 5, now=5)
    assert seen.check_and_store("a", 5, now=5, caller="another dendrite")
    assert seen.check_and_store("a", 4, now=5)  # out of order is fine


def test_what_is_older_than_the_process_is_refused() -> None:
    seen = SeenNonces(started_ns=100, retention_ns=20 * SECOND)
    assert not seen.check_and_store("a", 99, now=101)
    assert seen.check_and_store("a", 100, now=101)


def test_old_nonces_are_forgotten() -> None:
    seen = SeenNonces(started_ns=0, retention_ns=10)
    for nonce in range(1000):
        assert seen.check_and_store("a", nonce, now=nonce)
    assert len(seen._known.seen["a"]._nonces) <= 11


def test_a_flood_of_one_key_neither_grows_nor_reopens_nor_hurts_another() -> None:
    seen = SeenNonces(started_ns=0, retention_ns=10**12)
    assert seen.check_and_store("quiet", 1, now=1)
    for nonce in range(1, 3 * replay.MAX_PER_KEY):
        assert seen.check_and_store("loud", nonce, now=nonce)
    assert len(seen._known.seen["loud"]._nonces) == replay.MAX_PER_KEY
    for nonce in range(1, 3 * replay.MAX_PER_KEY):
        assert not seen.check_and_store("loud", nonce, now=nonce)
    assert not seen.check_and_store("quiet", 1, now=1)


def test_a_flood_of_keys_neither_grows_nor_reopens() -> None:
    seen = SeenNonces(started_ns=0, retention_ns=10**12)
    for number in range(2 * replay.MAX_KEYS):
        assert seen.check_and_store(f"key {number}", 10 + number, now=10 + number)
    assert len(seen._known.seen) == replay.MAX_KEYS
    assert not seen.check_and_store("key 0", 10, now=10)


def test_a_flood_of_keys_that_anybody_can_make_shuts_no_key_of_the_chain_out() -> None:
    seen = SeenNonces(started_ns=0, retention_ns=20 * SECOND)
    assert seen.check_and_store("validator", 30 * SECOND, now=30 * SECOND)
    for number in range(2 * replay.MAX_KEYS):
        ahead = 34 * SECOND + number  # as far as a nonce may lie in the future
        assert seen.check_and_store(f"throwaway {number}", ahead, now=30 * SECOND, known=False)
    assert len(seen._others.seen) == replay.MAX_KEYS
    assert not seen.check_and_store("throwaway 0", 34 * SECOND, now=30 * SECOND, known=False)
    assert not seen.check_and_store("validator", 30 * SECOND, now=31 * SECOND)
    assert seen.check_and_store("validator", 31 * SECOND, now=31 * SECOND)
    assert seen.check_and_store("another validator", 31 * SECOND, now=31 * SECOND)


def test_a_flood_of_keys_does_not_shut_those_of_its_kind_out_that_are_tracked() -> None:
    seen = SeenNonces(started_ns=0, retention_ns=20 * SECOND)
    assert seen.check_and_store("tracked", SECOND, now=SECOND, known=False)
    for number in range(2 * replay.MAX_KEYS):
        assert seen.check_and_store(f"key {number}", 5 * SECOND + number, now=SECOND, known=False)
        if number % 100 == 0:
            assert seen.check_and_store("tracked", SECOND + 1 + number, now=SECOND, known=False)
    assert not seen.check_and_store("tracked", SECOND, now=SECOND, known=False)


@pytest.mark.parametrize("registered", [True, False])
def test_what_a_key_was_seen_with_goes_along_when_it_is_registered_or_no_longer(registered: bool) -> None:
    seen = SeenNonces(started_ns=0, retention_ns=20 * SECOND)
    assert seen.check_and_store("key", 5, now=5, known=not registered)
    assert not seen.check_and_store("key", 5, now=5, known=registered)
    assert not seen.check_and_store("key", 5, now=5, known=not registered)


@pytest.mark.parametrize("keys", [1, 64, 500, 100_000])
def test_a_flood_of_keys_and_uuids_holds_no_more_than_two_windows_and_forgets_it_when_it_is_over(keys: int) -> None:
    """Sixty seconds of a thousand requests a second, each of a new client, as many as one core can verify."""
    seen = SeenNonces(started_ns=0, retention_ns=20 * SECOND)
    accepted, most = [], 0
    tracemalloc.start()
    for number in range(60_000):
        key, nonce, client = f"5F{number % keys:046d}", number * SECOND // 1000, f"{number:036d}"
        assert seen.check_and_store(key, nonce, nonce, client)
        accepted = [*accepted[-99:], (key, nonce, client)]
        if number % 1000 == 0:
            most = max(most, sum(len(one) for one in seen._known.seen.values()))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most <= 40_000
    assert len(seen._known.seen) <= replay.MAX_KEYS
    assert taken < 20 * 2**20
    assert not any(seen.check_and_store(key, nonce, 60 * SECOND, client) for key, nonce, client in accepted)
    assert seen.check_and_store("a validator", 120 * SECOND, 120 * SECOND)
    assert len(seen._known.seen) == 1


def test_a_key_that_floods_takes_nothing_of_another() -> None:
    seen = SeenNonces(started_ns=0, retention_ns=20 * SECOND)
    for number in range(10_000):
        seen.check_and_store("loud", SECOND + number, 2 * SECOND)
    assert seen.check_and_store("quiet", SECOND, 2 * SECOND)  # older than all that the loud one has sent
    assert not seen.check_and_store("quiet", SECOND, 2 * SECOND)
