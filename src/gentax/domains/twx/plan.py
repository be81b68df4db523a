"""Keeping to a gold path when other things were done in between.

Looking costs nothing. A step aside that can be undone (walking, opening, putting down) is undone, the last one first.
A thing picked up early is not picked up again. After anything else the path is lost.
"""

from __future__ import annotations

from collections.abc import Sequence

_LOOKS = ("look around", "inventory", "task", "read ", "examine ")
_OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


def without_idle(path: Sequence[str]) -> list[str]:
    """Return the package's path without the steps it takes for nothing: it opens what it has opened already."""
    opened: set[str] = set()
    kept = []
    for action in path:
        verb, _, thing = action.partition(" ")
        if verb == "open" and thing in opened:
            continue
        if verb == "open" and not thing.startswith("door "):  # each room has a door to the east
            opened.add(thing)
        elif verb == "close":
            opened.discard(thing)
        kept.append(action)
    return kept


class Follower:
    """Where somebody who plays freely stands on a path.

    Args:
        path: the actions that win the game from its start.
    """

    def __init__(self, path: Sequence[str]) -> None:
        self._path = tuple(path)
        self._done = 0
        self._undo: list[str] = []
        self._taken: set[str] = set()
        self._lost = False

    def did(self, action: str, moved: bool) -> None:
        """Take note of an action that was accepted. `moved`: it led to another room."""
        if self._undo and action == self._undo[-1]:
            self._undo.pop()
        elif not self._undo and self.rest()[:1] == (action,):
            self._done += 1
        elif action.startswith(_LOOKS):
            pass
        elif action.startswith("move "):
            if moved:
                self._undo.append(f"move {_OPPOSITE[action.removeprefix('move ')]}")
        elif action.startswith("open door"):
            pass  # an open door is in nobody's way
        elif action.startswith("open "):
            self._undo.append(f"close {action.removeprefix('open ')}")
        elif action.startswith("close "):
            self._undo.append(f"open {action.removeprefix('close ')}")
        elif action.startswith("take "):
            self._taken.add(action)
        elif action.startswith("put "):
            take = f"take {action.removeprefix('put ').split(' in ')[0]}"
            self._taken.discard(take)
            self._undo.append(take)
        else:
            self._lost = True

    def rest(self) -> tuple[str, ...]:
        """Return what is left of the path."""
        while self._done < len(self._path) and self._path[self._done] in self._taken:
            self._taken.remove(self._path[self._done])
            self._done += 1
        return self._path[self._done :]

    def next(self) -> tuple[str, bool] | None:
        """Return the next action and whether it undoes a step aside; None when the path is lost or at its end."""
        if self._lost:
            return None
        if self._undo:
            return self._undo[-1], True
        rest = self.rest()
        return (rest[0], False) if rest else None
