"""Episodes as other tools have them: read from their trajectories, and written as a log of Inspect.

Read are chat messages, conversations as in AgentTraj-L and Inspect's logs. What such a file does not say stays unknown:
rewards are 0, and whether the environment accepted an action is not known.

A log that `inspect view` shows is written with inspect_ai itself, as `.json` or packed (`.eval`): messages, a line for
each step, scores. A task is a sample and its episodes are epochs. What the environment broke has an error and no score.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gentax.core import Episode, Outcome, Step, Task, UsageError, stable_seed
from gentax.core.episode import read_episodes
from gentax.core.files import atomic_folder
from gentax.core.imports import require
from gentax.training.trajectories import Conversation, read_trajectories

RECORDED = "recorded"  # the domain and level of such episodes
SUFFIXES = (".json", ".jsonl", ".eval")  # that are read; gentax's own episodes are gzipped
LOG_SUFFIXES = (".json", ".eval")  # of Inspect's logs
_ACTION = re.compile(r"<action>(.*?)</action>|^\s*Action:\s*(.*?)\s*$", re.S | re.M)


def read_any_episodes(path: Path) -> list[Episode]:
    """Read episodes of gentax, or trajectories of others by the end of their name.

    Raises:
        UsageError: a file that cannot be read, a line that is no trajectory, or does not say whether it succeeded.
    """
    if path.suffix not in SUFFIXES:
        return read_episodes(path)
    return list(_episodes(path))


def _episodes(path: Path) -> Iterator[Episode]:
    samples: Counter[Task] = Counter()
    for number, trajectory in enumerate(read_trajectories(path), 1):
        if isinstance(trajectory, Episode):
            yield trajectory
            continue
        if trajectory.success is None:
            raise UsageError(
                f'{path}, trajectory {number}, does not say whether it succeeded: give it "success": true or false'
            )
        index = stable_seed(trajectory.id) if trajectory.id else number - 1
        task = Task(RECORDED, RECORDED, "test", index)
        yield _episode(trajectory, task, samples[task])
        samples[task] += 1


def _episode(conversation: Conversation, task: Task, sample: int) -> Episode:
    steps = tuple(
        Step(exchange.message, exchange.reply, _action(exchange.reply), 0.0, valid=True)
        for exchange in conversation.exchanges
    )
    outcome = Outcome.SUCCESS if conversation.success else Outcome.FAILURE
    return Episode(task, sample, "", steps, outcome, validity_known=False)


def _action(reply: str) -> str:
    """Return the last action in a reply that marks actions, else the whole reply."""
    found = _ACTION.findall(reply)
    return (found[-1][0] or found[-1][1]).strip() if found else reply.strip()


def check_inspect_log(path: Path) -> None:
    """Refuse a log that cannot be written, before anything is played for it. Raises UsageError."""
    if path.suffix not in LOG_SUFFIXES:
        raise UsageError(f"a log of Inspect is written as {' or '.join(LOG_SUFFIXES)}, not as {str(path)!r}")
    require("inspect_ai.log", "a log of Inspect")


def write_inspect_log(path: Path, episodes: Sequence[Episode], policy: str) -> None:
    """Write episodes of one domain. Raises UsageError where inspect_ai is missing."""
    check_inspect_log(path)
    from inspect_ai.log import (  # fmt: skip
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalMetric,
        EvalResults,
        EvalScore,
        EvalSpec,
        write_eval_log,
    )

    first = episodes[0].task
    complete = [episode for episode in episodes if episode.outcome is not Outcome.ERROR]
    success = sum(episode.success for episode in complete) / max(1, len(complete))
    ids = list(dict.fromkeys(episode.task.id for episode in episodes))
    epochs = max(episode.sample for episode in episodes) + 1
    log = EvalLog(
        status="success",
        eval=EvalSpec(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            task=f"{first.domain}/{first.level}".strip("/"),
            model=policy,
            dataset=EvalDataset(name=f"{first.domain}-{first.split}", samples=len(ids), sample_ids=ids),
            config=EvalConfig(epochs=epochs),
        ),
        results=EvalResults(
            total_samples=len(episodes),
            completed_samples=len(complete),
            scores=[
                EvalScore(
                    name="success",
                    scorer="success",
                    metrics={"accuracy": EvalMetric(name="accuracy", value=success)},
                )
            ],
        ),
        samples=[_sample(episode) for episode in episodes],
    )
    aside = path.with_name(f".{path.name}.parts")
    with atomic_folder(aside) as folder:
        write_eval_log(log, str(folder / path.name))
    (aside / path.name).replace(path)
    aside.rmdir()


def _sample(episode: Episode) -> Any:
    from inspect_ai.event import InfoEvent
    from inspect_ai.log import EvalError, EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser
    from inspect_ai.scorer import Score

    messages: list[Any] = [ChatMessageSystem(content=episode.rules)] if episode.rules else []
    events = []
    for number, step in enumerate(episode.steps, 1):
        messages += [ChatMessageUser(content=step.observation), ChatMessageAssistant(content=step.text)]
        made = {"observation": step.observation, "reply": step.text, "action": step.action}
        events.append(InfoEvent(source=f"step {number}", data={**made, "reward": step.reward, "valid": step.valid}))
    if episode.final:
        messages.append(ChatMessageUser(content=episode.final))
    broken = episode.outcome is Outcome.ERROR
    score = Score(value="C" if episode.success else "I", answer=episode.outcome.value)
    return EvalSample(
        id=episode.task.id,
        epoch=episode.sample + 1,
        input=episode.goal or (episode.steps[0].observation if episode.steps else ""),
        target="success",
        messages=messages,
        scores={} if broken else {"success": score},
        metadata={"return": episode.ret, "length": episode.length, "invalid": episode.invalid},
        events=events,
        error=EvalError(message=episode.error, traceback="", traceback_ansi="") if broken else None,
    )
