"""The published games, where a user has them: a folder for each of three splits, a folder for each game.

Nothing of them comes with gentax. Of a game its start, its goal and the sentence that asks for it are read; rules and
wording are those of the installed package, so that no expression of a data file is ever evaluated. Left out, as in the
package: games with movable receptacles or sliced things, and those that are marked as unsolvable. Left out as well:
games of valid_seen and valid_unseen whose goal is one of train's in the same floor plan, so that splits share none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from gentax.core.errors import UsageError
from gentax.core.task import content_hash, stable_seed
from gentax.domains.alfworld.generate import Start
from gentax.domains.alfworld.wish import TYPES, Wish

VARIABLE = "ALFWORLD_DATA"
FOLDERS = {"train": "train", "validation": "valid_seen", "test": "valid_unseen"}  # by split
GAME, TRAJECTORY = "game.tw-pddl", "traj_data.json"
_KINDS = {name: kind for kind, name in TYPES.items()}
_ASKED = re.compile(r"Your task is to: ([^\"\n]{1,200}?)\.?\"")
_UNSOLVABLE = re.compile(rb'"solvable":\s*(false|null)')
_END = 1 << 16  # bytes; the mark is among the last entries of a file of some hundred kilobytes
_MEND = "`alfworld-download` fetches the published games"


class Official:
    """The published games, by split and in an order of which any first few are a fair sample."""

    def __init__(self, games: Mapping[str, tuple[Path, ...]]) -> None:
        self._games = games

    def size(self, split: str) -> int:
        """Return how many games a split has."""
        return len(self._games[split])

    def start(self, split: str, index: int) -> Start:
        """Read a game.

        Raises:
            UsageError: one of its files cannot be read or is not as published.
        """
        return _read(self._games[split][index])


def read_official() -> Official:
    """Find the games in the folder that ALFWORLD_DATA names, or in the one within that the download makes.

    Raises:
        UsageError: the variable is not set, or what it names is not there or not whole.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        raise UsageError(f"level 'official' of alfworld: set {VARIABLE} to the folder of the published games; {_MEND}")
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise UsageError(f"{VARIABLE}={folder}: not a folder; {_MEND}")
    inner = sorted(folder.glob("json_*"))
    base = next((one for one in (folder, *reversed(inner)) if (one / FOLDERS["train"]).is_dir()), folder)
    games, earlier = {}, set[str]()
    for split, name in FOLDERS.items():
        games[split] = tuple(game for game in _games(base / name) if game.parent.name not in earlier)
        earlier |= {game.parent.name for game in games[split]}
    return Official(games)


@cache
def _games(folder: Path) -> tuple[Path, ...]:
    if not folder.is_dir():
        raise UsageError(f"{VARIABLE}: {folder} is missing; {_MEND}")
    found, lacking = [], []
    for trajectory in folder.rglob(TRAJECTORY):
        game = trajectory.parent
        if "movable" in str(game) or "Sliced" in str(game):
            continue
        if not (game / GAME).is_file():
            lacking.append(game)
        elif not _UNSOLVABLE.search(_end_of(game / GAME)):
            found.append(game)
    if lacking:
        raise UsageError(
            f"{VARIABLE}: {len(lacking)} games of {folder} have no {GAME}, the first is {min(lacking).name}; "
            f"{_MEND}, `alfworld-generate` makes these"
        )
    if not found:
        raise UsageError(f"{VARIABLE}: no game in {folder}; {_MEND}")
    return tuple(sorted(found, key=lambda game: stable_seed("alfworld official", game.parent.name, game.name)))


def _end_of(file: Path) -> bytes:
    with file.open("rb") as source:
        source.seek(max(0, file.stat().st_size - _END))
        return source.read()


def _read(game: Path) -> Start:
    made, told = _json(game / GAME), _json(game / TRAJECTORY)
    try:
        asked = told["pddl_params"]
        kind = _KINDS[told["task_type"]]
        words = _ASKED.search(made["grammar"])[1]
        wish = Wish(
            kind,
            asked["object_target"].lower(),
            asked["parent_target"].lower() if kind != "light" else "",
            asked["toggle_target"].lower() if kind == "light" else "",
            words,
        )
        problem = str(made["pddl_problem"])
        # The name of the folder above a game is its kind, its objects and its floor plan.
        return Start(problem, wish, f"{words}\n{problem}", content_hash("alfworld official", game.parent.name))
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"{game}: not as published ({error!r}); {_MEND}") from error


def _json(file: Path) -> dict:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        said = str(getattr(error, "strerror", None) or error).splitlines()[0]
        raise UsageError(f"{file}: cannot be read as JSON ({said}); {_MEND}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file}: not a game; {_MEND}")
    return content
