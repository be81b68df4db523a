"""Make `snippets.json`, the glimpses of `generic`: `python -m gentax.wrappers.generators.bank`. Takes 10 s.

They are first observations of training tasks, cut after a few lines.
"""

from __future__ import annotations

import json
from pathlib import Path

from gentax.domains import make

DOMAINS = ("sokoban", "sciworld")
EACH = 24
LONGEST = 400  # characters
DULL = ("the agent", "a substance called air")  # in every room of ScienceWorld, and headings without their list


def glimpses(name: str) -> list[str]:
    """Return `EACH` observations of a domain, spread over its training tasks."""
    env = make(name)
    try:
        size = min(env.size("train"), 1000)
        starts = (env.reset(options={"index": n * size // EACH, "split": "train"})[0] for n in range(EACH))
        return list(dict.fromkeys(map(_short, starts)))
    finally:
        env.close()


def _short(text: str) -> str:
    lines = [line for line in text.split("\n") if line not in DULL and not line.endswith(":")]
    while len("\n".join(lines)) > LONGEST and len(lines) > 1:
        lines.pop()
    return "\n".join(lines)


if __name__ == "__main__":
    bank = {name: glimpses(name) for name in DOMAINS}
    path = Path(__file__).with_name("snippets.json")
    path.write_text(json.dumps(bank, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
