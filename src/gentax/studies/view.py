"""A page that follows a study while it runs: the matrix filling, training curves, any episode. `gentax view`.

The server only reads the store, so it may be started before, during or after a run, on any machine that sees the
folder. It answers to this machine alone unless another address is given, and then asks for a token. Everything that
comes from models, environments and files is put into the page as text.
"""

from __future__ import annotations

import hmac
import json
import mimetypes
import secrets
import sys
import time
from collections.abc import Mapping
from functools import cached_property
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from gentax.core import UsageError
from gentax.core.console import visible
from gentax.core.episode import episode_to_json
from gentax.studies.costs import CostModel, overview
from gentax.studies.plan import Plan, Stage
from gentax.studies.stages import SCORES
from gentax.studies.store import DamagedStage, Store

POINTS = 400  # of a curve at most
TAIL = 1 << 20  # bytes of a log that are read, from its end
LOG = "metrics.jsonl"  # of a training run
COOKIE = "gentax_token"
REPORT = "/report/"  # the report's folder
CURVES = ("success", "validation_success", "return", "entropy", "invalid")


class StudyView:
    """What the page shows of a study, read from its store."""

    def __init__(self, plan: Plan, store: Store, slots: int = 1) -> None:
        self.plan, self.store, self.slots = plan, store, slots
        self.stages = {stage.folder: stage for stage in plan.stages()}
        self._success: dict[Stage, tuple[float, int]] = {}

    def state(self) -> dict[str, Any]:
        """Return what changes while a study runs, as JSON values."""
        now = overview(self.plan, self.store, CostModel().learn(self.store.history()), self.slots)
        running = []
        for stage, state in now.states.items():
            if state == "running":
                progress = self.store.progress(stage)
                detail, fraction = str(progress.get("detail", "starting")), progress.get("fraction", 0.0)
                where = f"{progress.get('host', '')} {progress.get('pid', '')}".strip()
                running.append({"title": stage.title, "detail": detail, "fraction": fraction, "where": where})
        return {
            "study": self.plan.study.name,
            "about": self.plan.study.about,
            "time": time.strftime("%H:%M:%S"),
            "done": sum(state == "done" for state in now.states.values()),
            "total": len(now.states),
            "seconds_left": now.wall_seconds,
            "running": running,
            "failed": [
                stage.title
                for stage, state in now.states.items()
                if state in ("missing", "stopped") and self.store.running(stage, "log").exists()
            ][:20],
            "domains": list(self.plan.study.domains),
            "rows": self._rows(now.states),
            "curves": self._curves(now.states),
            "report": now.states[self.plan.report] == "done",
        }

    def episodes(self, folder: str, index: int) -> dict[str, Any]:
        """Return one episode of an evaluation. Raises KeyError, IndexError, DamagedStage, UsageError."""
        stage = self.stages[folder]
        if stage.kind != "evaluate" or not self.store.has(stage):
            raise KeyError(folder)
        episodes = self.store.episodes(stage)
        return {"number": len(episodes), "episode": episode_to_json(episodes[index])}

    def report_file(self, name: str) -> bytes:
        """Return a file of the finished report. Raises KeyError, DamagedStage."""
        report = self.plan.report
        if not self.store.has(report) or name not in self.store.seal(report)["files"]:
            raise KeyError(name)
        return (self.store.check(report, name) / name).read_bytes()

    def _rows(self, states: Mapping[Stage, str]) -> list[dict[str, Any]]:
        """Return the matrix: a row for the base, for random play and for each training run."""
        rows: dict[str, dict[str, Stage]] = {"base": self.plan.init, "random play": self.plan.random}
        for (arm, source, seed, name), stage in self.plan.after.items():
            rows.setdefault(f"{arm} on {source}, seed {seed}", {})[name] = stage
        return [
            {"name": title, "cells": {name: self._cell(stage, states[stage]) for name, stage in of_domain.items()}}
            for title, of_domain in rows.items()
        ]

    def _cell(self, stage: Stage, state: str) -> dict[str, Any]:
        cell: dict[str, Any] = {"folder": stage.folder, "state": state}
        if state == "running":
            cell["fraction"] = self.store.progress(stage).get("fraction", 0.0)
        if state == "done":
            if stage not in self._success:
                try:
                    values = [value for value in self.store.json(stage, SCORES)["success"] if value is not None]
                except DamagedStage:
                    return cell | {"state": "missing"}
                self._success[stage] = (100 * sum(values) / max(1, len(values)), len(values))
            cell["success"], cell["tasks"] = self._success[stage]
        return cell

    def _curves(self, states: Mapping[Stage, str]) -> list[dict[str, Any]]:
        curves = []
        for (arm, source, seed), stage in self.plan.trained.items():
            state = states[stage]
            try:
                folder = self.store.check(stage, LOG) if state == "done" else self.store.working_folder(stage)
            except DamagedStage:
                continue
            rows = _tail(folder / LOG) if state != "missing" else []
            if rows:
                shown = rows[:: max(1, len(rows) // POINTS)]
                values = {key: [[row["step"], row[key]] for row in shown if key in row] for key in CURVES}
                name = f"{arm} on {source}, seed {seed}"
                curves.append({"name": name, "values": {key: points for key, points in values.items() if points}})
        return curves


def _tail(path: Any) -> list[dict[str, Any]]:
    """Return the last rows of a log that may be being written."""
    rows = []
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read(TAIL).decode(errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # cut in two
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), (int, float)):
            rows.append(row)
    return rows


class ViewServer(ThreadingHTTPServer):
    """Serves the page of one study.

    Args:
        view: of the study.
        host: the address to listen at. Any but a loopback address takes a token, which `url` holds.
        port: 0 for a free one.

    Raises:
        UsageError: an address that cannot be listened at.
    """

    daemon_threads = True

    def __init__(self, view: StudyView, host: str = "127.0.0.1", port: int = 0) -> None:
        self.view, self.loopback = view, _is_loopback(host)
        self.token = None if self.loopback else secrets.token_urlsafe(16)
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as fault:
            raise UsageError(f"cannot listen at {host}:{port}: {fault}") from None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line what went wrong with a request; nothing of a browser that did not wait for the answer."""
        if not isinstance(fault := sys.exception(), (ConnectionError, TimeoutError)):
            text = f"gentax: a request failed: {type(fault).__name__}: {fault}"
            print(visible(" ".join(text.split())), file=sys.stderr)

    @property
    def url(self) -> str:
        """The address to open."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/" + (f"?token={self.token}" if self.token else "")

    @cached_property
    def page(self) -> str:
        return (files("gentax.studies") / "templates" / "view.html").read_text(encoding="utf-8")


class _Handler(BaseHTTPRequestHandler):
    server: ViewServer
    timeout = 30  # seconds that a request may take to arrive

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if not self._allowed(query):
            self._send(HTTPStatus.FORBIDDEN, "text/plain", b"open the address that gentax view printed")
        elif url.path == "/":
            nonce = secrets.token_urlsafe(12)
            self._send(HTTPStatus.OK, "text/html", self.server.page.replace("NONCE", nonce).encode(), nonce)
        elif url.path == "/state.json":
            self._json(self.server.view.state())
        elif url.path == "/episode.json":
            try:
                self._json(self.server.view.episodes(query["stage"], int(query.get("index", "0"))))
            except (KeyError, IndexError, ValueError, DamagedStage) as fault:
                self._send(HTTPStatus.NOT_FOUND, "text/plain", f"no such episode: {fault}".encode())
        elif url.path.startswith(REPORT):
            name = unquote(url.path.removeprefix(REPORT))
            try:
                kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
                self._send(HTTPStatus.OK, kind, self.server.view.report_file(name), report=True)
            except (KeyError, DamagedStage, OSError):
                self._send(HTTPStatus.NOT_FOUND, "text/plain", b"the report has no such file, or is not written yet")
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there is no such page")

    def _allowed(self, query: Mapping[str, str]) -> bool:
        """Return whether the request may be answered: by its token, or on a loopback address by the name it asks for.

        A page of somebody else whose name is made to resolve to this machine sends that name (DNS rebinding).
        """
        if self.server.token is None:
            try:
                host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
            except ValueError:
                return False
            return host == "localhost" or _is_loopback(host)
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        given = query.get("token") or (cookie.value if cookie is not None else "")
        return hmac.compare_digest(given.encode(), self.server.token.encode())

    def _json(self, values: Any) -> None:
        self._send(HTTPStatus.OK, "application/json", json.dumps(values).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes, nonce: str = "", report: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        if not report:  # which brings a policy of its own
            allowed = f"'nonce-{nonce}'" if nonce else "'none'"
            policy = f"default-src 'none'; connect-src 'self'; style-src {allowed}; script-src {allowed}"
            self.send_header("Content-Security-Policy", f"{policy}; frame-ancestors 'none'; base-uri 'none'")
        if self.server.token is not None and status == HTTPStatus.OK:
            self.send_header("Set-Cookie", f"{COOKIE}={self.server.token}; HttpOnly; SameSite=Strict; Path=/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: a token would be among them."""


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
