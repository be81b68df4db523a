"""What an adapter adds to a step of another library's environment.

    pip install reasoning-gym textarena
    python benchmarks/adapters.py
    python benchmarks/adapters.py --trl     # pip install "gentax[trl]"

The same actions on the same task, in turns: the library's own step with what a player reads after it, and the step of
`gentax.make("LIBRARY:NAME")`, which also finds out success and validity and counts the horizon. The last column is the
share of a step as it is played, in which the shipped base model replies too; libraries that are not installed are left
out. The sides of a row are interleaved, and the medians of all steps are printed.

`--trl` trains the shipped base model with TRL's GRPOTrainer for a few steps, with a domain of ours as its
`environment_factory` and with an environment of the same shape that does nothing, in turns: seconds a step of each.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium

import gentax
from gentax.core import Task
from gentax.integrations.trl_environment import environment_factory, task_rows
from gentax.policies import load_policy
from gentax.rollouts import RolloutConfig, rollout

Step = Callable[[], object]
Episode = Callable[[], Iterator[Step]]  # begins an episode and yields its steps, to be timed one by one


def reasoning_gym_task(name: str) -> Episode:
    """Return episodes of a task of reasoning-gym: score its reference answer."""
    library = importlib.import_module("reasoning_gym")

    def episode() -> Iterator[Step]:
        data = library.create_dataset(name, seed=0, size=1)
        entry = data[0]
        yield lambda: data.score_answer(entry["answer"], entry)

    return episode


def textarena_game(name: str, action: str) -> Episode:
    """Return episodes of a game of TextArena: act, and read what it says."""
    library = importlib.import_module("textarena")

    def episode() -> Iterator[Step]:
        env = library.make(name)
        with redirect_stdout(StringIO()):
            random.seed(0)
            env.reset(num_players=1, seed=0)
        env.get_observation()
        while not env.state.done:
            yield lambda: (env.step(action), env.state.done or env.get_observation())

    return episode


def gymnasium_env(name: str, action: int) -> Episode:
    """Return episodes of a Gymnasium environment that renders itself as text."""

    def episode() -> Iterator[Step]:
        env: Any = gymnasium.make(name, render_mode="ansi")
        env.reset(seed=0)
        over = False

        def step() -> None:
            nonlocal over
            _, _, terminated, truncated, _ = env.step(action)
            env.render()
            over = terminated or truncated

        while not over:
            yield step

    return episode


def adapted(name: str, action: str | None) -> Episode:
    """Return the same through gentax; without an action, the expert's."""
    env = gentax.make(name)

    def episode() -> Iterator[Step]:
        env.reset(options={"index": 0, "split": "train"})
        over = False

        def step() -> None:
            nonlocal over
            _, _, terminated, truncated, _ = env.step(chosen)
            over = terminated or truncated

        expert = env.expert() if action is None else None
        chosen = action if expert is None else expert.action
        while not over:
            yield step

    return episode


ROWS: tuple[tuple[str, str, Callable[[], Episode], str | None], ...] = (
    ("reasoning-gym:chain_sum", "reasoning_gym", lambda: reasoning_gym_task("chain_sum"), None),
    ("reasoning-gym:countdown", "reasoning_gym", lambda: reasoning_gym_task("countdown"), None),
    ("textarena:GuessTheNumber-v0", "textarena", lambda: textarena_game("GuessTheNumber-v0", "[30]"), "[30]"),
    ("textarena:Sokoban-v0", "textarena", lambda: textarena_game("Sokoban-v0", "[up]"), "[up]"),
    ("gymnasium:FrozenLake-v1", "gymnasium", lambda: gymnasium_env("FrozenLake-v1", 3), "Move up"),
)


def microseconds(episode: Episode) -> list[float]:
    """Return the time of each step of one episode."""
    times = []
    for step in episode():
        started = time.perf_counter()
        step()
        times.append((time.perf_counter() - started) * 1e6)
    return times


def played_step(name: str, tasks: int) -> float:
    """Return the microseconds of a step that the shipped base model plays."""
    policy = load_policy("base")
    listed = [Task(name, "default", "train", index) for index in range(tasks)]
    started = time.perf_counter()
    episodes = rollout(policy, listed, config=RolloutConfig(horizon=5))
    return (time.perf_counter() - started) * 1e6 / sum(episode.length for episode in episodes)


class Idle:
    """An environment for TRL that does nothing."""

    def reset(self, **row: Any) -> str:
        """Start."""
        return "\nGoal: none\nYou see nothing."

    def step(self, action: str) -> str:
        """Do one action.

        Args:
            action: Any text.

        Returns:
            What is seen.
        """
        return "You see nothing."

    def get_reward(self) -> float:
        """Return a reward that differs from episode to episode, so that there is something to learn."""
        return random.random()


# The base model writes <action>…</action>; these two tell TRL that this is a call of the tool `step`.
TEMPLATE = (
    "{% for message in messages %}{% for call in message.tool_calls or [] %}"
    "{% if call.function.name == 'step' %}<action>{{ call.function.arguments.action }}</action>"
    "{% else %}{{ call.function | tojson }}{% endif %}{% endfor %}{{ message.content }}\n{% endfor %}"
)
_CALL = {"type": "function", "function": {"name": "step", "arguments": {"action": "{content}"}}}
RESPONSE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "\n",
    "fields": {
        "tool_calls": {
            "open": "<action>",
            "close_pattern": r"</action>\s*",
            "repeats": True,
            "content": "text",
            "transform": _CALL,
        },
        "content": {"content": "text"},
    },
}


def trl_step(factory: Callable[[], Any], steps: int) -> float:
    """Return seconds a step of GRPO with an environment, without the first."""
    import trl
    from datasets import Dataset
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    policy = load_policy("base")
    tokenizer = policy.tokenizer  # type: ignore[attr-defined]
    tokenizer.chat_template, tokenizer.response_template = TEMPLATE, RESPONSE
    end = tokenizer("</action>", add_special_tokens=False)["input_ids"][-1]
    with TemporaryDirectory() as folder:
        trainer = trl.GRPOTrainer(
            model=policy.model.train(),  # type: ignore[attr-defined]
            args=trl.GRPOConfig(
                output_dir=folder,
                max_steps=steps + 1,
                per_device_train_batch_size=4,
                num_generations=4,
                max_completion_length=96,
                max_tool_calling_iterations=3,
                generation_kwargs={"eos_token_id": [end, tokenizer.eos_token_id]},
                report_to=[],
                use_cpu=True,
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(task_rows("crafting", 4)),
            processing_class=tokenizer,
            environment_factory=factory,
            callbacks=[Clock()],
        )
        trainer.train()
    return (ends[-1] - ends[0]) / steps


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30, help="episodes of each side")
    parser.add_argument("--tasks", type=int, default=16, help="episodes of the base model, for the last column")
    parser.add_argument("--trl", action="store_true", help="time TRL with our environment and with an idle one")
    chosen = parser.parse_args(arguments)
    if chosen.trl:
        os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
        for name, factory in [("an idle one", Idle), ("crafting", environment_factory("crafting"))] * 2:
            print(f"GRPO step with {name}: {trl_step(factory, steps=3):.2f} s", flush=True)
        return
    print(f"{'µs a step':30} {'own':>8} {'gentax':>8} {'added':>8} {'of a played step':>18}")
    for name, module, own, action in ROWS:
        try:
            importlib.import_module(module)
        except ImportError:
            print(f"{name:30} {module} is not installed")
            continue
        sides = (own(), adapted(name, action))
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(chosen.repeats):
            for episode, of_side in zip(sides, times, strict=True):
                of_side += microseconds(episode)
        theirs, ours = map(statistics.median, times)
        share = (ours - theirs) / played_step(name, chosen.tasks)
        print(f"{name:30} {theirs:8.1f} {ours:8.1f} {ours - theirs:8.1f} {share:18.2%}", flush=True)


if __name__ == "__main__":
    main()
