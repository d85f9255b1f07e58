"""One endpoint on the wire: Triton's own client for the Open Inference Protocol, with its many errors made three.

The client is the asyncio one: the blocking one may be used by a single thread only and has time limits of its own
instead of a request's, while a coroutine is simply cancelled when the time is up.
"""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import aiohttp
import numpy as np
from numpy.typing import NDArray
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.http.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from detectors.addresses import shown_within
from detectors.remote.signature import TYPE, Signature

BUSY_STATUSES = ("429", "503")
CONNECTIONS = 256  # more than there are slots

Kind = Literal["gone", "odd", "busy", "late"]


class Fault(Exception):
    """No scores from this endpoint: nobody is there, something went wrong, its queue is full, or none came in time."""

    def __init__(self, kind: Kind, message: str, status: str = "") -> None:
        super().__init__(shown_within(message))  # aiohttp and servers may name the whole address
        self.kind: Kind = kind
        self.status = status  # of the HTTP answer, where there was one that says so


class Channel:
    """Connections to one endpoint; lives on one event loop."""

    def __init__(self, address: str, model: str) -> None:
        scheme, _, rest = address.partition("://")
        is_tls = scheme == "https"
        context = ssl.create_default_context() if is_tls else None
        self._client = InferenceServerClient(
            rest.rstrip("/"), conn_limit=CONNECTIONS, conn_timeout=None, ssl=is_tls, ssl_context=context
        )
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
        except (ValueError, TypeError, KeyError, IndexError) as error:
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
        except (aiohttp.ClientError, OSError) as error:
            raise Fault("odd", f"the connection broke: {error or type(error).__name__}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise Fault("odd", f"its answer can't be read: {error}") from error


def _reason(error: OSError) -> str:
    """Return what the system says; asyncio puts the address in front, which the log has already."""
    return os.strerror(error.errno) if error.errno is not None and error.errno > 0 else str(error)


def _fault_of(error: InferenceServerException) -> Fault:
    """Return the fault an error status stands for, with the server's reason if it gave one that fits on a line."""
    status = str(error.status())
    said = str(error.message()).partition("\n")[0][:100]
    if said.startswith("an exception occurred in the client"):  # what was said is no JSON
        said = ""
    return Fault("busy" if status in BUSY_STATUSES else "odd", f"status {status}" + (said and f": {said}"), status)
