"""The channel to one endpoint: Triton's client for the Open Inference Protocol, with its many errors made three.

The client is the asyncio one: the blocking one may be used by a single thread only and has time limits of its own
instead of a request's, while a coroutine is simply cancelled when the time is up. It would read whatever is sent, so
that is bounded here, where it comes off the connection: an endpoint that is broken or hostile costs kilobytes.
"""

import asyncio
import json
import os
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, Self

import aiohttp
import numpy as np
from numpy.typing import NDArray
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.http.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from detectors.errors import ModelError
from detectors.redact import shown_within
from detectors.remote.endpoints import legible

TYPE = "FP32"
OPEN_DIMENSION = -1  # a dimension that the graph leaves open

BUSY_STATUSES = ("429", "503")
CONNECTIONS = 256  # more than there are slots
SCORE = 32  # bytes of a score in JSON, at most
ENVELOPE = 16 * 1024  # bytes around the scores: names, shape, parameters
METADATA = 64 * 1024  # bytes of what a server says of a model, besides the labels
ERROR_BYTES = 8 * 1024  # bytes that are read of an error's text
UNCOMPRESSED = {"accept-encoding": "identity"}
# What Triton's client, numpy and the JSON parser raise for an answer that is not what the protocol says.
MALFORMED = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, struct.error)
Kind = Literal["gone", "odd", "busy", "late"]


@dataclass(frozen=True, slots=True)
class Signature:
    """The names of the engine's tensors: the picture goes in, one score for each label comes out."""

    input: str
    output: str


def read_signature(metadata: Any, shape: Sequence[int], labels: Sequence[str]) -> Signature:
    """Check the answer to `/v2/models/{model}` and return the tensors' names.

    The protocol has no word for labels: their number is compared, and the labels themselves where the engine tells
    them (`parameters.labels` of the output).

    Raises:
        ModelError: another input, output, type or shape than the manifest's.
    """
    if not isinstance(metadata, Mapping):
        raise ModelError("the engine's metadata is no JSON object")
    picture = _only(metadata, "inputs", tuple(shape))
    scores = _only(metadata, "outputs", (1, len(labels)))
    parameters = scores.get("parameters")
    told = parameters.get("labels") if isinstance(parameters, Mapping) else None
    if told is not None and told != list(labels):
        raise ModelError(f"the engine's labels are {told!r}, not {list(labels)!r}")
    return Signature(str(picture["name"]), str(scores["name"]))


def _only(metadata: Mapping[str, Any], kind: str, shape: tuple[int, ...]) -> Mapping[str, Any]:
    """Return the one tensor there is (of several outputs: the first, as every backend here takes it)."""
    found = metadata.get(kind)
    if not isinstance(found, list) or not found or not all(isinstance(one, Mapping) and "name" in one for one in found):
        raise ModelError(f"the engine tells nothing of the model's {kind}")
    if kind == "inputs" and len(found) != 1:
        raise ModelError(f"the engine's model has {len(found)} inputs, not one")
    tensor: Mapping[str, Any] = found[0]
    if tensor.get("datatype") != TYPE:
        raise ModelError(f"the engine's {tensor['name']!r} is {tensor.get('datatype')}, not {TYPE}")
    told = tensor.get("shape")
    if not isinstance(told, list) or not _fits(told, shape):
        raise ModelError(f"the engine's {tensor['name']!r} has the shape {told}, not {list(shape)}")
    return tensor


def _fits(told: Sequence[Any], shape: Sequence[int]) -> bool:
    return len(told) == len(shape) and all(
        has in (OPEN_DIMENSION, wanted) for has, wanted in zip(told, shape, strict=True)
    )


class Fault(Exception):
    """No scores from this endpoint: nobody is there, something went wrong, its queue is full, or none came in time."""

    def __init__(self, kind: Kind, message: str, status: str = "") -> None:
        super().__init__(legible(shown_within(message)))  # aiohttp and servers may name the whole address
        self.kind: Kind = kind
        self.status = status  # of the HTTP answer, where there was one that says so


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """The most bytes that an answer may have: with scores, and with what there is to know of a model or a server."""

    scores: int
    metadata: int

    @classmethod
    def of(cls, labels: Sequence[str]) -> Self:
        """Return what a model with these labels needs."""
        return cls(ENVELOPE + SCORE * len(labels), METADATA + len(json.dumps(list(labels))))


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer that was read: as much of aiohttp's as Triton's client looks at."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    async def read(self) -> bytes:
        """Return the body."""
        return self.body


class BoundedClient(InferenceServerClient):  # type: ignore[misc]
    """Triton's client, reading no more of an answer than its limit, and nothing that is compressed.

    A compressed answer is small only until it is unpacked, and Triton's client unpacks all of it.
    """

    def __init__(self, url: str, limits: ReadLimits, context: ssl.SSLContext | None) -> None:
        super().__init__(url, conn_limit=CONNECTIONS, conn_timeout=None, ssl=context is not None, ssl_context=context)
        self._limits = limits

    async def _get(self, request_uri: str, headers: Mapping[str, Any] | None, query_params: Any) -> HttpAnswer:
        answer = await super()._get(request_uri, UNCOMPRESSED | dict(headers or {}), query_params)
        return await self._receive(answer, self._limits.metadata)

    async def _post(self, request_uri: str, request_body: Any, headers: Any, query_params: Any) -> HttpAnswer:
        answer = await super()._post(request_uri, request_body, UNCOMPRESSED | dict(headers or {}), query_params)
        return await self._receive(answer, self._limits.scores)

    async def _receive(self, answer: aiohttp.ClientResponse, limit: int) -> HttpAnswer:
        """Read an answer up to the limit; of an error, as much as fits: its status says enough.

        Raises:
            Fault: it is longer, or compressed.
        """
        self._stub.cookie_jar.clear()  # nobody would ever look at what a server has kept here
        is_error = answer.status != HTTPStatus.OK
        limit = ERROR_BYTES if is_error else limit
        body = bytearray()
        try:
            coding = answer.headers.get("content-encoding", "identity")
            if coding != "identity" and not is_error:
                raise Fault("odd", f"its answer is compressed ({coding}), which it was not asked for")
            while len(body) <= limit and (piece := await answer.content.read(limit + 1 - len(body))):
                body += piece
        finally:
            answer.close()  # the connection too, unless all of the answer was read
        if len(body) > limit and not is_error:
            raise Fault("odd", f"its answer has more than the {limit:,} bytes that it needs")
        return HttpAnswer(answer.status, answer.headers, bytes(body[:limit]))


class Channel:
    """Connections to one endpoint; lives on one event loop."""

    def __init__(self, address: str, model: str, labels: Sequence[str]) -> None:
        scheme, _, rest = address.partition("://")
        context = ssl.create_default_context() if scheme == "https" else None
        self._client = BoundedClient(rest.rstrip("/"), ReadLimits.of(labels), context)
        self._model = model
        self.is_binary = True  # arrays as they lie in memory, an extension of the protocol; else as JSON

    async def scores(self, array: NDArray[np.float32], signature: Signature, seconds: float) -> NDArray[np.float32]:
        """Send a picture's array and return the scores, shape (1, classes).

        Raises:
            Fault: there are none.
        """
        picture = InferInput(signature.input, list(array.shape), TYPE)
        picture.set_data_from_numpy(np.ascontiguousarray(array, dtype=np.float32), binary_data=self.is_binary)
        wanted = [InferRequestedOutput(signature.output, binary_data=self.is_binary)]
        headers = {} if self.is_binary else {"content-type": "application/json"}  # MLServer insists
        result = await self._within(
            seconds, lambda: self._client.infer(self._model, [picture], outputs=wanted, headers=dict(headers))
        )
        try:
            scores = result.as_numpy(signature.output)
            return np.array(scores, dtype=np.float32)
        except MALFORMED as error:
            raise Fault("odd", f"its answer can't be read: {error}") from error

    async def check_ready(self, seconds: float) -> None:
        """Ask whether the server and the model are ready.

        Raises:
            Fault: they are not.
        """
        if not await self._within(seconds, self._client.is_server_ready):
            raise Fault("odd", "the server is not ready")
        if not await self._within(seconds, lambda: self._client.is_model_ready(self._model)):
            raise Fault("odd", f"the model {self._model!r} is not ready there")

    async def metadata(self, seconds: float) -> Any:
        """Return what the server says of the model.

        Raises:
            Fault: it says nothing.
        """
        return await self._within(seconds, lambda: self._client.get_model_metadata(self._model))

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.close()

    async def _within(self, seconds: float, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask, and once more if the connection broke: the server may have closed one that lay idle just then."""
        try:
            async with asyncio.timeout(seconds):
                try:
                    return await ask()
                except aiohttp.ClientConnectorError:
                    raise
                except aiohttp.ClientConnectionError:
                    return await ask()
        except TimeoutError as error:
            raise Fault("late", f"no answer within {seconds:.1f} s") from error
        except aiohttp.ClientConnectorError as error:
            raise Fault("gone", f"no connection: {_reason(error.os_error)}") from error
        except InferenceServerException as error:
            raise _fault_of(error) from error
        except aiohttp.ClientResponseError as error:  # no HTTP, or a head that is too long
            raise Fault("odd", f"its answer can't be read: {error.message}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Fault("odd", f"the connection broke: {error or type(error).__name__}") from error
        except MALFORMED as error:
            raise Fault("odd", f"its answer can't be read: {error}") from error


def _reason(error: OSError) -> str:
    """Return what the system says; asyncio puts the address in front, which the log has already."""
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)


def _fault_of(error: InferenceServerException) -> Fault:
    """Return the fault an error status stands for, with the server's reason if it gave one that fits on a line."""
    if error.status() is None:  # of the client itself
        return Fault("odd", f"its answer can't be read: {error.message()}")
    status = str(error.status())
    said = str(error.message()).partition("\n")[0][:100]
    if said.startswith("an exception occurred in the client"):  # what was said is no JSON
        said = ""
    return Fault("busy" if status in BUSY_STATUSES else "odd", f"status {status}" + (said and f": {said}"), status)
