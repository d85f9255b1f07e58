"""The check-up of NATIX's own door: what was kept and our uid in, a line out; and what the hub says of our model."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants, file_download

from miner.doctor import natix
from miner.doctor.findings import Level
from miner.natix.hub import MAX_DOCUMENT_BYTES
from miner.natix.publication import NATIX_CARD, natix_card
from miner.natix.registration import Registration, Registrations
from miner.settings.settings import Settings
from tests.hub import Hub, Refusal, serving
from tests.process.daemon import free_port
from tests.unit.miner.doctor.test_chain import NOBODY, SUBNET, WHO
from tests.unit.miner.doctor.test_here import expect

KEPT = Registration(progress="succeeded", netuid=72, uid=3, sent=5.0, since=5.0, at=5.0)


@pytest.mark.parametrize(
    ("kept", "level", "part"),
    [
        (KEPT, "ok", "yes, uid 3, since"),
        (KEPT.model_copy(update={"sent": None}), "ok", "before"),
        (KEPT.model_copy(update={"uid": 4}), "problem", "due.*uid 4.*3 now"),
        (KEPT.model_copy(update={"netuid": 323}), "problem", "due"),
        (KEPT.model_copy(update={"progress": "failed", "words": "no card"}), "problem", "refused.*no card"),
        (KEPT.model_copy(update={"progress": "pending"}), "warning", "not decided"),
        (None, "warning", "unknown"),
    ],
)
def test_by_the_last_word(tmp_path: Path, kept: Registration | None, level: Level, part: str) -> None:
    registrations = Registrations(tmp_path)
    if kept is not None:
        registrations.keep("ours", kept)
    finding = natix.judge_natix(SUBNET, WHO, registrations)
    expect(finding, level, part)
    assert ("roadwork-miner register" in finding.todo) == (level != "ok")


def test_what_is_missing_is_said_elsewhere(tmp_path: Path) -> None:
    registrations = Registrations(tmp_path)
    registrations.keep("ours", KEPT)
    expect(natix.judge_natix(None, WHO, registrations), "warning", "uid 3: succeeded")
    expect(natix.judge_natix(SUBNET, NOBODY, registrations), "warning", "hotkey")
    stranger = replace(WHO, hotkey="somebody")
    expect(natix.judge_natix(SUBNET, stranger, registrations), "warning", "not yet")


def published(url: str = "https://huggingface.co/you/roadwork", network: str = "finney") -> Settings:
    return Settings(model_url=url, subtensor_network=network)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that the library, which read the environment long ago, takes for the real one."""
    card = natix_card("roadwork", "Finds roadwork.", "1.2.3", "ours")
    with serving(Hub({NATIX_CARD: card.model_dump_json().encode()}, repository="you/roadwork")) as hub:
        point_to(hub.url, monkeypatch)
        yield hub


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (constants, file_download):
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_a_published_model_with_a_card_of_ours(hub: Hub) -> None:
    finding = natix.judge_published(natix.read_published(published()), "ours")
    expect(finding, "ok", "you/roadwork, version 1.2.3")
    assert hub.asked == [f"GET /you/roadwork/resolve/main/{NATIX_CARD}"]


def write(text: bytes) -> Callable[[Hub], None]:
    def change(hub: Hub) -> None:
        hub.files = {NATIX_CARD: text}

    return change


def refuse(status: int, code: str) -> Callable[[Hub], None]:
    def change(hub: Hub) -> None:
        hub.refusal = Refusal(status, code, "no")

    return change


@pytest.mark.parametrize(
    ("plant", "level", "part"),
    [
        (refuse(401, "RepoNotFound"), "problem", "private"),
        (refuse(404, "RepoNotFound"), "problem", "private"),
        (refuse(403, "GatedRepo"), "problem", "gated"),
        (refuse(503, ""), "warning", "not checked.*503"),
        (lambda hub: hub.__setattr__("files", {"config.json": b"{}"}), "problem", f"no {NATIX_CARD}"),
        (write(b"<html>"), "problem", "JSON"),
        (write(b"{}"), "problem", "submitted_by"),
        (write(b" " * (MAX_DOCUMENT_BYTES + 1)), "problem", "JSON"),
        (write(natix_card("a", "b", "1.0.0", "theirs").model_dump_json().encode()), "problem", "theirs.*ours"),
    ],
)
def test_what_is_published_wrongly_is_named(hub: Hub, plant: Callable[[Hub], None], level: Level, part: str) -> None:
    plant(hub)
    finding = natix.judge_published(natix.read_published(published()), "ours")
    expect(finding, level, part)
    if level == "problem":
        assert "roadwork-miner publish" in finding.todo


def test_no_model_or_a_page_elsewhere_asks_nobody(hub: Hub) -> None:
    expect(natix.judge_published(natix.read_published(published("")), "ours"), "problem", "MODEL_URL is empty")
    expect(natix.judge_published(natix.read_published(published("", "local")), "ours"), "warning", "MODEL_URL is empty")
    elsewhere = natix.read_published(published("https://example.org/mine"))
    expect(natix.judge_published(elsewhere, "ours"), "warning", "not checked.*example.org")
    assert hub.asked == []


def test_a_hub_that_may_not_be_asked_or_is_away_is_not_checked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    point_to(f"http://127.0.0.1:{free_port()}", monkeypatch)
    expect(natix.judge_published(natix.read_published(published()), "ours"), "warning", "not checked.*reached")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    expect(natix.judge_published(natix.read_published(published()), "ours"), "warning", "not checked.*HF_HUB_OFFLINE")
    late = natix.no_facts(published(), "no answer within 10 s")
    expect(natix.judge_published(late, "ours"), "warning", "not checked.*10 s")
    assert hub.asked == []
