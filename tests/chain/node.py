"""A chain node for tests: the JSON-RPC over WebSocket that the unmodified SDK speaks.

It runs in threads of its own, so a test may stop, hang or restart it while the miner's loop goes on.
"""

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from tests.chain.ledger import Ledger

Fault = Literal["", "hang", "garbage", "noise", "policy"]


@dataclass
class Node(Ledger):
    """One node with one subnet."""

    fault: Fault = ""
    mute_after: str = ""  # a method that is carried out and not answered, and nothing after it
    silent: str = ""  # a method that is carried out and not answered
    requests: Counter[str] = field(default_factory=Counter)
    port: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        network = self.metadata["network"]
        self.version = {
            "specName": "node-subtensor",
            "specVersion": network["spec_version"],
            "transactionVersion": network["transaction_version"],
        }
        self._connections: set[ServerConnection] = set()
        self._server: Server | None = None
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def listens(self) -> bool:
        return self._server is not None

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = serve(
            self._talk,
            "127.0.0.1",
            self.port,
            process_request=self._greet,
            compression=None,
            max_size=None,
            ping_interval=None,
        )
        self.port = self._server.socket.getsockname()[1]
        thread = threading.Thread(target=self._server.serve_forever, name="node")
        self._threads = [thread]
        thread.start()

    def stop(self) -> None:
        """Go away as a killed process does: every connection is cut."""
        assert self._server is not None
        server, self._server = self._server, None
        server.shutdown()
        with self.lock:
            connections = list(self._connections)
        for connection in connections:
            connection.close_socket()
        for thread in list(self._threads):
            thread.join()

    def _greet(self, connection: ServerConnection, _: Request) -> Response | None:
        if self.fault != "policy":
            return None
        response = connection.respond(429, "too many requests")
        response.headers["Retry-After"] = "300"
        return response

    # -- one connection ------------------------------------------------------------------------------------

    def _talk(self, connection: ServerConnection) -> None:
        with self.lock:
            if self._server is None:  # stopped while this one was shaking hands
                connection.close_socket()
                return
            self._connections.add(connection)
            self._threads.append(threading.current_thread())
        try:
            for message in connection:
                request = json.loads(message)
                self.requests[request["method"]] += 1
                frames = self._frames(request)
                if request["method"] == self.mute_after:
                    self.fault, frames = "hang", []
                if request["method"] == self.silent:
                    frames = []
                for frame in frames:
                    connection.send(frame)
        except ConnectionClosed:
            pass
        finally:
            with self.lock:
                self._connections.discard(connection)

    def _frames(self, request: dict[str, Any]) -> list[str]:
        if self.fault == "hang":
            return []
        if self.fault == "noise":
            return ["<html>502 Bad Gateway</html>"]
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        if self.fault == "garbage":
            return [json.dumps(reply | {"result": "0xdeadbeef"})]
        method, params = request["method"], request["params"]
        with self.lock:
            if method == "author_submitAndWatchExtrinsic":
                return self._submit(params[0], reply)
            if method == "state_call":
                answer = self._call(params[0], params[1])
                failed = {"error": {"code": 4003, "message": "Client error", "data": f"no {params[0]} here"}}
                return [json.dumps(reply | (failed if answer is None else {"result": answer}))]
            return [json.dumps(reply | {"result": self._answer(method, params)})]

    def _answer(self, method: str, params: list[Any]) -> Any:
        match method:
            case "state_getRuntimeVersion":
                return self.version
            case "chain_getBlockHash":
                return self.hash(params[0] if params else self.block)
            case "chain_getHead" | "chain_getFinalizedHead":
                return self.hash(self.block)
            case "chain_getHeader":
                return self.header(self.number(params[0]) if params and params[0] else self.block)
            case "chain_getBlock":
                extrinsic, _ = self.blocks.get(params[0], (None, b""))
                header = self.header(self.number(params[0]))
                return {"block": {"header": header, "extrinsics": [extrinsic] if extrinsic else []}}
            case "state_getStorageAt":
                return self.read(params[0], params[1] if len(params) > 1 else None)
            case "state_getKeysPaged":
                keys = sorted(key for key in self.values() if key.startswith(params[0]) and key > params[2])
                return keys[: params[1]]
            case "state_queryStorageAt":
                return [{"block": params[1], "changes": [[key, self.read(key, params[1])] for key in params[0]]}]
            case "account_nextIndex":
                return self.nonces[params[0]]
        return None  # an unsubscribe, or what the miner has no need of

    def _call(self, api: str, argument: str) -> str | None:
        if api == "Metadata_metadata_at_version":
            text: str = self.metadata["metadata"]["v15_hex"]
            return text
        if api == "TransactionPaymentApi_query_info":
            return self.encoded(api, {"weight": {"ref_time": 1, "proof_size": 1}, "class": "Normal", "partial_fee": 0})
        if api == "SwapRuntimeApi_current_alpha_price":
            return None if self.price is None else self.encoded(api, int(self.price * 1e9))
        assert api == "NeuronInfoRuntimeApi_get_neurons_lite", api
        netuid = int.from_bytes(bytes.fromhex(argument.removeprefix("0x")), "little")
        members = sorted(self.members.items()) if netuid == self.netuid else []
        return self.encoded(api, [self.neuron(uid, member) for uid, member in members])

    def _submit(self, extrinsic: str, reply: dict[str, Any]) -> list[str]:
        refusal = self.submit(extrinsic)
        if refusal is not None:
            return [json.dumps(reply | {"error": {"code": 1010, "message": "Invalid Transaction", "data": refusal}})]
        watch = {"subscription": "watch", "result": {"inBlock": self.hash(self.block)}}
        notice = {"jsonrpc": "2.0", "method": "author_extrinsicUpdate", "params": watch}
        return [json.dumps(reply | {"result": "watch"}), json.dumps(notice)]
