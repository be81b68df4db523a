"""One OpenAI-compatible server: asked many things at once and patiently; what it refuses is told in one line.

The `openai` client does the talking: it tries again, with growing pauses, after a lost connection, a timeout and the
statuses 408, 409, 429 and 5xx, and keeps to a server's `Retry-After`. Answers are read as plain JSON, since servers
send much that the client's types do not foresee. Left out: streaming, tools, images.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import threading
import weakref
from collections.abc import Coroutine, Iterable
from typing import Any
from urllib.parse import urlsplit

from gentax.core import UsageError
from gentax.core.errors import PolicyFault
from gentax.policies.answers import is_answer, read_json

KEY = "OPENAI_API_KEY"
AT_ONCE = 64  # questions in flight, at most
RETRIES = 6  # about 20 seconds of pauses in all
TIMEOUT_S = 300.0  # for an answer, the time it waits in the server's queue included
PAUSES_S = (0.5, 2.0)  # before a question is asked again whose answer was none
SHOWN = 200  # characters of what a server said that are printed


class Refused(PolicyFault):
    """A server that does not answer. `str` is a line for a person.

    Attributes:
        status: of HTTP; 0 where there was none.
        said: the server's own words.
        param: the setting that the server says is to blame, if any.
    """

    def __init__(self, line: str, status: int = 0, said: str = "", param: str | None = None) -> None:
        super().__init__(line)
        self.status, self.said, self.param = status, said, param


class Server:
    """A server and the connections to it, which live in a thread of their own.

    Args:
        url: its base URL, such as `http://localhost:8000/v1`. The key is taken from the environment's OPENAI_API_KEY.
        at_once: questions in flight at once, at most.
        retries: how often a question is asked again that failed.
        timeout_s: how long an answer may take.

    Raises:
        UsageError: a URL, a key or a proxy setting with which no request can be made.
    """

    def __init__(
        self, url: str, *, at_once: int = AT_ONCE, retries: int = RETRIES, timeout_s: float = TIMEOUT_S
    ) -> None:
        import openai  # takes most of a second to load

        self.url = _without_password(url)
        self._key = os.environ.get(KEY, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UsageError(f"{KEY} is not a key: it has characters that cannot be sent")
        self._openai = openai
        try:
            self._client = openai.AsyncOpenAI(
                base_url=url,
                api_key=self._key or "none",  # local servers need no key, but the client wants one
                max_retries=retries,
                timeout=openai.Timeout(timeout_s, connect=10.0),
            )
        except Exception as error:  # the client reads the URL and the proxies in the environment, and may balk at each
            raise UsageError(f"cannot talk to {self.url}: {_first_line(str(error))}") from error
        self._gate = asyncio.Semaphore(at_once)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_run, args=(self._loop,), name=f"gentax {self.url}", daemon=True).start()
        weakref.finalize(self, _hang_up, self._loop, self._client).atexit = False

    def together(self, questions: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Wait for all questions, which run at once, and return the answers in order; the first that fails ends all."""

        async def ask() -> list[Any]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(question) for question in questions]
            return [task.result() for task in tasks]

        future = asyncio.run_coroutine_threadsafe(ask(), self._loop)
        try:
            return future.result()
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from failed.exceptions[0].__cause__
        finally:
            future.cancel()  # nobody waits any more where Ctrl-C was pressed

    async def complete(self, model: str, messages: Any, settings: dict[str, Any]) -> dict[str, Any]:
        """Ask for a chat completion and return the server's answer, which is one (see `is_answer`).

        Raises:
            Refused: the server cannot be reached, does not answer in time or says no, for good or for too long.
        """
        async with self._gate:
            for pause in (*PAUSES_S, None):
                asked = self._client.chat.completions.with_raw_response.create(
                    model=model, messages=messages, extra_body=settings
                )
                content = await self._content(asked)
                body = read_json(content)
                if is_answer(body):
                    return body
                refused = self._no_answer(body, content)
                if pause is None or 400 <= refused.status < 429:
                    raise refused
                await asyncio.sleep(pause)
        raise AssertionError("the last pause is None")

    async def models(self) -> list[str]:
        """Return the names of the models the server has. Raises Refused; soon, where there is no server."""
        quick = self._client.with_options(max_retries=1, timeout=30.0)
        content = await self._content(quick.models.with_raw_response.list())
        body = read_json(content)
        listed = body.get("data") if isinstance(body, dict) else None
        if not isinstance(listed, list):
            raise Refused(
                f"{self.url} does not list models as an OpenAI-compatible server does; is it the base URL (…/v1)?",
                status=200,
            )
        return [m["id"] for m in listed if isinstance(m, dict) and isinstance(m.get("id"), str)]

    async def _content(self, request: Any) -> bytes:
        try:
            return (await request).content
        except self._openai.APITimeoutError as error:
            raise Refused(f"{self.url} did not answer in time") from error
        except self._openai.APIStatusError as error:
            raise self._refusal(error.status_code, error.body, error.response.text) from error
        except self._openai.OpenAIError as error:
            raise Refused(f"cannot reach {self.url}: {self._shown(_reason(error))}") from error

    def _no_answer(self, body: Any, content: bytes) -> Refused:
        """Return what an answer with status 200 comes to that is none; some servers report errors that way."""
        error = body.get("error") if isinstance(body, dict) else None
        if error is not None:
            code = error.get("code") if isinstance(error, dict) else None
            return self._refusal(code if isinstance(code, int) and not isinstance(code, bool) else 0, error, "")
        said = self._shown(content[: 4 * SHOWN].decode("utf-8", "replace"))
        return Refused(f"{self.url} answers what is no chat completion: {said or 'nothing'}")

    def _refusal(self, status: int, body: Any, text: str) -> Refused:
        param = None
        if isinstance(body, dict):
            param = body.get("param")
            found = body.get("message") or body.get("detail") or body.get("error") or body
            said = found if isinstance(found, str) else str(found)
        else:
            said = body if isinstance(body, str) and body else text
        shown = self._shown(said)
        if status == 401:
            fault = f"refuses the key in {KEY}" if self._key else f"wants a key; set {KEY}"
        else:
            fault = {403: "denies access", 404: "does not have it", 429: "allows no more requests"}.get(status, "fails")
        code = f" (HTTP {status})" if status else ""
        return Refused(f"{self.url} {fault}{code}{': ' + shown if shown else ''}", status, said, str(param))

    def _shown(self, said: str) -> str:
        """Return the start of what a server said as one line without control characters or the key."""
        if self._key:
            said = said.replace(self._key, "…")
        line = " ".join("".join(c if c.isprintable() else " " for c in said[: 4 * SHOWN]).split())
        return line if len(line) <= SHOWN else line[:SHOWN] + "…"


def _without_password(url: str) -> str:
    return urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]).geturl()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _hang_up(loop: asyncio.AbstractEventLoop, client: Any) -> None:
    async def close() -> None:
        with contextlib.suppress(Exception):  # a connection that is broken already
            await client.close()
        loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)


def _reason(error: BaseException) -> str:
    """Return why there is no connection: the operating system's words where there are any."""
    seen, cause = str(error), error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, ssl.SSLError):  # its numbers are not the system's
            return f"no secure connection ({cause.reason or cause}); is it https?"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno) if cause.errno > 0 else cause.strerror  # a name is not found below 0
        seen = str(cause) or seen
        cause = cause.__cause__ or cause.__context__
    return _first_line(seen)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
