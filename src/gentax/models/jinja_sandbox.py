"""Render untrusted Jinja templates, each in a process of its own with limits.

A thread cannot be stopped, and Jinja's sandbox bounds neither time nor memory: two nested loops or `'a' * 10 ** 10`
would hang a run or fill the machine. A small process (`jinja_worker.py`) therefore stops itself after two seconds of
CPU time or a gigabyte, and is killed if it does not.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gentax.core import UsageError, unknown

MAX_TEMPLATE_CHARS = 1 << 18  # models' own templates have up to some 30,000
TIMEOUT_S = 60.0  # wall-clock seconds, generous for a busy machine
WORKER = Path(__file__).with_name("jinja_worker.py")


class TemplateRenderError(Exception):
    """A compiled template that cannot render these variables. `str(error)` says why, on one line."""


class SandboxedTemplate:
    """A compiled template. Use it as a context, since it holds a process; the process also ends with the object.

    Args:
        source: the template's text.
        what: its name in errors, such as "the chat template of model".
        fields: the variables it may read; None for any, with missing ones empty.

    Raises:
        UsageError: a template that is too large, does not compile within the limits, or reads an unknown variable.
    """

    def __init__(self, source: str, what: str, fields: Sequence[str] | None = None) -> None:
        if len(source) > MAX_TEMPLATE_CHARS:
            raise UsageError(f"{what} has {len(source):,} characters; at most {MAX_TEMPLATE_CHARS:,} are read")
        self.source, self.what, self.fields = source, what, fields
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._close = lambda: None
        try:
            unknown_fields = self._start()
        except TemplateRenderError as error:
            self.close()
            raise UsageError(f"{what} is no template that can be used: {error}") from None
        if unknown_fields:
            self.close()
            raise unknown(f"field of {what}", unknown_fields.split("\n")[0], fields or ())

    def render(self, variables: Mapping[str, Any]) -> str:
        """Render the template with these variables, which must be JSON values.

        Raises:
            TemplateRenderError: it raises an error, takes too much time or memory, or writes too much.
        """
        with self._lock:
            if self._process is None:
                self._start()
            return self._request(variables)

    def close(self) -> None:
        """End the process; rendering again starts another."""
        self._close()
        self._process = None

    def __enter__(self) -> SandboxedTemplate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> str:
        # -P: modules beside the worker must not stand in for the standard library's
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        self._close = weakref.finalize(self, _end, self._process)
        return self._request({"source": self.source, "fields": self.fields})

    def _request(self, request: Mapping[str, Any]) -> str:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(TIMEOUT_S, process.kill)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            self.close()
            raise TemplateRenderError("it takes too long, or too much memory")
        answer = json.loads(line)
        if "error" in answer:
            raise TemplateRenderError(answer["error"])
        return str(answer["text"])


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was still to be written cannot be any more
                pipe.close()
    process.wait()
