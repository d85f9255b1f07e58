"""What the settings say of requests: who may ask, and what one may cost."""

from miner.axon.limits import Limits
from miner.hotkeys import split_hotkeys
from miner.policy import Rules
from miner.settings import Settings


def limits_of(settings: Settings) -> Limits:
    """Return what one request may cost."""
    return Limits(
        settings.max_body_bytes,
        settings.body_stall_seconds,
        settings.deadline_cap_seconds,
        settings.deadline_margin_seconds,
    )


def rules_of(settings: Settings) -> Rules:
    """Return the operator's rules."""
    return Rules(
        require_permit=settings.blacklist_force_validator_permit,
        allow_non_registered=settings.blacklist_allow_non_registered,
        min_stake=settings.blacklist_min_stake,
        allow=split_hotkeys(settings.blacklist_allow_hotkeys),
        deny=split_hotkeys(settings.blacklist_deny_hotkeys),
    )
