"""Render one untrusted Jinja template: the process that `templates.py` runs; never imported.

The template is compiled and rendered in Jinja's immutable sandbox, with limits on memory and on time per rendering, and
once it has been read this process opens no file, socket or process. Requests and answers are lines of JSON: the first
request is `{"source": text, "fields": names or null}` and is answered with the names in the template that are no
fields; the others are the variables.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, meta
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_MEMORY = 1 << 30  # bytes of address space
MAX_SECONDS = 2.0  # of computing for one rendering
KILLED_AFTER = 5  # of computing for one rendering that holds the interpreter, such as an enormous power
MAX_CHARS = 1 << 21  # characters of what is rendered
FIXED_DATE = datetime(2024, 7, 26)  # for templates that print the date: a prompt must not depend on the day
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
    env.globals["strftime_now"] = FIXED_DATE.strftime
    return env


def out_of_time(*_: object) -> None:
    raise TimeoutError(f"it takes more than {MAX_SECONDS:g} seconds")


def limit_memory() -> None:
    """Cap the address space, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


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
        limit_time(MAX_SECONDS)
        text = work()
        limit_time(0)
        if len(text) > MAX_CHARS:
            return {"error": f"it writes {len(text):,} characters"}
        return {"text": text}
    except MemoryError:
        return {"error": "it takes too much memory"}
    except RecursionError:
        return {"error": "it is nested too deeply"}
    except Exception as error:
        message, line = str(error).strip() or type(error).__name__, getattr(error, "lineno", None)
        return {"error": message.splitlines()[0][:300] + (f" (line {line})" if isinstance(line, int) else "")}
    finally:
        limit_time(0)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks: a step in flight is finished there
    if hasattr(signal, "SIGVTALRM"):
        signal.signal(signal.SIGVTALRM, out_of_time)
    limit_memory()
    seal()
    env = environment()
    first = json.loads(sys.stdin.readline())
    template: Any = None

    def compile_it() -> str:
        nonlocal template
        template = env.from_string(first["source"])
        if first["fields"] is None:
            return ""
        known = {*first["fields"], *env.globals}
        return "\n".join(sorted(meta.find_undeclared_variables(env.parse(first["source"])) - known))

    print(json.dumps(answer(compile_it)), flush=True)
    for line in sys.stdin:
        variables = json.loads(line)
        print(json.dumps(answer(lambda variables=variables: template.render(variables))), flush=True)


if __name__ == "__main__":
    main()
