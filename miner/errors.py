"""The errors that this program raises on purpose.

    MinerError
    ├── StartError                 ends the process, as one line on stderr
    │   ├── ConfigurationError     exit 2: the operator's settings are wrong; systemd does not restart
    │   ├── CouldNotStart          exit 3: the settings are right, the world is not
    │   └── Stuck                  exit 4: it ran, and can be of no more use before a restart
    ├── ChainFault, AddressUnknown  the chain or the network is away for now (`miner.chain`); tried again, never fatal
    ├── ShadowFault                the second model can't be asked (`miner.shadow`); the first one is not concerned
    └── RequestError               ends one request, as one JSON body; `axon.app` alone sends it
        ├── BadRequest             400
        ├── Unauthorised           401; `axon.caller.StaleNonce` is one
        ├── Forbidden              403
        ├── BodyStalled            408
        ├── BodyTooLarge           413
        ├── UnreadableImage        422
        ├── InferenceFailed        500
        ├── InferenceCrashed       500
        ├── Expired                503
        └── Refused                503, with a reason from a closed list

The detectors have a tree of their own (`detectors.errors`); `miner.inference.service` translates it.
"""

from typing import ClassVar, Literal

RefusalReason = Literal[
    "queue_full", "share", "deadline", "evicted", "late", "not_ready", "draining", "no_endpoint", "memory"
]

MESSAGES: dict[RefusalReason, str] = {
    "queue_full": "the queue is full",
    "share": "your requests hold their share of the queue",
    "deadline": "no answer in time is possible",
    "evicted": "the place went to a caller of a better rank: of more stake, refused last, or with fewer requests here",
    "late": "the deadline can no longer be met",
    "not_ready": "the miner is not ready",
    "draining": "the miner is shutting down",
    "memory": "memory is short at the moment",
    "no_endpoint": "no machine that could score the picture is within reach",
}
DropReason = Literal["crowded", "slow", "malformed"]


class MinerError(Exception):
    """The root of the tree."""


class StartError(MinerError):
    """The process can't go on; `exit_code` tells a supervisor whether to try again."""

    exit_code: ClassVar[int]


class ConfigurationError(StartError):
    """One readable line for each fault: the key, its value, what is allowed."""

    exit_code = 2


class CouldNotStart(StartError):
    """The settings are valid, but a port, a file, a model or the chain is not there."""

    exit_code = 3


class Stuck(StartError):
    """Every slot hangs, or the model fails for minutes: whoever supervises the process is to start it again."""

    exit_code = 4


class RequestError(MinerError):
    """One request ends here; the message goes to the caller, so it holds no path, key or signature."""

    status: ClassVar[int]
    outcome: ClassVar[str]


class BadRequest(RequestError):
    """The request is not what the protocol says."""

    status = 400
    outcome = "bad_request"


class Unauthorised(RequestError):
    """The caller did not prove who it is, or proves it a second time with the same request."""

    status = 401
    outcome = "unauthorised"


class Forbidden(RequestError):
    """The caller is known and may not ask."""

    status = 403
    outcome = "forbidden"


class BodyStalled(RequestError):
    """The body stopped coming, or came too slowly to be answered in time."""

    status = 408
    outcome = "stalled"


class BodyTooLarge(RequestError):
    """The body is, or grows, over the limit."""

    status = 413
    outcome = "bad_request"


class UnreadableImage(RequestError):
    """What was sent is not a picture that may be opened."""

    status = 422
    outcome = "bad_image"


class InferenceFailed(RequestError):
    """The model failed, or answered with something that is not a probability."""

    status = 500
    outcome = "failed"


class InferenceCrashed(RequestError):
    """The model raised something, rather than answer."""

    status = 500
    outcome = "failed"


class Expired(RequestError):
    """The picture was worked on when its caller's time ended."""

    status = 503
    outcome = "expired"


class Refused(RequestError):
    """No answer in time is possible, so none is attempted."""

    status = 503
    outcome = "refused"

    def __init__(self, reason: RefusalReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def refused(reason: RefusalReason) -> Refused:
    """Make the refusal for a reason."""
    return Refused(reason, MESSAGES[reason])
