"""Render untrusted Jinja templates, each in a process of its own with limits.

A thread cannot be stopped, and Jinja's sandbox bounds neither time nor memory: two nested loops or `'a' * 10 ** 10`
would hang a run or fill the machine. A small process therefore stops itself after two seconds of CPU time or a
gigabyte, and is killed if it does not. There the template is compiled and rendered in Jinja's immutable sandbox, and
once this file has been read the process opens no file, socket or process.

This file is both sides. Run as a script it is the process: requests and answers are lines of JSON; the first request is
`{"source": text, "fields": names or null}` and is answered with the names in the template that are no fields; the
others are the variables. It therefore imports nothing of gentax at the top, which would cost each process its start.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, meta
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEMPLATE_CHARS = 1 << 18  # models' own templates have up to some 30,000
TIMEOUT_S = 60.0  # wall-clock seconds, generous for a busy machine


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
        from gentax.core import UsageError, unknown

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
        # -P: modules beside this file must not stand in for the standard library's
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
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


# The process.

MEMORY = 1 << 30  # bytes of address space
SECONDS = 2.0  # of computing for one rendering
KILLED_AFTER = 5  # of computing for one rendering that holds the interpreter, such as an enormous power
LONGEST = 1 << 21  # characters of what is rendered
TODAY = datetime(2024, 7, 26)  # for templates that print the date: a prompt must not depend on the day
REFUSED = ("open", "import", "socket", "subprocess", "os.", "shutil", "ctypes", "urllib", "winreg", "signal", "pty")


class Generation(Extension):
    """Ignores the marks of `{% generation %}` blocks, which show what a model wrote."""

    tags = {"generation"}  # noqa: RUF012  declared so by Jinja

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment() -> ImmutableSandboxedEnvironment:
    """Return transformers' environment for chat templates: its names and whitespace rules."""

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message: object) -> None:
        raise TemplateError(str(message))

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = TODAY.strftime
    return env


def out_of_time(*_: object) -> None:
    raise TimeoutError(f"it takes more than {SECONDS:g} seconds")


def limit_memory() -> None:
    """Cap the address space, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def limit_time(seconds: float) -> None:
    """Start the timer of one rendering, or stop it (0)."""
    with contextlib.suppress(AttributeError, ImportError, ValueError, OSError):
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        until = int(used.ru_utime + used.ru_stime) + KILLED_AFTER if seconds else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))


def seal() -> None:
    """From here on this process may only read requests and compute."""
    env = environment()
    for source in ("{{ [1]|tojson|trim }}{% for i in 'ab' %}{{ loop.index }}{% endfor %}", "{{ a.b }}", "{{"):
        with contextlib.suppress(TemplateError):  # loads what is loaded late, the reporting of errors too
            env.from_string(source).render()
    limit_time(0)

    def refuse(event: str, _: object) -> None:
        if event.startswith(REFUSED):
            raise PermissionError(f"it asks for {event}")

    sys.addaudithook(refuse)


def answer(work: Any) -> dict[str, str]:
    """Run `work` within its limits."""
    try:
        limit_time(SECONDS)
        text = work()
        limit_time(0)
        if len(text) > LONGEST:
            return {"error": f"it writes {len(text):,} characters"}
        return {"text": text}
    except MemoryError:
        return {"error": "it takes too much memory"}
    except RecursionError:
        return {"error": "it is nested too deeply"}
    except Exception as error:
        message = str(error).strip() or type(error).__name__
        return {"error": f"{message.splitlines()[0][:300]}{_line(error)}"}
    finally:
        limit_time(0)


def _line(error: Exception) -> str:
    return f" (line {error.lineno})" if isinstance(getattr(error, "lineno", None), int) else ""


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks: a step in flight is finished there
    if hasattr(signal, "SIGVTALRM"):
        signal.signal(signal.SIGVTALRM, out_of_time)
    limit_memory()
    seal()
    env = environment()
    template: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        if template is None:

            def compile_it(source: str = request["source"], fields: list[str] | None = request["fields"]) -> str:
                nonlocal template
                template = env.from_string(source)
                if fields is None:
                    return ""
                return "\n".join(sorted(meta.find_undeclared_variables(env.parse(source)) - {*fields, *env.globals}))

            message = answer(compile_it)
        else:
            message = answer(lambda request=request: template.render(request))
        print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
