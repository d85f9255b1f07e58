"""The headline and the cards of the page and of `roadwork-miner top`: as plain text, made once for both."""

from collections.abc import Sequence
from dataclasses import dataclass

from detectors.photos.labelled import CLASSES
from miner.cascade import STOP_WORDS
from miner.feedback.standing import StandingView
from miner.formats import NO_VALUE, age, bars, duration, fraction, number, share, size
from miner.status import earnings
from miner.status.overview import (
    CascadeView,
    ChainView,
    MemoryUse,
    Model,
    NatixView,
    Overview,
    QueueView,
    RequestView,
    ShadowView,
)
from miner.status.spans import Span

NATIX_WORDS = {"due": "due again"}  # where the standing itself says too little
WEEK_SECONDS = 7 * 86400.0
NOT_MEASURED = "Nothing was measured on labelled photos: export, calibrate or fuse does that, with photos of your own."


@dataclass(frozen=True, slots=True)
class Meter:
    """A part of a whole, to be drawn; from `worry` on it is bad."""

    value: float
    most: float
    worry: float = 0.9

    @property
    def filled(self) -> float:
        """The share, at most 1."""
        return min(1.0, self.value / self.most)

    @property
    def is_bad(self) -> bool:
        """Whether it is time to worry."""
        return self.filled >= self.worry


@dataclass(frozen=True, slots=True)
class Row:
    """A name and a value, as plain text."""

    name: str
    value: str
    meter: Meter | None = None
    is_code: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """Rows, and a text below them; without rows, the text in place of them."""

    title: str
    rows: Sequence[Row] = ()
    note: str = ""


def cards(overview: Overview) -> list[Card]:
    """Return the cards in their order; those of real traffic and of the shadow only where there is any."""
    found = [
        _earnings(overview),
        _queue(overview.queue, overview.cascade) if overview.queue is not None else Card("Queue", note="not there yet"),
        _memory(overview.memory),
        _chain(overview.chain) if overview.chain is not None else Card("Chain", note="not read yet"),
        _model(overview.model) if overview.model is not None else Card("Model", note="not loaded yet"),
    ]
    traffic = [_traffic(overview.traffic, overview.now)] if overview.traffic is not None else []
    return [*found, *traffic, *([_shadow(overview.shadow)] if overview.shadow is not None else [])]


def _queue(queue: QueueView, cascade: CascadeView | None) -> Card:
    rows = [
        Row("running", f"{queue.running} of {queue.slots}", Meter(queue.running, queue.slots, worry=2.0)),
        Row("queue depth", f"{queue.waiting} of {queue.limit}", Meter(queue.waiting, queue.limit)),
        Row("time per image" if cascade is None else "time per image, stage 1", duration(queue.pace_seconds)),
        Row("expected latency", duration(queue.estimate_seconds)),
    ]
    return Card("Queue", rows)


def _memory(memory: MemoryUse) -> Card:
    used, limit = memory.cgroup_usage, memory.cgroup_limit
    rows = [
        Row("resident (RSS)", size(memory.resident)),
        Row("proportional (PSS)", size(memory.proportional)),
        Row("peak RSS", size(memory.peak)),
        *([Row("cgroup used", size(used), Meter(used, limit))] if limit else []),
        Row("cgroup limit", size(limit) if limit else "none"),
        Row("memory available", size(memory.machine_available)),
        Row("CPU throttled", age(memory.throttled_seconds) if memory.throttled_seconds else "never"),
    ]
    return Card("Memory and CPU", rows)


def _earnings(overview: Overview) -> Card:
    rows = [Row(*row) for row in earnings.rows(overview.earnings)]
    return Card("Earnings", rows, earnings.note(overview.earnings, overview.identity.network))


def _chain(chain: ChainView) -> Card:
    rows = [
        Row("block", number(chain.block)),
        Row("chain snapshot age", age(chain.age_seconds)),
        Row("stake", number(chain.stake, 2)),
        Row("incentive", number(chain.incentive, 5)),
        Row("trust", number(chain.trust, 4)),
        Row("validators", f"{chain.validators} of {chain.neurons}"),
        *([Row("registered with NATIX", natix_words(chain.natix))] if chain.natix is not None else []),
    ]
    natix = "; ".join(filter(None, (chain.natix.words, chain.natix.command))) if chain.natix is not None else ""
    known = f"NATIX: {natix}" if natix else ""
    return Card("Chain", rows, "; ".join(filter(None, (chain.fault, chain.publication, known))))


def natix_words(natix: NatixView | None) -> str:
    """Return in a word or two whether NATIX knows a hotkey."""
    return NO_VALUE if natix is None else NATIX_WORDS.get(natix.standing, natix.standing)


def _model(model: Model) -> Card:
    rows = [
        Row("name", model.name),
        Row("detector", model.detector),
        Row("revision", model.revision[:14], is_code=True),
        Row("runs on", model.runs_on or f"{model.backend}, {model.precision}"),
        Row("threads", str(model.threads)),
        *([Row("views", model.views)] if model.views else []),
        *([Row("threshold", f"{model.threshold:.3g}")] if model.threshold != 0.5 else []),
        Row("hash", model.hash, is_code=True),
    ]
    return Card("Model", rows, f"roadwork = {model.roadwork}" if model.roadwork else "")


def _traffic(known: StandingView, now: float) -> Card:
    """Show how right the model was found to be; without figures, what there is to be labelled."""
    photos, model, last = known.photos, known.model, known.improvement
    rows: list[Row] = []
    if model is not None and model.accuracy is not None:
        low, value, high = model.accuracy.low, model.accuracy.value, model.accuracy.high
        # No share is bad in itself: what counts is what was promised.
        rows += [
            Row("accuracy", share(value), Meter(value, 1.0, worry=0.0 if model.is_below_promise else 2.0)),
            Row("95 % interval", f"{share(low)} to {share(high)}"),
        ]
    if model is not None and model.promised is not None:
        rows.append(Row("promised", share(model.promised)))
    if model is not None and model.reward is not None:
        rows.append(Row("expected reward", fraction(model.reward.value)))
    works, clear = (number(photos.labelled.get(kind, 0)) for kind in reversed(CLASSES))
    rows += [
        Row("labelled", f"{number(photos.decided)} photo{'s' * (photos.decided != 1)}"),
        *([Row("with roadwork", works), Row("without", clear)] if photos.decided else []),
        Row("random tenth", number(photos.sampled)),
        Row("waiting", f"{number(photos.waiting)} photo{'s' * (photos.waiting != 1)}"),
    ]
    if last is not None:
        gain = f" ({last.gain:+.2f})".replace("0.", ".") if last.gain is not None else ""
        rows.append(Row(f"improved{gain}", f"{age(now - last.at)} ago"))
    return Card("Real traffic", rows, _traffic_note(known))


def _traffic_note(known: StandingView) -> str:
    model = known.model
    if model is None and not known.photos.sampled:
        return "not measured: roadwork-miner label shows what waits"
    if model is None:
        return "not measured: roadwork-miner standing does"
    if not known.is_current:
        return f"of {model.name}, which serves no more: roadwork-miner standing"
    if model.accuracy is None:
        return f"{model.right} of {model.photos} right: too few labels for a figure"
    if model.is_below_promise:
        return "right less often than was promised, beyond chance"
    newer = known.photos.sampled - model.photos
    return f"{number(newer)} newer labels: roadwork-miner standing" if newer > 0 else ""


def request_note(request: RequestView) -> str:
    """Return why a request ended as it did; of one that a cascade answered, which stage."""
    if request.reason or request.stage is None:
        return request.reason
    return f"stage {request.stage}" + (f", {STOP_WORDS[request.stop]}" if request.stop != "last" else "")


def cascade_note(cascade: CascadeView) -> str:
    """Return why no further stages were asked, and what the expected rewards are."""
    answered = sum(cascade.reasons.values())
    told = [f"{share(count / answered)} {STOP_WORDS[reason]}" for reason, count in cascade.reasons.items() if count]
    ended = f"Answered {', '.join(told)}. " if told else ""
    return (
        f"{ended}Expected: the reward measured, times the share in time, had that stage alone answered as many. "
        "Served: as it was, each picture with the stages that it got."
    )


def _shadow(shadow: ShadowView) -> Card:
    rows = [
        Row("name", shadow.name or f"{shadow.config}: not loaded"),
        Row("agreement", share(shadow.agreement)),
        Row("compared", number(shadow.compared)),
        *([Row("failed", number(shadow.failed))] if shadow.failed else []),
        Row("CPU time per image", duration(shadow.seconds)),
        Row("shadow predictions", bars(shadow.tenths), is_code=True),
        Row("serving predictions", bars(shadow.tenths_served), is_code=True),
    ]
    return Card("Shadow", rows, "predictions as histograms, from 0 to 1")


@dataclass(frozen=True, slots=True)
class Headline:
    """What an operator wants to know first, as short phrases; `is_bad`: it is a reason to act."""

    parts: Sequence[str]
    is_bad: bool = False
    note: str = ""  # what the figures rest on

    def __str__(self) -> str:
        return " · ".join(self.parts)


def headline(overview: Overview) -> Headline:
    """Return who asked last, how many were answered in time, and what that is expected to earn; or why nobody can."""
    if overview.obstacle is not None:
        return Headline([overview.obstacle], is_bad=True)
    spans: dict[str, Span] = {"": overview.hour, " in 24 hours": overview.day, " in 7 days": overview.week}
    within, span = next(((words, one) for words, one in spans.items() if one.last is not None), ("", overview.hour))
    share_in_time = span.answered_share
    if span.last is None:
        up = overview.now - overview.started
        parts = [f"nobody has asked in {age(up)}" if up < WEEK_SECONDS else "nobody has asked in 7 days"]
    else:
        ago = age(overview.now - span.last)
        parts = [f"last asked {ago} ago by {span.validators} validator{'s' * (span.validators != 1)}{within}"]
        if share_in_time is not None:
            parts.append(f"{share(share_in_time)} in time")
    model, cascade = overview.model, overview.cascade
    real = overview.traffic.model if overview.traffic is not None and overview.traffic.is_current else None
    if cascade is None and real is not None and real.reward is not None:  # nothing else is as near to what comes
        expected = real.reward.value * (1.0 if share_in_time is None else share_in_time)
        note = (
            f"A round answered in time earns {fraction(real.reward.value)} by {number(real.photos)} labels of real "
            "traffic; expected is that, times the share in time."
        )
        return Headline([*parts, f"reward expected {fraction(expected)}"], note=note)
    if model is None or model.reward is None:
        return Headline([*parts, "reward not measured"], note=NOT_MEASURED)
    served = cascade.reward if cascade is not None else None
    reward = model.reward if served is None else served
    expected = reward * (1.0 if share_in_time is None else share_in_time)
    stages = "" if served is None else f", and {fraction(reward)} with the stages that the last day's pictures got"
    note = (
        f"A round answered in time earned {fraction(model.reward)} on {number(model.reward_photos)} labelled photos"
        f"{stages}; expected is that, times the share in time."
    )
    return Headline([*parts, f"reward expected {fraction(expected)}"], note=note)
