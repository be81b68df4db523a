"""Seconds that a browser takes to open a report with 10,000 episodes behind it, and how large its page is.

    python benchmarks/report_page.py [--episodes 10000] [--out FOLDER]

The asked figure is 2 s. Random play stands for the base and for every trained policy, on real tasks of four domains, so
that the files are as large as those of a study. Headless Chromium opens the page from the disk, as a person would, in
a fresh process and profile each time: until `load` in a running browser, and with the start of the browser. Then, in
the open page, what comes when it is asked for: the list of all episodes (the index of all tasks is loaded and the
first 50 are shown), and one episode of a file that is not loaded yet. The page that measures sends its numbers to a
server of this script; the report itself loads nothing from a network.
"""

from __future__ import annotations

import argparse
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from gentax.core import Episode
from gentax.evals.evaluate import evaluate
from gentax.metrics.arms import compare_arms
from gentax.metrics.axes import axes
from gentax.metrics.episode_scores import task_success
from gentax.metrics.tax import tax_report
from gentax.report import ArmComparison, ArmResult, EpisodeSet, LearningCurve, Report
from gentax.report.page import write_report

DOMAINS = ("crafting", "sokoban", "babyai", "webshop")
SOURCE = "sokoban"
ARMS, SEEDS = ("plain", "replay", "distractors", "lora"), (0, 1, 2)
ASKED_SECONDS = 2.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# Opens the report in a frame, measures, and sends the numbers to PORT.
MEASURE = """<!doctype html><iframe id=frame width=1300 height=900></iframe><script>
const until = async (found) => { while (!found()) await new Promise((go) => setTimeout(go, 1)); };
const begun = performance.now();
frame.onload = async () => {
  const opened = performance.now() - begun;
  const page = frame.contentDocument, menu = page.querySelector("select[name=show]");
  const section = page.querySelector("#episodes"), count = section.querySelector("output");
  const row = () => section.querySelectorAll(".list details")[49];
  let start = performance.now();
  menu.value = "all";
  menu.dispatchEvent(new Event("change", {bubbles: true}));
  await until(() => count.textContent.startsWith("50 of"));
  const listed = performance.now() - start;
  start = performance.now();
  row().open = true;
  await until(() => row().querySelector(".both"));
  const said = [opened, listed, performance.now() - start, count.textContent].join("|");
  fetch(`http://127.0.0.1:PORT/${encodeURIComponent(said)}`, {mode: "no-cors"});
};
frame.src = "report.html";
</script>"""


def play(count: int) -> dict[str, list[Episode]]:
    """Return episodes of random play, as many on each domain as its test split has, at most `count`."""
    found = evaluate("random", dict.fromkeys(DOMAINS), tasks=count, progress=False).episodes
    return {name: list(of_domain) for name, of_domain in found.items()}


def study_of(before: dict[str, list[Episode]]) -> Report:
    """Return the report of a study whose trained policies did what random play does, one sample or another."""
    rng = np.random.default_rng(0)
    shuffled = {  # the same tasks, with the outcomes of other ones
        (arm, seed, name): [
            replace(one, steps=other.steps, outcome=other.outcome, final=other.final)
            for one, other in zip(of, rng.permutation(np.array(of, object)), strict=True)
        ]
        for arm in ARMS
        for seed in SEEDS
        for name, of in before.items()
    }
    init = {name: task_success(of) for name, of in before.items()}
    after = {
        arm: {name: np.stack([task_success(shuffled[arm, seed, name]) for seed in SEEDS]) for name in before}
        for arm in ARMS
    }
    curves = [
        LearningCurve(
            SOURCE, tuple({"step": n, "success": x, "kl": x / 50} for n, x in enumerate(rng.random(200))), arm, seed
        )
        for arm in ARMS
        for seed in SEEDS
    ]
    sets = [EpisodeSet(name, partial(list, of)) for name, of in before.items()]
    sets += [EpisodeSet(name, partial(list, of), arm, seed) for (arm, seed, name), of in shuffled.items()]
    return Report(
        title="A study",
        results=tuple(ArmResult(tax_report(SOURCE, init, scores), arm) for arm, scores in after.items()),
        domains=DOMAINS,
        comparison=ArmComparison({SOURCE: compare_arms(SOURCE, init, after, rng)}),
        curves=tuple(curves),
        axes=tuple(axes(name, of, max(one.length for one in of)) for name, of in before.items()),
        episodes=tuple(sets),
    )


def measure(browser: str, folder: Path) -> tuple[float, list[float], str]:
    """Open the report of a folder in a fresh process and profile.

    Returns:
        seconds from the start of the process to the numbers' arrival; those of the page; how many are listed.
    """
    arrived: queue.Queue[tuple[float, str]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            arrived.put((time.perf_counter(), unquote(self.path[1:])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, tempfile.TemporaryDirectory() as profile:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = folder / "measure.html"
        page.write_text(MEASURE.replace("PORT", str(server.server_port)), encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
        command += [f"--user-data-dir={profile}", page.as_uri()]
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            end, said = arrived.get(timeout=60)
        finally:
            process.terminate()
            process.wait()
            server.shutdown()
    *milliseconds, listed = said.split("|")
    return end - begun, [float(value) / 1000 for value in milliseconds], listed


def size(path: Path) -> float:
    """Return the megabytes of a file or of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="a new folder for the report; a temporary one by default")
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"this takes one of {', '.join(BROWSERS)}")
    sets = 1 + len(ARMS) * len(SEEDS)
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary) / "report"
        out.mkdir(parents=True)
        report = study_of(play(-(-args.episodes // (sets * len(DOMAINS)))))
        begun = time.perf_counter()
        write_report(report, out)
        written = time.perf_counter() - begun
        count = sum(len(one.read()) for one in report.episodes)
        print(f"{count:,} episodes; the report took {written:.1f} s to write")
        print(f"the page {size(out / 'report.html'):.2f} MB; the episodes beside it {size(out / 'episodes'):.1f} MB")
        runs = [measure(browser, out) for _ in range(args.repeats)]
    opened, listed, shown = zip(*(seconds for _, seconds, _ in runs), strict=True)
    rows = {
        "open the page, in a running browser": opened,
        "list all episodes": listed,
        "show one episode": shown,
        "all of it, with the browser's start": [total for total, _, _ in runs],
    }
    print(f"\n{'seconds, median of ' + str(args.repeats) + ' (least to most)':<46}")
    for name, seconds in rows.items():
        print(f"{name:<46}{statistics.median(seconds):7.2f}  ({min(seconds):.2f} to {max(seconds):.2f})")
    print(f"{'asked: open in':<46}{ASKED_SECONDS:7.2f}")
    print(f"listed: {runs[0][2]}")


if __name__ == "__main__":
    main()
