"""Whether a registration still holds, and the file it is kept in."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from bittensor.keyfiles import Keypair

from miner.errors import CouldNotStart
from miner.natix.registration import (
    FILE_NAME,
    MAX_FILE_BYTES,
    Registration,
    RegistrationLog,
    Registrations,
    RegistrationState,
    ServerWord,
    following,
    in_words,
    registration_request,
)

NOW = 1_800_000_000.0
DONE, REFUSED = ServerWord(progress="succeeded"), ServerWord(progress="failed", words="model is private")
WAITING = ServerWord(progress="pending", words="queued")


def kept(**changes: object) -> Registration:
    return following(None, DONE, 72, 7, NOW, "you/roadwork").model_copy(update=changes)


def test_the_request_is_signed_as_natix_verifies_it() -> None:
    key = Keypair.create_from_seed((5).to_bytes(32, "big"), 1)
    body = registration_request(key, 7, "you/roadwork", NOW + 0.9)
    assert body == {
        "uid": "7",
        "message": "1800000000",
        "natix_public_key": key.ss58_address,
        "natix_signature": body["natix_signature"],
        "type": "miner",
        "model_repo": "you/roadwork",
    }
    whoever = Keypair(ss58_address=body["natix_public_key"])
    signature = bytes.fromhex(body["natix_signature"])
    assert whoever.verify(b"1800000000", signature)
    assert not whoever.verify(b"1800000001", signature)


@pytest.mark.parametrize(
    ("registration", "uid", "standing"),
    [
        (kept(), 7, "yes"),
        (kept(progress="failed"), 7, "no"),
        (kept(progress="absent"), 7, "no"),
        (kept(progress="pending"), 7, "pending"),
        (kept(), 8, "due"),
        (kept(progress="failed"), 8, "due"),
        (kept(netuid=323), 7, "due"),
        (kept(), None, "unknown"),
        (None, 7, "unknown"),
    ],
)
def test_a_registration_holds_for_its_uid(
    tmp_path: Path, registration: Registration | None, uid: int | None, standing: RegistrationState
) -> None:
    file = Registrations(tmp_path)
    if registration is not None:
        file.keep("5F", registration)
    assert file.standing("5F", 72, uid) == standing
    assert Registrations(tmp_path).standing("5F", 72, uid) == standing
    assert file.standing("5G", 72, uid) == "unknown"


def test_since_when_it_is_so() -> None:
    first = following(None, WAITING, 72, 7, NOW, "you/roadwork")
    again = following(first, WAITING, 72, 7, NOW + 3)
    assert (again.since, again.at, again.sent, again.model_repo) == (NOW, NOW + 3, NOW, "you/roadwork")
    done = following(again, DONE, 72, 7, NOW + 6)
    assert (done.since, done.sent) == (NOW + 6, NOW)
    moved = following(done, DONE, 72, 8, NOW + 9)
    assert (moved.uid, moved.since, moved.sent, moved.model_repo) == (8, NOW + 9, None, ""), "of who had it before"


def test_a_refusal_to_register_again_leaves_what_holds() -> None:
    before = kept()
    assert following(before, REFUSED, 72, 7, NOW + 9, "you/other") == before
    assert following(before, REFUSED, 72, 7, NOW + 9).progress == "failed", "the status itself says so"
    assert following(before, REFUSED, 72, 8, NOW + 9, "you/other").progress == "failed"


def test_what_was_refused_was_not_sent_by_us_when_it_succeeds() -> None:
    refused = following(None, REFUSED, 72, 7, NOW, "you/roadwork", is_taken=False)
    done = following(refused, DONE, 72, 7, NOW + 9)
    assert (refused.sent, done.sent, done.model_repo) == (None, None, "")
    failed = following(None, REFUSED, 72, 7, NOW, "you/roadwork")
    assert following(failed, DONE, 72, 7, NOW + 9).sent == NOW, "it was taken, and failed later"


@pytest.mark.parametrize(
    ("standing", "registration", "uid", "named"),
    [
        ("yes", kept(), 7, ["yes", "uid 7", "2.0 h"]),
        ("yes", kept(sent=None), 7, ["had this uid before"]),
        ("no", kept(progress="failed", words="model is private"), 7, ["no", "2.0 h", "model is private"]),
        ("no", kept(progress="absent"), 7, ["no", "no registration of uid 7", "2.0 h"]),
        ("pending", kept(progress="pending", words="queued"), 7, ["not decided", "queued"]),
        ("due", kept(), 8, ["due", "uid 7 on netuid 72", "8 now"]),
        ("unknown", None, 8, ["unknown"]),
        ("unknown", None, None, ["not yet"]),
    ],
)
def test_each_standing_has_words(
    standing: RegistrationState, registration: Registration | None, uid: int | None, named: list[str]
) -> None:
    text = in_words(standing, registration, uid, NOW + 7200)
    assert not [part for part in named if part not in text], text


def test_what_becomes_due_is_logged_once_and_so_is_what_holds_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = Registrations(tmp_path)
    told = RegistrationLog(file, "5F", 72)

    def levels(uid: int | None) -> list[int]:
        caplog.clear()
        told.see(uid)
        told.see(uid)
        assert all("5F" in record.getMessage() for record in caplog.records)
        return [record.levelno for record in caplog.records]

    assert levels(None) == [], "a uid comes first"
    assert levels(7) == [logging.WARNING], "never asked"
    file.keep("5F", kept())
    assert levels(7) == [logging.INFO]
    assert levels(8) == [logging.WARNING]
    assert levels(9) == [logging.WARNING]
    file.keep("5F", kept(uid=9, progress="pending"))
    assert levels(9) == []
    file.keep("5F", kept(uid=9))
    assert levels(9) == [logging.INFO]
    assert levels(None) == []


def test_what_holds_at_a_start_is_nothing_new(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    file = Registrations(tmp_path)
    file.keep("5F", kept())
    RegistrationLog(file, "5F", 72).see(7)
    assert caplog.records == []


def test_hotkeys_share_the_file_and_another_process_is_noticed(tmp_path: Path) -> None:
    reader, writer = Registrations(tmp_path / "state"), Registrations(tmp_path / "state")
    assert reader.of("5F") is None
    writer.keep("5F", kept())
    writer.keep("5G", kept(uid=8))
    assert (reader.of("5F"), reader.of("5G")) == (kept(), kept(uid=8))
    writer.keep("5F", kept(uid=9))
    assert reader.of("5F") == kept(uid=9)
    writer.path.unlink()
    assert reader.of("5F") is None


def test_two_that_keep_at_once_lose_nothing(tmp_path: Path) -> None:
    def keep(hotkey: str) -> None:
        mine = Registrations(tmp_path)
        for uid in range(100):
            mine.keep(hotkey, kept(uid=uid))

    names = ["5F", "5G", "5H"]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(keep, names))
    found = Registrations(tmp_path)
    assert [found.of(name) for name in names] == [kept(uid=99)] * 3
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


BROKEN = [b"", b"[]", b"null", b"{", b'{"5F": 3}', b'{"5F": {"progress": "well"}}', b"\xff\xfe", b"[" * 100_000]


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_says_nothing_and_is_written_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    file = Registrations(tmp_path)
    assert file.of("5F") is None
    file.keep("5F", kept())
    assert Registrations(tmp_path).of("5F") == kept()


def test_an_endless_file_is_not_read(tmp_path: Path) -> None:
    whole = json.dumps({"5F": kept().model_dump()}).encode()
    (tmp_path / FILE_NAME).write_bytes(whole + b" " * MAX_FILE_BYTES)
    assert Registrations(tmp_path).of("5F") is None


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(CouldNotStart, match=f"STATE_DIR={tmp_path / 'state'}"):
        Registrations(tmp_path / "state").keep("5F", kept())
