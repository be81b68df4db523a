"""What an adapter adds to a step of another library's environment.

    pip install reasoning-gym textarena
    python benchmarks/adapters.py
    pip install "gentax[trl]"; git clone https://github.com/huggingface/trl
    python benchmarks/adapters.py --trl trl/examples/scripts/grpo_2048.py

The same actions on the same task, in turns: the library's own step with what a player reads after it, and the step of
`gentax.make("LIBRARY:NAME")`, which also finds out success and validity and counts the horizon. The last column is the
share of a step as it is played, in which the shipped base model replies too; libraries that are not installed are left
out. The sides of a row are interleaved, and the medians of all steps are printed.

`--trl` trains the shipped base model with TRL's GRPOTrainer for a few steps, with domains of ours as its
`environment_factory` and with the environment of TRL's own example, the game 2048, in turns and with the same settings:
the median seconds a step of each, and the part of them in which the environment works. Every reply is one of four
moves, and an episode three of them, so that the sides differ in nothing but what the environments say.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium
import numpy

import gentax
from gentax.core import Task
from gentax.integrations.trl_environment import environment_factory, task_rows, use_action_tags
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


Trial = tuple[str, str, Callable[[], Any], list[dict[str, Any]], Any]  # name, tool, factory, rows, reward functions


def trl_example(path: str) -> Trial:
    """Return TRL's example environment, the game 2048, from a checkout of its repository."""
    spec = importlib.util.spec_from_file_location("trl_example", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    rows = [{"prompt": [{"role": "user", "content": example.PROMPT}]}] * 4
    return "TRL's 2048", "move", example.Game2048Env, rows, example.reward_score


@contextmanager
def timed_methods(of: type, names: Sequence[str]) -> Iterator[list[float]]:
    """Yield a list that gets the seconds of every call of these methods of a class."""
    spent: list[float] = []

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)  # TRL reads the signature and the docstring
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                spent.append(time.perf_counter() - started)

        return call

    own = {name: getattr(of, name) for name in names}
    for name, method in own.items():
        setattr(of, name, timed(method))
    try:
        yield spent
    finally:
        for name, method in own.items():
            setattr(of, name, method)


def trl_steps(trial: Trial, steps: int) -> tuple[numpy.ndarray, float, float, float]:
    """Train a few steps of GRPO with an environment.

    Returns:
        (steps, 2) seconds and processor seconds of each step after the first; the seconds of a step in the environment;
        the tool calls and the tokens of an episode.
    """
    import trl
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback

    _, tool, factory, rows, reward = trial
    ends: list[tuple[float, float]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append((time.perf_counter(), time.process_time()))
            if len(ends) == 1:
                spent.clear()

    policy = load_policy("base")
    tokenizer = policy.tokenizer  # type: ignore[attr-defined]
    use_action_tags(tokenizer, tool, "action" if tool == "step" else "direction")
    moves = tokenizer([f"<action>{move}</action>" for move in ("up", "down", "left", "right")])["input_ids"]
    # Every reply is one of four moves, so that all sides generate as many tokens.
    forced = [[list(move[:length]), 1e3 * length] for move in moves for length in (1, 2, 3)]
    with TemporaryDirectory() as folder, timed_methods(type(factory()), ("reset", tool)) as spent:
        trainer = trl.GRPOTrainer(
            model=policy.model.train(),  # type: ignore[attr-defined]
            args=trl.GRPOConfig(
                output_dir=folder,
                max_steps=steps + 1,
                per_device_train_batch_size=4,
                num_generations=4,
                max_completion_length=512,
                max_tool_calling_iterations=3,
                generation_kwargs={"eos_token_id": moves[0][-1], "sequence_bias": forced},
                logging_steps=1,
                report_to=[],
                use_cpu=True,
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            environment_factory=factory,
            reward_funcs=reward,
            callbacks=[Clock()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    log = [row for row in trainer.state.log_history if "completions/mean_length" in row]
    calls, tokens = (
        statistics.mean(row[key] for row in log) for key in ("tools/call_frequency", "completions/mean_length")
    )
    return numpy.diff(ends, axis=0), sum(spent) / steps, calls, tokens


def compare_in_trl(example: str, steps: int, turns: int) -> None:
    """Print a line for each of our domains and TRL's example, and the ratio to it."""
    trials = [trl_example(example)]
    trials += [(name, "step", environment_factory(name), task_rows(name, 4), None) for name in ("sokoban", "crafting")]
    seconds: dict[str, list[numpy.ndarray]] = {trial[0]: [] for trial in trials}
    rest: dict[str, tuple[float, float, float]] = {}
    for _ in range(turns):
        for trial in trials:
            times, *others = trl_steps(trial, steps)
            seconds[trial[0]].append(times)
            rest[trial[0]] = (others[0], others[1], others[2])
    medians = {name: numpy.median(numpy.concatenate(times), axis=0) for name, times in seconds.items()}
    theirs = medians[trials[0][0]]
    print(f"{'GRPO step with':16} {'seconds':>8} {'ratio':>6} {'CPU seconds':>12} {'ratio':>6} {'environment, ms':>16}")
    for name, (wall, cpu) in medians.items():
        inside, calls, tokens = rest[name]
        print(f"{name:16} {wall:8.2f} {wall / theirs[0]:6.2f} {cpu:12.2f} {cpu / theirs[1]:6.2f} {inside * 1e3:16.1f}")
        print(f"{'':16} an episode: {calls:g} calls, {tokens:g} tokens written")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30, help="episodes of each side")
    parser.add_argument("--tasks", type=int, default=16, help="episodes of the base model, for the last column")
    parser.add_argument("--trl", metavar="FILE", help="TRL's examples/scripts/grpo_2048.py: time it beside our domains")
    parser.add_argument("--steps", type=int, default=5, help="training steps of each side in a turn, for --trl")
    parser.add_argument("--turns", type=int, default=3, help="for --trl")
    chosen = parser.parse_args(arguments)
    if chosen.trl:
        os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
        compare_in_trl(chosen.trl, chosen.steps, chosen.turns)
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
