"""Environments of verifiers (0.4) as domains: `verifiers:PACKAGE`, an installed taskset, with its `Env` if it has one.

The package runs its own rollout and its own scoring. Its model is an endpoint on loopback, which hands what it is asked
to `reset` and `step`, and answers with the action: an action is a whole reply. So what is shown is what the package's
agent would read: the system prompt and the prompt, then each user message.

A total reward (weighted, as verifiers sums it) of 1 or more is a success. Not supported: several agents, tools, a
shell or a container, and rewards by a judge without a server for it (they end as errors). Rollouts run in a thread.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import gymnasium

from gentax.core.env import AnyText
from gentax.core.errors import EnvironmentFault, UsageError, type_and_message
from gentax.core.imports import require

MAX_TASKS = 10_000  # of a taskset that are loaded; some have no end
ERROR_LIMIT = 300  # characters of what went wrong
TIMEOUT_S = 300.0  # for what the package does between two replies
SEAT = {"harness": {"id": "gentax_verifiers"}, "runtime": {"type": "subprocess"}}  # asked in this process


class VerifiersEnv(gymnasium.Env[str, str]):
    """Play tasks of a package for verifiers.

    Args:
        package: the taskset's id, which is the name of its module.
        settings: fields of its taskset's configuration.

    Raises:
        UsageError: verifiers is not installed, or no such package, or one that cannot be played here.
    """

    observation_space = action_space = AnyText()
    rules = "Do what is asked. Your action is your whole reply."
    caveats = ("success is a total reward of 1 or more, which the package may mean otherwise",)

    def __init__(self, package: str, **settings: Any) -> None:
        require("verifiers.v1", f"verifiers:{package}", "verifiers")
        self._name = f"verifiers:{package}"
        self._events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._reply: asyncio.Future[str] | None = None
        self._rollout: asyncio.Task[None] | None = None
        try:
            self._env = _load(package, settings)
            self._tasks = list(itertools.islice(self._env.taskset, MAX_TASKS))
        except Exception as error:
            raise UsageError(f"{self._name} cannot be loaded: {type_and_message(error, ERROR_LIMIT)}") from error
        if not self._tasks:
            raise UsageError(f"{self._name} has no tasks")
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        self._context = self._next("ready")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        task = self._tasks[int(self.np_random.integers(len(self._tasks)))]
        self._in_thread(self._begin(task))
        content = task.data.model_dump_json(exclude={"idx"})
        return self._next("asked"), {"goal": "Do what the messages ask for.", "content": content}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        sendable = action.encode("utf-8", "replace").decode()  # JSON cannot hold half a surrogate pair
        self._loop.call_soon_threadsafe(self._answer, sendable)
        what, content = self._take()
        if what == "asked":
            return content, 0.0, False, False, {}
        if not content.ok or len(content.traces) != 1:
            raise EnvironmentFault(f"{self._name} fails: {_why(content)}")
        reward = float(content.traces[0].reward)
        return "The episode is over.", reward, True, False, {"success": reward >= 1}

    def close(self) -> None:
        if self._thread.is_alive():
            self._in_thread(self._abandon())
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(TIMEOUT_S)

    # --- on the side of gentax ---

    def _take(self) -> tuple[str, Any]:
        try:
            what, content = self._events.get(timeout=TIMEOUT_S)
        except queue.Empty:
            raise EnvironmentFault(f"{self._name} did nothing for {TIMEOUT_S:g} seconds") from None
        if what == "failed":
            raise EnvironmentFault(f"{self._name} fails: {type_and_message(content, ERROR_LIMIT)}")
        return what, content

    def _next(self, wanted: str) -> Any:
        what, content = self._take()
        if what != wanted:
            raise EnvironmentFault(f"{self._name} ends before it asks anything: {_why(content)}")
        return content

    def _in_thread(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_S)

    # --- on the side of verifiers, in its thread ---

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            async with self._endpoint() as url, self._env.serving():
                self._events.put(("ready", _context(url)))
                await self._stop.wait()
        except Exception as error:
            self._events.put(("failed", error))

    async def _begin(self, task: Any) -> None:
        await self._abandon()
        self._rollout = asyncio.create_task(self._play(task))

    async def _abandon(self) -> None:
        """Stop the rollout that is under way, and forget what it said."""
        if self._reply is not None:
            self._reply.cancel()
        if self._rollout is not None:
            self._rollout.cancel()
            await asyncio.wait([self._rollout], timeout=TIMEOUT_S)
        self._reply, self._rollout, self._events = None, None, queue.Queue()

    async def _play(self, task: Any) -> None:
        events = self._events
        try:
            events.put(("ended", await self._env.run_episode(task, self._context)))
        except Exception as error:
            events.put(("failed", error))

    def _answer(self, action: str) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(action)

    @asynccontextmanager
    async def _endpoint(self) -> AsyncIterator[str]:
        """Yield the URL of a server that answers a chat completion with the next action."""
        from aiohttp import web  # verifiers brings it

        async def complete(request: web.Request) -> web.Response:
            messages = (await request.json())["messages"]
            self._reply = asyncio.get_running_loop().create_future()
            self._events.put(("asked", _shown(messages)))
            message = {"role": "assistant", "content": await self._reply}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            identity = {"id": "gentax", "object": "chat.completion", "created": 0, "model": "gentax"}
            return web.json_response({**identity, "choices": [choice], "usage": usage})

        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/chat/completions", complete)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()


def _load(package: str, settings: dict[str, Any]) -> Any:
    """Return the package's environment, or that for one agent, with our harness in its only seat."""
    from verifiers.v1.configs.agent import agent_config_fields
    from verifiers.v1.utils.loaders import env_config_type, load_environment

    taskset, kind = {"id": package, **settings}, env_config_type(package)
    seats = list(agent_config_fields(kind()))
    if len(seats) != 1:
        raise UsageError(f"it has the agents {', '.join(seats) or 'none'}, and one can be played")
    return load_environment(kind.model_validate({"taskset": taskset, seats[0]: SEAT}))


def _context(url: str) -> Any:
    from verifiers.v1.clients import EvalClientConfig, ModelContext

    return ModelContext(model="gentax", client=EvalClientConfig(base_url=url, api_key_var="GENTAX_NO_KEY"))


def _shown(messages: list[dict[str, Any]]) -> str:
    """Return what the agent has not read yet: all messages since its last reply."""
    last = max((n for n, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    return "\n\n".join(_text(message["content"]) for message in messages[last + 1 :])


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content or () if part.get("type") == "text")


def _why(episode: Any) -> str:
    errors = [*episode.errors, *(error for trace in episode.traces for error in trace.errors)]
    return " ".join(f"{errors[0].type}: {errors[0].message}".split())[:ERROR_LIMIT] if errors else "it gives no reason"
