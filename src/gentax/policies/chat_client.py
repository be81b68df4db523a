"""An OpenAI-compatible server: concurrent requests with retries, limits and a cache; refusals in one line.

The `openai` client retries, with growing pauses, after lost connections, timeouts and the statuses 408, 409, 429 and
5xx, and respects `Retry-After`. Around it stand limits that a broken or hostile server meets: a response's size and
whole duration, no redirects (which would carry the prompt to another host), and money. Not supported: streaming,
images.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import json
import os
import re
import threading
import weakref
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gentax.core import UsageError
from gentax.core.errors import PolicyFault
from gentax.core.files import check_folder, write_json
from gentax.core.files import read_json as read_json_file
from gentax.models.options import ModelOptions
from gentax.policies.completion import count_tokens, is_completion, missing_reply, read_json

API_KEY_VARIABLE = "OPENAI_API_KEY"
MAX_CONCURRENT = 64  # concurrent requests, at most
RETRIES = 6  # about 20 seconds of pauses in all
TIMEOUT_S = 300.0  # for a response, including the server's queue
GIVE_UP_AFTER = 2  # times the timeout, for a reply with all retries
RETRY_PAUSES_S = (0.5, 2.0)  # before a request is repeated whose response held no reply
MAX_RESPONSE_BYTES = 8 << 20
MAX_ERROR_CHARS = 200  # characters of a server's message that are shown
_USER = re.compile(r"//[^/\s]*@")  # of a URL


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


class SpendLimitReached(EndpointError):
    """Nothing more is asked, since what was allowed is spent."""


@dataclass
class Usage:
    """What a server was asked, and the tokens it counted."""

    requests: int = 0  # that were answered, without those from the cache
    cached: int = 0  # replies from the cache
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0  # dollars, at the prices given

    def __str__(self) -> str:
        kept = f", {self.cached:,} more from the cache" if self.cached else ""
        cost = f", ${self.cost:.4g}" if self.cost else ""
        tokens = f"{self.prompt_tokens:,} tokens in, {self.completion_tokens:,} out"
        return f"{self.requests:,} requests{kept}: {tokens}{cost}"


@dataclass
class Budget:
    """Dollars that may be spent; servers may share one."""

    limit: float | None
    spent: float = 0.0


class ChatClient:
    """A server and its connections, which live in a thread of their own.

    Args:
        url: its base URL, such as `http://localhost:8000/v1`. The key is read from OPENAI_API_KEY.
        options: prices, spend limit and cache.
        chat: whether messages go to `/chat/completions`; else the conversation is one prompt for `/completions`.
        at_once: concurrent requests, at most.
        retries: of a failed request.
        timeout_s: for a response.

    Attributes:
        usage: what was asked so far.
        budget: what may be spent and is.

    Raises:
        UsageError: a URL, key, proxy setting or cache with which no request can be made.
    """

    def __init__(
        self,
        url: str,
        options: ModelOptions = ModelOptions(),
        *,
        chat: bool = True,
        at_once: int = MAX_CONCURRENT,
        retries: int = RETRIES,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        import openai  # takes most of a second to load

        self.url, self.chat, self.timeout_s = url, chat, timeout_s
        self.usage, self.budget = Usage(), Budget(options.spend_limit)
        self._prices = (options.input_price, options.output_price)  # dollars a million tokens
        self._cache = None if options.cache is None else ReplyCache(options.cache)
        self._key = os.environ.get(API_KEY_VARIABLE, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UsageError(f"{API_KEY_VARIABLE} is not a key: it has characters that cannot be sent")
        self._openai = openai
        try:
            timeout = openai.Timeout(timeout_s, connect=10.0)
            self._client = openai.AsyncOpenAI(
                base_url=url,
                api_key=self._key or "none",  # local servers need no key, but the client wants one
                max_retries=retries,
                http_client=_limited_http_client(openai, timeout_s, timeout=timeout, follow_redirects=False),
            )
        except Exception as error:  # the client reads the URL and the proxies in the environment, and may balk at each
            raise UsageError(f"cannot talk to {self.url}: {self._shown(_first_line(str(error)))}") from error
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

    async def complete(self, model: str, messages: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
        """Request a reply and return the response body, which holds one (see `missing_reply`).

        Raises:
            EndpointError: the server cannot be reached, times out, refuses, or answers without a reply, for good or for
                too long; SpendLimitReached before it is asked at all.
            PolicyFault: a spend limit, and a server that does not count tokens.
        """
        conversation: dict[str, Any] = {"messages": messages}
        if not self.chat:
            conversation = {"prompt": "".join(f"{message['content']}\n" for message in messages)}
        request = {"model": model, **conversation, **settings}
        keyed = {"url": self.url, **request}
        if self._cache is not None and (kept := self._cache.get(keyed)) is not None:
            self.usage.cached += 1
            return kept
        async with self._gate:
            if self.budget.limit is not None and self.budget.spent >= self.budget.limit:
                raise SpendLimitReached(f"not asked: the spend limit of ${self.budget.limit:g} is reached")
            try:
                async with asyncio.timeout(GIVE_UP_AFTER * self.timeout_s):
                    body = await self._ask(model, conversation, settings)
            except TimeoutError:
                raise EndpointError(f"{self.url} did not answer in time") from None
        if self._cache is not None:
            await asyncio.to_thread(self._cache.put, keyed, body)
        return body

    async def _ask(self, model: str, conversation: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        api = self._client.chat.completions if self.chat else self._client.completions
        for pause in (*RETRY_PAUSES_S, None):
            content = await self._content(
                api.with_raw_response.create(model=model, **conversation, extra_body=settings)
            )
            body = read_json(content)
            self._count(body)
            refused = self._no_reply(body, content)
            if refused is None:
                return body
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

    def _count(self, body: Any) -> None:
        """Count the tokens and the cost of a response, whatever else it holds: they are billed."""
        tokens = count_tokens(body)
        if tokens is None:
            if self.budget.limit is not None and is_completion(body):
                raise PolicyFault(f"{self.url} does not count tokens: a spend limit cannot be kept")
            tokens = (0, 0)
        cost = sum(count * price for count, price in zip(tokens, self._prices, strict=True)) / 1e6
        self.usage.requests += 1
        self.usage.prompt_tokens += tokens[0]
        self.usage.completion_tokens += tokens[1]
        self.usage.cost += cost
        self.budget.spent += cost

    async def _content(self, request: Any) -> bytes:
        try:
            return (await request).content
        except self._openai.APITimeoutError as error:
            raise EndpointError(f"{self.url} did not answer in time") from error
        except self._openai.APIStatusError as error:
            location = error.response.headers.get("location")
            if 300 <= error.status_code < 400 and location:
                raise EndpointError(
                    f"{self.url} redirects to {self._shown(location)}, which is not followed: give that address"
                ) from error
            raise self._refusal(error.status_code, error.body, error.response.text) from error
        except (self._openai.OpenAIError, _UnreadableResponse) as error:  # the second as it is, or as a cause
            reason = _reason(error)
            if isinstance(reason, _UnreadableResponse):
                raise EndpointError(f"{self.url} answers {reason}") from error
            raise EndpointError(f"cannot reach {self.url}: {self._shown(_why(reason))}") from error

    def _no_reply(self, body: Any, content: bytes) -> EndpointError | None:
        """Return the error for a response with status 200 that holds no reply; some servers report errors so."""
        error = body.get("error") if isinstance(body, dict) else None
        if error is not None:
            code = error.get("code") if isinstance(error, dict) else None
            return self._refusal(code if isinstance(code, int) and not isinstance(code, bool) else 0, error, "")
        if is_completion(body):
            missing = missing_reply(body)
            return EndpointError(f"{self.url} {self._shown(missing)}") if missing else None
        text = self._shown(content[: 4 * MAX_ERROR_CHARS].decode("utf-8", "replace"))
        return EndpointError(f"{self.url} answers what is no completion: {text or 'nothing'}")

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
        """Return the start of a message on one line, without control characters, the key or a URL's password."""
        if self._key:
            text = text.replace(self._key, "…")
        text = _USER.sub("//", text[: 4 * MAX_ERROR_CHARS])
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= MAX_ERROR_CHARS else line[:MAX_ERROR_CHARS] + "…"


class ReplyCache:
    """Replies of servers on disk, by the whole request: a file each, named by the request's hash.

    A file holds the request (URL, model, messages, settings) and the response's body; no header, and so no key.

    Raises:
        UsageError: `folder` cannot be one.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        check_folder(self.folder)

    def get(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Return the response to the same request; None where there is none, or a file that does not hold one."""
        try:
            kept = read_json_file(self._file(request), 2 * MAX_RESPONSE_BYTES)
        except (UsageError, OSError, UnicodeError):
            return None
        if not isinstance(kept, dict) or kept.get("request") != request:
            return None
        body: dict[str, Any] = kept.get("response") or {}
        return body if is_completion(body) and not missing_reply(body) else None

    def put(self, request: dict[str, Any], response: dict[str, Any]) -> None:
        """Keep a response."""
        with contextlib.suppress(ValueError):  # NaN, or text that is no UTF-8: it is asked again
            write_json(self._file(request), {"request": request, "response": response})

    def _file(self, request: dict[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.json"


class _UnreadableResponse(Exception):
    """A response that is not read to its end; says how it came."""


def _limited_http_client(openai: Any, timeout_s: float, **settings: Any) -> Any:
    """Return the HTTP client of `openai`, with a limit to the size of a response and to its whole duration.

    The client's own timeout is for each read, which a byte every few seconds never meets.
    """

    class LimitedClient(openai.DefaultAsyncHttpxClient):  # type: ignore[misc]
        async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
            try:
                async with asyncio.timeout(timeout_s):
                    response = await super().send(request, stream=True, **options)
                    try:
                        content = await _read(response)
                    finally:
                        await response.aclose()
            except TimeoutError as error:
                http = importlib.import_module(type(request).__module__.partition(".")[0])  # httpx or httpx2
                raise http.ReadTimeout("the response takes too long", request=request) from error  # it is retried
            framing = ("content-encoding", "content-length", "transfer-encoding")
            headers = [(name, value) for name, value in response.headers.multi_items() if name not in framing]
            return type(response)(response.status_code, headers=headers, content=content, request=request)

    return LimitedClient(headers={"accept-encoding": "gzip, deflate"}, **settings)


async def _read(response: Any) -> bytes:
    if response.headers.get("content-encoding", "gzip") not in ("gzip", "deflate", "identity"):
        raise _UnreadableResponse("in an encoding that was not asked for")
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > MAX_RESPONSE_BYTES:
            raise _UnreadableResponse(f"with more than {MAX_RESPONSE_BYTES >> 20} MB")
    return bytes(content)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _close_client(loop: asyncio.AbstractEventLoop, client: Any) -> None:
    async def close() -> None:
        with contextlib.suppress(Exception):  # a connection that is broken already
            await client.close()
        loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)


def _reason(error: BaseException) -> BaseException:
    """Return the first cause of a lost connection, or that of ours on the way."""
    while cause := error.__cause__ or error.__context__:
        if isinstance(error, _UnreadableResponse):
            break
        error = cause
    return error


def _why(error: BaseException) -> str:
    if isinstance(error, ConnectionError) and error.errno:  # asyncio's own text names the address once more
        return os.strerror(error.errno)
    return _first_line(str(error)) or type(error).__name__


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
