"""One OpenAI-compatible server: asked many things at once and patiently; what it refuses is told in one line.

The `openai` client does the talking: it tries again, with growing pauses, after a lost connection, a timeout and the
statuses 408, 409, 429 and 5xx, and keeps to a server's `Retry-After`. Answers are read as plain JSON, since servers
send much that the client's types do not foresee. Left out: streaming, tools, images.

What a chat-completions server says, as the text of a reply. A server may say anything; nothing here raises.

A reply ends at its first `</action>`, as a local model's does. Servers are asked to stop there, and most then leave
the mark itself out: it is put back. A thought that the server has split off is put back as `<think>…</think>`. Tags
that are merely quoted in such a thought become `[action]` and the like, so that they are not read as the action.

In the other action formats nothing is stopped at. A call that the server has split off is written behind the words.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import ssl
import threading
import weakref
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from gentax.core import UsageError
from gentax.core.errors import PolicyFault
from gentax.models.action_format import (
    ACTION,
    ACTION_END,
    CALL_ID,
    MAX_TOOL_CALLS,
    THINK,
    THINK_END,
    TOOL_ARGUMENT,
    TOOL_NAME,
    action_of_call,
    write_reply,
)

API_KEY_VARIABLE = "OPENAI_API_KEY"
MAX_CONCURRENT = 64  # questions in flight, at most
RETRIES = 6  # about 20 seconds of pauses in all
TIMEOUT_S = 300.0  # for an answer, the time it waits in the server's queue included
RETRY_PAUSES_S = (0.5, 2.0)  # before a question is asked again whose answer was none
MAX_ERROR_CHARS = 200  # characters of what a server said that are printed


class EndpointError(PolicyFault):
    """A server that does not answer. `str` is a line for a person.

    Attributes:
        status: of HTTP; 0 where there was none.
        said: the server's own words.
        param: the setting that the server says is to blame, if any.
    """

    def __init__(self, line: str, status: int = 0, said: str = "", param: str | None = None) -> None:
        super().__init__(line)
        self.status, self.said, self.param = status, said, param


class ChatClient:
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
        self, url: str, *, at_once: int = MAX_CONCURRENT, retries: int = RETRIES, timeout_s: float = TIMEOUT_S
    ) -> None:
        import openai  # takes most of a second to load

        self.url = _without_password(url)
        self._key = os.environ.get(API_KEY_VARIABLE, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UsageError(f"{API_KEY_VARIABLE} is not a key: it has characters that cannot be sent")
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
        """Ask for a chat completion and return the server's answer, which is one (see `is_completion`).

        Raises:
            Refused: the server cannot be reached, does not answer in time or says no, for good or for too long.
        """
        async with self._gate:
            for pause in (*RETRY_PAUSES_S, None):
                asked = self._client.chat.completions.with_raw_response.create(
                    model=model, messages=messages, extra_body=settings
                )
                content = await self._content(asked)
                body = read_json(content)
                if is_completion(body):
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
            raise EndpointError(
                f"{self.url} does not list models as an OpenAI-compatible server does; is it the base URL (…/v1)?",
                status=200,
            )
        return [m["id"] for m in listed if isinstance(m, dict) and isinstance(m.get("id"), str)]

    async def _content(self, request: Any) -> bytes:
        try:
            return (await request).content
        except self._openai.APITimeoutError as error:
            raise EndpointError(f"{self.url} did not answer in time") from error
        except self._openai.APIStatusError as error:
            raise self._refusal(error.status_code, error.body, error.response.text) from error
        except self._openai.OpenAIError as error:
            raise EndpointError(f"cannot reach {self.url}: {self._shown(_reason(error))}") from error

    def _no_answer(self, body: Any, content: bytes) -> EndpointError:
        """Return what an answer with status 200 comes to that is none; some servers report errors that way."""
        error = body.get("error") if isinstance(body, dict) else None
        if error is not None:
            code = error.get("code") if isinstance(error, dict) else None
            return self._refusal(code if isinstance(code, int) and not isinstance(code, bool) else 0, error, "")
        said = self._shown(content[: 4 * MAX_ERROR_CHARS].decode("utf-8", "replace"))
        return EndpointError(f"{self.url} answers what is no chat completion: {said or 'nothing'}")

    def _refusal(self, status: int, body: Any, text: str) -> EndpointError:
        param = None
        if isinstance(body, dict):
            param = body.get("param")
            found = body.get("message") or body.get("detail") or body.get("error") or body
            said = found if isinstance(found, str) else str(found)
        else:
            said = body if isinstance(body, str) and body else text
        shown = self._shown(said)
        if status == 401:
            fault = f"refuses the key in {API_KEY_VARIABLE}" if self._key else f"wants a key; set {API_KEY_VARIABLE}"
        else:
            fault = {403: "denies access", 404: "does not have it", 429: "allows no more requests"}.get(status, "fails")
        code = f" (HTTP {status})" if status else ""
        return EndpointError(f"{self.url} {fault}{code}{': ' + shown if shown else ''}", status, said, str(param))

    def _shown(self, said: str) -> str:
        """Return the start of what a server said as one line without control characters or the key."""
        if self._key:
            said = said.replace(self._key, "…")
        line = " ".join("".join(c if c.isprintable() else " " for c in said[: 4 * MAX_ERROR_CHARS]).split())
        return line if len(line) <= MAX_ERROR_CHARS else line[:MAX_ERROR_CHARS] + "…"


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


TEXT_LIMIT = 1 << 16  # characters of an answer, and of a thought, that are read
_TAG = re.compile(r"<(/?(?:think|action))>")


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """One answer of a server."""

    text: str
    written: int | None  # tokens, the thought's included; None where the server does not say
    cut_off: bool  # whether the mark at which the server was to stop came up in a thought: there is no answer yet
    truncated: bool = False  # whether it ended because it may have no more tokens
    call_id: str = ""  # the server's name for the call of the tool, where it made one


def read_json(content: bytes) -> Any:
    """Return the JSON value in `content`, or None where there is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def is_completion(body: Any) -> bool:
    """Return whether `body` is what a server sends that has answered, oddly or not."""
    return isinstance(body, dict) and isinstance(body.get("choices"), list)


def parse_completion(body: dict[str, Any], stopping: bool, action_format: str = "tags") -> ChatCompletion:
    """Read an answer.

    Args:
        body: what `is_completion` accepts.
        stopping: whether the server was asked to stop at `</action>`.
        action_format: how the action is said.
    """
    choice = _dict(body["choices"][0] if body["choices"] else None)
    message = _dict(choice.get("message"))
    content = _text(message.get("content"))
    thought = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
    ended = choice.get("finish_reason") != "length"
    written = _dict(body.get("usage")).get("completion_tokens")
    if isinstance(written, bool) or not isinstance(written, int) or written < 0:
        written = None
    action, call_id = _call(message.get("tool_calls")) if action_format == "tool_calls" else (None, "")
    if action is not None:
        content += write_reply(action, None, action_format)
    if thought and not content.strip():
        if not ended:
            return ChatCompletion(THINK + _quoted(thought), written, False, True)
        if stopping:
            return ChatCompletion("", written, True)
        content, thought = thought, ""  # it ended its turn by itself: the server has misfiled the answer as a thought
    if action_format == "tags":
        content = _one_action(content, close=stopping and ended)
    if thought:
        content = f"{THINK}{_quoted(thought)}{THINK_END}{content}"
    elif THINK not in content.partition(THINK_END)[0] and THINK_END in content:
        content = THINK + content  # some models' templates open the thought in the prompt
    return ChatCompletion(content, written, False, not ended, call_id)


def tool_call_message(text: str, action: str, call_id: str) -> dict[str, Any]:
    """Return the answer that called the tool, as it stands in a conversation from then on."""
    call = {"name": TOOL_NAME, "arguments": json.dumps({TOOL_ARGUMENT: action})}
    words = text.partition("<tool_call>")[0]
    return {
        "role": "assistant",
        "content": words,
        "tool_calls": [{"id": call_id, "type": "function", "function": call}],
    }


def _call(calls: Any) -> tuple[str | None, str]:
    """Return the action of the last call of the tool, and the call's id; None where there is none."""
    for call in reversed(calls[:MAX_TOOL_CALLS] if isinstance(calls, list) else []):
        if (action := action_of_call(call)) is not None:
            named = call.get("id")
            return action, clean(named[:64]) if isinstance(named, str) and named else CALL_ID
    return None, ""


def clean(text: str) -> str:
    """Return `text` as it can be sent and kept: lone surrogates are not UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _one_action(content: str, close: bool) -> str:
    before, end, _ = content.partition(ACTION_END)
    return before + ACTION_END if end or (close and ACTION in before) else before


def _quoted(thought: str) -> str:
    return _TAG.sub(r"[\1]", thought)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    if isinstance(value, list):  # parts; only those of text have a "text"
        value = "".join(said for part in value if isinstance(said := _dict(part).get("text"), str))
    return clean(str(value)[:TEXT_LIMIT]) if isinstance(value, (str, int, float)) else ""
