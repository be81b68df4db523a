"""Rendering Jinja templates that may come from anybody: each in a process of its own, with limits.

A thread cannot be stopped and Jinja's sandbox bounds neither time nor memory: two nested loops or `'a' * 10 ** 10`
would hang a run or fill the machine. So a template is rendered by a small process (`jinja_worker.py`) that stops
itself after two seconds of computing or a gigabyte, and that is killed if it does not.
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

MAX_TEMPLATE_CHARS = 1 << 18  # characters of a template; those that models come with have up to some 30,000
TIMEOUT_S = 60.0  # seconds of waiting for an answer, on a machine that is busy with other things
WORKER = Path(__file__).with_name("jinja_worker.py")


class TemplateRenderError(Exception):
    """A template that could be compiled does not render these variables. `str(error)` says why, on one line."""


class SandboxedTemplate:
    """A compiled template. A context, since a process holds it; the process also ends with the object.

    Args:
        source: the template's text.
        what: what it is called in errors, such as "the chat template of model".
        fields: the variables it may read; None for any, where those it is not given are empty.

    Raises:
        UsageError: a template that is too large, that does not compile within the limits, or that reads a variable
            which is no field.
    """

    def __init__(self, source: str, what: str, fields: Sequence[str] | None = None) -> None:
        if len(source) > MAX_TEMPLATE_CHARS:
            raise UsageError(f"{what} has {len(source):,} characters; at most {MAX_TEMPLATE_CHARS:,} are read")
        self.source, self.what, self.fields = source, what, fields
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._close = lambda: None
        try:
            others = self._start()
        except TemplateRenderError as fault:
            self.close()
            raise UsageError(f"{what} is no template that can be used: {fault}") from None
        if others:
            self.close()
            raise unknown(f"field of {what}", others.split("\n")[0], fields or ())

    def render(self, variables: Mapping[str, Any]) -> str:
        """Return what the template makes of the variables, which must be JSON values.

        Raises:
            TemplateFailed: it raises an error, takes too much time or memory, or writes too much.
        """
        with self._lock:
            if self._process is None:
                self._start()
            return self._asked(variables)

    def close(self) -> None:
        """End the process; rendering once more starts another."""
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
        return self._asked({"source": self.source, "fields": self.fields})

    def _asked(self, request: Mapping[str, Any]) -> str:
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
        said = json.loads(line)
        if "error" in said:
            raise TemplateRenderError(said["error"])
        return str(said["text"])


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):  # what was still to be written cannot be any more
                pipe.close()
    process.wait()
