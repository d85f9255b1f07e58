"""What a daemon writes down of its requests, also when it is killed, and that it can be sent again."""

import asyncio
import json
import re
import signal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from miner.axon.client import Client
from miner.metrics import STAGES
from miner.recorder import FOLDER
from miner.recorder.records import SEGMENTS, RequestRecord, read_records
from miner.simulate.replay import recorded_photos, replay
from tests.models import photo
from tests.process.conftest import StartDaemon
from tests.process.daemon import Daemon, eventually
from tests.process.inspection import message_of, probability_of
from tests.process.simulating import simulate
from tests.process.wire import Door


def recorded(daemon: Daemon, count: int) -> list[RequestRecord]:
    eventually(lambda: daemon.metric("recorder_records_total") >= count)
    return list(read_records(daemon.state / FOLDER))


def replayed(path: Path, **settings: object) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(simulate("--replay", path, "--speed", 100, "--json", settings=settings).stdout)
    return result


def test_a_daemon_that_is_killed_leaves_its_last_requests_and_they_can_be_sent_again(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(RECORDER="images").ready()
    photos = [photo(320, 240, seed=seed) for seed in range(4)]
    predictions = [probability_of(daemon.ask(one)) for one in photos]
    message_of(daemon.ask(b"rubbish"), 422)
    message_of(daemon.ask(photos[0], timeout="0.2"), 503)
    stranger = daemon.signer(daemon.keys.stranger)
    message_of(daemon.post(stranger.sign(photos[0], Door())), 403)
    *answered, bad, refused, forbidden = recorded(daemon, 7)
    daemon.signal(signal.SIGKILL)
    daemon.wait()

    assert [one.prediction for one in answered] == pytest.approx(predictions)
    assert [one.image for one in answered] == [sha256(one).hexdigest() for one in photos]
    assert {one.uid for one in answered} == {1}
    assert [one.outcome for one in (bad, refused, forbidden)] == ["bad_image", "refused", "forbidden"]
    for one in answered:
        assert set(one.stages) == set(STAGES)
        assert 0.5 * one.seconds < sum(one.stages.values()) <= one.seconds + 1e-3  # a busy machine has gaps
        assert one.body_bytes > one.image_bytes > 1000
        assert one.timeout == 9
    folder = daemon.state / FOLDER
    written = b"".join(path.read_bytes() for path in folder.glob(SEGMENTS)).decode()
    assert {one.hotkey for one in (*answered, bad, refused, forbidden)} == {daemon.keys.miner.hotkey.ss58_address}
    assert daemon.validator.hotkey not in written
    assert "signature" not in written

    result = replayed(folder)
    comparison = result["comparison"]
    assert comparison["answered"] == comparison["compared"] == comparison["same_side"] == 4
    assert comparison["largest"] < 1e-5
    assert result["without_photo"] == 2  # neither the refused one nor the stranger's was read; the rubbish was
    assert [row["status"] for row in result["requests"]] == [200] * 4 + [422]


def test_what_a_running_recorder_removes_meanwhile_is_counted_and_the_rest_is_sent(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(RECORDER="images").ready()
    for seed in range(3):
        probability_of(daemon.ask(photo(320, 240, seed=seed)))
    recorded(daemon, 3)
    found, without = recorded_photos(daemon.state / FOLDER)
    assert (len(found), without) == (3, 0)
    found[1].path.unlink()
    client = Client(daemon.keys.validator, daemon.keys.miner.hotkey.ss58_address, daemon.address)
    answers, gone = asyncio.run(replay(found, [client], told=False, speed=100, progress=lambda _: None))
    assert gone == 1
    assert [answer.number for answer in answers] == [0, 2]
    assert [answer.prediction for answer in answers] == pytest.approx(
        [found[0].record.prediction, found[2].record.prediction]
    )
    assert len(recorded(daemon, 5)) >= 5  # what was sent again is recorded too


def test_by_default_nothing_is_recorded_and_without_photos_nothing_is_sent_again(
    start_daemon: StartDaemon, street: bytes, tmp_path: Path
) -> None:
    silent, meta = start_daemon().ready(), start_daemon(RECORDER="meta").ready()
    for daemon in (silent, meta):
        probability_of(daemon.ask(street))
    (record,) = recorded(meta, 1)
    assert record.image == sha256(street).hexdigest()
    assert not (silent.state / FOLDER).exists()
    said = simulate("--replay", meta.state / FOLDER, code=2).stderr
    assert re.search("1 requests .*: RECORDER=images ", said)
    assert "no recorder's folder" in simulate("--replay", tmp_path, code=2).stderr
