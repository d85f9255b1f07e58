"""A real headless Chromium, driven over the WebDriver protocol."""

import base64
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests import tools
from tests.process.daemon import PATIENCE, eventually, free_port


class Browser:
    """One window."""

    def __init__(self, folder: Path, *, javascript: bool = True) -> None:
        port = free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, trust_env=False)
        chromium = tools.find("chromium", "chromium")
        with (folder / "chromedriver.txt").open("wb") as log:
            self.process = subprocess.Popen(
                [tools.find("chromedriver", "chromium-driver"), f"--port={port}"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        eventually(self._driver_is_ready)
        options: dict[str, Any] = {
            "binary": chromium,
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                     f"--user-data-dir={folder / 'profile'}"],
            "prefs": {} if javascript else {"profile.managed_default_content_settings.javascript": 2},
        }  # fmt: skip
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self.http.post("/session", json={"capabilities": {"alwaysMatch": wanted}}).json()["value"]
        assert "sessionId" in answer, answer
        self.session = f"/session/{answer['sessionId']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.delete(self.session)
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.http.close()

    def open(self, address: str) -> None:
        self.post("url", url=address)

    def look(self, width: int, height: int, *, phone: bool = False, scheme: str = "light") -> None:
        """Be a screen of this size, or a phone, in light or dark."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.devtools("Emulation.setDeviceMetricsOverride", **metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def run(self, script: str) -> Any:
        """Run JavaScript and return its value."""
        return self.post("execute/sync", script=script, args=[])

    def text(self, selector: str = "main") -> str:
        """Return what a person reads in the first element of a selector."""
        element = self.post("element", using="css selector", value=selector)
        (key,) = element.values()
        return str(self.get(f"element/{key}/text"))

    def photograph(self, path: Path, height: int | None = None) -> None:
        """Write the whole page as a PNG, or so many pixels of it from its top."""
        width = self.run("return document.documentElement.clientWidth")
        cut = {"clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}} if height is not None else {}
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True, **cut)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """Return what the console says since the last time."""
        return [entry["message"] for entry in self.post("se/log", type="browser")]

    def devtools(self, command: str, **parameters: Any) -> Any:
        return self.post("goog/cdp/execute", cmd=command, params=parameters)

    def get(self, path: str) -> Any:
        return self.http.get(f"{self.session}/{path}").json()["value"]

    def post(self, path: str, **content: Any) -> Any:
        answer = self.http.post(f"{self.session}/{path}", json=content)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value

    def _driver_is_ready(self) -> bool:
        assert self.process.poll() is None
        try:
            return bool(self.http.get("/status").json()["value"]["ready"])
        except httpx.TransportError:
            return False
