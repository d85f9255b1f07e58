"""The check-up of NATIX's own door: is the hotkey registered there, by the last word of its server?

Nothing is sent: `register` asks, and keeps what it was told.
"""

from miner.chain.earnings import Metagraph
from miner.doctor.chain import ChainIdentity, own_uid
from miner.doctor.findings import Finding, ok, problem, warning
from miner.natix.registration import COMMANDS, Registrations, in_words


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
