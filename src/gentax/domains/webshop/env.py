"""The WebShop environment: text in, text out, over the generated shop or the official one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gentax.core.env import ExpertAction, StepResult, Task, TextEnv
from gentax.core.errors import UsageError
from gentax.domains.webshop import DOMAIN, HORIZON, OFFICIAL, parse_level
from gentax.domains.webshop.goals import (
    WON,
    OfficialShop,
    content_of,
    expert_action,
    official_content,
    oracle_action,
    read_official,
    sample_goal,
    score,
)
from gentax.domains.webshop.shop import Session, generated, long_page, short_page

TASKS = 1_000_000  # of each split of a generated level; every one is made when it is played
ACTION_LIMIT = 500  # characters; no longer string is looked at
PER_PAGE = {False: 4, True: 10}  # products on a page of results, by whether pages are long
DATA = "GENTAX_WEBSHOP"  # the environment variable that names a folder of official data


class WebShop(TextEnv):
    """Buy what an instruction describes.

    An action is `search[words]` on the search page and `click[button]` on the others, in any case, with any space
    around it. What is not on the page is refused and changes nothing. Buying ends the episode. Its score is the
    published one, from 0 to 1; the dense reward is the score, and success is a score of 1.

    `admissible` lists every button. Any words can be searched for; on the search page it lists the goal's own.

    Args:
        level: `4k-easy` and the other named ones, or any `Nk-easy`, `Nk-medium` or `Nk-hard`, with `-long` for pages of
            ten products and long texts; these are always the generated shop. `official` is the official data. None
            means the official data where `data` or the environment variable names some, else the default level.
        data: a folder with the official data; what the environment variable GENTAX_WEBSHOP names when None.

    Raises:
        UsageError: a level that cannot be, or data that are missing or broken; the message says how to mend it.
    """

    domain = DOMAIN

    def __init__(self, level: str | None = None, *, data: str | Path | None = None, **settings: Any) -> None:
        folder = data if data is not None else os.environ.get(DATA) or None
        asked = level is not None and (level == OFFICIAL or level.startswith(f"{OFFICIAL}-"))
        self._official: OfficialShop | None = None
        if asked and folder is None:
            raise UsageError(f"level {level!r} of webshop needs the official data: data=FOLDER or {DATA}=FOLDER")
        if level is not None and not asked and data is not None:
            raise UsageError(f"level {level!r} of webshop is of the generated shop: leave data or level out")
        if asked or (level is None and folder is not None):
            self._official = read_official(folder)
            if level not in (None, OFFICIAL, self._official.level):
                raise UsageError(f"level {level!r} is not that of {folder}, {self._official.level!r}: other data")
            level = self._official.level
        else:
            self._spec = parse_level(DOMAIN.default_level if level is None else level)
        super().__init__(level, **settings)
        long = self._official is not None or self._spec.long
        self._per_page, self._page = PER_PAGE[long], long_page if long else short_page

    def size(self, split: str) -> int:
        return len(self._official.goals[split]) if self._official else TASKS

    def level_horizon(self) -> int:
        return HORIZON

    def _reset_task(self, task: Task) -> tuple[str, str]:
        if self._official:
            catalogue, self.wanted = self._official.catalogue, self._official.goals[task.split][task.index]
        else:
            catalogue = generated(self._spec.size, self._spec.long)
            self.wanted = sample_goal(catalogue, self._spec, task.split, task.seed, self._per_page)
        self._content = (official_content if self._official else content_of)(self.wanted.product)
        self.session = Session(catalogue, self._per_page)
        return self.wanted.text, self._page(self.session)

    def _step(self, action: str) -> StepResult:
        session = self.session
        refusal = self._do(action)
        if refusal:
            return StepResult(f"{refusal} {self._page(session)}", 0.0, False, False, False)
        if not session.bought:
            return StepResult(self._page(session), 0.0, False, False, True)
        value = score(session.product, self.wanted, session.chosen)
        success = value >= WON
        reward = value if self.reward == "dense" else float(success)
        return StepResult(f"Bought {session.product.code}. Score {value:.2f}.", reward, True, success, True)

    def admissible(self) -> list[str]:
        if self.session.page == "search":
            return [f"search[{_searchable(self.wanted.text)}]"]
        return [f"click[{button}]" for button in self.session.buttons()]

    def expert(self) -> ExpertAction | None:
        if self.task is None or self.session.bought:
            return None
        return (oracle_action if self._official else expert_action)(self.session, self.wanted)

    def _do(self, action: str) -> str:
        """Do `action`; return why not, and "" when it was done."""
        if len(action) > ACTION_LIMIT:
            return "Unknown action."
        verb, bracket, rest = action.strip().lower().partition("[")
        words = " ".join(rest[:-1].split())
        if verb not in ("search", "click") or not bracket or not rest.endswith("]"):
            return "Unknown action."
        if verb == "click":
            return "" if self.session.click(words) else "No such button here."
        if not words:
            return "Search for what?"
        return "" if self.session.search(words) else "Search from the search page."


def _searchable(text: str) -> str:
    """Return an instruction as words to search for."""
    words = "".join(char if char.isalnum() or char in "-." else " " for char in text.lower()).split()
    return " ".join(word.strip(".-") for word in words)[:300].strip()
