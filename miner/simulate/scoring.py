"""The validators' books: each scores this miner over its own history of it, and smooths the score."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from detectors.evaluation.reward import History
from miner.simulate.schedule import Request
from miner.simulate.sender import Answer


@dataclass(slots=True)
class Tally:
    """One validator's view of this miner: the reward of each round, and the smoothed score, which begins at 0."""

    rewards: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    history: History = field(default_factory=History)

    @property
    def score(self) -> float:
        """The score now."""
        return self.history.score

    def take(self, request: Request, answer: Answer) -> None:
        """Score one round; an organic task on whose label nobody agrees is not scored."""
        label = truth(request, answer)
        if label is None:
            return
        self.rewards.append(self.history.take(answer.prediction, label))
        self.scores.append(self.history.score)


def truth(request: Request, answer: Answer) -> bool | None:
    """Return the label that a validator scores by: its own, or what most of the three miners say; None: a tie."""
    if not request.is_organic:
        return request.is_roadwork
    votes = [*request.votes, *([] if answer.prediction is None else [answer.prediction > 0.5])]
    works = sum(votes)
    return None if 2 * works == len(votes) else 2 * works > len(votes)


def score_all(pairs: Sequence[tuple[Request, Answer]], validators: int) -> list[Tally]:
    """Score all rounds in their order; one book for each validator."""
    tallies = [Tally() for _ in range(validators)]
    for request, answer in pairs:
        tallies[request.validator].take(request, answer)
    return tallies
