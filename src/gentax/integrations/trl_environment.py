"""Our domains as `environment_factory` of TRL's GRPOTrainer: one tool, `step`, and a reward of the environment's own.

    trainer = GRPOTrainer(
        model=…,
        args=GRPOConfig(max_tool_calling_iterations=30, …),
        train_dataset=Dataset.from_list(task_rows("sokoban", 64)),
        environment_factory=environment_factory("sokoban", wrap_with=["distract(volume=80)"]),
    )

TRL offers the public methods of an environment to the model as tools; the model's chat template must know tools, or
`use_action_tags` tells TRL that a model calls them as `<action>…</action>`. Rows of the data set name the tasks, so
that all generations of a group play the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from gentax.core import Task, TextEnv
from gentax.domains import make
from gentax.wrappers.spec import make_wrapped

OVER = "The episode is over."
# Calls of the one tool are written as the model writes them; TRL refuses a template that cannot show other tools.
TAGS_TEMPLATE = (
    "{% for message in messages %}{% for call in message.tool_calls or [] %}"
    "{% if call.function.name == 'TOOL' %}<action>{{ call.function.arguments.values() | first }}</action>"
    "{% else %}{{ call.function | tojson }}{% endif %}{% endfor %}{{ message.content }}\n{% endfor %}"
)


class ToolEnvironment:
    """A text environment with its actions behind one tool. It is no `gymnasium.Env`, whose methods would be tools too.

    Args:
        env: what is played.
    """

    def __init__(self, env: TextEnv) -> None:
        self._env = env
        self._return, self._over = 0.0, True

    def reset(self, task: str | None = None, **row: Any) -> str:
        """Start the task that a row of the data set names, or one drawn from the split; return its goal and start."""
        options = None if task is None else {"task": Task.parse(task)}
        observation, info = self._env.reset(options=options)
        self._return, self._over = 0.0, False
        return f"\nGoal: {info['goal']}\n{observation}"  # TRL appends it to the last message as it is

    def step(self, action: str) -> str:
        """Do one action in the environment and read what follows.

        Args:
            action: The action, as the rules describe it.

        Returns:
            What is seen after the action.
        """
        if self._over:
            return OVER
        observation, reward, terminated, truncated, _ = self._env.step(action)
        self._return += float(reward)
        self._over = terminated or truncated
        return f"{observation}\n{OVER}" if self._over else observation

    def get_reward(self) -> float:
        """Return the sum of the episode's rewards: 1 on success and else 0, unless the reward is dense."""
        return self._return


def environment_factory(domain: str, wrap_with: Iterable[str] = (), **settings: Any) -> Callable[[], ToolEnvironment]:
    """Return what GRPOTrainer makes environments with; several domains are a dictionary of these.

    Args:
        domain: what `gentax.make` takes.
        wrap_with: distractors and interface shifts, such as `distract(volume=80)`.
        settings: of `gentax.make`: level, split, reward, horizon.

    Raises:
        UsageError: when an environment is made; see `gentax.make`.
    """
    wrappers = [wrap_with] if isinstance(wrap_with, str) else list(wrap_with)
    return lambda: ToolEnvironment(cast(TextEnv, make_wrapped(domain, wrappers, **settings)))


def task_rows(domain: str, tasks: int, level: str | None = None, split: str = "train") -> list[dict[str, Any]]:
    """Return rows of a data set, one for each task: `prompt` (the rules, as messages), `task` and `environment`.

    Raises:
        UsageError: an unknown domain, level or split, or one with fewer tasks.
    """
    env = make(domain, level)
    try:
        listed = env.tasks(split, tasks)
        prompt = [{"role": "user", "content": env.domain.rules}]
    finally:
        env.close()
    return [{"prompt": prompt, "task": task.id, "environment": domain} for task in listed]


def use_action_tags(tokenizer: Any, tool: str = "step", argument: str = "action") -> None:
    """Let a model whose replies hold `<action>…</action>`, as the shipped one's, play in TRL without a tool format.

    It sets the tokenizer's chat template and its `response_template`, by which TRL reads a reply: what stands between
    the tags is the one argument of a call of the tool. Let generation end at the closing tag.
    """
    call = {"type": "function", "function": {"name": tool, "arguments": {argument: "{content}"}}}
    tags = {"open": "<action>", "close_pattern": r"</action>\s*", "repeats": True, "content": "text", "transform": call}
    tokenizer.chat_template = TAGS_TEMPLATE.replace("TOOL", tool)
    tokenizer.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": "\n",
        "fields": {"tool_calls": tags, "content": {"content": "text"}},
    }
