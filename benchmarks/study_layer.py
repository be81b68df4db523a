"""What the study layer itself costs: planning, a run that has nothing to do, workers, a Ray cluster that loses a node.

    python benchmarks/study_layer.py [--only planning|noop|workers|ray] [--repeats 3]

- planning: `make_plan` and the overview of a study of 10,000 cells (arm × source × target × seed);
- noop: `gentax study run` on a finished study of 500 cells, a process from start to end. The study's stages are copies
  of the stages of a small one that was run, sealed anew;
- workers: the same small study in this process, with one worker and with two, each with one thread; the share of its
  time that is not in stages;
- ray: the same on a Ray cluster of three nodes on this machine (a head and two with a CPU each), of which one is killed
  in mid-study. Needs `pip install "gentax[ray]"`.

The shipped model, on whatever else this machine does; medians of `--repeats`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from gentax.core.settings import read_settings
from gentax.studies import Study, StudyCallback, StudyRun
from gentax.studies.costs import CostModel, overview
from gentax.studies.engines import engine_for
from gentax.studies.plan import Stage, make_plan
from gentax.studies.store import Store

TARGETS = ("crafting", "sokoban", "webshop", "babyai")
PARTS = ("planning", "noop", "workers", "ray")


def study(name: str, tasks: int, sources: int, arms: int, seeds: int, steps: int = 1) -> Study:
    """Return a study of sources × arms × seeds on four targets."""
    values = {
        "name": name,
        "domains": {target: {"tasks": tasks} for target in TARGETS},
        "sources": list(TARGETS[:sources]),
        "arms": {f"arm{n}": {"learning_rate": 1e-4 * (n + 1)} for n in range(arms)},
        "seeds": list(range(seeds)),
        "train": {"max_steps": steps, "tasks_per_step": 4, "num_generations": 4, "eval_steps": 0},
    }
    return read_settings(Study, values, name)


def planning() -> None:
    """Print how long a large study takes to plan."""
    large = study("large", 128, 3, 28, 30)
    cells = len(large.sources) * len(large.arms) * len(large.seeds) * len(large.domains)
    started = time.monotonic()
    plan = make_plan(large)
    planned = time.monotonic() - started
    with tempfile.TemporaryDirectory() as folder:
        found = overview(plan, Store(Path(folder)), CostModel(), 2)
    seconds = time.monotonic() - started
    print(
        f"planning {cells} cells, {len(found.states)} stages: {planned:.1f} s, with the overview {seconds:.1f} s (5 s)"
    )


def noop(repeats: int) -> None:
    """Print how long a run of a finished study takes."""
    wide = study("wide", 8, 3, 11, 4)
    small = replace(wide, name="small", arms={"arm0": wide.arms["arm0"]}, seeds=(0,))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        StudyRun(small, out).run()
        store, plan, done = Store(out), make_plan(wide), make_plan(small)
        for stage in plan.stages():
            if stage.kind != "report" and not store.has(stage):
                _copy(store, _like(stage, done.stages()), stage)
        (out / "wide.yaml").write_text(_yaml(wide))
        command = [sys.executable, "-m", "gentax", "study", "run", str(out / "wide.yaml"), "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # writes the report
        seconds = []
        for _ in range(repeats):
            started = time.monotonic()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.monotonic() - started)
        stages = len(plan.stages())
        print(f"nothing to do, {len(plan.after)} cells, {stages} stages: {statistics.median(seconds):.1f} s (3 s)")


def _like(stage: Stage, others: list[Stage]) -> Stage:
    """Return a stage that does the same kind of work."""
    of_kind = [other for other in others if other.kind == stage.kind]
    same = [
        o
        for o in of_kind
        if o.inputs.get("domain") == stage.inputs.get("domain") and bool(o.needs) == bool(stage.needs)
    ]
    return next((o for o in same if o.label.split("-")[0] == stage.label.split("-")[0]), same[0])


def _copy(store: Store, source: Stage, stage: Stage) -> None:
    folder = store.fresh_folder(stage)
    shutil.copytree(store.path(source), folder, dirs_exist_ok=True)
    store.finish(stage, folder, 1.0, None)


def _yaml(of: Study) -> str:
    import json

    import yaml

    from gentax.core.settings import plain

    values = json.loads(json.dumps(plain(of)))
    return str(yaml.safe_dump({key: values[key] for key in ("name", "domains", "sources", "arms", "seeds", "train")}))


class Clock(StudyCallback):
    """Counts the stages that ended."""

    ended = 0

    def on_stage_end(self, stage: Stage, outcome: str) -> None:
        self.ended += 1


def timed(of: Study, engine: str, workers: int, **options: str) -> tuple[float, float, int, bytes]:
    """Run a study; return its seconds, those of its stages, how many there were, and its results."""
    with tempfile.TemporaryDirectory() as folder:
        run = StudyRun(of, folder, clock := Clock())
        run.make_engine = engine_for(engine, run.plan, CostModel(), workers, options)
        started = time.monotonic()
        page = run.run()
        seconds = time.monotonic() - started
        in_stages = sum(run.store.seal(stage)["seconds"] for stage in run.plan.stages())
        return seconds, in_stages, clock.ended, (page.parent / "results.json").read_bytes()


def workers(repeats: int) -> None:
    """Print what workers gain, and what the layer costs."""
    of = study("workers", 64, 2, 2, 1, steps=8)
    runs = {
        label: [timed(of, "local", count) for _ in range(repeats)]
        for label, count in (("in this process", 1), ("two workers", 2))
    }
    medians = {}
    for label, results in runs.items():
        medians[label] = statistics.median(seconds for seconds, *_ in results)
        inside = statistics.median(stages for _, stages, *_ in results)
        print(f"{label}: {medians[label]:.1f} s for {results[0][2]} stages, {inside:.1f} s in stages", end="")
        print(f", layer {100 * (1 - inside / medians[label]):.1f} % (1 %)" if label == "in this process" else "")
    same = len({results for of_label in runs.values() for *_, results in of_label}) == 1
    print(f"two workers are {medians['in this process'] / medians['two workers']:.2f} times as fast (1.7)")
    print(f"the results are {'the same, byte for byte' if same else 'DIFFERENT'}")


def ray_cluster() -> None:
    """Print what Ray costs a stage, and what a study comes to when a node of the cluster is lost."""
    import ray
    from ray.cluster_utils import Cluster

    of = study("cluster", 16, 2, 2, 1, steps=2)
    alone, inside, stages, expected = timed(of, "local", 1)
    print(
        f"in this process: {alone:.1f} s for {stages} stages, {(alone - inside) / stages * 1000:.0f} ms a stage besides"
    )
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    try:
        seconds, inside, stages, results = timed(of, "ray", 1, address=cluster.address)
        besides = (seconds - inside) / stages * 1000
        same = results == expected
        print(f"on Ray, one at once: {seconds:.1f} s, {besides:.0f} ms a stage besides; same results: {same}")
        threading.Timer(seconds / 3, lambda: cluster.remove_node(nodes[0], allow_graceful=False)).start()
        seconds, *_, results = timed(of, "ray", 2, address=cluster.address)
        alive = sum(node["Alive"] for node in _nodes(ray, cluster.address))
        print(f"on Ray, a node killed: {seconds:.1f} s, {alive} of 3 nodes left; same results: {results == expected}")
    finally:
        cluster.shutdown()


def _nodes(ray: object, address: str) -> list[dict[str, object]]:
    ray.init(address=address, log_to_driver=False)  # type: ignore[attr-defined]
    try:
        return list(ray.nodes())  # type: ignore[attr-defined]
    finally:
        ray.shutdown()  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if args.only in (None, "planning"):
        planning()
    if args.only in (None, "noop"):
        noop(args.repeats)
    if args.only in (None, "workers"):
        workers(args.repeats)
    if args.only in (None, "ray"):
        ray_cluster()


if __name__ == "__main__":
    main()
