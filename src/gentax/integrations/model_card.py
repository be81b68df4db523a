"""A model card section: a result as the Hub's evaluation metadata (`model-index`) and as a table with intervals.

The metadata is written with `huggingface_hub`. The section stands between two comments, so that writing it again
replaces it and leaves the rest of a card as it is. Names come from files that anybody may have written: in the table
they are escaped, and YAML is written by a library.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gentax.core import UsageError
from gentax.core.console import one_line
from gentax.core.files import atomic_file, read_json, read_text
from gentax.metrics.statistics import Estimate

BEGIN, END = "<!-- gentax {}: begin -->", "<!-- gentax {}: end -->"  # of a kind of result
RESULT = "result.json"  # in the folder of `gentax tax --out`
RESULT_LIMIT = 1 << 28  # bytes; a suite's result lists every episode


@dataclass(frozen=True)
class Metric:
    """A number of a result as the Hub has it."""

    domain: str
    type: str  # such as `success_rate`
    name: str  # as a person reads it
    estimate: Estimate
    level: str | None = None  # of difficulty


@dataclass(frozen=True)
class CardSection:
    """What a card says of a result."""

    kind: str
    metrics: tuple[Metric, ...]
    text: str  # Markdown


def card_section(result: Path) -> CardSection:
    """Return the section for a file that `gentax tax` or `gentax evaluate` wrote with `--json`, or a folder of `--out`.

    Raises:
        UsageError: no such file, or one that holds no such result.
    """
    path = result / RESULT if result.is_dir() else result
    content = read_json(path, RESULT_LIMIT)
    if isinstance(content, dict):
        if "tax" in content and "drop" in content:
            return _tax_section(content, str(path))
        if "score" in content and "suite" in content:
            return _suite_section(content, str(path))
        if "domains" in content and "policy" in content:
            return _evaluation_section(content, str(path))
    raise UsageError(f"{path} holds no result of `gentax tax` or `gentax evaluate`, which --json and --out write")


def card_text(section: CardSection, name: str, card: str = "") -> str:
    """Return a card with the section: `card`, whose other parts stay, or a new one for the model `name`.

    Raises:
        UsageError: a card whose metadata cannot be read.
    """
    from huggingface_hub import EvalResult, ModelCard  # takes a second to load

    results = [
        EvalResult(
            task_type="reinforcement-learning",
            task_name="text game",
            dataset_type=f"gentax/{metric.domain}",
            dataset_name=f"gentax {metric.domain}",
            dataset_config=metric.level,
            dataset_split="test",
            metric_type=metric.type,
            metric_name=metric.name,
            metric_value=metric.estimate.value,
            metric_args={"low": metric.estimate.low, "high": metric.estimate.high, "level": metric.estimate.level},
        )
        for metric in section.metrics
    ]
    try:
        made = ModelCard(card or f"---\ntags:\n- gentax\n---\n\n# {_escaped(name)}\n")
        data: Any = made.data
        ours = {(of.dataset_type, of.metric_type) for of in results}
        kept = [of for of in data.eval_results or [] if (of.dataset_type, of.metric_type) not in ours]
        data.model_name = data.model_name or name
        data.eval_results = [*kept, *results]
    except Exception as fault:  # of a parser of YAML, of the Hub's checks
        raise UsageError(f"the card's metadata cannot be read: {one_line(str(fault))[:200]}") from None
    begin, end = BEGIN.format(section.kind), END.format(section.kind)
    section_text = f"{begin}\n{section.text}\n{end}"
    text, found = re.subn(f"{begin}.*?{end}", lambda _: section_text, made.text, count=1, flags=re.S)
    made.text = text if found else f"{text.rstrip()}\n\n{section_text}\n"
    return str(made)


def write_card(path: Path, section: CardSection, name: str) -> None:
    """Write a card, or the section of one that is there. Raises UsageError where that cannot be read."""
    card = read_text(path) if path.exists() else ""
    text = card_text(section, name, card)
    with atomic_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def _tax_section(content: Mapping[str, Any], where: str) -> CardSection:
    """Return what a result of `gentax tax` says: success after training, what was lost, and the tax."""
    source, targets = content.get("source"), _mapping(content, "drop", where)
    init, after = (_estimates(content, key, where) for key in ("init", "after"))
    drop = _estimates(content, "drop", where)
    if not isinstance(source, str) or set(init) != set(after) or not set(targets) <= set(init):
        raise UsageError(f"{where}: its source, `init`, `after` and `drop` do not belong together")
    tax = _estimate(content.get("tax"), f"{where}, tax")
    metrics = [Metric(d, "success_rate", "success, %", one) for d, one in after.items() if one]
    metrics += [Metric(d, "success_drop", "success lost in training, points", one) for d, one in drop.items() if one]
    if tax is not None:
        metrics.append(Metric(source, "generalization_tax", "generalization tax, fraction", tax))
    rows = [
        [_escaped(d), "source" if d == source else "target", *map(_cell, (init[d], after[d], drop.get(d)))]
        for d in [*([source] if source in init else []), *sorted(set(init) - {source})]
    ]
    table = _table(["domain", "role", "before, %", "after, %", "lost, points"], rows)
    said = content.get("sentences")
    sentences = [_escaped(line) for line in said if isinstance(line, str)] if isinstance(said, list) else []
    seeds = content.get("seeds")
    about = f"Success before and after training on {_escaped(source)}, on the same test tasks; 95 % intervals cover "
    about += "training seeds and tasks." if isinstance(seeds, int) and seeds > 1 else "tasks, not training seeds."
    lines = ["## Generalization tax", "", *sentences[:2], "", about, "", table]
    return CardSection("tax", tuple(metrics), "\n".join(lines))


def _evaluation_section(content: Mapping[str, Any], where: str) -> CardSection:
    metrics, rows = [], []
    for name, row in _mapping(content, "domains", where).items():
        if not isinstance(row, dict):
            raise UsageError(f"{where}: domains.{name[:80]} must be a mapping")
        success = _estimate(row.get("success"), f"{where}, domains.{name[:80]}.success")
        level = row.get("level") if isinstance(row.get("level"), str) else None
        if success is not None:
            metrics.append(Metric(name, "success_rate", "success, %", success, level))
        rows.append([_escaped(name), _escaped(level or ""), _cell(success), _escaped(str(row.get("episodes", "")))])
    table = _table(["domain", "level", "success, %", "episodes"], rows)
    return CardSection(
        "evaluation", tuple(metrics), f"## Success on agents' domains\n\n95 % intervals cover tasks.\n\n{table}"
    )


def _suite_section(content: Mapping[str, Any], where: str) -> CardSection:
    score = _mapping(content, "score", where)
    success, above = (_mapping(score, key, where) for key in ("success", "above_chance"))
    metrics, rows = [], []
    for name, value in [*success.items(), ("mean", score.get("mean"))]:
        estimate = _estimate(value, f"{where}, score.{name[:80]}")
        if estimate is not None:
            suite = f"suite {content['suite']}"
            metrics.append(Metric(suite if name == "mean" else name, "success_rate", "success, %", estimate))
            rows.append([_escaped(name), _cell(estimate), _cell(_estimate(above.get(name), where))])
    table = _table(["domain", "success, %", "above chance, %"], rows)
    head = f"## Suite {_escaped(str(content['suite']))} of gentax"
    return CardSection("suite", tuple(metrics), f"{head}\n\n95 % intervals cover tasks.\n\n{table}")


def _mapping(content: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = content.get(key)
    if not isinstance(value, dict):
        raise UsageError(f"{where}: {key!r} must be a mapping")
    return value


def _estimates(content: Mapping[str, Any], key: str, where: str) -> dict[str, Estimate | None]:
    return {d: _estimate(one, f"{where}, {key}.{d[:80]}") for d, one in _mapping(content, key, where).items()}


def _estimate(value: Any, where: str) -> Estimate | None:
    """Read an estimate; null is one that is undefined."""
    if value is None:
        return None
    defaults = {"covers": "tasks", "unit": "percent"}  # a score card leaves them out
    return Estimate.from_json(defaults | value if isinstance(value, dict) else value, where)


def _cell(estimate: Estimate | None) -> str:
    return "" if estimate is None else str(estimate)


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---", *("---:" for _ in columns[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Return text on one line of which Markdown and HTML make nothing else."""
    return re.sub(r"([\\`*_\[\]{}()#|~!])", r"\\\1", html.escape(one_line(text), quote=False))
