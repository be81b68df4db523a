"""Optimal and approximate plans: how many moves a state is from solved, and which move is next."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count, pairwise

from gentax.domains.sokoban.board import ACTIONS, PLAYER, PLAYER_BITS, cells, deltas, move, reach, state_of

PLAN_LIMIT = 20_000  # box positions tried: a second or two in a large room
GREED = 5  # how much more a pull still needed counts than a pull made
FAR = 1_000  # pulls; what counts for a home that no box left over can come to

Node = tuple[int, int]  # boxes, and the cell the player stands on


def find_plan(columns: int, floor: int, targets: int, state: int) -> list[int]:
    """Return the states of a plan from `state` to a solved one, both included; empty when none was found."""
    steps = deltas(columns)
    start, player = state >> PLAYER_BITS, state & PLAYER
    homes = [_pushed(steps, floor, box) for box in cells(start)]
    order = count()  # breaks ties by age, so that the same room has the same plan everywhere
    parent: dict[Node, Node | None] = {(targets, cell): None for cell in cells(floor & ~targets)}
    queue = [(0, next(order), 0, node) for node in parent]
    seen: set[tuple[int, int]] = set()
    while queue and len(parent) < PLAN_LIMIT:
        _, _, made, node = heappop(queue)
        boxes = node[0]
        region = reach(1 << node[1], floor & ~boxes, columns)
        if boxes == start and region >> player & 1:
            return _walked(columns, floor, parent, node, player)
        if (boxes, region) in seen:
            continue
        seen.add((boxes, region))
        for box in cells(boxes):
            for delta in steps:
                to = box + delta
                if not region >> to & 1 or not (floor & ~boxes) >> to + delta & 1:
                    continue
                before = (boxes ^ (1 << box | 1 << to), to + delta)
                if before not in parent:
                    parent[before] = node
                    needed = _needed(homes, cells(before[0]))
                    heappush(queue, (made + 1 + GREED * needed, next(order), made + 1, before))
    return []


def _pushed(steps: tuple[int, ...], floor: int, box: int) -> dict[int, int]:
    """Return the fewest pushes that bring a box alone in the room from `box` to each cell it can be brought to."""
    found, queue = {box: 0}, [box]
    for cell in queue:  # grows while it is walked: a breadth-first queue
        for delta in steps:
            to = cell + delta
            if to not in found and floor >> to & 1 and floor >> cell - delta & 1:
                found[to] = found[cell] + 1
                queue.append(to)
    return found


def _needed(homes: list[dict[int, int]], boxes: list[int]) -> int:
    """Return the pulls that bring each home its nearest box not yet taken, each as if alone."""
    total = 0
    for pushes in homes:
        nearest = min(boxes, key=lambda cell: pushes.get(cell, FAR))
        total += pushes.get(nearest, FAR)
        boxes = [box for box in boxes if box != nearest]
    return total


def _walked(columns: int, floor: int, parent: dict[Node, Node | None], node: Node, player: int) -> list[int]:
    """Return every state from `node` to the solved one: the pulls turned round, and the shortest walks between them."""
    chain = [node]
    while (after := parent[chain[-1]]) is not None:
        chain.append(after)
    states = []
    for (boxes, stand), (pushed, _) in pairwise(chain):
        states += [state_of(cell, boxes) for cell in _walk(columns, floor & ~boxes, player, stand)]
        player = (boxes & ~pushed).bit_length() - 1  # the player steps onto the cell that the box leaves
    return [*states, state_of(player, chain[-1][0])]


def _walk(columns: int, free: int, start: int, end: int) -> list[int]:
    """Return the cells of a shortest walk over `free`, both ends included."""
    parent, queue = {start: start}, [start]
    for cell in queue:  # grows while it is walked: a breadth-first queue
        if cell == end:
            break
        for delta in deltas(columns):
            if free >> cell + delta & 1 and cell + delta not in parent:
                parent[cell + delta] = cell
                queue.append(cell + delta)
    walk = [end]
    while walk[-1] != start:
        walk.append(parent[walk[-1]])
    return walk[::-1]


# How many moves a state is from solved, exactly.
#
# Two searches meet. The first runs backwards from all solved states at once, by pulls, one complete layer after the
# other: layer d holds exactly the states whose optimal plan has d moves. In small rooms it reaches every solvable
# state. In large ones it stops at `TABLE_LIMIT` states; a state beyond is searched forwards, in layers too. The first
# of its layers to touch the table gives the optimal plan: a plan of depth + k moves is after k moves in the deepest
# layer. Only where that search also reaches its limit is some plan sought (`find_plan`), not the shortest.


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
        """Return the optimal moves left from `state`; None when there is no plan.

        In a room too large for both searches the number is the length of some plan, or None when none was found.
        """
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
        count = -1
        for passed in reversed(find_plan(self.columns, self.floor, self.targets, state)):
            # Where an earlier plan is met its count goes on, so that every count has a next state with one less.
            met = known.get(passed)
            count = count + 1 if met is None else met
            known[passed] = count
