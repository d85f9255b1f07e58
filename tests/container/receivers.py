"""Telegram, Discord and a mail server, as far as Alertmanager speaks to them, on this machine."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from socketserver import StreamRequestHandler, ThreadingTCPServer
from types import TracebackType
from typing import Any, NamedTuple, Self


class Message(NamedTuple):
    """What arrived, and where."""

    place: str  # the path of an address, or the user who sent a mail
    content: str


class Receivers:
    """Both servers; what they receive lies in `messages`."""

    def __init__(self) -> None:
        self.messages: Queue[Message] = Queue()
        messages = self.messages

        class Web(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["content-length"])))
                messages.put(Message(self.path, json.dumps(content)))
                answer = json.dumps({"ok": True, "result": {"message_id": 1, "date": 1, "chat": {"id": 1}}}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        class Mail(StreamRequestHandler):
            def handle(self) -> None:
                user = ""
                self.say("220 mail")
                while line := self.rfile.readline().decode().strip():
                    verb = line.split()[0].upper()
                    if verb == "EHLO":
                        self.say("250-mail", "250 AUTH PLAIN")
                    elif verb == "AUTH":
                        _, user, password = base64.b64decode(line.split()[2]).decode().split("\0")
                        self.say("235 yes" if password == "secret" else "535 no")
                    elif verb == "DATA":
                        self.say("354 go on")
                        lines = iter(lambda: self.rfile.readline().decode().rstrip("\r\n"), ".")
                        messages.put(Message(user, "\n".join(lines)))
                        self.say("250 taken")
                    else:
                        self.say("221 bye" if verb == "QUIT" else "250 yes")
                        if verb == "QUIT":
                            return

            def say(self, *lines: str) -> None:
                self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

        self.web = ThreadingHTTPServer(("127.0.0.1", 0), Web)
        self.mail = ThreadingTCPServer(("127.0.0.1", 0), Mail)
        self.mail.daemon_threads = True

    @property
    def web_address(self) -> str:
        return f"http://127.0.0.1:{self.web.server_address[1]}"

    @property
    def mail_address(self) -> str:
        return f"localhost:{self.mail.server_address[1]}"

    def __enter__(self) -> Self:
        for server in (self.web, self.mail):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in (self.web, self.mail):
            server.shutdown()
            server.server_close()
