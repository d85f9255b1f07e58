"""The schedule of a simulation: who asks what and when, decided beforehand, the same for the same seed."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

ROUND_MINERS = 10  # miners asked in a round
ORGANIC_MINERS = 3  # miners asked in an organic task
MAX_ORGANIC_TASKS = 10  # organic tasks of a validator at once, at most
STAGGER_SECONDS = (0.1, 2.0)  # seconds from one miner of a task to the next
JITTER = 0.1  # of the time between two rounds
DEALING, ASKING, BURSTS = range(3)  # streams of chance, apart: so that none changes what another draws


@dataclass(frozen=True, slots=True)
class SimulatedSubnet:
    """Who is there, and how they ask.

    Attributes:
        validators: each keeps a history of its own.
        miners: of which each round asks ten, dealt from a shuffled deck.
        rounds: in which each validator asks this miner.
        interval: seconds from one round of a validator to its next.
        organic: share of organic tasks in the requests.
        peers: accuracy of the other miners, whose majority an organic task is scored by.
        burst: validators who ask at the same moment, a photo each; 0: none do.
        every: seconds from one burst to the next.
    """

    validators: int = 8
    miners: int = 10
    rounds: int = 100
    interval: float = 60.0
    organic: float = 0.1
    peers: float = 0.9
    burst: int = 0
    every: float = 60.0

    @property
    def callers(self) -> int:
        """How many validators ask: those of bursts may be some of the others."""
        return max(self.validators, self.burst)

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.rounds * self.interval * self.miners / ROUND_MINERS


@dataclass(frozen=True, slots=True)
class Request:
    """One request to this miner.

    Attributes:
        number: its place in the order; it also chooses the view of the picture.
        at: seconds on the subnet's clock.
        delay: seconds after that which no faster clock shortens: the stagger of an organic task.
        picture: index of the photo.
        votes: what the other miners of an organic task say; empty in a validator's own round.
    """

    number: int
    at: float
    delay: float
    validator: int
    picture: int
    is_roadwork: bool
    votes: tuple[bool, ...] = ()

    @property
    def is_organic(self) -> bool:
        """Whether the label is not known to the validator."""
        return bool(self.votes)


def plan(subnet: SimulatedSubnet, labels: Sequence[bool], seed: int) -> list[Request]:
    """Return all requests in the order of their time; `labels` says which photos show roadwork."""
    found = [
        request for validator in range(subnet.validators) for request in _requests(subnet, labels, validator, seed)
    ]
    if subnet.burst:
        found += bursts(subnet, math.ceil(subnet.seconds / subnet.every), labels, seed)
    found.sort(key=lambda request: (request.at, request.delay))
    return [replace(request, number=number) for number, request in enumerate(found)]


def bursts(subnet: SimulatedSubnet, count: int, labels: Sequence[bool], seed: int) -> list[Request]:
    """Return so many bursts, in order; no photo comes again before all of its class have come."""
    random = np.random.default_rng([seed, 0, BURSTS])
    decks = [_dealt(np.flatnonzero([label is wanted for label in labels]), random) for wanted in (False, True)]
    found = list[Request]()
    for number in range(count):
        for validator in range(subnet.burst):
            label = bool(random.random() < 0.5)
            found.append(Request(len(found), number * subnet.every, 0.0, validator, next(decks[label]), label))
    return found


def _dealt(photos: NDArray[np.intp], random: np.random.Generator) -> Iterator[int]:
    while True:
        yield from map(int, random.permutation(photos))


def own_rounds(miners: int, random: np.random.Generator) -> Iterator[int]:
    """Yield the rounds in which this miner is asked: decks of all miners are shuffled and dealt, ten a round."""
    deck, last = 0, -1
    while True:
        round_ = (deck * miners + int(random.integers(miners))) // ROUND_MINERS
        if round_ > last:  # at the seam of two decks one hand may hold the same miner twice
            yield round_
            last = round_
        deck += 1


def _requests(subnet: SimulatedSubnet, labels: Sequence[bool], validator: int, seed: int) -> Iterator[Request]:
    """Yield one validator's requests: its own rounds, and the organic bursts between them."""
    # Apart, so that more rounds only add to the end.
    dealing, random = (np.random.default_rng([seed, validator, stream]) for stream in (DEALING, ASKING))
    by_label = [np.flatnonzero([label is wanted for label in labels]) for wanted in (False, True)]
    phase = random.uniform(0, subnet.interval)
    rounds = list(islice(own_rounds(subnet.miners, dealing), subnet.rounds))
    share_of_task = min(1.0, ORGANIC_MINERS / subnet.miners)
    mean_burst = (1 + MAX_ORGANIC_TASKS) / 2 * share_of_task
    bursts = subnet.organic / (1 - subnet.organic) / mean_burst  # for each round of ours
    for round_, following in zip(rounds, [*rounds[1:], rounds[-1] + 1], strict=True):
        at = phase + subnet.interval * (round_ + random.uniform(-JITTER, JITTER))
        label = bool(random.random() < 0.5)
        yield Request(0, max(0.0, at), 0.0, validator, int(random.choice(by_label[label])), label)
        for _ in range(random.poisson(bursts)):
            start = phase + subnet.interval * random.uniform(round_, following)
            for _ in range(int(random.integers(1, MAX_ORGANIC_TASKS + 1))):
                if random.random() < share_of_task:
                    yield _organic(subnet, labels, validator, start, random)


def _organic(
    subnet: SimulatedSubnet, labels: Sequence[bool], validator: int, at: float, random: np.random.Generator
) -> Request:
    picture = int(random.integers(len(labels)))
    delay = float(random.uniform(*STAGGER_SECONDS, size=int(random.integers(ORGANIC_MINERS))).sum())
    right = random.random(ORGANIC_MINERS - 1) < subnet.peers
    votes = tuple(bool(labels[picture]) == bool(one) for one in right)
    return Request(0, at, delay, validator, picture, bool(labels[picture]), votes)
