"""A model that fails, hangs, gets slow or is killed in the midst of its work: real graphs that do, or the sleeper."""

import re
import signal
import time
from pathlib import Path

import pytest

from miner.errors import MESSAGES
from miner.inference.pace import SLOW_PICTURES
from miner.inference.service import FAILURES
from tests.process.conftest import Settings, StartDaemon
from tests.process.daemon import Daemon, eventually
from tests.process.graphs import OnBlack, write_model
from tests.process.inspection import message_of, probability_of
from tests.process.wire import DOORS, Door

FOREVER = 10**12  # rounds
FAULTS: dict[OnBlack, str] = {
    "nan": "not finite",
    "shape": "shape (1, 3), not (1, 2)",
    "error": "model failed",
}


def reason_of(daemon: Daemon) -> str | None:
    """Return why the daemon is not ready, or None."""
    answer = daemon.page("/readyz")
    reason: str | None = answer.json()["reason"]
    assert (answer.status_code == 200) == (reason is None)
    return reason


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_model_that_fails_again_and_again_is_asked_no_more_until_it_passes_its_self_test(
    start_doomed: StartDaemon, tmp_path: Path, street: bytes, black: bytes, fault: OnBlack
) -> None:
    daemon = start_doomed(IMAGE_DETECTOR_CONFIG=write_model(tmp_path / "failing", on_black=fault)).ready()
    failures = 0
    while True:
        while (answer := daemon.ask(black, DOORS[failures % 4])).status_code == 500:
            assert message_of(answer, 500).endswith(FAULTS[fault])
            failures += 1
        assert failures >= FAILURES
        refusals, ready = [daemon.ask(street, door) for door in DOORS], daemon.metric("ready")
        if reason_of(daemon) is not None:  # else this took longer than the pause before the self-test: once more
            break
    if why := reason_of(daemon):
        assert re.fullmatch(f"the model failed {FAILURES} times .*: .*{re.escape(FAULTS[fault])}", why)
    assert {message_of(refusal, 503) for refusal in refusals} == {MESSAGES["not_ready"]}
    assert ready == 0
    assert daemon.metric("invalid_outputs_total") == (0 if fault == "error" else failures)
    if fault == "error":  # of the three, it is enough to wait for one
        eventually(lambda: reason_of(daemon) is None)
        probability_of(daemon.ask(street))
    eventually(lambda: "not ready (the model failed" in daemon.log)
    assert daemon.stop() == 0
    assert f"not ready (the model failed {FAILURES} times" in daemon.log
    assert ("Traceback" in daemon.log) == (fault == "error")  # for us; the caller was told nothing of it


def test_a_model_that_becomes_slower_than_the_deadline_is_asked_no_more_until_it_is_quick_again(
    start_daemon: StartDaemon, moods: Settings, street: bytes
) -> None:
    """The deadline is 0.8 s less a margin of 0.2, and each picture takes 0.9 s more for a while."""
    daemon = start_daemon(**moods, DEADLINE_CAP_SECONDS=0.8, DEADLINE_MARGIN_SECONDS=0.2).ready()
    with daemon.mood("0.9"):
        eventually(lambda: daemon.ask(street).status_code == 503 and reason_of(daemon) is not None)
        assert re.fullmatch(r"one picture takes \d+\.\d s .* 0\.6", reason_of(daemon) or "")
        assert {message_of(daemon.ask(street, door), 503) for door in DOORS} == {MESSAGES["not_ready"]}
        assert daemon.metric("refusals_total", reason="not_ready") >= len(DOORS) / 2  # the others proved nothing
        assert daemon.load() == (0, 0)  # so they waited for nothing
        assert daemon.status("/healthz") == 200
        assert daemon.outcomes()["expired"] <= SLOW_PICTURES
    eventually(lambda: reason_of(daemon) is None)
    eventually(lambda: daemon.ask(street).status_code == 200)


def test_what_would_end_a_program_ends_a_picture(start_doomed: StartDaemon, moods: Settings, street: bytes) -> None:
    """A library that raises SystemExit in the slot's thread."""
    daemon = start_doomed(**moods).ready()
    with daemon.mood("exit"):
        for door in DOORS:  # fewer than end the asking
            assert message_of(daemon.ask(street, door), 500) == "the model failed"
    assert daemon.outcomes() == {"failed": len(DOORS)}
    assert daemon.load() == (0, 0)
    for door in DOORS:
        probability_of(daemon.ask(street, door))
    assert daemon.stop() == 0
    assert daemon.log.count("thread raised SystemExit") == len(DOORS) < FAILURES


def test_where_every_slot_hangs_the_miner_says_so_and_ends_to_be_started_again(
    start_doomed: StartDaemon, tmp_path: Path, street: bytes, white: bytes
) -> None:
    hanging = write_model(tmp_path / "hanging", rounds_on_white=FOREVER)
    daemon = start_doomed(IMAGE_DETECTOR_CONFIG=hanging, INFERENCE_LIMIT_SECONDS=1).ready()
    with daemon.raw(daemon.validator.sign(white, Door())) as raw:
        raw.send_all()
        eventually(lambda: re.fullmatch("every slot hangs: .* 1 s", reason_of(daemon) or ""))
        assert message_of(daemon.ask(street), 503) == MESSAGES["not_ready"]
        assert daemon.status("/healthz") == 200
        # Its caller is told when it stops waiting, at the latest.
        assert raw.answer().status_code == 503
        assert daemon.wait() == 4
    assert re.search("ending, .*: every slot hangs", daemon.log)


def test_where_one_of_two_slots_hangs_the_other_goes_on(
    start_doomed: StartDaemon, tmp_path: Path, street: bytes, white: bytes
) -> None:
    settings = {"INFERENCE_LIMIT_SECONDS": 1, "INFERENCE_SLOTS": 2, "DRAIN_SECONDS": 0.1}
    hanging = write_model(tmp_path / "hanging", rounds_on_white=FOREVER)
    daemon = start_doomed(IMAGE_DETECTOR_CONFIG=hanging, **settings).ready()
    with daemon.raw(daemon.validator.sign(white, Door())) as raw:
        raw.send_all()
        eventually(lambda: "one slot of 2 is lost" in daemon.log)
    for _ in range(3):
        probability_of(daemon.ask(street))
    assert reason_of(daemon) is None
    assert daemon.metric("running") == 1
    assert daemon.stop() == 0


def test_a_miner_killed_at_any_moment_of_its_starts_starts_again(
    start_doomed: StartDaemon, tmp_path: Path, street: bytes
) -> None:
    """Its first start makes keys, the chain's file and the optimised graph."""
    yaml = write_model(tmp_path / "model")
    daemon = start_doomed(IMAGE_DETECTOR_CONFIG=yaml)
    for seconds in (0.7, 1.0, 1.3, 1.6):
        time.sleep(seconds)
        daemon.signal(signal.SIGKILL)
        assert daemon.wait() == -signal.SIGKILL
        daemon.start()
    daemon.ready()
    with daemon.raw(daemon.validator.sign(street, Door())) as raw:  # and in mid-request
        raw.send_head(length=10**5)
        daemon.signal(signal.SIGKILL)
        daemon.wait()
    daemon.start().ready()
    probability_of(daemon.ask(street))
    assert daemon.stop() == 0
    leftovers = [path for folder in (tmp_path, daemon.state) for path in folder.rglob("*.partial")]
    assert leftovers == []
    assert "Traceback" not in daemon.log
