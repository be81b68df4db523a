"""Our domains as a taskset of verifiers, with its environment: what `vf-eval` plays and prime-rl trains on.

    vf-eval gentax_verifiers --env.taskset.domain sokoban --env.taskset.wrap-with '["distract(volume=80)"]' …

verifiers (0.4, its v1 interface) looks a taskset up by the name of a top-level module. A task is one of ours; its
prompt is the first message that gentax itself would write, a reply's action is parsed as ours are, and the one reward,
`success`, is the sum of the environment's. Episodes of several agents and tool calls are not supported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any, cast

import httpx
import verifiers.v1 as vf
from verifiers.v1.dialects.chat import message_to_wire
from verifiers.v1.runtimes import ProgramResult

from gentax.core import Task, TextEnv
from gentax.models.action_format import parse_reply
from gentax.rollouts.prompt import RolloutConfig, build_message
from gentax.wrappers.spec import make_wrapped


class GentaxTaskData(vf.TaskData):  # type: ignore[misc]  # verifiers need not be installed
    """A task, and what it takes to play it."""

    task: str  # its id
    wrap_with: tuple[str, ...] = ()


class GentaxTask(vf.Task[GentaxTaskData, vf.State, vf.TaskConfig]):  # type: ignore[misc]
    """One of our tasks."""


class GentaxTasksetConfig(vf.TasksetConfig):  # type: ignore[misc]
    """Which tasks there are; each field is a flag of `vf-eval`."""

    domain: str = "sokoban"
    level: str | None = None
    split: str = "train"
    tasks: int = 128
    wrap_with: tuple[str, ...] = ()
    thinking: bool = False


class GentaxTaskset(vf.Taskset[GentaxTask, GentaxTasksetConfig]):  # type: ignore[misc]
    """The first tasks of a split of a domain."""

    def load(self) -> Iterator[GentaxTask]:
        """Yield the tasks. Raises UsageError for an unknown domain, level, split or wrapper."""
        config = self.config
        prompts = RolloutConfig(thinking=config.thinking)
        env = _make(config.domain, config.wrap_with, level=config.level, split=config.split)
        try:
            for task in env.tasks(config.split, min(config.tasks, env.size(config.split))):
                observation, info = env.reset(options={"task": task})
                prompt, _ = build_message(prompts, env.domain.rules, info["goal"], (), observation, None)
                data = GentaxTaskData(name=task.id, task=task.id, prompt=prompt, wrap_with=config.wrap_with)
                yield GentaxTask(data, config.task)
        finally:
            env.close()


class ChatHarness(vf.Harness[vf.HarnessConfig]):  # type: ignore[misc]
    """Asks the model in this process, one message at a time: no tools, no shell, no container.

    verifiers' own `null` harness starts a Python process for every reply.
    """

    APPENDS_SYSTEM_PROMPT = SUPPORTS_RESUME = True
    EXECUTES_CODE = NEEDS_CONTAINER = False

    async def launch(
        self, ctx: Any, trace: Any, runtime: Any, endpoint: str, secret: str, mcp_urls: dict[str, str], data: Any
    ) -> Any:
        """Ask for one reply, by the interception server, which records it in the trace."""
        system, prompt = self.resolve_prompt(data)
        messages = [{"role": "system", "content": system}] if system else []
        if isinstance(prompt, str):
            messages.append({"role": "user", "content": prompt})
        else:
            messages += [message_to_wire(message) for message in prompt or ()]
        body = {"model": ctx.model, "messages": messages}
        async with httpx.AsyncClient(timeout=None) as client:
            answer = await client.post(
                f"{endpoint}/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"}
            )
        return ProgramResult(0 if answer.is_success else 1, "", answer.text)


class GentaxEnvConfig(vf.EnvConfig):  # type: ignore[misc]
    """One player, asked by the package's own harness: verifiers' own defaults are a shell and a cloud."""

    player: vf.AgentConfig = vf.AgentConfig(runtime={"type": "subprocess"})


class GentaxEnv(vf.Env[GentaxEnvConfig]):  # type: ignore[misc]
    """Plays one task: each reply is an action, each observation the next user message."""

    async def run(self, task: Any, agents: Any) -> None:
        """Play an episode and record its reward."""
        start = Task.parse(task.data.task)
        env = await asyncio.to_thread(_make, start.domain, task.data.wrap_with, level=start.level, split=start.split)
        try:
            await asyncio.to_thread(env.reset, options={"task": start})
            total, over = 0.0, False
            async with agents.player.interaction(task) as interaction:
                reply = await interaction.turn()
                while not reply.terminated:
                    action = parse_reply(reply.last_reply).action
                    observation, reward, terminated, truncated, _ = await asyncio.to_thread(env.step, action)
                    total, over = total + float(reward), terminated or truncated
                    if over:
                        break
                    reply = await interaction.turn(observation)
            interaction.trace.record_reward("success", total, 1.0)
        finally:
            env.close()


def _make(domain: str, wrap_with: Iterable[str], **settings: Any) -> TextEnv:
    return cast(TextEnv, make_wrapped(domain, list(wrap_with), **settings))


__all__ = ["ChatHarness", "GentaxEnv", "GentaxTaskset"]
