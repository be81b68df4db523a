"""Whether a study survives: kills at random moments, several runs of it at once, flipped bytes in stored files.

    python benchmarks/soak.py [--kills 200] [--together 20] [--flips 100] [--seed 0] [--engine local]

A small study (one source, two arms, three domains, the shipped model) is run once without trouble. Then

- killed: it is run again in an empty folder, and the program or one of its workers is killed (SIGKILL) at a random
  moment, four to ten times before it may finish; again in the next folder, until there were `--kills` kills. What was
  done stays done, so the kills of a study are spread from its first stage to its report;
- together: two runs of it are started at once on one empty folder, each with one worker or several;
- flipped: a byte of a stored file is changed, or the file is cut short, in four stages at once, and the study is run
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
  crafting: {tasks: 2}
  sokoban: {tasks: 2}
  twx-mapreader: {tasks: 2}
sources: [crafting]
arms:
  plain: {}
  short: {max_steps: 1}
train: {max_steps: 3, tasks_per_step: 2, num_generations: 2, eval_steps: 0, save_steps: 1}
"""
END = re.compile(r"^\[ *\d+/\d+\] (.*?)(?:: .*)? \(\d", re.MULTILINE)  # the line of a stage that is done
LIMIT = 900.0  # seconds that a run may take
KILLS = (4, 10)  # of a study, at least and at most
FLIPS = 4  # stages that are damaged at once


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
        started = time.monotonic()
        self.finish(folder / "undisturbed")
        self.idle = time.monotonic() - started  # seconds of a run that has nothing to do

    def start(self, out: Path, log: Path, workers: int | None = None) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gentax", "study", "run", str(self.study), "--out", str(out)]
        with open(log, "ab") as file:
            return subprocess.Popen(
                [*command, "--workers", str(workers or self.workers)], stdout=file, stderr=file, start_new_session=True
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
            for _ in range(min(self.rng.randint(*KILLS), kills - done)):
                process = self.start(out, log)
                try:
                    process.wait(self.rng.uniform(0.0, self.idle + (self.seconds - self.idle) / 3))
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
                processes.append(self.start(out, log, self.rng.choice((1, self.workers))))
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
        found = equal = 0
        studies = tried = 0
        while tried < flips:
            stages = sorted(seal.parent for seal in (*out.glob("stages/*/stage.json"), *out.glob("soak/*/stage.json")))
            chosen = self.rng.sample(stages, min(FLIPS, flips - tried))
            files = [self._flip_one(stage) for stage in chosen]
            tried += len(files)
            log.write_bytes(b"")
            self.wait(self.start(out, log), log)
            said = log.read_text(errors="replace")
            for stage, file in zip(chosen, files, strict=True):
                if f"set aside as damaged-{stage.name}" in said:
                    found += 1
                else:
                    self.problem(f"a flipped byte in {file.relative_to(out)} was not found")
            studies, equal = studies + 1, equal + self.same(out)
            for aside in (*out.glob("stages/damaged-*"), *out.glob("soak/damaged-*")):
                shutil.rmtree(aside)
            print(f"  {found} flips found", flush=True)
        again = f"{equal} of {studies} studies have the same results afterwards"
        return f"flipped: {flips} files damaged; {found} were found, {again}"

    def _flip_one(self, stage: Path) -> Path:
        """Damage a file of a stage; return it."""
        file = self.rng.choice(sorted(file for file in stage.rglob("*") if file.is_file() and file.stat().st_size))
        content = bytearray(file.read_bytes())
        if self.rng.random() < 0.2:
            del content[self.rng.randrange(len(content)) :]
        else:
            position = self.rng.randrange(len(content))
            content[position] ^= 1 << self.rng.randrange(8)
        file.write_bytes(content)
        return file


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
        about = f"{soak.seconds:.0f} s with {args.workers} workers, {soak.idle:.0f} s with nothing to do"
        print(f"undisturbed: {about}", flush=True)
        lines = []
        for part, count in ((soak.kill, args.kills), (soak.together, args.together), (soak.flip, args.flips)):
            started = time.monotonic()
            lines.append(f"{part(count)}; {time.monotonic() - started:.0f} s")
        print("\n".join([*lines, f"{len(soak.problems)} problems", *soak.problems]))
    sys.exit(1 if soak.problems else 0)


if __name__ == "__main__":
    main()
