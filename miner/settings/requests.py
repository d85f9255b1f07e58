"""What the settings say of requests: who may ask, and what one may cost."""

import logging
import resource

from miner.axon.limits import Limits
from miner.axon.policy import Rules
from miner.http.connections import Guard
from miner.settings.hotkeys import split_hotkeys
from miner.settings.settings import Settings

log = logging.getLogger(__name__)

OTHER_FILES = 128  # that may be open besides connections: those one too many, models, the chain, the operator's port


def limits_of(settings: Settings) -> Limits:
    """Return what one request may cost."""
    return Limits(
        settings.max_body_bytes,
        settings.body_stall_seconds,
        settings.deadline_cap_seconds,
        settings.deadline_margin_seconds,
        settings.max_image_pixels,
    )


def guard_of(settings: Settings, open_files: int | None = None) -> Guard:
    """Return how many connections the validators' port holds: no more than files may be open, or none would get in.

    Where few may be open, half of them are connections: an idle miner itself has about 20 open.

    Args:
        settings: the operator's.
        open_files: how many files this process may have open; None: as the kernel says.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if open_files is None else open_files
    wanted = settings.max_connections
    if limit == resource.RLIM_INFINITY:
        limit = wanted + OTHER_FILES
    others = min(OTHER_FILES, limit // 2)
    allowed = min(wanted, max(1, limit - others))
    outside = Guard().outside if others == OTHER_FILES else limit // 8
    if allowed < wanted:
        log.warning("MAX_CONNECTIONS=%d: held at %d, as only %d files may be open (ulimit -n)", wanted, allowed, limit)
    patience = settings.header_seconds
    return Guard(allowed, settings.max_connections_per_address, patience, patience, outside)


def rules_of(settings: Settings) -> Rules:
    """Return the operator's rules."""
    return Rules(
        require_permit=settings.blacklist_force_validator_permit,
        allow_non_registered=settings.blacklist_allow_non_registered,
        min_stake=settings.blacklist_min_stake,
        allow=split_hotkeys(settings.blacklist_allow_hotkeys),
        deny=split_hotkeys(settings.blacklist_deny_hotkeys),
    )
