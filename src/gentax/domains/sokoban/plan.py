"""Some plan for a room too large to search move by move: best-first over pushes, so it need not be the shortest.

It searches backwards, by pulls from the solved room to the present one. Rooms that people make are easier that way:
boxes come out of a goal room in the only order in which they can have gone in, and a pull never makes a deadlock.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count, pairwise

from gentax.domains.sokoban.board import PLAYER, PLAYER_BITS, cells, deltas, reach, state_of

LIMIT = 20_000  # box positions tried: a second or two in a large room
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
    while queue and len(parent) < LIMIT:
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
