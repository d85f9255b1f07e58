"""The sentences that a person reads when something is wrong, each asserted here, as a whole, and nowhere else.

The other tests hold which error it is, its code and what it names: whoever rewords a message changes it, and its line
here. `test_architecture.py` holds them to that.
"""

import asyncio
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import bittensor
import pytest
from starlette.applications import Starlette
from typer.testing import CliRunner

from detectors.base import RunOptions
from detectors.errors import DetectorError
from detectors.export.serving_repos import write_layout
from detectors.load import load_detector
from detectors.models.config import DetectorConfig, read_config
from detectors.models.manifest import Manifest
from detectors.models.sources import find_original
from detectors.photos.image import decode
from detectors.photos.labelled import read_photos
from detectors.remote.endpoints import EngineOptions
from detectors.training.config import TrainConfig
from detectors.training.dataset import read_data_set
from detectors.training.job import open_run
from miner.axon.btauth import HOTKEY_HEADER, WINDOW
from miner.axon.caller import Caller, Rules, check_fresh, judge
from miner.chain.base import Neuron, Snapshot
from miner.chain.standalone import read_file
from miner.chain.wallet import load_hotkey
from miner.cli import app
from miner.cli.common import file_of, read_settings, settings_file
from miner.doctor.findings import ok, problem, verdict
from miner.errors import MESSAGES, MinerError, RefusalReason
from miner.http.server import listening
from miner.lock import alone
from miner.settings.settings import Settings
from miner.simulate.replay import recorded_photos
from miner.status.archive import Archive
from miner.status.history import History
from tests.models import photo
from tests.photos import fill
from tests.unit.miner.axon.wire_in_process import MAX_BODY, Port

Deed = Callable[[Path], object]  # in an empty folder, which is the current one
Table = dict[str, Deed]  # by what is said of it, in which HERE is that folder
STARTER = Path(__file__).parents[2] / "detectors" / "starter"
BODY = b'{"image": "aGk="}'
ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


def file(content: str | bytes, name: str = "mine.yaml") -> Path:
    path = Path(name).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def given(**values: object) -> Deed:
    return lambda here: Settings.load(**values)


SETTINGS: Table = {
    "STATUS_PORT=0: input should be greater than or equal to 1": given(status_port=0),
    "SUBTENSOR_NETWORK=fineny: allowed: standalone, local, test, finney, ws://…, wss://… (did you mean finney?)": given(
        subtensor_network="fineny"
    ),
    "IMAGE_DETECTOR=VITT: allowed: ViT, YOLOClassifier, Ensemble": given(image_detector="VITT"),
    "NATIX_URL=natix.network: an address that begins with https:// or http:// is allowed, without a password": given(
        natix_url="natix.network"
    ),
    "LOG_LEVEL=LOUD: input should be 'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'": given(log_level="LOUD"),
    "AXON_EXTERNAL_IP=foo: an IPv4 or IPv6 address is allowed": given(axon_external_ip="foo"),
    "AXON_EXTERNAL_IP=192.168.1.20: a public address that MINER_AXON_HOST takes connections for is allowed; this is "
    "a private address, which validators can't reach": given(
        subtensor_network="finney", axon_external_ip="192.168.1.20"
    ),
    "STATUS_PORT=9464: the same port as MINER_AXON_PORT; each needs one of its own": given(miner_axon_port=9464),
    "DEADLINE_MARGIN_SECONDS=9.5: less than 9 is allowed, or no time is left for a picture: of DEADLINE_CAP_SECONDS "
    "and the 9 s for which validators wait, the smaller one holds": given(deadline_margin_seconds=9.5),
    "WALLET_HOTKEYS=first: names with a port each, as first:8091,second:8092, are allowed; 'first' is none": given(
        wallet_hotkeys="first"
    ),
    "WALLET_HOTKEYS=first:8091,first:8092: each hotkey needs a name and a port of its own; the name first is there "
    "twice": given(wallet_hotkeys="first:8091,first:8092"),
    "WALLET_HOTKEYS=first:8091: each hotkey publishes the port it listens on: leave AXON_EXTERNAL_PORT empty": given(
        wallet_hotkeys="first:8091", axon_external_port=9000
    ),
    "BLACKLIST_DENY_HOTKEYS=5a: hotkeys as ss58 addresses with commas between them are allowed; '5a' is none": given(
        blacklist_deny_hotkeys="5a"
    ),
    "REMOTE_ENDPOINTS=: with IMAGE_DETECTOR_BACKEND=remote at least one http://host:port is needed": given(
        image_detector_backend="remote"
    ),
    "REMOTE_ENDPOINTS=box:8000: http(s)://host:port, with commas between them, is allowed; 'box:8000' is none": given(
        image_detector_backend="remote", remote_endpoints="box:8000"
    ),
    "--key=c: one of a, b is allowed": lambda here: Settings.load(wallet_hotkeys="a:8091,b:8092").of_key("c"),
    "--set QUEUE_DEPHT=3: there is no such setting; did you mean QUEUE_DEPTH?": lambda here: read_settings(
        None, ["QUEUE_DEPHT=3"]
    ),
    "--set NETUID: NETUID=VALUE is needed": lambda here: read_settings(None, ["NETUID"]),
    "--env-file=HERE/miner.env: there is no such file": lambda here: Settings.load(here / "miner.env"),
    "HERE/miner.env, line 2: KEY=value is needed, or # before a comment": lambda here: Settings.load(
        file("NETUID=72\nQUEUE_DEPTH 3\n", "miner.env")
    ),
    "--service=testnet: there is no HERE/etc/roadwork-miner/testnet.env; installed: none": lambda here: settings_file(
        "testnet", here
    ),
    "--service=testnet: it has a settings file of its own; leave --env-file out": lambda here: file_of(here, "testnet"),
}


def command(*arguments: str) -> Deed:
    """Call a command in this process, with no settings file of whoever runs the tests."""

    def call(_: Path) -> None:
        raised = CliRunner().invoke(app, arguments).exception
        assert raised is not None
        raise raised

    return call


COMMANDS: Table = {
    "--import and --export: one at a time": command("label", "--import", "a", "--export", "b"),
    "RECORDER=off: no new photos are recorded; RECORDER=images in the settings and a restart keep them; "
    "HERE/state/recorder holds no photo, and none waits in HERE/state/labels": lambda here: command(
        "label", "--set", f"STATE_DIR={here / 'state'}"
    )(here),
    "--import=HERE/labels: the labels themselves are there; a folder elsewhere is needed": lambda here: command(
        "label", "--import", str(here / "labels"), "--set", f"STATE_DIR={here}"
    )(here),
    "--export=HERE: it is not empty; a folder that is new or empty is needed": lambda here: command(
        "label", "--export", str(file("x").parent)
    )(here),
    "--layout=ovms: needs --out, the folder of the repository": command("export", "--layout", "ovms"),
    "evaluate: a folder of photos or --recorded is needed, and not both": command("evaluate"),
    "--recorded has the photos as they were sent: leave --era and --views out": command(
        "evaluate", "--recorded", "--era", "native"
    ),
    "--era=native: --recorded has the photos as they were sent": command("calibrate", "--recorded", "--era", "native"),
    "calibrate: one of a folder or .npz file, --recorded and --undo is needed": command("calibrate"),
    "--folds=2: --stages needs 3 or more: its bands have folds within": command(
        "fuse", "said.npz", "--stages", "--folds", "2"
    ),
    "--hotkey=5F: goes with --address only": command("simulate", "--hotkey", "5F"),
    "--address=host:port: HOST or HOST:PORT is allowed": command("simulate", "--address", "host:port", "--no-env-file"),
    "--compare: IMAGE_DETECTOR_CONFIG=starter.yaml: an ensemble with stages is needed; `roadwork-miner fuse --stages` "
    "makes one": command("simulate", "--compare", "--no-env-file"),
    "--address=host: without --compare, which starts its own miners": command(
        "simulate", "--compare", "--address", "host", "--no-env-file"
    ),
    "--every=5: goes with --burst or --compare": command("simulate", "--every", "5", "--no-env-file"),
    "--replay=HERE: no recorder's folder or file; RECORDER=meta or images makes one": lambda here: recorded_photos(
        here
    ),
    "SUBTENSOR_NETWORK=standalone: its throwaway key has no uid that NATIX could know": command(
        "register", "--no-env-file"
    ),
    "--uid: is needed while SUBTENSOR_NETWORK=standalone, which has no chain to ask": command(
        "register", "--status", "--no-env-file", "--set", "STATE_DIR=state"
    ),
    "MODEL_URL=: owner/name of a published model, or its address on huggingface.co, is needed; `roadwork-miner "
    "publish` makes one": command("register", "--no-env-file", "--dry-run", "--uid", "7"),
    "--repo=roadwork: owner/name of a repository on the hub is allowed": command(
        "publish", "run", "--repo", "roadwork", "--dry-run", "--out", "out", "--no-env-file"
    ),
    "run: a training's folder, a Hugging Face folder or a .pt file is needed": command(
        "publish", "run", "--repo", "you/roadwork", "--dry-run", "--out", "out", "--no-env-file"
    ),
    "IMAGE=street.jpg: no such file or directory": command("query", "street.jpg", "--no-env-file"),
    "--backends=tpu: known: onnx, openvino, torch": command("bench", "--backends", "tpu", "--no-env-file"),
    "--out=nowhere/report.zip: a name in an existing folder that ends in .tar.gz is allowed": command(
        "report", "--out", "nowhere/report.zip", "--no-env-file"
    ),
}


def taken(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        try:
            asyncio.run(serve("127.0.0.1", port))
        except MinerError as error:
            raise type(error)(str(error).replace(str(port), "8091")) from error


async def serve(host: str, port: int) -> None:
    async with listening(Starlette(), "MINER_AXON_PORT", host, port):
        pass


def held(folder: Path) -> None:
    with alone(folder), alone(folder):
        pass


def locked(name: str = "", password: str | None = None) -> Deed:
    """Load a hotkey that is encrypted, as its first bytes say, with the password file of this name."""

    def load(here: Path) -> None:
        file(b"$NACL" + bytes(120), "miner/hotkeys/hot")
        if password is not None:
            file(password, name)
        load_hotkey(here, "miner", "hot", here / name if name else None)

    return load


STARTS: Table = {
    "MINER_AXON_PORT=8091: the port is taken by another process; `ss -ltnp` shows by which": taken,
    "MINER_AXON_PORT=8091: 192.0.2.1 can't be listened on: Cannot assign requested address": lambda here: asyncio.run(
        serve("192.0.2.1", 8091)
    ),
    "STATE_DIR=HERE: a running miner uses it, with pid PID; a second one needs a folder of its own": held,
    "STATE_DIR=HERE/file/state: can't be used: Not a directory": lambda here: held(file("", "file") / "state"),
    "WALLET_HOTKEY=hot: there is no HERE/miner/hotkeys/hot; copy the hotkey's file there, or make one: btcli wallet "
    "new-hotkey --wallet miner --wallet-hotkey hot --wallet-path HERE": lambda here: load_hotkey(here, "miner", "hot"),
    "STANDALONE_FILE=HERE/mine.yaml: hotkey='abc': not an ss58 address": lambda here: read_file(
        file("validators: [{hotkey: abc}]"), "own"
    ),
    "WALLET_HOTKEY_PASSWORD_FILE: HERE/miner/hotkeys/hot is encrypted; name a file that holds its password, readable "
    "by this user alone (a systemd credential is one)": locked(),
    "WALLET_HOTKEY_PASSWORD_FILE=HERE/password: can't be read: No such file or directory": locked("password"),
    "WALLET_HOTKEY_PASSWORD_FILE=HERE/password: the file is empty": locked("password", ""),
    "WALLET_HOTKEY_PASSWORD_FILE=HERE/password: not the password of HERE/miner/hotkeys/hot": locked(
        "password", "wrong horse"
    ),
}


def called(*arguments: str) -> Deed:
    return lambda here: CliRunner().invoke(app, arguments, catch_exceptions=False)


FLAGS: Table = {
    "--wallet=a and --wallet.name=b: both are WALLET_NAME; give one of them": called(
        "run", "--wallet", "a", "--wallet.name", "b"
    ),
    "--axon.port: a value is needed; here it is --set MINER_AXON_PORT=VALUE": called("run", "--axon.port"),
    "--wandb.off: there is no wandb here: /metrics is for Prometheus; leave it out": called("run", "--wandb.off"),
    "--wallet=: a value is needed; without the flag WALLET_NAME holds": called("run", "--wallet", ""),
    f"--wallet-hotkey={ALICE}: the name in the wallet is needed, not the address; --receiver takes that": called(
        "query", "photo.jpg", "--hotkey", ALICE
    ),
    "WALLET_HOTKEY=b: WALLET_HOTKEYS=a:8091 takes its place; --set WALLET_HOTKEYS= leaves that out": called(
        "run", "--hotkey", "b", "--set", "WALLET_HOTKEYS=a:8091"
    ),
    "NETUDI: there is no such setting; did you mean NETUID?": called("config", "NETUDI"),
}


def yaml(text: str) -> Deed:
    return lambda here: read_config(str(file(text)))


def starter(here: Path) -> Path:
    return Path(shutil.copytree(STARTER, here / "starter", ignore=shutil.ignore_patterns("optimized")))


def damaged(here: Path) -> None:
    folder = starter(here)
    (folder / "model.onnx").write_bytes(b"graph")
    Manifest.read(folder).verify(folder)


def openvino(here: Path) -> Path:
    folder = starter(here)
    (folder / "model.onnx").rename(folder / "model.xml")
    found = Manifest.read(folder)
    files = {name.replace(".onnx", ".xml"): value for name, value in found.files.items()}
    found.model_copy(update={"files": files}).write(folder)
    return folder


def missing(here: Path) -> None:
    folder = starter(here)
    (folder / "model.onnx").unlink()
    Manifest.read(folder).verify(folder)


def load(config: DetectorConfig, backend: str = "onnx", precision: str = "fp32", **options: Any) -> Any:
    return load_detector("ViT", config, Path("models"), backend, RunOptions(**options), precision)


def elsewhere(_: Path) -> None:
    """Load the starter behind an endpoint where nobody listens."""
    load(read_config("starter.yaml"), "remote", engine=EngineOptions(("http://127.0.0.1:1",)))


def adapter(**values: object) -> Deed:
    """Look for a LoRA adapter's original weights."""

    def find(here: Path) -> None:
        (here / "adapter").mkdir()
        (here / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"} | values))
        find_original(read_config(str(file("hf_repo: ./adapter"))))

    return find


MODELS: Table = {
    "no detector configuration 'nowhere.yaml'; give a path to a YAML file, or one of: ViT_roadwork.yaml, "
    "pair_roadwork.yaml, starter.yaml, yolo_roadwork.yaml": lambda here: read_config("nowhere.yaml"),
    "mine.yaml: can't be read as YAML: line 2: expected the node content, but found '<stream end>'": yaml("a: 1\nb: ["),
    "mine.yaml: a mapping of keys to values is needed; found ['a']": yaml("- a"),
    "mine.yaml: exactly one of hf_repo, weights_path, onnx_path, model_folder, branches is needed; found none": yaml(
        "revision: main"
    ),
    "mine.yaml: exactly one of hf_repo, weights_path, onnx_path, model_folder, branches is needed; found hf_repo and "
    "weights_path": yaml("hf_repo: a/b\nweights_path: c.pt"),
    "mine.yaml: branches.one: a branch can't have branches": yaml("branches: {one: {branches: {two: {hf_repo: a/b}}}}"),
    "the model HERE/best.pt does not exist": lambda here: find_original(
        read_config(str(file("weights_path: best.pt")))
    ),
    "HERE/adapter/adapter_config.json: use_dora=True: no LoRA that is merged here; peft merges it: "
    "PeftModel.from_pretrained(BASE, ADAPTER).merge_and_unload().save_pretrained(FOLDER)": adapter(
        base_model_name_or_path="a/b", use_dora=True
    ),
    "HERE/adapter/adapter_config.json: base_model_name_or_path='../base': it is no folder here; a folder, or a "
    "repository of the hub, is needed": adapter(base_model_name_or_path="../base"),
    "models/you--model/main holds no manifest.json": lambda here: load(read_config(str(file("hf_repo: you/model")))),
    "HERE/starter/model.onnx does not match its sum in manifest.json; remove the folder and make it again": damaged,
    "HERE/starter/model.onnx is missing": missing,
    "HERE/starter holds model.xml, which Triton's onnxruntime can't run; the backend onnx can have one": lambda here: (
        write_layout("triton", openvino(here), here / "out", threads=1)
    ),
    "the remote backend needs REMOTE_ENDPOINTS": lambda here: load(read_config("starter.yaml"), "remote"),
    "no remote endpoint is healthy: endpoint 0 (http://127.0.0.1:1): no connection: Connection refused": elsewhere,
    "the backend 'remote' has no int8": lambda here: load(read_config("starter.yaml"), "remote", "int8"),
}


def picture(data: bytes, **limits: int) -> Deed:
    return lambda here: decode(data, **limits)


def empty(here: Path) -> None:
    photos = fill(here / "photos", 1)
    (photos / "roadwork" / "0.jpg").write_bytes(b"")
    read_photos(photos)


def few(here: Path) -> None:
    read_data_set(fill(here / "photos", 2), val_share=0.2, test_share=0.2, seed=0)


def run(values: dict[str, object] | None) -> Deed:
    return lambda here: open_run(here / "run", None if values is None else TrainConfig.make(values))


PHOTOS: Table = {
    "the image is not a JPEG, PNG or WebP": picture(b"rubbish"),
    "the image can't be decoded": picture(photo(400, 300)[:2000]),
    "the image has 40×30 pixels; at most 0.001 million are allowed": picture(photo(40, 30), max_pixels=1000),
    "HERE/nowhere is not a folder; one with the subfolders no_roadwork and roadwork is needed": lambda here: (
        read_photos(here / "nowhere")
    ),
    "HERE holds no folder 'no_roadwork'; one folder a class is needed: no_roadwork and roadwork": lambda here: (
        read_photos(here)
    ),
    "HERE/photos/roadwork holds no photo that can be opened (roadwork/0.jpg: the image is not a JPEG, PNG or WebP); "
    "both classes are needed, as .jpg, .jpeg, .png, .webp files": empty,
    "the 2 photos of the class 'no_roadwork' are too few to leave one for 'test'": few,
    "data=nowhere: there is no such folder; one with roadwork and no_roadwork, or hf:DATASET": run({"data": "nowhere"}),
    "model=./mine: there is no such folder or file": run({"data": ".", "model": "./mine"}),
    "--resume=HERE/run: no config.yaml in there, so no run to resume": run(None),
    "epoch=1: Extra inputs are not permitted": run({"data": ".", "epoch": 1}),
}


NEURONS = {"small": Neuron(4, "small", 5.0, True), "miner": Neuron(7, "miner", 2.0, False)}


def judged(hotkey: str, **rules: Any) -> Deed:
    return lambda here: judge(hotkey, Snapshot(1, 0.0, MappingProxyType(NEURONS)), Rules(**rules))


def fresh(seconds: int) -> Deed:
    """Judge a nonce of so many seconds ago."""
    now = 10**18
    return lambda here: check_fresh(Caller("5F", now - seconds * 10**9, "", 9.0, "btauth"), WINDOW, now)


def improvement(*arguments: str, state: str = "none") -> Deed:
    """Improve in a folder where somebody has begun to."""

    def call(here: Path) -> None:
        file(state, "improvements/2026-01-01-0100/state.json")
        file(f"STATE_DIR={here}\n", "miner.env")
        command("improve", "--env-file", "miner.env", *arguments)(here)

    return call


UNFINISHED = '{"options": {"model": "lite0"}, "started": 1}'
IMPROVEMENTS: Table = {
    "0 scenes of 'no_roadwork' to learn from and 0 to judge by are too few: label about 8 more "
    "(`roadwork-miner label`), or give a folder of photos (--data)\n"
    "0 scenes of 'roadwork' to learn from and 0 to judge by are too few: label about 8 more "
    "(`roadwork-miner label`), or give a folder of photos (--data)": improvement(),
    "HERE/improvements/2026-01-01-0100: is unfinished, with other options; --new begins anew": improvement(
        "--model", "lite2", state=UNFINISHED
    ),
    "--undo: goes alone": improvement("--undo", "--promote"),
    "--teacher=a.yaml: goes with --self-train": improvement("--teacher", "a.yaml"),
    "--self-train: what serves is one model; name a dearer one as --teacher": improvement("--self-train"),
    "HERE/improvements: no promotion that could be undone": improvement("--undo"),
}


CALLERS: Table = {
    "your hotkey is not registered on this subnet": judged("stranger"),
    "your hotkey holds no validator permit": judged("miner"),
    "your stake is below this miner's minimum of 5.5": judged("small", min_stake=5.5),
    "your hotkey is not welcome here": judged("small", deny=frozenset({"small"})),
    "the nonce is too old; is the clock right?": fresh(86_400),
    "the nonce lies in the future; is the clock right?": fresh(-86_400),
}


TABLES = (SETTINGS, COMMANDS, STARTS, FLAGS, MODELS, PHOTOS, IMPROVEMENTS, CALLERS)


@pytest.mark.parametrize(
    ("sentence", "deed"),
    [
        pytest.param(*row, id=row[0][:50], marks=[pytest.mark.slow] if "not the password" in row[0] else [])
        for table in TABLES
        for row in table.items()
    ],
)
def test_what_can_not_be_is_said_in_a_sentence(
    sentence: str, deed: Deed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root, "handlers", [])  # some commands set the log up before they look at the rest
    monkeypatch.setattr(logging.root, "level", logging.root.level)
    with pytest.raises((MinerError, DetectorError)) as caught:
        deed(tmp_path)
    assert str(caught.value).replace(str(tmp_path), "HERE").replace(f"pid {os.getpid()};", "pid PID;") == sentence


def test_a_coldkey_is_named_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bittensor.Wallet("miner", "hot", str(tmp_path)).create_new_hotkey(suppress=True)
    (tmp_path / "miner" / "coldkey").write_text("{}")
    (tmp_path / "miner" / "hotkeys" / "hot").chmod(0o644)
    load_hotkey(tmp_path, "miner", "hot")
    assert [line.replace(str(tmp_path), "HERE") for line in caplog.messages] == [
        "THE COLDKEY IS ON THIS MACHINE: HERE/miner/coldkey. It owns your funds and the miner never needs it; "
        "whoever breaks in here has it. Move it to a machine that serves nothing (coldkeypub.txt may stay).",
        "other users of this machine can read the hotkey: chmod 600 HERE/miner/hotkeys/hot",
    ]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    port = Port(tmp_path_factory.mktemp("port"))
    yield port
    port.close()


def sent(wire: str = "btauth", body: bytes = BODY, **changes: str | None) -> Callable[[Port], bytes]:
    return lambda port: port.request(wire, body, **changes)


def again(port: Port) -> bytes:
    request = port.request("dendrite", BODY)
    assert [status for status, _ in port.feed([request])] == [200]
    return request


REFUSALS: dict[str, tuple[Callable[[Port], bytes], int]] = {
    "the body is not the JSON of an ImageSynapse: image: field required": (sent(body=b"{}"), 400),
    "the image is not base64": (sent(body=b'{"image": "a"}'), 422),
    "the body has 20001 bytes; at most 20000 are allowed": (sent(body=b"x" * (MAX_BODY + 1)), 413),
    "a compressed body is not accepted": (sent(**{"content-encoding": "gzip"}), 413),
    "the content-length header is not a number": (sent(**{"content-length": "0" * 30 + "17"}), 400),
    "the timeout header is not a number": (sent(timeout="soon"), 400),
    "the timeout header is not a positive number": (sent(timeout="0"), 400),
    "the header X-Bittensor-Hotkey is missing": (sent(**{HOTKEY_HEADER: None}), 401),
    "the header bt_header_dendrite_nonce is missing": (sent("dendrite", bt_header_dendrite_nonce=None), 401),
    "the header bt_header_dendrite_nonce is not a whole number": (
        sent("dendrite", bt_header_dendrite_nonce="now"),
        400,
    ),
    "the signature does not match": (sent("dendrite", bt_header_dendrite_signature="0x" + "00" * 64), 401),
    "this request was answered before, or is older than this process": (again, 401),
    "no answer in time is possible": (sent(timeout="0.1"), 503),
    "the headers are too large": (lambda port: b"GET / HTTP/1.1\r\na: " + b"b" * 100_000, 400),
    "the target is too long": (lambda port: b"GET /" + b"x" * 20_000, 400),
    "one request at a time, please": (lambda port: port.request("dendrite", BODY) * 2, 400),
    "not found": (lambda port: b"POST /nowhere HTTP/1.1\r\nhost: miner\r\n\r\n", 404),
}


@pytest.mark.parametrize("sentence", REFUSALS)
def test_a_request_that_is_refused(port: Port, sentence: str) -> None:
    request_of, status = REFUSALS[sentence]
    assert port.feed([request_of(port)]) == [(status, {"message": sentence})]


def test_a_refusal_says_its_reason() -> None:
    assert MESSAGES == {
        "queue_full": "the queue is full",
        "share": "your requests hold their share of the queue",
        "deadline": "no answer in time is possible",
        "evicted": "the place went to a caller of a better rank: of more stake, refused last, or with "
        "fewer requests here",
        "late": "the deadline can no longer be met",
        "not_ready": "the miner is not ready",
        "draining": "the miner is shutting down",
        "memory": "memory is short at the moment",
        "no_endpoint": "no machine that could score the picture is within reach",
    }
    assert set(MESSAGES) == set(get_args(RefusalReason))


def test_the_check_up_ends_with_one_sentence() -> None:
    fine, fault = [ok("port", "free")], [ok("port", "free"), problem("cpu", "too slow", "buy one")]
    assert [
        verdict(fine, running=True, standalone=False),
        verdict(fine, running=False, standalone=False),
        verdict(fine, running=True, standalone=True),
        verdict(fault, running=True, standalone=True),
    ] == [
        "ready to earn",
        "ready to earn as soon as the miner runs: roadwork-miner run",
        "ready, and earning nothing: SUBTENSOR_NETWORK=standalone contacts no chain",
        "not ready to earn: cpu: too slow",
    ]


HISTORIES = {
    b'{"format": 2, "lines": 0}': "format=2: this version reads 1",
    b'{"format": 1, "lines": 7}': "0 of 7 lines are there",
    b'{"format": 1, "lines": 1}\n{"ring": "hour", "number": -1, "outcomes": {}, "bins": [], "longest": 0.0}': (
        "number=-1: Input should be greater than or equal to 0"
    ),
    b'{"format": 1, "lines": 1}\n{"ring": "hour", "number": 1, "outcomes": {"won": 1}, "bins": [], "longest": 0.0}': (
        "['won']: no outcomes of ours"
    ),
}


@pytest.mark.parametrize("content", HISTORIES)
def test_a_history_that_can_not_be_read_is_said(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "history.jsonl").write_bytes(content)
    Archive(History(), tmp_path / "history.jsonl").load()
    assert [line.replace(str(tmp_path), "HERE") for line in caplog.messages] == [
        f"HERE/history.jsonl: the history of requests begins anew: {HISTORIES[content]}; "
        "the file is now history.jsonl.damaged"
    ]
