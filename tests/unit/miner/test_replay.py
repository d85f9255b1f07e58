"""No nonce twice, within bounded memory."""

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
    assert len(seen._keys["a"]._nonces) <= 11


def test_a_flood_of_one_key_neither_grows_nor_reopens_nor_hurts_another() -> None:
    seen = SeenNonces(started_ns=0, retention_ns=10**12)
    assert seen.check_and_store("quiet", 1, now=1)
    for nonce in range(1, 3 * replay.MAX_PER_KEY):
        assert seen.check_and_store("loud", nonce, now=nonce)
    assert len(seen._keys["loud"]._nonces) == replay.MAX_PER_KEY
    for nonce in range(1, 3 * replay.MAX_PER_KEY):
        assert not seen.check_and_store("loud", nonce, now=nonce)
    assert not seen.check_and_store("quiet", 1, now=1)


def test_a_flood_of_keys_neither_grows_nor_reopens() -> None:
    seen = SeenNonces(started_ns=0, retention_ns=10**12)
    for number in range(2 * replay.MAX_KEYS):
        assert seen.check_and_store(f"key {number}", 10 + number, now=10 + number)
    assert len(seen._keys) == replay.MAX_KEYS
    assert not seen.check_and_store("key 0", 10, now=10)
