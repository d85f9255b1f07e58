"""`roadwork-miner label` as its operator has it: a real browser, real keys and fingers, kills and a full disk."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from miner.feedback import FOLDER
from miner.feedback.labels import TABLE, UNDECIDED, Labels
from miner.recorder import FOLDER as RECORDER
from miner.recorder.records import IMAGES
from tests.feedback import jpeg, record
from tests.photos import fill
from tests.process.browser import Browser
from tests.process.conftest import StartDaemon
from tests.process.daemon import PATIENCE, clean_environment, eventually, free_port
from tests.process.limits import fill as fill_disk
from tests.process.limits import small_disk
from tests.process.test_page import DESKTOP, FAINT, FOREIGN, PHONE, WIDER_THAN_THE_SCREEN

PHOTOS = 12
NOBODY = 65534
READY = (
    "const one = document.querySelector('#stage img.here'); return one !== null && one.complete && one.naturalWidth > 0"
)
SHOWN = "return document.querySelector('#stage img.here')?.src.split('/').pop() ?? null"
TALLY = "return document.getElementById('tally').innerText.replace(/\\s+/g, ' ')"
BUSY = "return document.body.classList.contains('busy')"
# What a thumb has to hit, and what lies outside of the window or on something else.
SMALL = """
return [...document.querySelectorAll('button')].filter(one => one.getClientRects().length)
  .map(one => [one.id, one.getBoundingClientRect()])
  .filter(([, box]) => box.height < 30 || box.width < 40 || box.left < 0 || box.right > innerWidth
    || box.bottom > innerHeight)
  .map(([id]) => id);
"""


@contextmanager
def labelling(state: Path, *arguments: str, **settings: object) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the command on a port of its own, and yield it with the page's address."""
    process = start(state, "--port", "0", "--json", *arguments, **settings)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()
    try:
        yield process, json.loads(line)["address"]
    finally:
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, -signal.SIGKILL), told


def start(state: Path, *arguments: str, **settings: object) -> "subprocess.Popen[str]":
    assigned = {"STATE_DIR": state, "RECORDER": "images"} | settings
    return subprocess.Popen(
        [sys.executable, "-m", "miner", "label", "--no-env-file", *arguments,
         *(word for key, value in assigned.items() for word in ("--set", f"{key}={value}"))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(),
    )  # fmt: skip


def ended(state: Path, *arguments: str, **settings: object) -> tuple[int, str, str]:
    process = start(state, *arguments, **settings)
    out, told = process.communicate(timeout=PATIENCE)
    return process.returncode, out, told


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state folder with recorded photos."""
    record(tmp_path / "state" / RECORDER, {jpeg(number): number / PHOTOS for number in range(PHOTOS)})
    return tmp_path / "state"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as window:
        yield window


def visit(browser: Browser, address: str, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> None:
    browser.look(*size, phone=size[0] < 900, scheme=scheme)
    browser.open(address)
    eventually(lambda: browser.run(READY))


def press(browser: Browser, key: str) -> None:
    """Press a key, and wait until what it does is done."""
    for kind in ("keyDown", "keyUp"):
        browser.devtools("Input.dispatchKeyEvent", type=kind, key=key)
    eventually(lambda: not browser.run(BUSY))


def labels(state: Path) -> dict[str, str]:
    return {label.digest: label.kind for label in Labels(state / FOLDER)}


def test_labels_are_given_by_keys_taken_back_and_there_after_a_reload(state: Path, browser: Browser) -> None:
    with labelling(state) as (_, address):
        visit(browser, address)
        given: dict[str, str] = {}
        for key, kind in (("r", "roadwork"), ("N", "no_roadwork"), ("s", "skip"), ("r", "roadwork")):
            digest = browser.run(SHOWN)
            assert digest not in given
            press(browser, key)
            given[digest] = kind
            assert labels(state) == given  # before the page goes on
            assert browser.run(SHOWN) != digest
        assert f"3 labelled {sum(label.is_surprise for label in Labels(state / FOLDER))} surprise" in browser.run(TALLY)
        last = list(given)[-1]
        press(browser, "u")
        assert browser.run(SHOWN) == last
        del given[last]
        assert labels(state) == given
        assert [path.stem for path in (state / FOLDER / UNDECIDED).iterdir()] == [last]
        browser.post("refresh")
        eventually(lambda: browser.run(READY))
        assert browser.run(SHOWN) == last
        press(browser, "n")
        given[last] = "no_roadwork"
        assert labels(state) == given
        assert browser.complaints() == []
        assert browser.run(FOREIGN) == []
    for digest, kind in given.items():
        if kind != "skip":
            data = (state / FOLDER / kind / f"{digest}.jpg").read_bytes()
            assert hashlib.sha256(data).hexdigest() == digest


def test_what_one_tab_has_said_no_other_tab_overwrites_unseen(state: Path, browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with labelling(state) as (_, address), Browser(tmp_path / "other") as other:
        browser.open(address)
        other.open(address)
        eventually(lambda: browser.run(READY) and other.run(READY))
        digest = browser.run(SHOWN)
        press(browser, "r")
        eventually(lambda: browser.run(SHOWN) != digest)
        assert other.run(SHOWN) == digest
        press(other, "n")
        eventually(lambda: other.run(SHOWN) != digest)
        assert other.run("return !document.getElementById('fault').hidden")
    assert [(one.digest, one.kind) for one in Labels(state / FOLDER)] == [(digest, "roadwork")]


def test_the_arrows_lead_to_labels_of_earlier_sittings_which_can_be_changed(state: Path, browser: Browser) -> None:
    with labelling(state) as (_, address):
        visit(browser, address)
        first = browser.run(SHOWN)
        press(browser, "r")
        second = browser.run(SHOWN)
        press(browser, "n")
    with labelling(state) as (_, address):
        visit(browser, address)
        waiting = browser.run(SHOWN)
        press(browser, "ArrowLeft")
        assert browser.run(SHOWN) == second
        press(browser, "ArrowLeft")
        assert browser.run(SHOWN) == first
        assert browser.text("#badge") == "Roadwork"
        press(browser, "ArrowLeft")  # there is none before
        assert browser.run(SHOWN) == first
        press(browser, "n")
        assert (browser.run(SHOWN), browser.text("#badge")) == (first, "No roadwork")
        assert labels(state) == {first: "no_roadwork", second: "no_roadwork"}
        press(browser, "ArrowRight")
        press(browser, "ArrowRight")
        assert browser.run(SHOWN) == waiting
        press(browser, "u")
        assert (browser.run(SHOWN), browser.text("#badge")) == (first, "Roadwork")
        assert labels(state) == {first: "roadwork", second: "no_roadwork"}


def test_what_the_model_says_is_hidden_until_one_has_decided_or_asks(state: Path, browser: Browser) -> None:
    with labelling(state) as (_, address):
        visit(browser, address)
        assert "%" not in browser.text("main")
        press(browser, "o")
        said = browser.text("#opinion")
        assert "%" in said
        press(browser, "o")
        assert "%" not in browser.text("main")
        press(browser, "r")
        assert said.split(" ")[3].split("\u00a0")[0] in browser.text("#strip")


def test_it_is_legible_and_can_be_hit_on_any_screen_by_day_and_by_night(state: Path, browser: Browser) -> None:
    with labelling(state) as (_, address):
        for size in (DESKTOP, PHONE, (320, 568), (844, 390)):
            for scheme in ("light", "dark"):
                visit(browser, address, size, scheme)
                press(browser, "r")
                press(browser, "ArrowLeft")
                assert not browser.run(WIDER_THAN_THE_SCREEN), size
                assert browser.run(SMALL) == [], size
                assert browser.run(FAINT) == [], (size, scheme)
                height = browser.run("return document.getElementById('stage').getBoundingClientRect().height")
                assert height > 0.3 * size[1], size


def touch(browser: Browser, *places: tuple[float, float]) -> None:
    """Put a finger down, move it, and lift it."""
    for number, (x, y) in enumerate(places):
        kind = "touchMove" if number else "touchStart"
        browser.devtools("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
    browser.devtools("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    eventually(lambda: not browser.run(BUSY))


@pytest.mark.parametrize(
    ("to", "kind"), [((330, 310), "roadwork"), ((60, 290), "no_roadwork"), ((200, 150), "skip"), ((215, 305), None)]
)
def test_a_swipe_labels_on_a_phone(to: tuple[float, float], kind: str | None, state: Path, browser: Browser) -> None:
    with labelling(state) as (_, address):
        visit(browser, address, PHONE)
        digest = browser.run(SHOWN)
        touch(browser, (200, 300), (205, 302), ((200 + to[0]) / 2, (300 + to[1]) / 2), to)
        eventually(lambda: labels(state) == ({digest: kind} if kind else {}))
        assert (browser.run(SHOWN) == digest) == (kind is None)


def test_keys_click_wheel_and_fingers_zoom_and_a_zoomed_photo_is_not_swiped(state: Path, browser: Browser) -> None:
    def zoom() -> float:
        return float(browser.run("return view.scale"))

    def click(x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            browser.devtools("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    with labelling(state) as (_, address):
        visit(browser, address)
        press(browser, "z")
        assert zoom() >= 3
        press(browser, "z")
        assert zoom() == 1
        click(600, 300)
        assert zoom() >= 3
        click(600, 300)
        assert zoom() == 1
        browser.devtools("Input.dispatchMouseEvent", type="mouseWheel", x=600, y=300, deltaX=0, deltaY=-300)
        eventually(lambda: zoom() > 2)
        visit(browser, address, PHONE)
        for kind, apart in (("touchStart", 40), ("touchMove", 60), ("touchMove", 120)):
            points = [{"x": 200 - apart, "y": 300, "id": 1}, {"x": 200 + apart, "y": 300, "id": 2}]
            browser.devtools("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        browser.devtools("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        eventually(lambda: zoom() > 2)
        touch(browser, (100, 300), (200, 300), (350, 300))
        assert zoom() > 2
        assert labels(state) == {}


def test_at_the_end_it_says_so_and_goes_on_when_photos_come(state: Path, browser: Browser) -> None:
    with labelling(state) as (_, address):
        visit(browser, address)
        for number in range(PHOTOS):
            eventually(lambda: browser.run(READY))
            press(browser, "rn"[number % 2])
        assert len(labels(state)) == PHOTOS
        assert browser.text("#end-title") == "All labelled"
        record(state / RECORDER, {jpeg(500): 0.5})
        eventually(lambda: browser.run(READY))
        assert browser.run("return document.getElementById('end').hidden")


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path, browser: Browser) -> None:
    with small_disk(tmp_path / "disk", 512) as disk:
        state = disk / "state"
        record(state / RECORDER, {jpeg(number): 0.4 for number in range(4)})
        with labelling(state) as (_, address):
            visit(browser, address)
            press(browser, "r")
            before, digest = labels(state), browser.run(SHOWN)
            rest = fill_disk(disk)
            press(browser, "n")
            assert browser.text("#fault")
            assert browser.run(SHOWN) == digest
            press(browser, "u")
            assert browser.run(SHOWN) == digest
            assert labels(state) == before
            assert any("507" in line for line in browser.complaints())
            rest.unlink()
            press(browser, "n")
            assert browser.run("return document.getElementById('fault').hidden")
            assert labels(state) == before | {digest: "no_roadwork"}


def test_a_photo_that_the_recorder_deletes_meanwhile_is_told_and_passed_over(state: Path, browser: Browser) -> None:
    with labelling(state) as (_, address):
        told = httpx.get(address + "state", trust_env=False).json()
        first = told["photo"]["digest"]
        (state / RECORDER / IMAGES / f"{first}.jpg").unlink()
        visit(browser, address)
        assert browser.run(SHOWN) != first
        assert browser.text("#fault")
        held = browser.run(SHOWN)
        (state / RECORDER / IMAGES / f"{held}.jpg").unlink()  # while somebody looks at it
        press(browser, "r")
        assert labels(state) == {held: "roadwork"}
        assert (state / FOLDER / "roadwork" / f"{held}.jpg").is_file()


def test_a_killed_sitting_keeps_what_the_page_had_said(state: Path, browser: Browser) -> None:
    with labelling(state) as (process, address):
        visit(browser, address)
        digest = browser.run(SHOWN)
        press(browser, "r")
        process.kill()
        process.wait(PATIENCE)
        press(browser, "n")
        assert browser.text("#fault")
        assert labels(state) == {digest: "roadwork"}
    with labelling(state) as (_, address):
        visit(browser, address)
        assert "1 labelled" in browser.run(TALLY)


def origin(address: str) -> dict[str, str]:
    return {"origin": address[: address.index("/", 7)]}


def post(address: str, path: str, **content: str) -> dict[str, Any]:
    answer = httpx.post(address + path, json=content, headers=origin(address), trust_env=False, timeout=PATIENCE)
    told: dict[str, Any] = answer.raise_for_status().json()
    return told


@pytest.mark.slow
def test_whenever_it_is_killed_each_label_that_was_said_is_there(state: Path) -> None:
    """Kills while labels are given, changed and taken back as fast as it goes."""
    said: dict[str, str] = {}
    for attempt in range(8):
        with labelling(state) as (process, address):
            kill = f"import os, time; time.sleep({0.3 + 0.17 * attempt}); os.kill({process.pid}, 9)"
            killer = subprocess.Popen([sys.executable, "-c", kill])
            digests = sorted(path.stem for path in (state / RECORDER / IMAGES).iterdir())
            doing: tuple[str, str] = ("", "")
            with (
                httpx.Client(trust_env=False, timeout=PATIENCE, headers=origin(address)) as client,
                suppress(httpx.HTTPError),
            ):
                for number in range(10_000):
                    doing = (
                        digests[number % PHOTOS],
                        ("roadwork", "no_roadwork", "skip")[(number // PHOTOS + attempt) % 3],
                    )
                    client.post(
                        address + "label", json=dict(zip(("digest", "kind"), doing, strict=True))
                    ).raise_for_status()
                    said[doing[0]] = doing[1]
            killer.wait(PATIENCE)
            process.wait(PATIENCE)
        there = labels(state)
        digest, kind = doing
        assert there.get(digest) in (said.get(digest), kind)
        assert said | {digest: there.get(digest)} == there | {digest: there.get(digest)}
        said = there
    assert len(said) > 1


def test_two_cannot_label_at_once(state: Path) -> None:
    with labelling(state):
        code, out, told = ended(state, "--port", "0")
        assert (code, out) == (3, "")
        assert str(state / FOLDER) in told
        code, _, _ = ended(state, "--import", str(fill(state.parent / "more", 1)))
        assert code == 3
        assert ended(state, "--export", str(state.parent / "copy"))[0] == 0  # that only reads


def test_it_listens_on_this_machines_loopback_alone_on_the_port_it_is_given(state: Path) -> None:
    port = free_port()
    process = start(state, "--port", str(port))
    assert process.stdout is not None
    assert process.stderr is not None
    lines = [process.stdout.readline() for _ in range(5)]
    (address,) = [line.strip() for line in lines if line.strip().startswith("http://")]
    assert address.startswith(f"http://127.0.0.1:{port}/")
    assert any(f"ssh -N -L {port}:127.0.0.1:{port}" in line for line in lines)
    listening = subprocess.run(["ss", "-ltnH", f"sport = :{port}"], capture_output=True, text=True).stdout.split()
    assert f"127.0.0.1:{port}" in listening
    code, _, told = ended(state.parent / "other", "--port", str(port), RECORDER="images")
    assert code == 3
    assert f"--port={port}" in told
    process.send_signal(signal.SIGTERM)
    out, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "0 labelled" in out
    assert address.rstrip("/").rpartition("/")[2] not in told  # the token is in no log


@pytest.mark.parametrize("mode", ["off", "meta"])
def test_without_photos_and_without_a_recorder_it_says_what_to_set(mode: str, tmp_path: Path) -> None:
    code, out, told = ended(tmp_path / "state", RECORDER=mode)
    assert (code, out) == (2, "")
    (line,) = told.splitlines()
    assert f"RECORDER={mode}" in line
    assert "RECORDER=images" in line


def test_photos_of_earlier_count_though_nothing_is_recorded_now(state: Path, tmp_path: Path) -> None:
    process = start(state, "--port", "0", "--json", RECORDER="off")
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    assert told["waiting"] == PHOTOS
    note = httpx.get(told["address"] + "state", trust_env=False).json()["note"]
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE)
    assert said.strip() == note
    assert "RECORDER=images" in note
    with labelling(tmp_path / "empty") as (_, address):  # nothing yet, and something will be
        assert httpx.get(address + "state", trust_env=False).json()["photo"] is None


def test_import_and_export_in_words_and_in_json(tmp_path: Path) -> None:
    source, state = fill(tmp_path / "source", 2), tmp_path / "state"
    (source / "roadwork" / "damaged.jpg").write_bytes(b"no photo")
    code, out, _ = ended(state, "--import", str(source), "--json", RECORDER="off")
    told = json.loads(out)
    assert (code, told["new"], told["known"], told["labelled"], len(told["left_out"])) == (0, 4, 0, 4, 1)
    code, out, said = ended(state, "--import", str(source / "roadwork"))
    assert code == 0
    assert "damaged.jpg" in said
    code, out, _ = ended(state, "--export", str(tmp_path / "copy"), "--json")
    assert (code, json.loads(out)["photos"]) == (0, 4)
    assert len(Labels(tmp_path / "copy")) == 4
    assert (tmp_path / "copy" / TABLE).is_file()
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*"))
    code, _, said = ended(state, "--export", str(tmp_path / "copy"))
    assert code == 2
    assert f"--export={tmp_path / 'copy'}" in said
    assert sorted(path.stat().st_mtime_ns for path in (tmp_path / "copy").rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("--import", "HERE/none"),
        ("--import", "HERE/state/labels"),
        ("--import", "HERE"),
        ("--import", "x", "--export", "y"),
    ],
)
def test_what_can_not_be_imported_is_refused(arguments: tuple[str, ...], state: Path) -> None:
    (state / FOLDER / "roadwork").mkdir(parents=True)
    code, _, told = ended(state, *(word.replace("HERE", str(state.parent)) for word in arguments))
    assert code == 2
    assert "--import" in told
    assert labels(state) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_labels_for_a_services_user(state: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        Path(name).chmod(0o755)
        served = Path(shutil.copytree(state, Path(name) / "state"))
        for path in (served, *served.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        with labelling(served) as (_, address):
            told = httpx.get(address + "state", trust_env=False).json()
            post(address, "label", digest=told["photo"]["digest"], kind="roadwork")
        mine = fill(state.parent / "mine", 1)  # which that user can't read
        code, _, said = ended(served, "--import", str(mine))
        assert code == 0, said
        assert len(labels(served)) == 3
        assert {path.stat().st_uid for path in served.rglob("*")} == {NOBODY}


def test_photos_that_a_daemon_records_are_labelled(start_daemon: StartDaemon, street: bytes) -> None:
    daemon = start_daemon(RECORDER="images").ready()
    daemon.ask(street)
    eventually(lambda: list((daemon.state / RECORDER / IMAGES).glob("*.jpg")))
    with labelling(daemon.state) as (_, address):
        look: Callable[[], dict[str, Any]] = lambda: httpx.get(address + "state", trust_env=False).json()  # noqa: E731
        photo = eventually(lambda: look()["photo"])
        assert photo["digest"] == hashlib.sha256(street).hexdigest()
        eventually(lambda: look()["photo"]["prediction"] is not None)
        post(address, "label", digest=photo["digest"], kind="roadwork")
        other = jpeg(5)
        daemon.ask(other)
        eventually(lambda: (look()["photo"] or {}).get("digest") == hashlib.sha256(other).hexdigest())
    assert labels(daemon.state) == {photo["digest"]: "roadwork"}
    assert daemon.status("/readyz") == 200
