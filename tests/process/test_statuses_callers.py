"""Who is answered: the rows of the status table about signatures, nonces and registration, on both wires."""

import time

import pytest

from tests.models import photo
from tests.process.conftest import StartDaemon
from tests.process.daemon import Daemon
from tests.process.inspection import message_of, probability_of
from tests.process.wire import DOORS, HOUR, Door, Signed

SECOND = 10**9  # ns

both_wires = pytest.mark.parametrize("door", [Door(), Door("btauth", "/predict")], ids=["dendrite", "btauth"])
all_doors = pytest.mark.parametrize("door", DOORS, ids=lambda door: f"{door.wire}{door.path}")


@all_doors
def test_a_valid_request_gets_a_probability(miner: Daemon, door: Door, street: bytes) -> None:
    assert probability_of(miner.ask(street, door)) == pytest.approx(probability_of(miner.ask(street)), abs=1e-6)


@all_doors
def test_the_answer_names_the_models_page(miner: Daemon, door: Door, street: bytes) -> None:
    assert miner.ask(street, door).json()["model_url"] == "https://huggingface.co/you/model"


def test_the_answer_is_what_a_dendrite_copies_into_its_synapse(miner: Daemon, street: bytes) -> None:
    request = miner.validator.sign(street, Door("dendrite", "/ExtendedImageSynapse"))
    answer = miner.post(request)
    assert answer.headers["bt_header_axon_status_code"] == "200"
    assert answer.headers["bt_header_axon_status_message"] == "Success"
    assert float(answer.headers["bt_header_axon_process_time"]) > 0
    body = answer.json()
    assert body["name"] == "ExtendedImageSynapse"
    assert (body["axon"]["status_code"], body["dendrite"]["status_code"]) == (200, 200)
    for field in ("nonce", "uuid", "hotkey", "version"):
        assert str(body["dendrite"][field]) == request.headers[f"bt_header_dendrite_{field}"]


@all_doors
def test_a_replay_is_refused(miner: Daemon, door: Door, street: bytes) -> None:
    request = miner.validator.sign(street, door)
    probability_of(miner.post(request))
    assert "answered before" in message_of(miner.post(request), 401)


def test_a_replay_is_refused_on_the_other_path_too(miner: Daemon, street: bytes) -> None:
    request = miner.validator.sign(street, Door())
    probability_of(miner.post(request))
    message_of(miner.http.post("/ExtendedImageSynapse", content=request.body, headers=dict(request.headers)), 401)


@both_wires
def test_two_requests_out_of_order_are_both_answered(miner: Daemon, door: Door, street: bytes) -> None:
    first, second = (miner.validator.sign(street, door) for _ in range(2))
    probability_of(miner.post(second))
    probability_of(miner.post(first))


@pytest.mark.parametrize("timeout", ["9.0", "9999"])
@pytest.mark.parametrize("age", [30 * SECOND, HOUR], ids=["half-a-minute", "an-hour"])
@all_doors
def test_an_old_nonce_is_refused(miner: Daemon, door: Door, street: bytes, age: int, timeout: str) -> None:
    answer = miner.ask(street, door, nonce=time.time_ns() - age, timeout=timeout)
    assert "old" in message_of(answer, 401)


@pytest.mark.parametrize("ahead", [30 * SECOND, HOUR], ids=["half-a-minute", "an-hour"])
@all_doors
def test_a_nonce_of_the_future_is_refused(miner: Daemon, door: Door, street: bytes, ahead: int) -> None:
    assert "future" in message_of(miner.ask(street, door, nonce=time.time_ns() + ahead), 401)


@pytest.mark.parametrize("nonce", ["soon", "-1", "1.5", "²", "1" * 40])
@both_wires
def test_a_nonce_that_is_no_number_is_a_bad_request(miner: Daemon, door: Door, street: bytes, nonce: str) -> None:
    request = miner.validator.sign(street, door)
    name = "x_bittensor_nonce" if door.wire == "btauth" else "bt_header_dendrite_nonce"
    with miner.raw(request.but(**{name: nonce})) as raw:
        message_of(raw.send_all().answer(), 400)


@pytest.mark.parametrize("timeout", ["soon", "-1", "0", "nan", "inf"])
@both_wires
def test_a_timeout_that_is_no_time_is_a_bad_request(miner: Daemon, door: Door, street: bytes, timeout: str) -> None:
    message_of(miner.ask(street, door, timeout=timeout), 400)


@both_wires
def test_an_endless_timeout_is_cut_to_the_cap(miner: Daemon, door: Door, street: bytes) -> None:
    probability_of(miner.ask(street, door, timeout="1e300"))


DENDRITE_HEADERS = ("signature", "nonce", "uuid", "hotkey", "version")
OTHER_SIGNATURE = "0x" + "5a" * 64


@pytest.mark.parametrize("name", DENDRITE_HEADERS)
@pytest.mark.parametrize("path", ["/ImageSynapse", "/ExtendedImageSynapse"])
def test_a_dendrite_header_must_not_be_missing(miner: Daemon, street: bytes, path: str, name: str) -> None:
    request = miner.validator.sign(street, Door("dendrite", path)).without(f"bt_header_dendrite_{name}")
    assert f"bt_header_dendrite_{name}" in message_of(miner.post(request), 401)


@pytest.mark.parametrize(
    "change",
    [
        {"bt_header_dendrite_signature": OTHER_SIGNATURE},
        {"bt_header_dendrite_signature": "0x12"},
        {"bt_header_dendrite_signature": "not hex"},
        {"bt_header_dendrite_uuid": "5ecbd69c-1cec-11ee-b0dc-e29ce36fec1a"},
        {"computed_body_hash": "0" * 64},
        {"bt_header_dendrite_hotkey": "not an address"},
        {"bt_header_dendrite_version": "7001999"},
    ],
    ids=["signature", "short signature", "no signature", "uuid", "hash", "hotkey", "version"],
)
def test_a_changed_dendrite_header_is_refused(miner: Daemon, street: bytes, change: dict[str, str]) -> None:
    message_of(miner.post(miner.validator.sign(street, Door()).but(**change)), 401)


def test_a_dendrites_nonce_can_not_be_renewed(miner: Daemon, street: bytes) -> None:
    request = miner.validator.sign(street, Door())
    message_of(miner.post(request.but(bt_header_dendrite_nonce=str(time.time_ns()))), 401)


@pytest.mark.parametrize("name", ["signature", "nonce", "hotkey", "receiver"])
@pytest.mark.parametrize("path", ["/predict", "/ImageSynapse"])
def test_a_btauth_header_must_not_be_missing(miner: Daemon, street: bytes, path: str, name: str) -> None:
    request = miner.validator.sign(street, Door("btauth", path)).without(f"x-bittensor-{name}")
    assert name in message_of(miner.post(request), 401).lower()


def test_predict_without_any_signature_is_refused(miner: Daemon, street: bytes) -> None:
    request = miner.validator.sign(street, Door())
    message_of(miner.post(Signed("/predict", {}, request.body)), 401)


@pytest.mark.parametrize(
    "change",
    [
        {"x_bittensor_signature": OTHER_SIGNATURE},
        {"x_bittensor_signature": "0x12"},
        {"x_bittensor_signature": "not hex"},
        {"x_bittensor_version": "2"},
        {"x_bittensor_crypto": "rot13"},
        {"x_bittensor_crypto": "ed25519"},
    ],
    ids=["signature", "short signature", "no signature", "version", "unknown crypto", "other crypto"],
)
def test_a_changed_btauth_header_is_refused(miner: Daemon, street: bytes, change: dict[str, str]) -> None:
    message_of(miner.post(miner.validator.sign(street, Door("btauth", "/predict")).but(**change)), 401)


@pytest.mark.parametrize("path", ["/predict", "/ImageSynapse"])
def test_btauth_signs_the_body(miner: Daemon, street: bytes, path: str) -> None:
    request = miner.validator.sign(street, Door("btauth", path))
    message_of(miner.post(request.with_body(request.body.replace(b"-1.0", b"-1.5"))), 401)


@pytest.mark.parametrize("signed_path", ["/ImageSynapse", "/predict?x=1", "/Predict"])
def test_btauth_signs_the_path(miner: Daemon, street: bytes, signed_path: str) -> None:
    message_of(miner.ask(street, Door("btauth", "/predict"), signed_path=signed_path), 401)


def test_btauth_signs_the_query_as_it_was_sent(miner: Daemon, street: bytes) -> None:
    probability_of(miner.ask(street, Door("btauth", "/predict?x=%41")))


@all_doors
def test_a_request_for_another_miner_is_refused(miner: Daemon, door: Door, street: bytes) -> None:
    keys = miner.keys
    signer = miner.signer(keys.validator, receiver=keys.stranger)
    message_of(miner.post(signer.sign(street, door)), 401)


@all_doors
def test_another_keys_name_is_not_enough(miner: Daemon, door: Door, street: bytes) -> None:
    name = "x_bittensor_hotkey" if door.wire == "btauth" else "bt_header_dendrite_hotkey"
    stolen = miner.signer(miner.keys.stranger).sign(street, door).but(**{name: miner.validator.hotkey})
    message_of(miner.post(stolen), 401)


@all_doors
def test_a_caller_that_is_not_registered_is_forbidden(miner: Daemon, door: Door, street: bytes) -> None:
    answer = miner.post(miner.signer(miner.keys.stranger).sign(street, door))
    assert "not registered" in message_of(answer, 403)


@all_doors
def test_a_caller_without_permit_is_forbidden(miner: Daemon, door: Door, street: bytes) -> None:
    answer = miner.post(miner.signer(miner.keys.peer).sign(street, door))
    assert "validator permit" in message_of(answer, 403)


def test_without_the_rule_a_caller_needs_no_permit(start_daemon: StartDaemon, street: bytes) -> None:
    open_miner = start_daemon(BLACKLIST_FORCE_VALIDATOR_PERMIT="False").ready()
    for door in DOORS:
        probability_of(open_miner.post(open_miner.signer(open_miner.keys.peer).sign(street, door)))
        message_of(open_miner.post(open_miner.signer(open_miner.keys.stranger).sign(street, door)), 403)


@all_doors
def test_where_the_door_is_open_nobody_needs_to_be_registered(strict: Daemon, door: Door) -> None:
    request = strict.signer(strict.keys.stranger).sign(photo(64, 64), door)
    probability_of(strict.post(request))
    assert "answered before" in message_of(strict.post(request), 401)


@pytest.mark.parametrize("role", ["peer", "stranger"])
@all_doors
def test_whoever_may_not_ask_is_told_before_sending_a_body(miner: Daemon, door: Door, role: str) -> None:
    request = miner.signer(getattr(miner.keys, role)).sign(b"", door)
    with miner.raw(request) as raw:
        message_of(raw.send_head(length=10**6).answer(), 403)


def test_after_a_restart_a_captured_request_is_refused(start_daemon: StartDaemon, street: bytes) -> None:
    daemon = start_daemon().ready()
    captured = [daemon.validator.sign(street, door) for door in DOORS]
    for request in captured:
        probability_of(daemon.post(request))
    assert daemon.stop() == 0
    daemon.start().ready()
    for request in captured:
        assert "older than this" in message_of(daemon.post(request), 401)
