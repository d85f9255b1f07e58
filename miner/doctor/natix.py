"""The check-up of NATIX's own door: is the hotkey registered there, and the model published as it asks?

NATIX's server is not asked: `register` asks it, and keeps what it was told. The hub is, without a token, as NATIX does.
"""

from dataclasses import dataclass, replace

from detectors.redact import shown_within
from miner.chain.earnings import Metagraph
from miner.doctor.chain import ChainIdentity, own_uid
from miner.doctor.findings import Finding, ok, problem, warning
from miner.formats import one_line
from miner.natix.hub import HubAnswer, HubAway, ask_for
from miner.natix.publication import NATIX_CARD, read_card
from miner.natix.registration import COMMANDS, Registrations, in_words
from miner.natix.repository import repository_in
from miner.settings.addresses import PUBLIC_NETWORKS
from miner.settings.settings import Settings

HUB_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class PublishedFacts:
    """The published model: what MODEL_URL says, and what the hub answers whoever asks for its card."""

    model_url: str
    needed: bool  # NATIX is there, and asks for it
    repository: str = ""  # "": MODEL_URL names none
    answer: HubAnswer | None = None
    unchecked: str = ""  # why there is no answer


def no_facts(settings: Settings, unchecked: str = "") -> PublishedFacts:
    """Return what is known without asking."""
    needed = settings.subtensor_network in PUBLIC_NETWORKS
    repository = repository_in(settings.model_url) or ""
    return PublishedFacts(settings.model_url, needed, repository, unchecked=unchecked)


def read_published(settings: Settings, seconds: float = HUB_SECONDS) -> PublishedFacts:
    """Ask the hub for the card; nobody is asked where MODEL_URL names no repository, or no network is allowed."""
    from huggingface_hub import constants

    facts = no_facts(settings)
    if not facts.repository:
        return facts
    if constants.HF_HUB_OFFLINE:
        return replace(facts, unchecked="HF_HUB_OFFLINE allows no network")
    try:
        answer = ask_for(facts.repository, NATIX_CARD, seconds)
    except HubAway as fault:
        return replace(facts, unchecked=str(fault))
    return replace(facts, answer=answer)


def judge_published(facts: PublishedFacts, hotkey: str) -> Finding:
    """Judge whether others find the model, with a card of our hotkey."""
    name, publish = "published", "roadwork-miner publish RUN_OR_FOLDER --repo you/name"
    if not facts.model_url:
        words, todo = "MODEL_URL is empty: NATIX wants a published model", f"{publish}, then set MODEL_URL"
        return problem(name, words, todo) if facts.needed else warning(name, words, todo)
    if not facts.repository:
        return warning(
            name,
            f"not checked: MODEL_URL={shown_within(facts.model_url)} is no repository of the hub",
            f"NATIX wants one: {publish}",
        )
    where = f"MODEL_URL: {facts.repository}"
    if facts.answer is None:
        return warning(name, f"not checked: {facts.unchecked}")
    status = facts.answer.status
    if facts.answer.lacks_all or status in (401, 403):
        return problem(name, f"{where} is not there, private or gated: NATIX can't read it", f"open it, or {publish}")
    if status == 404:
        return problem(name, f"{where} has no {NATIX_CARD}", publish)
    if status != 200:
        return warning(name, f"not checked: the hub answered with HTTP {status}")
    try:
        card = read_card(facts.answer.content)
    except ValueError as error:
        return problem(name, f"{where}: {NATIX_CARD} is not as NATIX wants it: {one_line(str(error))}", publish)
    if hotkey and card.submitted_by != hotkey:
        return problem(
            name, f"{where}: {NATIX_CARD} is of the hotkey {one_line(card.submitted_by)}, ours is {hotkey}", publish
        )
    return ok(name, f"{facts.repository}, version {card.version}")


def judge_natix(subnet: Metagraph | None, who: ChainIdentity, registrations: Registrations) -> Finding:
    """Judge the registration; whom the server does not know may never be asked."""
    name = "natix"
    if not who.hotkey:
        return warning(name, "not known without a hotkey")
    kept = registrations.of(who.hotkey)
    if subnet is None:
        before = f"; its last word was about uid {kept.uid}: {kept.progress}" if kept is not None else ""
        return warning(name, f"not known: the chain, which has our uid, was not read{before}")
    uid = own_uid(subnet, who.hotkey)
    standing = registrations.standing(who.hotkey, who.netuid, uid)
    words, todo = f"registered with NATIX: {in_words(standing, kept, uid)}", COMMANDS[standing]
    if uid is None:
        return warning(name, words)
    if standing == "yes":
        return ok(name, words)
    return problem(name, words, todo) if standing in ("no", "due") else warning(name, words, todo)
