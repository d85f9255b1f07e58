"""The replay of a recorder's requests: the same photos in the same order and pace."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from miner.axon.client import Client
from miner.bench.run import percentiles
from miner.errors import ConfigurationError
from miner.recorder.records import IMAGES, MAGIC, RequestRecord, read_records
from miner.simulate.miners import wait_until_known
from miner.simulate.run import on_interrupt, wait_until_there
from miner.simulate.sender import ScheduledRequest, SentAnswer, send_all

PHOTO_SUFFIXES = (*MAGIC.values(), ".bin")


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A record, and the file of its photo."""

    record: RequestRecord
    path: Path

    def read(self) -> bytes | None:
        """Return the photo; None: a recorder that runs has removed it since."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None


@dataclass(frozen=True, slots=True)
class ReplayComparison:
    """What came back, beside what the recorder had.

    Attributes:
        gone: requests whose photo the recorder has removed since the recording was read.
        compared: requests answered then and now.
        same_side: of those, how many are on the same side of 0.5.
        largest: the largest difference of two predictions.
        p50, p95: seconds, now and then.
    """

    requests: int
    gone: int
    answered: int
    answered_then: int
    compared: int
    same_side: int
    largest: float
    p50: float | None
    p95: float | None
    p50_then: float | None
    p95_then: float | None


def recorded_photos(path: Path) -> tuple[list[RecordedRequest], int]:
    """Return what can be sent again, and how many records have no photo; a recorder may be writing there.

    Raises:
        ConfigurationError: none has, or they can't be read.
    """
    found, without = [], 0
    try:
        images = (path if path.is_dir() else path.parent) / IMAGES
        for record in read_records(path):
            files = [images / f"{record.image}{ending}" for ending in PHOTO_SUFFIXES] if record.image else []
            photo = next((file for file in files if file.is_file()), None)
            if photo is None:
                without += 1
            else:
                found.append(RecordedRequest(record, photo))
    except OSError as error:
        raise ConfigurationError(f"--replay={path}: can't be read: {error.strerror or error}") from error
    if not found:
        raise ConfigurationError(
            f"--replay={path}: {without} requests and not one photo to send: RECORDER=images records them"
        )
    return found, without


def callers(recorded: Sequence[RecordedRequest]) -> int:
    """Return how many different validators asked."""
    return len({one.record.uid for one in recorded})


async def replay(
    recorded: Sequence[RecordedRequest],
    clients: Sequence[Client],
    told: bool,
    speed: float,
    progress: Callable[[SentAnswer], None],
) -> tuple[list[SentAnswer], int]:
    """Send everything again; return the answers, and how many photos were gone by then.

    Each uid has its own client, as far as there are any.

    Raises:
        CouldNotStart: the miner is not there.
    """
    uids = {uid: number for number, uid in enumerate(dict.fromkeys(one.record.uid for one in recorded))}
    arrived = [one.record.at - one.record.seconds for one in recorded]
    first = min(arrived)
    sendings = [
        ScheduledRequest(number, at - first, 0.0, uids[one.record.uid] % len(clients))
        for number, (one, at) in enumerate(zip(recorded, arrived, strict=True))
    ]
    answers: list[SentAnswer] = []
    gone: set[int] = set()

    def ended(answer: SentAnswer) -> None:
        answers.append(answer)
        progress(answer)

    def picture(number: int) -> bytes | None:
        data = recorded[number].read()
        if data is None:
            gone.add(number)
        return data

    async with AsyncExitStack() as stack:
        for client in clients:
            await stack.enter_async_context(client)
        await wait_until_there(clients[0], next((data for one in recorded if (data := one.read()) is not None), b""))
        if told:
            await wait_until_known(clients)
        await send_all(sendings, picture, clients, speed, on_interrupt(), ended)
    return sorted(answers, key=lambda one: one.number), len(gone)


def compared(recorded: Sequence[RecordedRequest], answers: Sequence[SentAnswer], gone: int) -> ReplayComparison:
    """Compare the answers with the recorded predictions."""
    pairs = [
        (then, answer.prediction)
        for answer in answers
        if answer.prediction is not None and (then := recorded[answer.number].record.prediction) is not None
    ]
    records = [recorded[answer.number].record for answer in answers]
    now = _middle([answer.seconds for answer in answers if answer.prediction is not None])
    before = _middle([record.seconds for record in records if record.prediction is not None])
    return ReplayComparison(
        requests=len(answers),
        gone=gone,
        answered=sum(answer.prediction is not None for answer in answers),
        answered_then=sum(record.prediction is not None for record in records),
        compared=len(pairs),
        same_side=sum((one > 0.5) == (other > 0.5) for one, other in pairs),
        largest=max((abs(one - other) for one, other in pairs), default=0.0),
        p50=now[0],
        p95=now[1],
        p50_then=before[0],
        p95_then=before[1],
    )


def _middle(seconds: list[float]) -> tuple[float | None, float | None]:
    return percentiles(seconds)[:2] if seconds else (None, None)
