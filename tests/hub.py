"""A hub on this machine: a repository's files, and the refusals of the real one in its own words and headers.

It takes a publisher's requests as the hub's HTTP API has them: a repository is made, what goes through LFS is told,
sent and verified, and a commit lists all files. Nothing of a commit is seen before it is whole.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", ".pt")  # what goes through LFS


@dataclass(frozen=True)
class Refusal:
    """What the hub answers in place of a repository; `gate` alone: to those who ask for a file."""

    status: int
    code: str
    message: str
    gate: bool = False


NO_REPOSITORY = Refusal(404, "RepoNotFound", "Repository not found")
NO_TOKEN = Refusal(401, "", "Invalid credentials in Authorization header")
NO_RIGHT = Refusal(403, "", "You don't have the rights to create a model under this namespace")


@dataclass
class Hub:
    """One repository, or why it can't be had; and others beside it, to be read alone."""

    files: Mapping[str, bytes]
    refusal: Refusal | None = None
    fetched: list[str] = field(default_factory=list)
    url: str = ""
    repository: str = "someone/roadwork"
    exists: bool = True
    is_private: bool = False
    token: str = ""  # that may write here
    role: str = "write"
    commits: list[str] = field(default_factory=list)  # what each is called
    asked: list[str] = field(default_factory=list)  # methods and paths
    stored: dict[str, bytes] = field(default_factory=dict)  # by their sums, before a commit names them
    faults: dict[str, Refusal] = field(default_factory=dict)  # by the end of a path
    others: dict[str, Mapping[str, bytes]] = field(default_factory=dict)  # files of other repositories

    @property
    def head(self) -> str:
        """The newest commit."""
        return hashlib.sha1(repr(self.commits).encode()).hexdigest() if self.commits else COMMIT

    def at(self, path: str) -> tuple[str, str, Mapping[str, bytes]]:
        """Return the repository that a path is of, with its newest commit and its files."""
        name = next((name for name in self.others if f"/{name}/" in f"{path}/"), self.repository)
        if name == self.repository:
            return name, self.head, self.files
        return name, commit_of(self.others[name]), self.others[name]

    def info(self, path: str) -> dict[str, Any]:
        name, commit, files = self.at(path)
        siblings = [{"rfilename": file} for file in files]
        return {"id": name, "sha": commit, "siblings": siblings, "private": self.is_private, "gated": False}

    def commit(self, lines: list[dict[str, Any]]) -> None:
        """Take a commit's files; those of LFS have to be here already."""
        files = dict(self.files)
        for line in lines:
            match line:
                case {"key": "header", "value": {"summary": summary}}:
                    self.commits.append(summary)
                case {"key": "file", "value": {"path": path, "content": content}}:
                    files[path] = base64.b64decode(content)
                case {"key": "lfsFile", "value": {"path": path, "oid": oid}}:
                    files[path] = self.stored[oid]
                case {"key": "deletedFile", "value": {"path": path}}:
                    del files[path]
        self.files = files


def commit_of(files: Mapping[str, bytes]) -> str:
    """Return the commit of a repository that is only read."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_POST(self) -> None:
            body = self._body()
            refusal = self._why_not()
            if refusal is not None:
                self._refuse(refusal)
                return
            path, api = self.path.partition("?")[0], f"/api/models/{hub.repository}"
            if path == "/api/validate-yaml":
                front = yaml.safe_load(json.loads(body)["content"].split("---")[1])
                faults = [{"message": '"tags" must be an array'}] if not isinstance(front["tags"], list) else []
                self._json({"errors": faults, "warnings": []}, 400 if faults else 200)
            elif path == "/api/repos/create":
                self._create(json.loads(body))
            elif path == f"{api}/preupload/main":
                files = [
                    {"path": file["path"], "shouldIgnore": False, "oid": None,
                     "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular"}
                    for file in json.loads(body)["files"]
                ]  # fmt: skip
                self._json({"files": files})
            elif path == f"/{hub.repository}.git/info/lfs/objects/batch":
                self._json({"transfer": "basic", "objects": [self._way(one) for one in json.loads(body)["objects"]]})
            elif path == "/lfs/verify":
                whole = json.loads(body)
                self._json({}, 200 if len(hub.stored.get(whole["oid"], b"")) == whole["size"] else 404)
            elif path == f"{api}/commit/main":
                hub.commit([json.loads(line) for line in body.splitlines()])
                address = f"{hub.url}/{hub.repository}/commit/{hub.head}"
                self._json({"success": True, "commitOid": hub.head, "commitUrl": address})
            else:
                self._refuse(NO_REPOSITORY)

        def do_PUT(self) -> None:
            hub.asked.append(f"PUT {self.path}")
            data = self._body()
            oid = self.path.rpartition("/")[2]
            if hashlib.sha256(data).hexdigest() == oid:
                hub.stored[oid] = data
            self._json({}, 200 if oid in hub.stored else 400)

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["Content-Length"]))

        def _create(self, wanted: Mapping[str, Any]) -> None:
            name = f"{wanted['organization'] or 'you'}/{wanted['name']}"
            if name.split("/")[0] != hub.repository.split("/")[0]:
                self._refuse(NO_RIGHT)
            elif hub.exists:
                self._json({"error": "You already created this model repo", "url": f"{hub.url}/{name}"}, 409)
            else:
                hub.repository, hub.exists, hub.is_private = name, True, bool(wanted.get("private"))
                self._json({"url": f"{hub.url}/{name}", "name": name})

        def _way(self, file: Mapping[str, Any]) -> dict[str, Any]:
            upload = {"href": f"{hub.url}/lfs/{file['oid']}"}
            return {"oid": file["oid"], "size": file["size"],
                    "actions": {"upload": upload, "verify": {"href": f"{hub.url}/lfs/verify"}}}  # fmt: skip

        def _why_not(self) -> Refusal | None:
            """Return why a request that needs a token is refused; what anybody may ask has no token to check."""
            hub.asked.append(f"{self.command} {self.path}")
            fault = next(
                (fault for end, fault in hub.faults.items() if self.path.partition("?")[0].endswith(end)), None
            )
            if fault is not None:
                return fault
            if self.path.startswith("/lfs/"):
                return None
            if not hub.token or self.headers.get("Authorization") != f"Bearer {hub.token}":
                return NO_TOKEN
            return NO_RIGHT if hub.role == "read" and self.command == "POST" else None

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.partition("?")[0]
            if path == "/api/whoami-v2":
                refusal = self._why_not()
                if refusal is not None:
                    self._refuse(refusal)
                else:
                    self._json({"name": "you", "type": "user", "auth": {"accessToken": {"role": hub.role}}})
                return
            hub.asked.append(f"{self.command} {path}")
            is_file, refusal = "/resolve/" in path, hub.refusal
            if refusal is None and not (hub.exists and f"/{hub.at(path)[0]}/" in f"{path}/"):
                refusal = NO_REPOSITORY
            if refusal is None and hub.is_private and "Authorization" not in self.headers:
                refusal = Refusal(401, "RepoNotFound", "Invalid username or password.")
            if refusal is not None and (is_file or not refusal.gate):
                self._refuse(refusal, with_body=with_body)
            elif is_file:
                revision, _, name = path.partition("/resolve/")[2].partition("/")
                _, commit, files = hub.at(path)
                if name not in files or revision not in ("main", commit):
                    self._refuse(Refusal(404, "EntryNotFound", "Entry not found"), with_body=with_body)
                    return
                if with_body:
                    hub.fetched.append(name)
                data = files[name]
                etag = hashlib.sha256(data).hexdigest()
                self._send(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": commit}, with_body=with_body)
            elif path.partition("/revision/")[2] not in ("", "main", hub.at(path)[1]):
                self._refuse(Refusal(404, "RevisionNotFound", "Invalid rev id"), with_body=with_body)
            else:
                self._json(hub.info(path), with_body=with_body)

        def _refuse(self, refusal: Refusal, *, with_body: bool = True) -> None:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self._send(refusal.status, b"", headers, with_body=with_body)

        def _json(self, values: Mapping[str, Any], status: int = 200, *, with_body: bool = True) -> None:
            self._send(status, json.dumps(values).encode(), {"Content-Type": "application/json"}, with_body=with_body)

        def _send(self, status: int, data: bytes, headers: Mapping[str, str], *, with_body: bool) -> None:
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(data))}).items():
                if value:
                    self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
