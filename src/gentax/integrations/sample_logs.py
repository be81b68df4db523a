"""Results that others measured before and after training, sample by sample, as targets of a tax.

Three kinds of file are read:

- lm-evaluation-harness's `samples_TASK_….jsonl` (`--log_samples`): samples pair by `doc_id`, and their hash must agree;
- Inspect's logs, `.json` or `.eval` (which takes inspect_ai): samples pair by `id`, epochs are averaged;
- verifiers' `traces.jsonl`: tasks pair by their key or hash, rollouts of a task are averaged.

A score must lie in [0, 1]. What a harness marks as an error is one here, too, and no failure. Samples of one content
are one cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gentax.core import UsageError, content_hash, unknown
from gentax.core.files import GRADES, parse_json, read_inspect_log, read_lines
from gentax.metrics.episode_scores import RecordedScores

ERROR = float("nan")


class Sample(NamedTuple):
    """A line or a record of a log."""

    where: str  # for messages
    key: str  # what it pairs by
    content: str  # a hash of what was asked, the same for the same question
    scores: Mapping[str, Any]  # by metric; empty for an error


@dataclass(frozen=True)
class ResultsOption:
    """`NAME[:METRIC]=BEFORE,AFTER` of the command line."""

    name: str
    metric: str | None
    before: Path
    after: Path

    @classmethod
    def parse(cls, text: str) -> ResultsOption:
        """Read the option. Raises UsageError."""
        name, equals, files = text.partition("=")
        before, comma, after = files.partition(",")
        if not (name and equals and before and comma and after):
            raise UsageError(f"--results {text[:80]}: write NAME=BEFORE,AFTER, as in ifeval=before.jsonl,after.jsonl")
        name, _, metric = name.partition(":")
        return cls(name, metric or None, Path(before), Path(after))

    def read(self) -> RecordedScores:
        """Read both files. Raises UsageError: see `read_recorded`."""
        return read_recorded(self.before, self.after, self.metric)


def read_recorded(before: str | Path, after: str | Path, metric: str | None = None) -> RecordedScores:
    """Read the logs of one task, before training and after it, and pair them by sample.

    Args:
        metric: `METRIC`, with lm-evaluation-harness also `METRIC,FILTER`; where a file has one it need not be named.

    Raises:
        UsageError: no such file, a line that is none of the above, a metric that is not there or not in [0, 1], samples
            that do not pair.
    """
    return pair_samples({str(path): list(_samples(Path(path))) for path in (before, after)}, metric)


def pair_samples(
    sides: Mapping[str, Sequence[Sample]], metric: str | None = None, write: str = "NAME:METRIC=…"
) -> RecordedScores:
    """Pair the samples of before training with those of after it.

    Args:
        sides: the samples of each, by the name that messages have for them; the same name is the same samples.
        metric: as in `read_recorded`.
        write: how the user names a metric, for the message that asks for one.

    Raises:
        UsageError: as `read_recorded`.
    """
    before, after = (*sides, *sides)[:2]
    scored = {name: _by_sample(samples, name, metric, write) for name, samples in sides.items()}
    first, second = scored[before], scored[after]
    if alone := [key for key in {**first, **second} if (key in first) != (key in second)]:
        only = before if alone[0] in first else after
        raise UsageError(f"samples must pair: {len(alone)} are in one file alone, such as {alone[0][:80]!r} in {only}")
    for key, (content, _) in first.items():
        if content != second[key][0]:
            raise UsageError(f"samples must pair: {key[:80]!r} asks something else in {after} than in {before}")
    if len(first) < 2:
        raise UsageError(f"{before} holds {len(first)} sample; a tax needs at least 2")
    before_K, after_K = (np.array([np.mean(side[key][1]) for key in first]) for side in (first, second))
    return RecordedScores(before_K, after_K, [content for content, _ in first.values()])


def _by_sample(
    samples: Sequence[Sample], path: str, metric: str | None, write: str
) -> dict[str, tuple[str, list[float]]]:
    """Return the content and the scores of each sample, by key."""
    named = dict.fromkeys(name for sample in samples for name in sample.scores)
    if not named:
        raise UsageError(f"{path} holds no score")
    if metric is None and len(named) > 1:
        raise UsageError(f"{path} has several metrics: write {write}, with one of {', '.join(named)}")
    metric = metric or next(iter(named))
    if metric not in named:
        raise UsageError(f"{path}: {unknown('metric', metric, named)}")
    by_key: dict[str, tuple[str, list[float]]] = {}
    for sample in samples:
        if sample.scores and metric not in sample.scores:  # the line of another filter
            continue
        score = _score(sample.scores[metric], f"{path}, {sample.where}: {metric}") if sample.scores else ERROR
        content, scores = by_key.setdefault(sample.key, (sample.content, []))
        if content != sample.content:
            raise UsageError(f"{path}, {sample.where}: {sample.key[:80]!r} was there before and asked something else")
        scores.append(score)
    return by_key


def _score(value: Any, where: str) -> float:
    if isinstance(value, str):
        value = GRADES.get(value, value)
    if not isinstance(value, (bool, int, float)) or not 0 <= value <= 1:
        raise UsageError(f"{where} must be a score between 0 and 1, not {value!r:.40}")
    return float(value)


def _samples(path: Path) -> Iterator[Sample]:
    if path.suffix in (".json", ".eval"):
        yield from _inspect_samples(path)
    else:
        for number, line in read_lines(path):
            where = f"line {number}"
            try:
                record = parse_json(line)
            except ValueError as fault:
                raise UsageError(f"{path}, {where}, is not JSON: {fault}") from None
            if isinstance(record, dict) and "doc_id" in record:
                yield harness_sample(record, path, where)
            elif isinstance(record, dict) and isinstance(record.get("traces"), list):
                for trace in record["traces"]:
                    yield _verifiers_sample(trace, path, where)
            elif isinstance(record, dict) and "task" in record and "rewards" in record:  # a trace by itself
                yield _verifiers_sample(record, path, where)
            else:
                raise UsageError(
                    f"{path}, {where}, is no sample: lm-evaluation-harness's have 'doc_id', verifiers' have 'traces'"
                )


def harness_sample(record: Mapping[str, Any], path: str | Path, where: str) -> Sample:
    """Read a sample of lm-evaluation-harness. Raises UsageError for what is none."""
    names, used = record.get("metrics"), record.get("filter", "none")
    if not isinstance(names, list) or not all(isinstance(name, str) and name in record for name in names):
        raise UsageError(f"{path}, {where}: 'metrics' must list the metrics of the sample")
    scores = {name if used == "none" else f"{name},{used}": record[name] for name in names}
    return Sample(where, str(record["doc_id"]), str(record.get("doc_hash") or ""), scores)


def _inspect_samples(path: Path) -> Iterator[Sample]:
    for record in read_inspect_log(path):
        where, scores = f"sample {str(record['id'])[:80]!r}", record["scores"]
        if not scores and not record.get("error"):
            raise UsageError(f"{path}, {where}, was not scored and had no error")
        values = {} if record.get("error") else {name: one.get("value") for name, one in scores.items()}
        yield Sample(where, str(record["id"]), content_hash(str(record.get("input"))), values)


def _verifiers_sample(trace: Any, path: Path, where: str) -> Sample:
    task = trace.get("task") if isinstance(trace, dict) else None
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(task, dict) or not isinstance(data, dict):
        raise UsageError(f"{path}, {where}: a trace has a 'task' with its 'data'")
    content = content_hash(str(data.get("system_prompt")), str(data.get("prompt")))
    named = (task.get("key"), task.get("hash"), data.get("id"), data.get("idx"), data.get("name"), content)
    key = str(next(one for one in named if one is not None))
    if trace.get("errors"):
        return Sample(where, key, content, {})
    rewards, metrics = trace.get("rewards") or {}, trace.get("metrics") or {}
    if not isinstance(rewards, dict) or not isinstance(metrics, dict):
        raise UsageError(f"{path}, {where}: 'rewards' and 'metrics' must be mappings")
    scores = {name: one.get("score") for name, one in rewards.items() if isinstance(one, dict)}
    return Sample(where, key, content, scores | metrics)
