"""Writes a page for each domain: what its record says, and an episode of its expert as the environment told it.

    python docs/domain_pages.py [NAME …]     # all that are installed, when none is named

The transcripts come out of the code and nothing else, so that a page cannot say what a domain does not do.
"""

from __future__ import annotations

import sys
from pathlib import Path

import gentax
from gentax.core.env import Domain
from gentax.domains import domain, domains, missing_modules
from gentax.policies import ExpertPolicy
from gentax.rollouts import RolloutConfig, rollout

FOLDER = Path(__file__).parent / "domains"


def page(name: str) -> str:
    """Return the page of a domain in Markdown."""
    record = domain(name)
    env = gentax.make(name)
    try:
        sizes = ", ".join(f"{split} {env.size(split):,}" for split in record.splits)
    finally:
        env.close()
    levels = "\n".join(
        f"| `{key}`{' (default)' if key == record.default_level else ''} | {level.about} | {level.horizon} |"
        for key, level in record.levels.items()
    )
    return f"""# {name}

{record.about}

> {record.rules}

| | |
|---|---|
| in the suite | {"target only: never trained on" if record.target_only else "source and target"} |
| tasks at the default level | {sizes} |
| origin | {record.origin} |
| licence | {record.licence} |
| installed by | {f"`{record.enable}`" if record.enable else "`pip install gentax`"} |

## Levels

| level | what | steps at most |
|---|---|---|
{levels}

## An episode

The expert on the first task of the train split (`gentax play {name} --expert`):

{transcript(name)}
## The same start with distractors

`gentax.distract(gentax.make("{name}"))`: the goal, the actions and the outcome stay as they are.

{distracted(name)}"""


def transcript(name: str) -> str:
    """Return an episode of the expert as a block of text."""
    env = gentax.make(name)
    (task,) = env.tasks("train", 1)
    env.close()
    (episode,) = rollout(ExpertPolicy(), [task], config=RolloutConfig())
    turns = "\n".join(f"{step.observation}\n> {step.action}" for step in episode.steps)
    result = f"[{episode.outcome}, {episode.length} steps, return {episode.ret:g}]"
    return _block(f"Goal: {episode.goal}\n\n{turns}\n{episode.final}\n{result}")


def distracted(name: str) -> str:
    """Return the first observation of the same task with the domain's own distractors."""
    env = gentax.distract(gentax.make(name))
    try:
        return _block(env.reset(options={"index": 0})[0])
    finally:
        env.close()


def _block(text: str) -> str:
    return f"```text\n{text}\n```\n"


def index(records: list[Domain]) -> str:
    """Return the page that has the transcripts of all domains."""
    rows = "\n".join(
        f"| [{r.name}]({r.name}.md) | {r.about} | {'target only' if r.target_only else 'source, target'} |"
        for r in records
    )
    parts = "\n".join(f"## {r.name}\n\n{transcript(r.name)}" for r in records)
    return f"# The domains\n\n| | | in the suite |\n|---|---|---|\n{rows}\n\n{parts}"


def main(names: list[str]) -> None:
    ready = {name: record for name, record in domains().items() if not missing_modules(record)}
    for name in names or ready:
        domain(name)
        (FOLDER / f"{name}.md").write_text(page(name), encoding="utf-8")
        print(f"wrote {FOLDER / name}.md")
    if not names:
        (FOLDER / "README.md").write_text(index(list(ready.values())), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
