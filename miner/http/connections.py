"""The connection limits, in all and for each address, and who is closed first when there is no room."""

import logging
import resource
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, Self

from starlette.types import Scope

from miner.errors import DropReason
from miner.settings.settings import Settings

log = logging.getLogger(__name__)

VOUCH_EXTENSION = "roadwork_miner.vouch"  # an extension of the ASGI scope

OTHER_FILES = 128  # that may be open besides connections: those one too many, models, the chain, the operator's port


@dataclass(frozen=True, slots=True)
class Guard:
    """How many connections a port holds, and how slow they may be (s)."""

    connections: int = 512
    for_each_address: int = 128
    header_seconds: float = 10.0  # from a connection, or a request's first byte, to the end of its headers
    write_seconds: float = 10.0  # for a caller to take an answer
    outside: int = 64  # one too many, and still told so

    @classmethod
    def of(cls, settings: Settings, open_files: int | None = None) -> Self:
        """Return what the operator has set, but no more than files may be open, or none would get in.

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
        if allowed < wanted:
            log.warning(
                "MAX_CONNECTIONS=%d: held at %d, as only %d files may be open (ulimit -n)", wanted, allowed, limit
            )
        patience = settings.header_seconds
        outside = cls().outside if others == OTHER_FILES else limit // 8
        return cls(allowed, settings.max_connections_per_address, patience, patience, outside)


class Connection(Protocol):
    """What has to be known of a connection."""

    address: str
    is_proven: bool  # whether a request on it came from a caller who may ask

    @property
    def is_idle(self) -> bool:
        """Whether it is between two requests."""
        ...

    def drop(self, reason: DropReason) -> None:
        """End it at once."""
        ...

    def look(self, now: float) -> None:
        """End it if its caller does not take its answer; on the loop's clock."""
        ...


class Connections:
    """The connections of one port, the oldest first.

    A newcomer always finds room while there is somebody who has proven nothing: otherwise unproven callers who hold all
    connections would keep the validators out.
    """

    def __init__(self, guard: Guard, dropped: Callable[[DropReason], None] = lambda reason: None) -> None:
        self.guard = guard
        self.dropped = dropped  # told of each connection that was ended or not let in
        self._all: dict[Connection, None] = {}  # as an ordered set
        self._by_address: dict[str, dict[Connection, None]] = {}
        self._outside: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._all)

    def join(self, connection: Connection) -> bool:
        """Let a connection in, in another's place if need be; return False if there is no room."""
        neighbours = self._by_address.get(connection.address, {})
        for crowd, limit in ((neighbours, self.guard.for_each_address), (self._all, self.guard.connections)):
            if len(crowd) >= limit:
                goes = who_goes(crowd)
                if goes is None:
                    return False
                self.leave(goes)
                goes.drop("crowded")
        self._all[connection] = None
        self._by_address.setdefault(connection.address, {})[connection] = None
        return True

    def may_linger(self, connection: Connection) -> bool:
        """Return whether one that found no room may stay for the moment in which it reads that; they are few."""
        if len(self._outside) >= self.guard.outside:
            return False
        self._outside.add(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """Forget a connection; without effect for one that is gone."""
        self._outside.discard(connection)
        if connection in self._all:
            del self._all[connection]
            neighbours = self._by_address[connection.address]
            del neighbours[connection]
            if not neighbours:
                del self._by_address[connection.address]

    def look(self, now: float) -> None:
        """Look at each of them."""
        for connection in list(self._all):
            connection.look(now)


def who_goes(crowd: Iterable[Connection]) -> Connection | None:
    """Return who makes room: the oldest that has proven nothing, else the oldest that is idle, else nobody.

    Whoever may ask proves it with the first bytes after connecting, so the oldest unproven connection is the least
    likely to.
    """
    idle = None
    for connection in crowd:
        if not connection.is_proven:
            return connection
        if idle is None and connection.is_idle:
            idle = connection
    return idle


def vouch(scope: Scope) -> None:
    """Say that the request came from a caller who may ask; without effect on a server that does not listen to it."""
    extension = scope.get("extensions", {}).get(VOUCH_EXTENSION)
    if extension is not None:
        extension["prove"]()
