"""How many moves a state is from solved, exactly, and which move is next.

Two searches meet. The first runs backwards from all solved states at once, by pulls, one complete layer after the
other: layer d holds exactly the states whose optimal plan has d moves. In small rooms it reaches every solvable
state. In large ones it stops at `TABLE_LIMIT` states; a state beyond is searched forwards, in layers too. The first
of its layers to touch the table gives the optimal plan: a plan of depth + k moves is after k moves in the deepest
layer. Where that search also reaches its limit (in large rooms from files) no plan is known.
"""

from __future__ import annotations

from gentax.domains.sokoban.board import ACTIONS, PLAYER, PLAYER_BITS, cells, deltas, move

TABLE_LIMIT = 60_000  # states; a table of that size takes about 0.1 s and 10 MB
FORWARD_LIMIT = 60_000


class Distances:
    """Optimal plan lengths, in moves, of the states of one room. Grows when asked for what it does not hold yet."""

    def __init__(self, columns: int, walls: int, floor: int, targets: int) -> None:
        self.columns, self.walls, self.floor, self.targets = columns, walls, floor, targets
        self.depth = 0  # the deepest complete layer
        solved = targets << PLAYER_BITS
        self.layer = [solved | cell for cell in cells(floor & ~targets)]  # the states of the deepest layer
        self.known: dict[int, int | None] = dict.fromkeys(self.layer, 0)
        self._pushes: dict[int, int] | None = None
        # For each cell the player may have come to: by which delta, over which cell, and what then lies ahead.
        bit = PLAYER_BITS
        self._back = {
            cell: [
                (delta, 1 << cell - delta + bit, 1 << cell + delta + bit, (1 << cell + bit) - (1 << cell + delta + bit))
                for delta in deltas(columns)
                if floor >> cell - delta & 1
            ]
            for cell in cells(floor)
        }

    def grow(self) -> bool:
        """Search one more complete layer. Return whether it holds a state."""
        known, back = self.known, self._back
        self.depth += 1
        depth = self.depth
        layer: list[int] = []
        for state in self.layer:
            for delta, behind, ahead, pull in back[state & PLAYER]:
                if state & behind:
                    continue
                before = state - delta
                if before not in known:
                    known[before] = depth
                    layer.append(before)
                if state & ahead:
                    before += pull
                    if before not in known:
                        known[before] = depth
                        layer.append(before)
        self.layer = layer
        return bool(layer)

    def of(self, state: int) -> int | None:
        """Return the optimal moves left from `state`; None when there is no plan, or none within the limits."""
        known = self.known
        while state not in known and self.layer and len(known) < TABLE_LIMIT:
            self.grow()
        if state not in known:
            if self.layer:
                self._meet(state)
            else:
                known[state] = None
        return known[state]

    def best(self, state: int) -> int | None:
        """Return which of `ACTIONS` (its number) begins a plan; the first in their order. None when there is none."""
        left = self.of(state)
        if not left:
            return None
        for number, delta in enumerate(deltas(self.columns)):
            after = move(self.walls, state, delta)
            if self.known.get(after) == left - 1:
                return number
        raise AssertionError(f"no action of {ACTIONS} shortens a plan of {left} moves")

    @property
    def pushes(self) -> dict[int, int]:
        """The fewest pushes from each cell to a target for a box alone in the room; dead cells are not in it."""
        if self._pushes is None:
            layer = cells(self.targets)
            self._pushes = found = dict.fromkeys(layer, 0)
            for cell in layer:  # grows while it is walked: a breadth-first queue
                for delta in deltas(self.columns):
                    before = cell - delta
                    if before not in found and self.floor >> before & 1 and self.floor >> before - delta & 1:
                        found[before] = found[cell] + 1
                        layer.append(before)
        return self._pushes

    def _meet(self, state: int) -> None:
        """Search forwards from `state` until a layer touches the table; write down what was learned."""
        known, walls, steps = self.known, self.walls, deltas(self.columns)
        dead = self.floor & ~sum(1 << cell for cell in self.pushes)
        parent: dict[int, int | None] = {state: None}
        layer = [state]
        while layer and len(parent) < FORWARD_LIMIT:
            wider: list[int] = []
            for before in layer:
                for delta in steps:
                    after = move(walls, before, delta)
                    if after in parent or (after >> PLAYER_BITS) & dead:
                        continue
                    parent[after] = before
                    left = known.get(after)
                    if left is not None:
                        trail: int | None = before
                        while trail is not None:
                            left += 1
                            known[trail] = left
                            trail = parent[trail]
                        return
                    wider.append(after)
            layer = wider
        if not layer:
            for seen in parent:  # nothing solved can be reached from any of them
                known[seen] = None
            return
        known[state] = None
