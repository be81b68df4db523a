"""Sokoban: steps and resets a second in one process, beside gym-sokoban in the same run.

    python benchmarks/sokoban_speed.py --peer sokoban-peer/bin/python

Both play uniformly random actions in 6x6 rooms with one box, episodes of at most 15 steps. Every reset makes another
room. A step of ours returns text; a step of the peer returns the smallest image it has ("tiny_rgb_array"), since it has
no text. The time of resets is not counted in steps a second. The peer needs packages of its own, so it runs with an
interpreter of its own. Takes about 20 s.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import time

INSTALL = "python -m venv sokoban-peer && sokoban-peer/bin/pip install gym-sokoban==0.0.6 'setuptools<80'"
HORIZON = 15
REPEATS = 5


def ours(level: str = "6x6"):
    import gentax

    env = gentax.make("sokoban", level=level, horizon=HORIZON)
    actions = ("up", "down", "left", "right")
    index = iter(range(1_000_000))

    def reset() -> None:
        env.reset(options={"index": next(index)})

    def step(number: int) -> bool:
        _, _, terminated, truncated, _ = env.step(actions[number])
        return terminated or truncated

    return reset, step


def peer():
    from gym_sokoban.envs.sokoban_env import SokobanEnv

    env = SokobanEnv(dim_room=(6, 6), max_steps=HORIZON, num_boxes=1, reset=False)

    def step(number: int) -> bool:
        return env.step(number + 1, observation_mode="tiny_rgb_array")[2]

    return lambda: env.reset(render_mode="tiny_rgb_array"), step


def measure(reset, step, resets: int) -> tuple[float, float]:
    """Return the medians over repeats of steps a second and of resets a second."""
    rng = random.Random(0)
    stepping, resetting = [], []
    for _ in range(REPEATS):
        steps = 0
        in_resets = in_steps = 0.0
        for _ in range(resets):
            actions = rng.choices(range(4), k=HORIZON)
            start = time.perf_counter()
            reset()
            middle = time.perf_counter()
            for action in actions:
                steps += 1
                if step(action):
                    break
            in_steps += time.perf_counter() - middle
            in_resets += middle - start
        stepping.append(steps / in_steps)
        resetting.append(resets / in_resets)
    return statistics.median(stepping), statistics.median(resetting)


def show(name: str, figures: tuple[float, float]) -> None:
    print(f"{name:<34}{figures[0]:>12,.0f} steps/s{figures[1]:>12,.0f} resets/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=sys.executable, help="the Python that has gym-sokoban")
    parser.add_argument("--role", choices=("all", "peer"), default="all", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role == "peer":
        print(*measure(*peer(), resets=150))
        return
    show("gentax sokoban 6x6", measure(*ours(), resets=3000))
    try:
        done = subprocess.run([arguments.peer, __file__, "--role", "peer"], capture_output=True, text=True, check=True)
        show("gym-sokoban 0.0.6, 6x6, 1 box", tuple(map(float, done.stdout.split()[-2:])))
    except (OSError, subprocess.CalledProcessError) as error:
        why = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        print(f"gym-sokoban could not run ({why}). Install it apart from gentax and name its Python:\n  {INSTALL}")
        print("  python benchmarks/sokoban_speed.py --peer sokoban-peer/bin/python")
    for level, resets in (("6x6-far", 1000), ("7x7-2", 500), ("8x8-2", 300), ("10x10-3", 30)):
        show(f"gentax sokoban {level}", measure(*ours(level), resets=resets))


if __name__ == "__main__":
    main()
