"""No nonce twice, within bounded memory."""

import tracemalloc
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule

from miner.axon import dendrite, nonces
from miner.axon.nonces import SeenNonces

SECOND = 10**9


class Hand:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 0

    def __call__(self) -> int:
        return self.at


class Seen:
    """The memory of a process that started at 0, with a wall clock that runs beside the monotonic one."""

    def __init__(self, retention_ns: int) -> None:
        self._hand = Hand()
        self.memory = SeenNonces(retention_ns, self._hand)

    def check_and_store(self, key: str, nonce: int, now: int, caller: str = "", *, known: bool = True) -> bool:
        self._hand.at = now
        return self.memory.check_and_store(key, nonce, now, caller, known=known)


def test_a_nonce_is_new_once_for_each_key_and_each_of_its_clients() -> None:
    seen = Seen(retention_ns=20 * SECOND)
    assert seen.check_and_store("a", 5, now=5)
    assert not seen.check_and_store("a", 5, now=5)
    assert seen.check_and_store("b", 5, now=5)
    assert seen.check_and_store("a", 5, now=5, caller="another dendrite")
    assert seen.check_and_store("a", 4, now=5)  # out of order is fine


def test_what_is_older_than_the_process_is_refused() -> None:
    seen = Seen(retention_ns=20 * SECOND)
    assert not seen.check_and_store("a", -1, now=1)
    assert seen.check_and_store("a", 0, now=1)


def test_old_nonces_are_forgotten() -> None:
    seen = Seen(retention_ns=10)
    for nonce in range(1000):
        assert seen.check_and_store("a", nonce, now=nonce)
    assert len(seen.memory._known.seen["a"]._nonces) <= 11


def test_a_flood_of_one_key_neither_grows_nor_reopens_nor_hurts_another() -> None:
    seen = Seen(retention_ns=10**12)
    assert seen.check_and_store("quiet", 1, now=1)
    for nonce in range(1, 3 * nonces.MAX_PER_KEY):
        assert seen.check_and_store("loud", nonce, now=nonce)
    assert len(seen.memory._known.seen["loud"]._nonces) == nonces.MAX_PER_KEY
    for nonce in range(1, 3 * nonces.MAX_PER_KEY):
        assert not seen.check_and_store("loud", nonce, now=nonce)
    assert not seen.check_and_store("quiet", 1, now=1)


def test_a_flood_of_keys_neither_grows_nor_reopens() -> None:
    seen = Seen(retention_ns=10**12)
    for number in range(2 * nonces.MAX_KEYS):
        assert seen.check_and_store(f"key {number}", 10 + number, now=10 + number)
    assert len(seen.memory._known.seen) == nonces.MAX_KEYS
    assert not seen.check_and_store("key 0", 10, now=10)


def test_a_flood_of_keys_that_anybody_can_make_shuts_no_key_of_the_chain_out() -> None:
    seen = Seen(retention_ns=20 * SECOND)
    assert seen.check_and_store("validator", 30 * SECOND, now=30 * SECOND)
    for number in range(2 * nonces.MAX_KEYS):
        ahead = 34 * SECOND + number  # as far as a nonce may lie in the future
        assert seen.check_and_store(f"throwaway {number}", ahead, now=30 * SECOND, known=False)
    assert len(seen.memory._others.seen) == nonces.MAX_KEYS
    assert not seen.check_and_store("throwaway 0", 34 * SECOND, now=30 * SECOND, known=False)
    assert not seen.check_and_store("validator", 30 * SECOND, now=31 * SECOND)
    assert seen.check_and_store("validator", 31 * SECOND, now=31 * SECOND)
    assert seen.check_and_store("another validator", 31 * SECOND, now=31 * SECOND)


def test_a_flood_of_keys_does_not_shut_those_of_its_kind_out_that_are_tracked() -> None:
    seen = Seen(retention_ns=20 * SECOND)
    assert seen.check_and_store("tracked", SECOND, now=SECOND, known=False)
    for number in range(2 * nonces.MAX_KEYS):
        assert seen.check_and_store(f"key {number}", 5 * SECOND + number, now=SECOND, known=False)
        if number % 100 == 0:
            assert seen.check_and_store("tracked", SECOND + 1 + number, now=SECOND, known=False)
    assert not seen.check_and_store("tracked", SECOND, now=SECOND, known=False)


@pytest.mark.parametrize("registered", [True, False])
def test_what_a_key_was_seen_with_goes_along_when_it_is_registered_or_no_longer(registered: bool) -> None:
    seen = Seen(retention_ns=20 * SECOND)
    assert seen.check_and_store("key", 5, now=5, known=not registered)
    assert not seen.check_and_store("key", 5, now=5, known=registered)
    assert not seen.check_and_store("key", 5, now=5, known=not registered)


@pytest.mark.parametrize("keys", [1, 500, 100_000])
@pytest.mark.slow
def test_a_flood_of_keys_and_uuids_holds_no_more_than_two_windows_and_forgets_it_when_it_is_over(keys: int) -> None:
    """Sixty seconds of a thousand requests a second, each of a new client, as many as one core can verify."""
    seen = Seen(retention_ns=20 * SECOND)
    accepted, most = deque[tuple[str, int, str]](maxlen=100), 0
    tracemalloc.start()
    for number in range(60_000):
        key, nonce, client = f"5F{number % keys:046d}", number * SECOND // 1000, f"{number:036d}"
        assert seen.check_and_store(key, nonce, nonce, client)
        accepted.append((key, nonce, client))
        if number % 1000 == 0:
            most = max(most, sum(len(one) for one in seen.memory._known.seen.values()))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most <= 40_000
    assert len(seen.memory._known.seen) <= nonces.MAX_KEYS
    assert taken < 20 * 2**20
    assert not any(seen.check_and_store(key, nonce, 60 * SECOND, client) for key, nonce, client in accepted)
    assert seen.check_and_store("a validator", 120 * SECOND, 120 * SECOND)
    assert sum(len(one) for one in seen.memory._known.seen.values()) == 1


def test_a_key_that_floods_takes_nothing_of_another() -> None:
    seen = Seen(retention_ns=20 * SECOND)
    for number in range(10_000):
        seen.check_and_store("loud", SECOND + number, 2 * SECOND)
    assert seen.check_and_store("quiet", SECOND, 2 * SECOND)  # older than all that the loud one has sent
    assert not seen.check_and_store("quiet", SECOND, 2 * SECOND)


HOUR = 3600 * SECOND


@pytest.mark.parametrize("ahead", [HOUR, -HOUR, 5 * SECOND])
def test_a_clock_that_was_wrong_at_the_start_and_is_set_right_shuts_nobody_out(ahead: int) -> None:
    hand = Hand()
    seen = SeenNonces(20 * SECOND, hand)  # the wall clock says TRUTH + ahead, and nobody is answered
    hand.at = SECOND
    assert seen.check_and_store("validator", TRUTH + SECOND, TRUTH + SECOND)
    assert not seen.check_and_store("validator", TRUTH + SECOND, TRUTH + SECOND)
    assert not seen.check_and_store("another", TRUTH - 1, TRUTH + SECOND)  # sent before the process began


def test_a_key_that_shares_the_wrong_clock_is_answered_when_it_is_set_right() -> None:
    """`roadwork-miner query` on the same machine: its nonces of a moment ago lie an hour ahead."""
    hand = Hand()
    seen = SeenNonces(20 * SECOND, hand)
    for number in range(100):
        hand.at = number * SECOND
        assert seen.check_and_store("query", TRUTH + HOUR + hand.at, TRUTH + HOUR + hand.at)
    hand.at += SECOND
    assert seen.check_and_store("query", TRUTH + hand.at, TRUTH + hand.at)
    assert not seen.check_and_store("query", TRUTH + hand.at, TRUTH + hand.at)


def test_what_was_forgotten_is_not_new_when_the_clock_is_set_back() -> None:
    hand = Hand()
    seen = SeenNonces(20 * SECOND, hand)
    assert seen.check_and_store("validator", TRUTH, TRUTH)
    hand.at = 600 * SECOND
    assert seen.check_and_store("validator", TRUTH + hand.at, TRUTH + hand.at)
    assert not seen.check_and_store("validator", TRUTH, TRUTH)  # set back by ten minutes


TRUTH = 1_700_000_000 * SECOND  # what the clock should say at the start
KEYS = ("first", "second")


class Jumping(RuleBasedStateMachine):
    """Validators whose clocks are right, one who shares our clock, and somebody who sends all of it again at will."""

    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.hand = Hand()
        self.hand.at = 5 * SECOND
        self.seen = SeenNonces(dendrite.RETENTION_NS, self.hand)
        self.ahead = 0  # of our clock, ns
        self.drawn = 0
        self.accepted: set[tuple[str, int]] = set()

    @property
    def truth(self) -> int:
        return TRUTH + self.hand.at

    def ask(self, key: str, nonce: int) -> bool:
        """Ask as the axon does: fresh by our clock, then new."""
        now = self.truth + self.ahead
        if not now - dendrite.PAST_NS - 9 * SECOND <= nonce <= now + dendrite.FUTURE_NS:
            return False
        is_new = self.seen.check_and_store(key, nonce, now)
        if is_new:
            assert (key, nonce) not in self.accepted, "answered twice"
            self.accepted.add((key, nonce))
        return is_new

    @initialize(ahead=st.sampled_from([0, HOUR, -HOUR, 15 * SECOND]))
    def start(self, ahead: int) -> None:
        self.ahead = ahead

    @rule(seconds=st.floats(0.001, 30) | st.sampled_from([60.0, 3600.0]))
    def wait(self, seconds: float) -> None:
        self.hand.at += int(seconds * SECOND)

    @rule(seconds=st.floats(-16, 16) | st.sampled_from([-3600.0, 3600.0]))
    def jump(self, seconds: float) -> None:
        self.ahead += int(seconds * SECOND)

    @rule()
    def settle(self) -> None:
        self.ahead = 0

    @rule(target=sent, key=st.sampled_from(KEYS))
    def ask_anew(self, key: str) -> tuple[str, int]:
        self.drawn += 1
        nonce = self.truth + self.drawn
        is_new = self.ask(key, nonce)
        assert is_new or self.ahead, "a fresh nonce is refused, and the clock is right"
        return key, nonce

    @rule(target=sent)
    def ask_by_our_clock(self) -> tuple[str, int]:
        self.drawn += 1
        self.ask("query", nonce := self.truth + self.ahead + self.drawn)
        return "query", nonce

    @rule(target=sent, before=st.integers(1, 20), key=st.sampled_from(KEYS))
    def send_from_before_the_start(self, before: int, key: str) -> tuple[str, int]:
        nonce = TRUTH + 5 * SECOND - before * SECOND
        assert not self.ask(key, nonce) or self.ahead, "sent to the process before, and the clock is right"
        return key, nonce

    @rule(one=sent)
    def send_again(self, one: tuple[str, int]) -> None:
        self.ask(*one)

    @rule(one=sent)
    def send_again_when_the_clock_makes_it_fresh(self, one: tuple[str, int]) -> None:
        self.ahead = one[1] - self.truth
        self.ask(*one)


TestJumping = pytest.mark.slow(Jumping.TestCase)
TestJumping.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
