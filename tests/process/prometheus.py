"""A real Prometheus that scrapes the miners every second, with the project's own rules."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from tests import tools
from tests.expressions import PROMETHEUS
from tests.process.daemon import PATIENCE, eventually, free_port


class Prometheus:
    """One server with its data in a folder."""

    def __init__(self, folder: Path, targets: Sequence[str]) -> None:
        self.folder = folder
        self.port = free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE, trust_env=False)
        content = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
        content["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        del content["alerting"]  # nobody is told
        content["rule_files"] = [str(PROMETHEUS / name) for name in content["rule_files"]]
        content["scrape_configs"][0]["static_configs"] = [{"targets": list(targets)}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(content))
        with (folder / "log.txt").open("wb") as log:
            self.process = subprocess.Popen(
                [
                    tools.find("prometheus", "prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.http.close()

    def scrapes(self, *targets: str) -> Self:
        """Wait until each target was scraped."""
        eventually(lambda: {labels["instance"] for labels, _ in self.ask("up == 1")} >= set(targets))
        return self

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer; None before the server is up."""
        try:
            answer = self.http.get(f"/api/v1/{path}", params=parameters)
        except httpx.TransportError:
            assert self.process.poll() is None, (self.folder / "log.txt").read_text()
            return None
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return None
        content = answer.json()
        assert content["status"] == "success", (parameters, content)
        return content["data"]

    def ask(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each sample at this moment."""
        data = self.get("query", query=expression)
        return [(row["metric"], float(row["value"][1])) for row in data["result"]] if data is not None else []

    def number(self, expression: str) -> float:
        """Return the one value there is."""
        ((_, value),) = self.ask(expression)
        return value

    def counts(self, expression: str, label: str) -> dict[str, int]:
        """Return what is not zero, by a label."""
        return {labels[label]: int(value) for labels, value in self.ask(expression) if value}
