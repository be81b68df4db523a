"""Whether a study survives: kills at random moments, several runs of it at once, flipped bytes in stored files.

    python benchmarks/soak.py [--kills 200] [--together 20] [--flips 100] [--seed 0] [--engine local]

A small study (one source, two arms, three domains, the shipped model) is run once without trouble. Then

- killed: it is run again in empty folders, and the program or one of its workers is killed (SIGKILL) at a random
  moment, until it is done; again in the next folder, until there were `--kills` kills;
- together: two runs of it are started at once on one empty folder;
- flipped: a bit of a random file of three finished stages is changed, or the file is cut short, and the study is run
  again.

Each time the results must equal those of the first run, byte for byte. Printed are how often they did, how often a
finished stage was done again, and what was found damaged. Exits with 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

STUDY = """
name: soak
domains:
  crafting: {tasks: 4}
  sokoban: {tasks: 4}
  twx-mapreader: {tasks: 4}
sources: [crafting]
arms:
  plain: {}
  short: {max_steps: 2}
train: {max_steps: 4, tasks_per_step: 2, num_generations: 4, eval_steps: 0, save_steps: 1}
"""
END = re.compile(r"^\[ *\d+/\d+\] (.*?)(?:: .*)? \(\d", re.MULTILINE)  # the line of a stage that is done
LIMIT = 900.0  # seconds that a run may take
FLIPS = 3  # stages that are damaged before a run


class Soak:
    """The study, its undisturbed results, and what went wrong."""

    def __init__(self, folder: Path, rng: random.Random, workers: int) -> None:
        self.folder, self.rng, self.workers = folder, rng, workers
        self.study = folder / "soak.yaml"
        self.study.write_text(STUDY)
        self.log = folder / "log.txt"
        self.problems: list[str] = []
        started = time.monotonic()
        self.expected = self.finish(folder / "undisturbed")
        self.seconds = time.monotonic() - started

    def start(self, out: Path, log: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gentax", "study", "run", str(self.study), "--out", str(out)]
        with open(log, "ab") as file:
            return subprocess.Popen(
                [*command, "--workers", str(self.workers)], stdout=file, stderr=file, start_new_session=True
            )

    def finish(self, out: Path) -> bytes:
        """Run the study to its end; return its results."""
        log = out.with_suffix(".log")
        self.wait(self.start(out, log), log)
        return self.results(out)

    def wait(self, process: subprocess.Popen[bytes], log: Path) -> None:
        try:
            code = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            self.problem(f"{log.name}: a run hung for {LIMIT:.0f} s")
            return
        text = log.read_text(errors="replace")
        if code:
            self.problem(f"{log.name}: exit code {code}: {text.strip().splitlines()[-1][:200]}")
        if "Traceback" in text:
            self.problem(f"{log.name}: a traceback")

    def results(self, out: Path) -> bytes:
        (file,) = out.glob("soak/report-*/results.json")
        return file.read_bytes()

    def same(self, out: Path) -> bool:
        same = self.results(out) == self.expected
        if not same:
            self.problem(f"{out.name}: other results")
        return same

    def problem(self, text: str) -> None:
        self.problems.append(text)
        print(f"  PROBLEM {text}", flush=True)

    def kill(self, kills: int) -> str:
        """Kill runs at random moments; return what happened in a sentence."""
        done = studies = equal = repeated = 0
        while done < kills:
            out = self.folder / f"killed-{studies}"
            log = out.with_suffix(".log")
            while done < kills:
                process = self.start(out, log)
                try:
                    process.wait(self.rng.uniform(0.0, 0.6 * self.seconds))
                    break  # it was faster than the kill
                except subprocess.TimeoutExpired:
                    done += 1
                    self._kill_one(process)
            self.wait(self.start(out, log), log)
            studies, equal = studies + 1, equal + self.same(out)
            ended = END.findall(log.read_text(errors="replace"))
            repeated += len(ended) - len(set(ended))
            shutil.rmtree(out)
            print(f"  {done} kills, {studies} studies", flush=True)
        again = f"{repeated} finished stages were done again"
        return f"killed: {done} kills in {studies} studies; {equal} of {studies} have the same results, {again}"

    def _kill_one(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the program, or in every third case one of its workers, which the program survives."""
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        if children and self.rng.random() < 1 / 3:
            victim = self.rng.choice(children)
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                return
            time.sleep(self.rng.uniform(0.0, 2.0))
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        process.wait()

    def together(self, pairs: int) -> str:
        """Start two runs at once; return what happened in a sentence."""
        equal = repeated = 0
        for number in range(pairs):
            out = self.folder / f"together-{number}"
            logs = [self.folder / f"together-{number}-{side}.log" for side in "ab"]
            processes = []
            for log in logs:
                processes.append(self.start(out, log))
                time.sleep(self.rng.uniform(0.0, 3.0))
            for process, log in zip(processes, logs, strict=True):
                self.wait(process, log)
            equal += self.same(out)
            leftovers = [p.name for p in out.glob("stages/.*")]
            if leftovers:
                self.problem(f"{out.name}: left over {leftovers}")
            repeated += len(list(out.glob("stages/damaged-*")))
            shutil.rmtree(out)
            print(f"  {number + 1} pairs", flush=True)
        return f"together: {pairs} pairs of runs; {equal} have the same results, {repeated} stages were set aside"

    def flip(self, flips: int) -> str:
        """Damage stored files; return what happened in a sentence."""
        out = self.folder / "flipped"
        log = out.with_suffix(".log")
        self.finish(out)
        found = studies = equal = 0
        while found < flips:
            stages: dict[Path, list[Path]] = {}
            for file in sorted(f for f in out.rglob("*") if f.is_file() and _is_stored(f)):
                stages.setdefault(_stage_of(file), []).append(file)
            chosen = self.rng.sample(sorted(stages), min(FLIPS, flips - found, len(stages)))
            for stage in chosen:
                self._damage(self.rng.choice(stages[stage]))
            log.write_bytes(b"")
            self.wait(self.start(out, log), log)
            text = log.read_text(errors="replace")
            for stage in chosen:
                if not any(stage.name in line for line in text.splitlines() if "damaged: " in line):
                    self.problem(f"damage in {stage.relative_to(out)} was not found")
            found, studies, equal = found + len(chosen), studies + 1, equal + self.same(out)
            for aside in (*out.glob("stages/damaged-*"), *out.glob("soak/damaged-*")):
                shutil.rmtree(aside)
            print(f"  {found} files damaged", flush=True)
        lost = sum("was not found" in problem for problem in self.problems)
        return (
            f"flipped: {found} files damaged, {found - lost} were found; "
            f"{equal} of {studies} runs have the same results afterwards"
        )

    def _damage(self, file: Path) -> None:
        """Flip a bit of a file, or cut it short."""
        content = bytearray(file.read_bytes())
        if self.rng.random() < 0.2:
            del content[self.rng.randrange(len(content)) :]
        else:
            content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
        file.write_bytes(content)


def _is_stored(file: Path) -> bool:
    """Return whether a file belongs to a stage."""
    return file.parent.parent.name in ("stages", "soak") or file.parent.parent.parent.name == "stages"


def _stage_of(file: Path) -> Path:
    """Return the folder of the stage that a stored file belongs to."""
    return file.parent if file.parent.parent.name in ("stages", "soak") else file.parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--together", type=int, default=20)
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), random.Random(args.seed), args.workers)
        print(f"undisturbed: {soak.seconds:.0f} s with {args.workers} workers", flush=True)
        lines = [soak.kill(args.kills), soak.together(args.together), soak.flip(args.flips)]
        print("\n".join([*lines, f"{len(soak.problems)} problems", *soak.problems]))
    sys.exit(1 if soak.problems else 0)


if __name__ == "__main__":
    main()
