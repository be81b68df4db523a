"""An OpenAI-compatible server: concurrent requests with retries, limits and a cache; refusals in one line.

A request is tried again, with growing pauses or as `Retry-After` says, after a lost connection, a timeout and the
statuses 408, 409, 429 and 5xx. Limits are what a broken or hostile server meets: a response's size and whole duration,
no redirects (which would carry the prompt to another host), and money. `urllib3` in threads sends, which for
64 requests at once takes far less time than the `openai` package (benchmarks/servers.py prints what is left). Not
supported: streaming, images.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import operator
import os
import queue
import random
import re
import threading
import time
import urllib.request
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from gentax.core import UsageError
from gentax.core.errors import PolicyFault
from gentax.core.files import check_folder, write_json
from gentax.core.files import read_json as read_json_file
from gentax.models.options import ModelOptions
from gentax.policies.completion import count_tokens, is_completion, missing_reply, read_json

API_KEY_VARIABLE = "OPENAI_API_KEY"
MAX_CONCURRENT = 64  # concurrent requests, at most
RETRIES = 6  # about 20 seconds of pauses in all
BACKOFF_S, MAX_BACKOFF_S = 0.5, 8.0  # the first pause, and the longest
MAX_RETRY_AFTER_S = 60.0  # a server that asks for more patience is asked after the usual pause
RETRIED = (408, 409, 429)  # statuses, beside 5xx
TIMEOUT_S = 300.0  # for a response, including the server's queue
CONNECT_TIMEOUT_S = 10.0
GIVE_UP_AFTER = 2  # times the timeout, for a reply with all retries
RETRY_PAUSES_S = (0.5, 2.0)  # before a request is repeated whose response held no reply
MAX_RESPONSE_BYTES = 8 << 20
READ_BYTES = 1 << 16
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

    def __add__(self, other: Usage) -> Usage:
        return Usage(*map(operator.add, astuple(self), astuple(other)))

    def __sub__(self, earlier: Usage) -> Usage:
        return Usage(*map(operator.sub, astuple(self), astuple(earlier)))


@dataclass
class SpendBudget:
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
        self.url, self.chat, self.timeout_s = url, chat, timeout_s
        self.usage, self.budget = Usage(), SpendBudget(options.spend_limit)
        self._prices = (options.input_price, options.output_price)  # dollars a million tokens
        self._cache = None if options.cache is None else ReplyCache(options.cache)
        self._key = os.environ.get(API_KEY_VARIABLE, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UsageError(f"{API_KEY_VARIABLE} is not a key: it has characters that cannot be sent")
        self._retries, self._pauses = retries, random.Random()
        self._headers = {"content-type": "application/json", "accept-encoding": "gzip, deflate"}
        self._headers |= {"authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            self._http = _connection_pool(url, at_once)
        except Exception as error:  # a proxy in the environment
            raise UsageError(f"cannot talk to {self.url}: {self._shown(_first_line(str(error)))}") from error
        self._gate = asyncio.Semaphore(at_once)
        self._threads = _DaemonThreads(at_once, f"gentax {self.url}")
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_run, args=(self._loop,), name=f"gentax {self.url}", daemon=True).start()
        weakref.finalize(self, _close_client, self._loop, self._threads, self._http).atexit = False

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
                    body = await self._ask(request)
            except TimeoutError:
                raise EndpointError(f"{self.url} did not answer in time") from None
        if self._cache is not None:
            await asyncio.to_thread(self._cache.put, keyed, body)
        return body

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        path = "/chat/completions" if self.chat else "/completions"
        for pause in (*RETRY_PAUSES_S, None):
            content = await self._request("POST", path, request)
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
        content = await self._request("GET", "/models", None, retries=1, timeout_s=30.0)
        body = read_json(content)
        listed = body.get("data") if isinstance(body, dict) else None
        if not isinstance(listed, list):
            raise EndpointError(
                f"{self.url} does not list models as an OpenAI-compatible server does; is it the base URL (…/v1)?",
                status=200,
            )
        return [m["id"] for m in listed if isinstance(m, dict) and isinstance(m.get("id"), str)]

    async def _request(
        self, method: str, path: str, body: Any, retries: int | None = None, timeout_s: float | None = None
    ) -> bytes:
        """Return the content of a response with status 2xx, after retries. Raises EndpointError."""
        retries, timeout_s = self._retries if retries is None else retries, timeout_s or self.timeout_s
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(retries + 1):
            pause = min(MAX_BACKOFF_S, BACKOFF_S * 2**attempt) * self._pauses.uniform(0.75, 1.0)
            try:
                send = lambda: _send(self._http, method, self.url + path, data, self._headers, timeout_s)  # noqa: E731
                async with asyncio.timeout(timeout_s):
                    response = await asyncio.wrap_future(self._threads.submit(send))
            except _UnreadableResponse as error:
                raise EndpointError(f"{self.url} answers {error}") from error
            except Exception as error:  # no connection, a lost one, a timeout: urllib3 has many names for them
                failed = self._unreached(error)
            else:
                if 200 <= response.status < 300:
                    return response.content
                failed = self._refusal_of(response)
                if response.status not in RETRIED and response.status < 500:
                    raise failed
                with contextlib.suppress(ValueError):  # it may be a date, or not be there
                    asked = float(response.headers.get("retry-after", ""))
                    pause = asked if 0 <= asked <= MAX_RETRY_AFTER_S else pause
            if attempt < retries:
                await asyncio.sleep(pause)
        raise failed

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

    def _unreached(self, error: Exception) -> EndpointError:
        """Return the error for a request without a response."""
        import urllib3

        if isinstance(error, (TimeoutError, urllib3.exceptions.ReadTimeoutError)):
            fault = EndpointError(f"{self.url} did not answer in time")
        else:
            fault = EndpointError(f"cannot reach {self.url}: {self._shown(_reason(error))}")
        fault.__cause__ = error
        return fault

    def _refusal_of(self, response: _Response) -> EndpointError:
        """Return the error for a response whose status is none of success."""
        location = response.headers.get("location")
        if 300 <= response.status < 400 and location:
            return EndpointError(
                f"{self.url} redirects to {self._shown(location)}, which is not followed: give that address"
            )
        body = read_json(response.content)
        error = body.get("error", body) if isinstance(body, dict) else body
        return self._refusal(response.status, error, response.content[: 4 * MAX_ERROR_CHARS].decode("utf-8", "replace"))

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


class _Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes


def _connection_pool(url: str, at_once: int) -> Any:
    """Return urllib3's pool of connections to a server, through the proxy that the environment names."""
    import urllib3

    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return urllib3.PoolManager(maxsize=at_once)
    user = urlsplit(proxy).netloc.rpartition("@")[0]
    headers = urllib3.make_headers(proxy_basic_auth=user) if user else None
    return urllib3.ProxyManager(proxy, maxsize=at_once, proxy_headers=headers)


def _send(
    pool: Any, method: str, url: str, data: bytes | None, headers: Mapping[str, str], timeout_s: float
) -> _Response:
    """Send a request and read the response within limits; a timeout for each read is never met by a byte now and then.

    Raises:
        TimeoutError, urllib3.exceptions.HTTPError, OSError: no response, or not in time.
        _UnreadableResponse: one that is too long.
    """
    import urllib3

    deadline = time.monotonic() + timeout_s
    response = pool.request(
        method,
        url,
        body=data,
        headers=headers,
        timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, timeout_s), read=timeout_s),
        retries=False,
        redirect=False,
        preload_content=False,
    )
    try:
        if response.headers.get("content-encoding", "gzip") not in ("gzip", "deflate", "identity"):
            raise _UnreadableResponse("in an encoding that was not asked for")
        content = bytearray()
        while chunk := response.read1(READ_BYTES):
            content += chunk
            if len(content) > MAX_RESPONSE_BYTES:
                raise _UnreadableResponse(f"with more than {MAX_RESPONSE_BYTES >> 20} MB")
            if time.monotonic() > deadline:
                raise TimeoutError
    except BaseException:
        response.close()  # its connection is of no more use
        raise
    response.release_conn()
    return _Response(response.status, response.headers, bytes(content))


class _DaemonThreads:
    """Threads that do calls, started as they are needed. Nobody waits for them when Python ends, as for an executor's.

    Args:
        count: how many there may be.
        name: of each.
    """

    def __init__(self, count: int, name: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._left, self._count, self._name = count, count, name

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Have `call` done."""
        if self._left:
            self._left -= 1
            threading.Thread(target=_work, args=(self._jobs,), name=self._name, daemon=True).start()
        future: Future[Any] = Future()
        self._jobs.put((future, call))
        return future

    def stop(self) -> None:
        """Let the threads end."""
        for _ in range(self._count):
            self._jobs.put(None)


def _work(jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]) -> None:
    while (job := jobs.get()) is not None:
        future, call = job
        if future.set_running_or_notify_cancel():
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
        del job, future, call  # or the last one would stay until the next


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _close_client(loop: asyncio.AbstractEventLoop, threads: _DaemonThreads, http: Any) -> None:
    loop.call_soon_threadsafe(loop.stop)
    threads.stop()
    http.clear()


def _reason(error: BaseException) -> str:
    """Return why there is no connection: the message of the first cause."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)
    return _first_line(str(error)) or type(error).__name__


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
