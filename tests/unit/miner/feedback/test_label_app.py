"""The door of the labelling page: who gets in, and what those get who do not."""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.datastructures import Headers

from miner.feedback.app import HEADERS, MOST_BYTES, why_refused
from miner.feedback.labels import TABLE, Labels
from miner.feedback.server import serving
from miner.feedback.sitting import Sitting
from miner.feedback.traffic import read_traffic
from miner.recorder.records import IMAGES
from tests.feedback import digest_of, jpeg, record

TOKEN, OWN = "t0ken", "127.0.0.1:9470"
STRANGE = (
    ({"host": "evil.example"}, 421), ({"origin": "http://evil.example"}, 403), ({"sec-fetch-site": "cross-site"}, 403),
)  # fmt: skip
Deed = Callable[[httpx.AsyncClient, str], Awaitable[Any]]


def served(folder: Path, deed: Deed, *, waiting: int = 3) -> Any:
    """Serve the page of a folder with recorded photos, do something with it, and return what came of that."""
    record(folder / "recorder", {jpeg(number): 0.2 * number for number in range(waiting)})
    sitting = Sitting(Labels(folder / "labels"))
    sitting.take_in(read_traffic(folder / "recorder"))

    async def run() -> Any:
        async with (
            serving(sitting, folder / "recorder", 0, "a note") as address,
            httpx.AsyncClient(trust_env=False, timeout=60) as client,
        ):
            return await deed(client, address)

    (folder / "labels").mkdir(exist_ok=True)
    return asyncio.run(run())


def png(width: int, height: int) -> bytes:
    data = io.BytesIO()
    Image.new("1", (width, height)).save(data, "PNG")
    return data.getvalue()


def origin(address: str) -> dict[str, str]:
    return {"origin": address[: address.index("/", 7)]}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("host", OWN)], None),
        ([("host", "localhost:1234")], None),  # at a tunnel's end
        ([("host", "LOCALHOST")], None),
        ([("host", "[::1]:9470")], None),
        ([], 421),
        ([("host", "")], 421),
        ([("host", OWN), ("host", "evil.example")], 421),
        ([("host", "evil.example:9470")], 421),
        ([("host", "127.0.0.1.evil.example")], 421),
        ([("host", "evil.example@127.0.0.1")], 421),
        ([("host", "127.0.0.1:9470:1")], 421),
        ([("host", "192.168.1.20:9470")], 421),
        ([("host", "localhost.:9470")], 421),
        ([("host", OWN), ("origin", f"http://{OWN}")], None),
        ([("host", OWN), ("origin", "http://localhost:9470")], 403),
        ([("host", OWN), ("origin", f"https://{OWN}")], 403),
        ([("host", OWN), ("origin", "http://127.0.0.1:9464")], 403),  # another port is another's page
        ([("host", OWN), ("origin", "null")], 403),
        ([("host", OWN), ("origin", "http://evil.example")], 403),
        ([("host", OWN), ("sec-fetch-site", "same-origin")], None),
        ([("host", OWN), ("sec-fetch-site", "none")], None),  # typed, or from a bookmark
        ([("host", OWN), ("sec-fetch-site", "same-site")], 403),
        ([("host", OWN), ("sec-fetch-site", "cross-site")], 403),
    ],
)
def test_the_page_is_asked_by_itself_alone(headers: list[tuple[str, str]], status: int | None) -> None:
    asked = Headers(raw=[(name.encode(), value.encode()) for name, value in headers])
    assert why_refused("GET", f"/{TOKEN}/", asked, TOKEN) == status


@pytest.mark.parametrize("more", [{}, {"sec-fetch-site": "none"}, {"origin": "http://evil.example"}])
def test_a_change_needs_the_pages_own_origin(more: dict[str, str]) -> None:
    own = {"host": OWN, "origin": f"http://{OWN}"}
    assert why_refused("POST", f"/{TOKEN}/label", Headers(own), TOKEN) is None
    wrong = {"host": OWN} | more if "sec-fetch-site" not in more else own | more
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        assert why_refused(method, f"/{TOKEN}/label", Headers(wrong), TOKEN) == 403


@pytest.mark.parametrize("path", ["/", "", "/t0ke/", "/t0kenn/", f"//{TOKEN}/", "/\ud800/", "/%74/", f"/x/{TOKEN}/"])
def test_without_the_token_there_is_nothing(path: str) -> None:
    assert why_refused("GET", path, Headers({"host": OWN}), TOKEN) == 404


def test_strangers_get_no_word_and_the_operator_gets_a_page(tmp_path: Path) -> None:
    async def deed(client: httpx.AsyncClient, address: str) -> None:
        base = address[: address.index("/", 7)]
        digest = next((tmp_path / "recorder" / IMAGES).iterdir()).stem
        paths = ("", "state", "label.js", "label.css", "style.css", f"photo/{digest}", "labelled/before")
        kinds = set()
        for path in paths:
            answer = await client.get(address + path)
            assert answer.status_code == 200, path
            kinds.add(answer.headers["content-type"].partition(";")[0])
            assert {name: answer.headers[name] for name in HEADERS} == HEADERS
            for strange, status in STRANGE:
                refused = await client.get(address + path, headers=strange)
                assert (refused.status_code, refused.content) == (status, b"")
            other = await client.get(f"{base}/{'x' * 32}/{path}")
            assert (other.status_code, other.content) == (404, b"")
            assert {name: other.headers[name] for name in HEADERS} == HEADERS
        assert kinds == {"text/html", "application/json", "text/javascript", "text/css", "image/jpeg"}
        for path in ("/", "/state", "/favicon.ico", f"/photo/{digest}"):
            assert (await client.get(base + path)).status_code == 404
        for path in (f"photo/{'0' * 64}", "photo/..%2flabels.csv", "labels.csv", "labelled/beyond", "x/y"):
            nothing = await client.get(address + path)
            assert (nothing.status_code, nothing.content) == (404, b""), path

    served(tmp_path, deed)


def test_each_start_has_a_token_of_its_own_and_no_other_address(tmp_path: Path) -> None:
    async def deed(client: httpx.AsyncClient, address: str) -> str:
        answer = await client.get(address.removesuffix("/"))
        assert (answer.status_code, answer.headers["location"]) == (307, "/" + address.split("/")[3] + "/")
        return address

    first, second = (served(tmp_path, deed).split("/") for _ in range(2))
    assert first[2].startswith("127.0.0.1:")
    assert first[3] != second[3]
    assert len(first[3]) >= 32


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"origin": ""}, None, 403),
        ({"origin": "http://evil.example"}, None, 403),
        ({"sec-fetch-site": "cross-site"}, None, 403),
        ({"content-type": "text/plain"}, None, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, b"kind=roadwork", 415),
        ({}, b"{", 400),
        ({}, b"[" * 4000, 400),
        ({}, b'{"digest": 5, "kind": "roadwork"}', 400),
        ({}, b'{"kind": "maybe", "digest": "x"}', 400),
        ({}, b'{"digest": "../../x", "kind": "roadwork"}', 410),
        ({}, b" " * (MOST_BYTES + 1), 413),
    ],
)
def test_a_change_that_is_none_changes_nothing(
    headers: dict[str, str], content: bytes | None, status: int, tmp_path: Path
) -> None:
    async def deed(client: httpx.AsyncClient, address: str) -> int:
        digest = (await client.get(address + "state")).json()["photo"]["digest"]
        asked = {"content-type": "application/json"} | origin(address) | headers
        body = json.dumps({"digest": digest, "kind": "roadwork"}).encode() if content is None else content
        answer = await client.post(address + "label", content=body, headers=asked)
        return answer.status_code

    assert served(tmp_path, deed) == status
    assert not (tmp_path / "labels" / TABLE).exists()


def test_get_changes_nothing(tmp_path: Path) -> None:
    async def deed(client: httpx.AsyncClient, address: str) -> list[int]:
        return [(await client.get(address + path)).status_code for path in ("label", "undo")]

    assert served(tmp_path, deed) == [404, 404]


@pytest.mark.parametrize("photo", [png(6000, 5000), b"\x89PNG<svg/>", b"RIFF<html>"])
def test_a_browser_is_given_no_bomb_and_nothing_else_by_a_photos_name(photo: bytes, tmp_path: Path) -> None:
    async def deed(client: httpx.AsyncClient, address: str) -> list[int]:
        return [
            (await client.request(method, f"{address}photo/{digest_of(photo)}")).status_code
            for method in ("GET", "HEAD")
        ]

    record(tmp_path / "recorder", {photo: None})
    assert served(tmp_path, deed, waiting=0) == [415, 415]


def test_a_label_is_on_the_disk_before_the_answer(tmp_path: Path) -> None:
    async def deed(client: httpx.AsyncClient, address: str) -> None:
        async def post(path: str, **content: str) -> dict[str, Any]:
            answer = await client.post(address + path, json=content, headers=origin(address))
            assert answer.status_code == 200, answer.text
            told: dict[str, Any] = answer.json()
            return told

        state = (await client.get(address + "state")).json()
        assert state["note"] == "a note"
        digest = state["photo"]["digest"]
        told = await post("label", digest=digest, kind="roadwork")
        assert [(one.digest, one.kind) for one in Labels(tmp_path / "labels")] == [(digest, "roadwork")]
        assert told["labelled"]["label"] == "roadwork"
        assert told["photo"]["digest"] == state["following"][0]
        assert told["last"]["digest"] == digest
        assert told["tally"]["labelled"] == 1
        told = await post("undo")
        assert len(Labels(tmp_path / "labels")) == 0
        assert (told["labelled"], told["photo"]["digest"]) == (None, digest)

    served(tmp_path, deed)


def test_new_photos_are_taken_in_while_it_runs(tmp_path: Path) -> None:
    async def deed(client: httpx.AsyncClient, address: str) -> int:
        assert (await client.get(address + "state")).json()["tally"]["waiting"] == 0
        record(tmp_path / "recorder", {jpeg(77): 0.5})
        for _ in range(1000):
            if waiting := (await client.get(address + "state")).json()["tally"]["waiting"]:
                return int(waiting)
            await asyncio.sleep(0.1)
        return 0

    assert served(tmp_path, deed, waiting=0) == 1
