"""The comparison of three miners with one cascade: its cheapest stage alone, all stages, and those there is time for.

Each plays a quiet and a crowded subnet: the same photos of the same validators at the same times. One runs at a time,
so that they need the memory of one, and none takes the others' cores. They take turns at parts of the play, in another
order each time, so that what else the machine does hits each alike.
"""

import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from detectors.errors import DetectorError
from detectors.models.config import read_config
from miner.axon.client import Client
from miner.errors import ConfigurationError
from miner.recorder import FOLDER
from miner.recorder.records import RequestRecord, Wire, read_records
from miner.settings.settings import Settings
from miner.settings.validators import StageMode
from miner.simulate.miners import SimulatedMiner, miner_at
from miner.simulate.run import RequestPictures, SimulationPlan, connected, measured_speed, send
from miner.simulate.scenes import MODES, Scene, SceneName, SceneResult, result_of, scenes_of
from miner.simulate.schedule import Request
from miner.simulate.sender import SentAnswer

RECORDED = ("RECORDER=meta", "RECORDER_MAX_MB=256", "RECORDER_MAX_HOURS=24")  # which stage answered, of all requests
Progress = Callable[[str, int], None]  # who plays what, and how many requests come in all; told of each answer


@dataclass(frozen=True, slots=True)
class ModeComparison:
    """All that was played; `stages` in words, and the photos that could no longer be read."""

    stages: Sequence[str]
    scenes: Sequence[SceneResult]
    unread: Sequence[str]

    @property
    def answered(self) -> int:
        """How many answers came in all."""
        return sum(one.report.outcomes["answered"] for result in self.scenes for one in result.modes.values())


def stages_of(settings: Settings) -> list[str]:
    """Return the stages of the configured detector in words, from cheap to dear.

    Raises:
        ConfigurationError: it has none, or its configuration is wrong.
    """
    where = f"IMAGE_DETECTOR_CONFIG={settings.detector_config}"
    try:
        config = read_config(settings.detector_config)
    except DetectorError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    if not config.stages or config.fusion is None:
        raise ConfigurationError(
            f"--compare: {where}: an ensemble with stages is needed; `roadwork-miner fuse --stages` makes one"
        )
    return [" + ".join(stage.branches) for stage in (*config.stages, config.fusion)]


def compare(
    what: SimulationPlan, settings: Settings, wires: Sequence[Wire], timeout: float, progress: Progress
) -> ModeComparison:
    """Have each of the three play both scenes, until the end or Ctrl-C; what one of them has not played does not count.

    Raises:
        ConfigurationError: the detector has no stages.
        CouldNotStart: a miner does not start.
    """
    words = stages_of(settings)
    with tempfile.TemporaryDirectory() as folder:
        players = _Players(what, settings, wires, timeout, Path(folder))
        scenes = scenes_of(what, what.speed or players.speed())
        unread = players.play(scenes, progress)
        records = list(read_records(Path(folder) / FOLDER))
    found = []
    for scene in scenes:
        heard = {mode: players.heard[scene.name, mode] for mode in MODES}
        answers = {mode: one.answers for mode, one in heard.items()}
        stages = {mode: one.stages(records, len(words), mode) for mode, one in heard.items()}
        seconds = {mode: one.seconds for mode, one in heard.items()}
        found.append(result_of(scene, answers, stages, seconds, what.subnet.callers))
    return ModeComparison(words, found, list(unread))


class _Heard:
    """What one miner has answered in one scene, and when."""

    def __init__(self) -> None:
        self.answers: list[SentAnswer] = []
        self.spans: list[tuple[float, float]] = []  # of seconds since 1970

    @property
    def seconds(self) -> float:
        """How long it was asked."""
        return sum(end - begin for begin, end in self.spans)

    def stages(self, records: Sequence[RequestRecord], count: int, mode: StageMode) -> list[int]:
        """Return how many of the answers each stage gave; a fallback's are of none."""
        ours = [one for one in records if self._has_asked(one.at - one.seconds)]
        # Who always takes the last has no others, and so its records name none.
        given = [count if mode == "all" else one.stage for one in ours if one.outcome == "ok"]
        return [given.count(stage) for stage in range(1, count + 1)]

    def _has_asked(self, arrival: float) -> bool:
        """Whether a request came while it was asked; its end may be later than the caller's, who has the answer."""
        return any(begin <= arrival <= end for begin, end in self.spans)


class _Part:
    """A part of a scene: its pictures are ready before the first miner is asked, and its clock begins at zero."""

    def __init__(
        self, scene: Scene, what: SimulationPlan, requests: Sequence[Request], unread: dict[str, None]
    ) -> None:
        self.scene = scene
        pictures = RequestPictures(what, requests)
        read = {one.number: pictures(one.number) for one in requests}
        self.pictures = {number: data for number, data in read.items() if data is not None}
        unread |= pictures.unread
        self.requests = [replace(one, at=one.at - requests[0].at) for one in requests if one.number in self.pictures]


class _Players:
    """The three miners, one at a time, on one state folder: their keys are the same."""

    def __init__(
        self, what: SimulationPlan, settings: Settings, wires: Sequence[Wire], timeout: float, state: Path
    ) -> None:
        self.what = what
        self.settings = settings
        self.wires = wires
        self.timeout = timeout
        self.state = state
        self.heard: defaultdict[tuple[SceneName, StageMode], _Heard] = defaultdict(_Heard)

    def speed(self) -> float:
        """Return the speed at which lone requests would keep the dearest of them busy for a fifth of the time."""
        quiet = replace(self.what, subnet=replace(self.what.subnet, burst=0))

        async def measured(clients: Sequence[Client]) -> float:
            async with connected(quiet, clients):
                return await measured_speed(quiet, clients[0])

        with self._miner("all") as miner:
            return asyncio.run(measured(miner.clients(self.wires, self.timeout)))

    def play(self, scenes: Sequence[Scene], progress: Progress) -> dict[str, None]:
        """Play the scenes, or as much of them as Ctrl-C leaves; return which photos could not be read."""
        total, unread = len(MODES) * sum(len(scene.requests) for scene in scenes), dict[str, None]()
        with suppress(KeyboardInterrupt):  # while a miner starts or stops, or pictures are made
            for turn, requests in enumerate(zip(*(scene.turns() for scene in scenes), strict=True)):
                parts = [_Part(scene, self.what, some, unread) for scene, some in zip(scenes, requests, strict=True)]
                for mode in (*MODES[turn:], *MODES[:turn]):
                    with self._miner(mode) as miner:
                        if not asyncio.run(self._ask(mode, miner, parts, lambda words: progress(words, total))):
                            return unread
        return unread

    async def _ask(
        self, mode: StageMode, miner: SimulatedMiner, parts: Sequence[_Part], tell: Callable[[str], None]
    ) -> bool:
        """Ask one of them; return whether it was asked everything."""
        clients = miner.clients(self.wires, self.timeout)
        async with connected(self.what, clients):
            for part in parts:
                answers, begin = list[SentAnswer](), time.time()

                def ended(answer: SentAnswer, words: str = f"{mode}, {part.scene.name}") -> None:
                    answers.append(answer)  # noqa: B023 - of this part: it is played before the next one
                    tell(words)

                await send(part.requests, part.pictures.get, clients, part.scene.speed, ended)
                heard = self.heard[part.scene.name, mode]
                heard.spans.append((begin, time.time()))
                heard.answers += answers
                if len(answers) < len(part.requests):
                    return False
        return True

    def _miner(self, mode: StageMode) -> AbstractContextManager[SimulatedMiner]:
        mine = f"INFERENCE_STAGES={mode}", *RECORDED
        return miner_at(self.state, self.settings, self.what.subnet.callers, *mine)
