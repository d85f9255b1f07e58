"""What a test chain knows, in a real runtime's encoding, and the rules it keeps when an axon is published."""

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from bittensor._transport.codec import RuntimeCodec, strip_option_opaque_metadata
from bittensor.keyfiles import Keypair

PAYMENT_ERROR = "Inability to pay some fees (e.g. account balance too low)"
# `InvalidTransaction::Custom(u8)` of the runtime's transaction extension: it refuses in the pool, before a block.
NOT_REGISTERED, BAD_ADDRESS, TOO_SOON, BAD_PORT = 10, 11, 12, 13
RECORDS = {"serve_axon": "Axons", "serve_prometheus": "Prometheus"}  # a call, and where it writes


@dataclass
class Member:
    """One neuron of the subnet, as the runtime reports it."""

    hotkey: str
    coldkey: str
    stake: float = 0.0  # in alpha
    permit: bool = False
    last_update: int = 0
    incentive: int = 0  # of 65535
    emission: int = 0  # rao of alpha in the last tempo
    trust: int = 0


@dataclass
class Ledger:
    """One subnet; tests change its attributes while it is asked."""

    metadata: dict[str, Any]  # the SDK's golden.json
    netuid: int = 323
    block: int = 1000
    members: dict[int, Member] = field(default_factory=dict)  # by uid
    rate_limit: int = 50  # blocks between two calls of one kind
    allow_loopback: bool = False
    poor: bool = False  # nobody can pay a fee
    price: float | None = 0.05  # TAO for one alpha; None: a runtime that can't tell

    def __post_init__(self) -> None:
        network = self.metadata["network"]
        wrapped = bytes.fromhex(self.metadata["metadata"]["v15_hex"].removeprefix("0x"))
        inner = strip_option_opaque_metadata(wrapped)
        assert inner is not None
        versions = {key: network[key] for key in ("spec_version", "transaction_version")}
        self.codec = RuntimeCodec(inner, **versions)
        self.genesis: str = network["genesis_hash"]
        self.axons: dict[str, dict[str, int]] = {}  # by hotkey
        self.prometheus: dict[str, dict[str, int]] = {}  # by hotkey
        self.lock = threading.RLock()
        self.nonces: Counter[str] = Counter()
        self.blocks: dict[str, tuple[str, bytes]] = {}  # hash -> its one extrinsic, its events
        self._storage: dict[str, str] = {}
        self.store("NetworksAdded", [self.netuid], True)

    # -- what tests plant --------------------------------------------------------------------------------

    def register(self, uid: int, hotkey: str, coldkey: str | None = None, **rest: Any) -> None:
        """Give a uid to a hotkey; who had the uid is no longer registered."""
        with self.lock:
            self.deregister(uid)
            self.members[uid] = Member(hotkey, coldkey or hotkey, **rest)
            self.store("Uids", [self.netuid, hotkey], uid)

    def deregister(self, uid: int) -> None:
        """Take a uid back, its axon with it, as the chain does when it prunes."""
        with self.lock:
            member = self.members.pop(uid, None)
            if member is not None:
                self.axons.pop(member.hotkey, None)
                self.prometheus.pop(member.hotkey, None)
                self.store("Uids", [self.netuid, member.hotkey], None)

    def store(self, item: str, params: list[Any], value: Any, pallet: str = "SubtensorModule") -> None:
        """Put a value into the chain's storage; None takes it away."""
        entry = self.codec.storage_entry(pallet, item)
        key = self.key(pallet, item, params)
        with self.lock:
            self._storage.pop(key, None)
            if value is not None:
                self._storage[key] = "0x" + self.codec.encode(entry.value_type, value).hex()

    def name(self, name: str | None) -> None:
        """Give the subnet an identity; None takes it away."""
        fields = ("github_repo", "subnet_contact", "subnet_url", "discord", "description", "logo_url", "additional")
        identity = None if name is None else dict.fromkeys(fields, "") | {"subnet_name": name}
        self.store("SubnetIdentitiesV3", [self.netuid], identity)

    # -- what the node asks ----------------------------------------------------------------------------------

    def neuron(self, uid: int, member: Member) -> dict[str, Any]:
        nothing = dict.fromkeys(("block", "version", "ip", "port", "ip_type", "protocol"), 0)
        axon = self.axons.get(member.hotkey, nothing | {"placeholder1": 0, "placeholder2": 0})
        zeros = ("rank", "consensus", "validator_trust", "dividends", "pruning_score")
        return dict.fromkeys(zeros, 0) | {
            "hotkey": member.hotkey,
            "coldkey": member.coldkey,
            "uid": uid,
            "netuid": self.netuid,
            "active": True,
            "axon_info": axon,
            "prometheus_info": nothing,
            "stake": [[member.coldkey, int(member.stake * 1e9)]],
            "incentive": member.incentive,
            "emission": member.emission,
            "trust": member.trust,
            "last_update": member.last_update,
            "validator_permit": member.permit,
        }

    def values(self) -> dict[str, str]:
        """The whole storage, encoded, by key."""
        found = dict(self._storage)
        for item, records in (("Axons", self.axons), ("Prometheus", self.prometheus)):
            kind = self.codec.storage_entry("SubtensorModule", item).value_type
            for hotkey, record in records.items():
                key = self.key("SubtensorModule", item, [self.netuid, hotkey])
                found[key] = "0x" + self.codec.encode(kind, record).hex()
        return found

    def read(self, key: str, block_hash: str | None) -> str | None:
        if key == self.key("System", "Events", []):
            return "0x" + self.blocks.get(block_hash or "", ("", b"\0"))[1].hex()
        return self.values().get(key)

    def key(self, pallet: str, item: str, params: list[Any]) -> str:
        return "0x" + self.codec.storage_key(self.codec.storage_entry(pallet, item), params).hex()

    def encoded(self, api: str, value: Any) -> str:
        name, method = api.split("_", 1)
        return "0x" + self.codec.encode(self.codec.runtime_api_map[name][method]["output"], value).hex()

    def hash(self, number: int) -> str:
        return self.genesis if number == 0 else f"0x{number:08x}" + hashlib.sha256(b"%d" % number).hexdigest()[:56]

    def number(self, block_hash: str) -> int:
        return 0 if block_hash == self.genesis else int(block_hash[2:10], 16)

    def header(self, number: int) -> dict[str, Any]:
        return {"parentHash": self.hash(max(number - 1, 0)), "number": hex(number), "digest": {"logs": []}}

    # -- extrinsics ----------------------------------------------------------------------------------------------

    def submit(self, extrinsic: str) -> str | None:
        """Put an extrinsic into the next block; return the pool's refusal, if it comes to that."""
        decoded = self.codec.decode_extrinsic(extrinsic)
        refusal = self._refusal(decoded)
        if refusal is not None:
            return refusal
        self.block += 1
        self.nonces[decoded["address"]] += 1
        arguments = _arguments(decoded)
        arguments.pop("netuid")
        self._records(decoded)[decoded["address"]] = arguments | {"block": self.block}
        information = {"weight": {"ref_time": 1, "proof_size": 1}, "class": "Normal", "pays_fee": "No"}
        event = {"System": {"ExtrinsicSuccess": {"dispatch_info": information}}}
        events = [{"phase": {"ApplyExtrinsic": 0}, "event": event, "topics": []}]
        encoded = self.codec.encode(self.codec.storage_entry("System", "Events").value_type, events)
        self.blocks[self.hash(self.block)] = (extrinsic, encoded)
        return None

    def _records(self, decoded: dict[str, Any]) -> dict[str, dict[str, int]]:
        return self.axons if RECORDS[decoded["call"]["call_function"]] == "Axons" else self.prometheus

    def _refusal(self, decoded: dict[str, Any]) -> str | None:
        if not self._signed(decoded):
            return "Transaction has a bad signature"
        if self.poor:
            return PAYMENT_ERROR
        arguments = _arguments(decoded)
        before = self._records(decoded).get(decoded["address"])
        custom = None
        if decoded["address"] not in {member.hotkey for member in self.members.values()}:
            custom = NOT_REGISTERED
        elif not arguments["ip"] or (ip_address(arguments["ip"]).is_loopback and not self.allow_loopback):
            custom = BAD_ADDRESS
        elif not arguments["port"]:
            custom = BAD_PORT
        elif before is not None and self.block - before["block"] < self.rate_limit:
            custom = TOO_SOON
        return None if custom is None else f"Custom error: {custom}"

    def _signed(self, decoded: dict[str, Any]) -> bool:
        """Whether the signature covers this call, at the sender's next nonce."""
        period, phase = decoded["era"]
        birth = (max(self.block, phase) - phase) // period * period + phase
        call = decoded["call"]
        payload = self.codec.signature_payload(
            self.codec.compose_call(call["call_module"], call["call_function"], _arguments(decoded)),
            era={"period": period, "current": birth},
            nonce=self.nonces[decoded["address"]],
            tip=decoded["tip"],
            tip_asset_id=None,
            genesis_hash=self.genesis,
            era_block_hash=self.hash(birth),
        )
        signature = bytes.fromhex(decoded["signature"]["Sr25519"].removeprefix("0x"))
        return bool(Keypair(ss58_address=decoded["address"]).verify(payload, signature))


def _arguments(decoded: dict[str, Any]) -> dict[str, Any]:
    return {argument["name"]: argument["value"] for argument in decoded["call"]["call_args"]}
