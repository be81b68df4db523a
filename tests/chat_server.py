"""A chat-completions server in a thread, for tests: it really speaks HTTP, and misbehaves as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Response = tuple[int, Any, dict[str, str]]  # status, body (bytes or their iterator as they are, else JSON), headers


class ChatServer:
    """Serves `models`; answers a request with `answer(request)`: a text, a body, bytes, or a whole response.

    `faults` are given first, one a request. What was asked is kept in `requests`, the keys that came in `keys`.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], Any], models: list[str] | Response = ("toy",)) -> None:
        self.answer, self.models = answer, models
        self.faults: list[Response] = []
        self.requests: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.together = self.most = 0  # requests in flight: now, and at most so far
        self._lock = threading.Lock()

    def __enter__(self) -> ChatServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                models = outer.models
                if isinstance(models, tuple) and len(models) == 3 and isinstance(models[0], int):
                    self.give(*models)
                else:
                    self.give(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in models]}, {})

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self.give(*outer.respond(self.path, request, self.headers["authorization"]))

            def give(self, status: int, body: Any, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                if isinstance(body, Iterator):  # however long it takes and gets
                    self.close_connection = True
                    self.end_headers()
                    for part in body:
                        self.wfile.write(part)
                        self.wfile.flush()
                    return
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                pass  # a client that has given up

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def respond(self, path: str, request: dict[str, Any], key: str) -> Response:
        with self._lock:
            self.requests.append(request)
            self.keys.add(key)
            fault = self.faults.pop(0) if self.faults else None
            self.together += 1
            self.most = max(self.most, self.together)
        try:
            if path not in ("/v1/chat/completions", "/v1/completions"):
                return 404, {"detail": "Not Found"}, {}
            given = self.answer(request) if fault is None else fault
        finally:
            with self._lock:
                self.together -= 1
        if isinstance(given, tuple):
            return given
        body = completion(given) if isinstance(given, str) else given
        if request.get("stream"):
            return 200, streamed(body), {"content-type": "text/event-stream"}
        return 200, body, {}


def streamed(body: dict[str, Any]) -> Iterator[bytes]:
    """The same completion in one event, with its tokens in another."""
    (choice,) = body["choices"]
    first = {"index": 0, "delta": {"role": "assistant", **choice["message"]}, "finish_reason": choice["finish_reason"]}
    kind = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "toy"}
    for event in ({**kind, "choices": [first]}, {**kind, "choices": [], "usage": body["usage"]}):
        yield f"data: {json.dumps(event)}\n\n".encode()
    yield b"data: [DONE]\n\n"


def completion(content: Any, finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """A body as servers send it; `written` words are its tokens."""
    written = len(str(content).split())
    reply = {"role": "assistant", "content": content, **message}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "toy",
        "choices": [{"index": 0, "finish_reason": finish, "message": reply}],
        "usage": {"prompt_tokens": 1, "completion_tokens": written, "total_tokens": 1 + written},
    }


def listed(request: dict[str, Any]) -> str:
    """Answer with one of the possible actions that the last message lists, as the seed says."""
    last = request["messages"][-1]["content"]
    actions = last.rpartition("Possible: ")[2].split(" | ")
    return f"<think>one of {len(actions)}</think><action>{actions[request['seed'] % len(actions)]}</action>"
