"""The overview: one object, the source of the page, of `roadwork-miner top` and of `/status` as JSON."""

import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Self

from pydantic import BaseModel, ConfigDict

from detectors.base import Detector
from detectors.ensemble import Ensemble
from detectors.evaluation.reward import measured_reward
from detectors.machine import read_memory, read_throttling
from miner.cascade import STOP_WORDS, served_reward, stage_rewards
from miner.chain.base import Chain, Neuron, active_validators
from miner.chain.identities import Identity
from miner.feedback.standing import StandingView
from miner.inference.reload import Reloader
from miner.inference.service import Service
from miner.metrics import graph_hash
from miner.natix.registration import COMMANDS, Registrations, RegistrationState, in_words
from miner.recorder.records import RequestRecord
from miner.settings.validators import VALIDATORS_WAIT
from miner.shadow.shadow import ShadowModel
from miner.status.archive import CheckupView
from miner.status.earnings import EarningsView
from miner.status.history import History, StageCount
from miner.status.spans import Hour, LongSpan


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class IdentityView(_Part):
    """Identity of this miner: hotkey, network and netuid."""

    version: str
    hotkey: str
    network: str
    netuid: int
    port: int
    pid: int


class Model(_Part):
    """The model that serves."""

    detector: str
    name: str
    revision: str
    backend: str
    precision: str
    runs_on: str = ""  # both in words, of each branch where they differ; older miners don't say
    threads: int
    hash: str
    roadwork: str = ""  # the class that counts; older miners don't say
    views: str = ""  # of each picture that are judged, by branch; nothing: the whole
    threshold: float = 0.5  # of what the model itself says, by the YAML file or a calibration; it becomes 0.5
    reward: float | None = None  # mean of a round answered in time, as measured on labelled photos; None: it was not
    reward_photos: int = 0  # on how many


class StageView(_Part):
    """One stage of a cascade over the last day; seconds that it took where it ran, and left when it had answered."""

    number: int
    branches: str
    answers: int  # in time
    share: float | None  # of all answers in time
    reasons: dict[str, int]  # of them, why no further stage was asked
    p50: float | None
    p95: float | None
    left: float | None  # median
    reward: float | None  # of a round that it answers in time, as measured on labelled photos
    earned: float | None  # expected of a round, had it alone answered those that were answered in time


class CascadeView(_Part):
    """The stages of the cascade that serves, cheap to dear, over the last day; and what a round earned as it was."""

    stages: list[StageView]
    reasons: dict[str, int]
    reward: float | None  # if it was answered in time
    earned: float | None


class ReloadView(_Part):
    """How often another model was asked for, how many of these are seen to, and how the last one ended, in words."""

    asked: int
    done: int
    ok: bool | None
    text: str
    at: float | None


class QueueView(_Part):
    """The scheduler at this moment; seconds until a request that came now would be answered."""

    waiting: int
    limit: int
    running: int
    slots: int
    pace_seconds: float
    estimate_seconds: float


class MemoryUse(_Part):
    """Bytes; a limit of None: there is none."""

    resident: float
    proportional: float
    peak: float
    cgroup_usage: float
    cgroup_limit: float | None
    machine_available: float
    throttled_seconds: float


class NatixView(_Part):
    """NATIX's own registration of a hotkey, by the last word of its server; since when, in seconds since 1970."""

    standing: RegistrationState
    words: str
    command: str  # what helps; empty: nothing has to
    since: float | None  # None: due or unknown, and since when nobody keeps
    asked: float | None  # when the server was last asked

    @classmethod
    def of(cls, chain: Chain, registrations: Registrations, netuid: int, now: float) -> Self:
        """Look at what is kept of a hotkey."""
        kept = registrations.of(chain.hotkey)
        standing = registrations.standing(chain.hotkey, netuid, chain.uid)
        since = kept.since if kept is not None and standing not in ("due", "unknown") else None
        asked = kept.at if kept is not None else None
        command = COMMANDS[standing] if chain.uid is not None else ""
        words = in_words(standing, kept, chain.uid, now)
        return cls(standing=standing, words=words, command=command, since=since, asked=asked)


class ChainView(_Part):
    """Our place on the chain, as of the last snapshot."""

    block: int
    age_seconds: float | None
    fault: str | None  # why it is not fresh
    uid: int | None
    neurons: int
    validators: int
    stake: float | None
    incentive: float | None
    trust: float | None
    publication: str
    natix: NatixView | None = None  # standalone: none


class KeyView(_Part):
    """One of our hotkeys."""

    name: str  # in its wallet
    hotkey: str  # empty: it could not be read
    port: int
    obstacle: str | None
    uid: int | None
    incentive: float | None
    publication: str
    natix: NatixView | None = None
    is_published: bool = False


class RequestView(_Part):
    """One of the last requests."""

    at: float
    uid: int | None
    wire: str
    outcome: str
    reason: str
    seconds: float
    prediction: float | None
    hotkey: str = ""  # of ours, the one that was asked
    stage: int | None = None  # of a cascade, which answered
    stop: str = ""  # and why no further one was asked

    @classmethod
    def of(cls, record: RequestRecord) -> Self:
        """Take a record of the history."""
        return cls(**{name: getattr(record, name) for name in cls.model_fields})


class ShadowView(_Part):
    """The second model: how often it agreed, and its CPU seconds for a picture; a name of None: it is not loaded.

    Its predictions are counted by tenths, and those of the model that serves, of the same pictures.
    """

    name: str | None
    config: str
    compared: int
    agreement: float | None
    failed: int
    seconds: float | None
    tenths: list[int] = []
    tenths_served: list[int] = []


class Overview(_Part):
    """The miner at one moment; parts that are not there yet are None."""

    now: float
    started: float
    ready: bool
    obstacle: str | None
    identity: IdentityView
    model: Model | None
    cascade: CascadeView | None = None  # where the model is none
    reload: ReloadView | None  # None: the first model is not there yet
    queue: QueueView | None
    shadow: ShadowView | None = None  # where none is wanted
    memory: MemoryUse
    chain: ChainView | None  # of the first hotkey
    keys: list[KeyView] = []
    earnings: EarningsView | None = None  # without a chain
    hour: Hour
    day: LongSpan
    week: LongSpan
    checkup: CheckupView | None = None  # doctor's last findings
    traffic: StandingView | None = None  # where nothing is labelled or recorded
    recent: list[RequestView]


def model_view(service: Service) -> Model:
    """Return the model that serves."""
    detector, model = service.detector, service.detector.manifest
    fusion = detector.fusion if isinstance(detector, Ensemble) else None
    reward = measured_reward(model, fusion)
    moved = model.calibration or fusion
    return Model(
        detector=model.detector,
        name=model.name,
        revision=model.revision,
        backend=detector.backend_words,
        precision=detector.precision_words,
        runs_on=detector.runs_on,
        threads=detector.options.threads,
        hash=graph_hash(model),
        roadwork=detector.roadwork,
        views=detector.view_words,
        threshold=moved.threshold if moved is not None else 0.5,
        reward=reward.value if reward is not None else None,
        reward_photos=reward.photos if reward is not None else 0,
    )


def cascade_view(detector: Detector, history: History) -> CascadeView | None:
    """Return what the stages of the cascade that serves did in the last day; None: it is none."""
    rewards = stage_rewards(detector)
    if not rewards:
        return None
    names, day = detector.stages, history.total("day")
    counts = [day.stages.get(name) or StageCount() for name in names]
    answered = sum(count.answers.total() for count in counts)
    share = day.answered_share
    stages = [
        StageView(
            number=number,
            branches=name,
            answers=count.answers.total(),
            share=count.answers.total() / answered if answered else None,
            reasons=dict(count.answers),
            p50=count.spent.quantile(0.5),
            p95=count.spent.quantile(0.95),
            left=count.left.quantile(0.5),
            reward=reward,
            earned=_times(reward, share),
        )
        for number, (name, count, reward) in enumerate(zip(names, counts, rewards, strict=True), 1)
    ]
    reward = served_reward(rewards, [count.answers for count in counts])
    reasons = {reason: sum(count.answers[reason] for count in counts) for reason in STOP_WORDS}
    return CascadeView(stages=stages, reasons=reasons, reward=reward, earned=_times(reward, share))


def _times(reward: float | None, share: float | None) -> float | None:
    return None if reward is None or share is None else reward * share


def reload_view(reloader: Reloader) -> ReloadView:
    """Return how the last reload went."""
    last = reloader.outcome
    return ReloadView(
        asked=reloader.asked,
        done=reloader.done,
        ok=last.ok if last is not None else None,
        text=last.text if last is not None else "",
        at=last.at if last is not None else None,
    )


def queue_view(service: Service) -> QueueView:
    """Return the queue at this moment."""
    scheduler = service.scheduler
    return QueueView(
        waiting=scheduler.waiting,
        limit=scheduler.queue.places(VALIDATORS_WAIT),
        running=scheduler.running,
        slots=scheduler.queue.slots,
        pace_seconds=scheduler.queue.pace,
        estimate_seconds=scheduler.estimate,
    )


def shadow_view(shadow: ShadowModel | None) -> ShadowView | None:
    """Return the second model, if there is one."""
    if shadow is None:
        return None
    tally = shadow.tally
    return ShadowView(
        name=shadow.name,
        config=shadow.job.config,
        compared=tally.same + tally.different,
        agreement=tally.agreement,
        failed=tally.failed,
        seconds=statistics.median(tally.recent) if tally.recent else None,
        tenths=tally.tenths,
        tenths_served=tally.tenths_served,
    )


def memory_view() -> MemoryUse:
    """Return what the machine says of memory and CPU."""
    memory = read_memory()
    return MemoryUse(
        resident=memory.resident,
        proportional=memory.proportional,
        peak=memory.peak,
        cgroup_usage=memory.cgroup_usage - memory.cgroup_reclaimable,
        cgroup_limit=finite(memory.cgroup_limit),
        machine_available=memory.machine_available,
        throttled_seconds=read_throttling().seconds,
    )


def key_view(identity: Identity, natix: NatixView | None = None) -> KeyView:
    """Return one hotkey."""
    chain = identity.chain
    return KeyView(
        name=identity.name,
        hotkey=identity.hotkey,
        port=identity.settings.miner_axon_port,
        obstacle=identity.obstacle,
        uid=chain.uid if chain is not None else None,
        incentive=finite(number_of(chain, lambda own: own.incentive)) if chain is not None else None,
        publication=chain.publication if chain is not None else "not published",
        natix=natix,
        is_published=chain is not None and chain.is_published,
    )


def chain_view(chain: Chain, natix: NatixView | None = None) -> ChainView:
    """Return our place on the chain."""
    number = partial(number_of, chain)
    return ChainView(
        block=chain.snapshot.block,
        age_seconds=finite(chain.age),
        fault=chain.fault,
        uid=chain.uid,
        neurons=len(chain.snapshot.neurons),
        validators=len(validators(chain)),
        stake=finite(number(lambda own: own.stake)),
        incentive=finite(number(lambda own: own.incentive)),
        trust=finite(number(lambda own: own.trust)),
        publication=chain.publication,
        natix=natix,
    )


def validators(chain: Chain) -> list[Neuron]:
    """Return the hotkeys with a validator permit."""
    return [neuron for neuron in chain.snapshot.neurons.values() if neuron.validator_permit]


def active(chain: Chain) -> int:
    """Return how many of them set weights lately."""
    return len(active_validators(chain.snapshot.neurons.values(), chain.snapshot.block))


def number_of(chain: Chain, read: Callable[[Neuron], float]) -> float:
    """Return a number of our own neuron; NaN where the snapshot does not hold it."""
    own = chain.snapshot.neurons.get(chain.hotkey)
    return math.nan if own is None else read(own)


def finite(value: float) -> float | None:
    """Return a number, or None for NaN and infinity."""
    return value if math.isfinite(value) else None
