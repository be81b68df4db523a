"""Whether playing and learning got slower since an earlier commit: both versions of gentax, in turns, on one machine.

    python benchmarks/compare_commits.py COMMIT [--repeats 7] [--threads 1]

Each side is a process of its own with its commit's `src` and `benchmarks`: the work tree as it is, and a checkout of
COMMIT in a temporary folder. Four jobs: 128 Sokoban episodes (16 tasks, 8 of each, temperature 1, the shipped model,
nothing kept between repeats) in `window(2)` and in `full`; one policy-gradient step of `training_step.py` in fp32 and
in the precision that gentax chooses here. The sides take turns in a random order; the first turn is not counted.

Printed are medians of processor seconds, which other work on the machine disturbs less than the clock, their ranges,
and the median of the ratios of neighbouring turns: above 1, the work tree is slower.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

JOBS = ("play window(2)", "play full", "learn fp32", "learn auto")
HERE = Path(__file__).resolve().parent.parent
SIDES = ("before", "now")


def jobs() -> dict[str, Callable[[], int]]:
    """Set up every job; each returns how much it did: steps played, or tokens learned from."""
    from training_step import GROUP, TASKS, gentax_step, model_folder, play_batch, quiet, size

    import gentax
    from gentax.core.process import keep_freed_memory
    from gentax.policies.local import load_local_policy
    from gentax.rollouts import EnvPool, RolloutConfig, rollout

    quiet()
    keep_freed_memory()
    policy = load_local_policy("base")
    with gentax.make("sokoban") as env:
        tasks = env.tasks("train", TASKS)
    found: dict[str, Callable[[], int]] = {}
    for job in JOBS[:2]:
        config = RolloutConfig(context=job.split()[1], temperature=1.0)
        pool = EnvPool(config)  # ends with the process

        def playing(config: RolloutConfig = config, pool: EnvPool = pool) -> int:
            policy.clear_cache()
            return sum(e.length for e in rollout(policy, tasks, config=config, samples=GROUP, seed=5, pool=pool))

        found[job] = playing
    with tempfile.TemporaryDirectory() as scratch:
        folder, trained = model_folder(Path(scratch))
        assert trained  # the shipped model lies elsewhere
    episodes = play_batch(folder, trained, "full", 25000)
    for job in JOBS[2:]:
        step, _ = gentax_step(folder, episodes, job.split()[1])

        def learning(step: Callable[[], float] = step) -> int:
            step()
            return sum(map(size, episodes))

        found[job] = learning
    return found


def serve(threads: int) -> None:
    """Do the jobs named on standard input, one a line; write seconds and amount, as JSON."""
    sys.path[0] = os.getcwd()  # the other scripts of this commit
    import torch

    torch.set_num_threads(threads)
    made = jobs()
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.process_time()
        amount = made[line.strip()]()
        print(json.dumps([time.process_time() - began, amount]), flush=True)


def side(tree: Path, threads: int) -> subprocess.Popen[str]:
    """Start a process on the code of a tree."""
    return subprocess.Popen(
        [sys.executable, str(HERE / "benchmarks" / Path(__file__).name), "--serve", "--threads", str(threads), "."],
        cwd=tree / "benchmarks",
        env={**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": str(threads)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(process: subprocess.Popen[str], job: str) -> tuple[float, int]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(job + "\n")
    process.stdin.flush()
    seconds, amount = json.loads(process.stdout.readline())
    return seconds, amount


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="what to compare the work tree with")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.threads)
    git = ["git", "-C", str(HERE)]
    if subprocess.run(
        [*git, "rev-parse", "--quiet", "--verify", f"{args.commit}^{{commit}}"], stdout=subprocess.DEVNULL
    ).returncode:
        parser.error(f"no commit {args.commit!r} in {HERE}")
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "before"
        subprocess.run([*git, "worktree", "add", "--quiet", "--detach", str(tree), args.commit], check=True)
        processes = {}
        try:
            for name, where in zip(SIDES, (tree, HERE), strict=True):
                processes[name] = side(where, args.threads)
                if processes[name].stdout.readline().strip() != "ready":
                    sys.exit(f"{name} cannot do the jobs; what it says is above")
            print(f"{args.repeats} turns; {args.threads} of {os.cpu_count()} cores; processor seconds of a turn")
            print(f"{'':16}{'before':>8}{'range':>14}{'now':>8}{'range':>14}{'now/before':>12}  amount")
            for job in JOBS:
                compare(job, processes, args.repeats)
        finally:
            for process in processes.values():
                process.kill()
            subprocess.run([*git, "worktree", "remove", "--force", str(tree)], check=True)


def compare(job: str, processes: dict[str, subprocess.Popen[str]], repeats: int) -> None:
    """Let the sides do a job in turns, and print its line."""
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    amounts = {}
    for turn in range(repeats + 1):
        for name in random.sample(SIDES, len(SIDES)):
            took, amounts[name] = ask(processes[name], job)
            if turn:
                seconds[name].append(took)
    cells = "".join(
        f"{statistics.median(of):8.3f}{f'{min(of):.3f}-{max(of):.3f}':>14}" for of in map(seconds.get, SIDES) if of
    )
    ratio = statistics.median([now / before for before, now in zip(*map(seconds.get, SIDES), strict=True)])
    print(f"{job:16}{cells}{ratio:12.3f}  {' and '.join(str(amounts[name]) for name in SIDES)}", flush=True)


if __name__ == "__main__":
    main()
