"""A validator with the SDK's own Dendrite; runs in that SDK's environment, so it imports nothing of ours.

Reads JSON from stdin: where the wallets are, the axon, pictures in base64, and scenes to play, each `{"scene": …}` with
what differs from the usual. Prints what the SDK made of each answer.
"""

import asyncio
import contextlib
import json
import sys
import time

STDOUT, sys.stdout = sys.stdout, sys.stderr  # the SDK logs to stdout
sys.argv = sys.argv[:1]  # and parses the arguments

import bittensor as bt  # noqa: E402
from bittensor.utils import networking  # noqa: E402

networking.get_external_ip = lambda: "192.0.2.1"  # it would ask public services
TASK = json.load(sys.stdin)


class ImageSynapse(bt.Synapse):
    """StreetVision's."""

    testnet_label: int = -1
    image: str = ""
    prediction: float = -1.0


class ExtendedImageSynapse(ImageSynapse):
    """StreetVision's newer one."""

    model_url: str = ""


class Forger:
    """Claims to be one key and signs with another."""

    def __init__(self, claimed, signing):
        self.ss58_address = claimed.ss58_address
        self.sign = signing.sign


@contextlib.contextmanager
def clock_at(nonce):
    """Let the SDK draw this nonce."""
    real, time.time_ns = time.time_ns, lambda: nonce
    try:
        yield
    finally:
        time.time_ns = real


def wallet(hotkey):
    return bt.Wallet(name="standalone", hotkey=hotkey, path=TASK["wallets"])


def axon_of(hotkey, port=None):
    return bt.AxonInfo(
        version=1, ip="127.0.0.1", port=port or TASK["port"], ip_type=4, hotkey=hotkey, coldkey=hotkey, protocol=4
    )


async def play(scene, synapse="ImageSynapse", image=0, key="validator", receiver="miner", wait=9.0, shift=0.0,
               times=1, signed_by=None, port=None):  # fmt: skip
    """Play one scene with a Dendrite of its own, and return what the last answer was to it.

    `times` sends the same nonce again, `wait` is the timeout and `shift` moves the clock (both s), `signed_by`
    names the key that really signs, and `port` is another one than the daemon's first.
    """
    dendrite = bt.Dendrite(wallet=wallet(key))
    if signed_by:
        dendrite.keypair = Forger(wallet(key).hotkey, wallet(signed_by).hotkey)
    nonce = time.time_ns() + int(shift * 10**9)
    kind = {"ImageSynapse": ImageSynapse, "ExtendedImageSynapse": ExtendedImageSynapse}[synapse]
    pinned = times > 1 or shift
    for _ in range(times):
        question = kind(image=TASK["images"][image])
        with clock_at(nonce) if pinned else contextlib.nullcontext():
            (answer,) = await dendrite(
                axons=[axon_of(wallet(receiver).hotkey.ss58_address, port)],
                synapse=question,
                deserialize=False,
                timeout=wait,
            )
    await dendrite.aclose_session()
    return described(scene, answer)


async def burst(scene, at_once):
    """Ask for so many of the pictures at once, with one Dendrite; return what each answer was."""
    dendrite = bt.Dendrite(wallet=wallet("validator"))
    axon = axon_of(wallet("miner").hotkey.ss58_address)
    answers = await asyncio.gather(
        *(
            dendrite(axons=[axon], synapse=ImageSynapse(image=image), deserialize=False, timeout=9.0)
            for image in TASK["images"][:at_once]
        )
    )
    await dendrite.aclose_session()
    return [described(scene, answer) for (answer,) in answers]


def described(scene, answer):
    return {
        "scene": scene,
        "prediction": answer.prediction,
        "model_url": getattr(answer, "model_url", None),
        "is_success": answer.is_success,
        "statuses": [int(side.status_code) if side.status_code else None for side in (answer.axon, answer.dendrite)],
        "message": answer.dendrite.status_message,
    }


async def main():
    answers = []
    for scene in TASK["scenes"]:
        answers += await burst(**scene) if "at_once" in scene else [await play(**scene)]
    return answers


print(json.dumps({"version": bt.__version__, "answers": asyncio.run(main())}), file=STDOUT)
