"""An OpenAI-compatible server: concurrent chat completions with retries, parsed defensively; refusals in one line.

The `openai` client retries, with growing pauses, after lost connections, timeouts and the statuses 408, 409, 429 and
5xx, and respects `Retry-After`. Responses are parsed as plain JSON, since servers send much that the client's types do
not allow; nothing in a response makes the parser raise. Not supported: streaming, images.

A reply ends at its first `</action>`, as a local model's does. Servers stop there, and most then omit the stop string,
which is restored. Separate reasoning is restored as `<think>…</think>`; tags quoted in it become `[action]` and the
like, so that they are not parsed as the action. Other action formats have no stop string; a separate tool call is
appended to the text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
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
MAX_CONCURRENT = 64  # concurrent requests, at most
RETRIES = 6  # about 20 seconds of pauses in all
TIMEOUT_S = 300.0  # for a response, including the server's queue
RETRY_PAUSES_S = (0.5, 2.0)  # before a request is repeated whose response was no completion
MAX_ERROR_CHARS = 200  # characters of a server's message that are shown


class EndpointError(PolicyFault):
    """A server that gives no answer. `str` is a line for a person.

    Attributes:
        status: of HTTP; 0 where there was none.
        message: the server's.
        param: the setting that the server blames, if any.
    """

    def __init__(self, line: str, status: int = 0, message: str = "", param: str | None = None) -> None:
        super().__init__(line)
        self.status, self.message, self.param = status, message, param


class ChatClient:
    """A server and its connections, which live in a thread of their own.

    Args:
        url: its base URL, such as `http://localhost:8000/v1`. The key is read from OPENAI_API_KEY.
        at_once: concurrent requests, at most.
        retries: of a failed request.
        timeout_s: for a response.

    Raises:
        UsageError: a URL, key or proxy setting with which no request can be made.
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
        weakref.finalize(self, _close_client, self._loop, self._client).atexit = False

    def gather(self, questions: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
        """Run requests concurrently and return their results in order; the first error ends all."""

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
            future.cancel()  # after Ctrl-C nobody waits any more

    async def complete(self, model: str, messages: Any, settings: dict[str, Any]) -> dict[str, Any]:
        """Request a chat completion and return the response body (see `is_completion`).

        Raises:
            EndpointError: the server cannot be reached, times out or refuses, for good or for too long.
        """
        async with self._gate:
            for pause in (*RETRY_PAUSES_S, None):
                request = self._client.chat.completions.with_raw_response.create(
                    model=model, messages=messages, extra_body=settings
                )
                content = await self._content(request)
                body = read_json(content)
                if is_completion(body):
                    return body
                refused = self._no_answer(body, content)
                if pause is None or 400 <= refused.status < 429:
                    raise refused
                await asyncio.sleep(pause)
        raise AssertionError("the last pause is None")

    async def models(self) -> list[str]:
        """Return the names of the server's models. Raises EndpointError; soon, where there is no server."""
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
        """Return the error for a response with status 200 that is no completion; some servers report errors so."""
        error = body.get("error") if isinstance(body, dict) else None
        if error is not None:
            code = error.get("code") if isinstance(error, dict) else None
            return self._refusal(code if isinstance(code, int) and not isinstance(code, bool) else 0, error, "")
        text = self._shown(content[: 4 * MAX_ERROR_CHARS].decode("utf-8", "replace"))
        return EndpointError(f"{self.url} answers what is no chat completion: {text or 'nothing'}")

    def _refusal(self, status: int, body: Any, text: str) -> EndpointError:
        param = None
        if isinstance(body, dict):
            param = body.get("param")
            detail = body.get("message") or body.get("detail") or body.get("error") or body
            message = detail if isinstance(detail, str) else str(detail)
        else:
            message = body if isinstance(body, str) and body else text
        shown = self._shown(message)
        if status == 401:
            problem = f"refuses the key in {API_KEY_VARIABLE}" if self._key else f"wants a key; set {API_KEY_VARIABLE}"
        else:
            problem = {403: "denies access", 404: "does not have it", 429: "allows no more requests"}.get(
                status, "fails"
            )
        code = f" (HTTP {status})" if status else ""
        return EndpointError(f"{self.url} {problem}{code}{': ' + shown if shown else ''}", status, message, str(param))

    def _shown(self, text: str) -> str:
        """Return the start of a server's message on one line, without control characters or the key."""
        if self._key:
            text = text.replace(self._key, "…")
        line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_ERROR_CHARS]).split())
        return line if len(line) <= MAX_ERROR_CHARS else line[:MAX_ERROR_CHARS] + "…"


def _without_password(url: str) -> str:
    return urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]).geturl()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _close_client(loop: asyncio.AbstractEventLoop, client: Any) -> None:
    async def close() -> None:
        with contextlib.suppress(Exception):  # a connection that is broken already
            await client.close()
        loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)


def _reason(error: BaseException) -> str:
    """Return why there is no connection: the message of the first cause."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    if isinstance(error, ConnectionError) and error.errno:  # asyncio's own text names the address once more
        return os.strerror(error.errno)
    return _first_line(str(error)) or type(error).__name__


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


TEXT_LIMIT = 1 << 16  # characters of an answer, and of its reasoning, that are read
_TAG = re.compile(r"<(/?(?:think|action))>")


@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """A parsed completion."""

    text: str
    written: int | None  # tokens, reasoning included; None where the server does not say
    cut_off: bool  # the stop string occurred within the reasoning: there is no answer yet
    truncated: bool = False  # cut off at max_tokens
    call_id: str = ""  # of the tool call, if any


def read_json(content: bytes) -> Any:
    """Return the JSON value in `content`, or None."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def is_completion(body: Any) -> bool:
    """Return whether `body` is a chat completion, however odd."""
    return isinstance(body, dict) and isinstance(body.get("choices"), list)


def parse_completion(body: dict[str, Any], stopping: bool, action_format: str = "tags") -> ChatCompletion:
    """Parse a completion.

    Args:
        body: accepted by `is_completion`.
        stopping: whether the request had the stop string `</action>`.
        action_format: see `action_format.py`.
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
            return ChatCompletion(THINK + _escape_tags(thought), written, False, True)
        if stopping:
            return ChatCompletion("", written, True)
        content, thought = thought, ""  # it ended by itself: the server misfiled the answer as reasoning
    if action_format == "tags":
        content = _cut_after_action(content, close=stopping and ended)
    if thought:
        content = f"{THINK}{_escape_tags(thought)}{THINK_END}{content}"
    elif THINK not in content.partition(THINK_END)[0] and THINK_END in content:
        content = THINK + content  # some chat templates open the thought in the prompt
    return ChatCompletion(content, written, False, not ended, call_id)


def tool_call_message(text: str, action: str, call_id: str) -> dict[str, Any]:
    """Return the assistant message of a reply that called the tool."""
    call = {"name": TOOL_NAME, "arguments": json.dumps({TOOL_ARGUMENT: action})}
    words = text.partition("<tool_call>")[0]
    return {
        "role": "assistant",
        "content": words,
        "tool_calls": [{"id": call_id, "type": "function", "function": call}],
    }


def _call(calls: Any) -> tuple[str | None, str]:
    """Return the action of the last tool call, and its id; None where there is none."""
    for call in reversed(calls[:MAX_TOOL_CALLS] if isinstance(calls, list) else []):
        if (action := action_of_call(call)) is not None:
            named = call.get("id")
            return action, clean(named[:64]) if isinstance(named, str) and named else CALL_ID
    return None, ""


def clean(text: str) -> str:
    """Replace lone surrogates, which are not UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _cut_after_action(content: str, close: bool) -> str:
    before, end, _ = content.partition(ACTION_END)
    return before + ACTION_END if end or (close and ACTION in before) else before


def _escape_tags(thought: str) -> str:
    return _TAG.sub(r"[\1]", thought)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    if isinstance(value, list):  # parts; only those of text have a "text"
        value = "".join(text for part in value if isinstance(text := _dict(part).get("text"), str))
    return clean(str(value)[:TEXT_LIMIT]) if isinstance(value, (str, int, float)) else ""
