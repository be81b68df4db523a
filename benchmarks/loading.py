"""How long it takes to load a model, and the most memory meanwhile, beside transformers' own `from_pretrained`.

Each load is a process of its own, so that none profits from another; the files are read once before, so that all find
them in the system's cache. Seconds are the processor's, of the load alone, without imports. Example:

    python benchmarks/loading.py base path/to/model path/to/model.gguf
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

GENTAX = """
from gentax.models.loading import load_with_tokenizer as load
from gentax.models.options import ModelOptions
run = lambda: load(NAME, ModelOptions(device="cpu"))
"""
STOCK = """
from transformers import AutoModelForCausalLM, AutoTokenizer
from gentax.models.source import find_model
from gentax.models.loading import loading_errors
path = find_model(NAME).path
more = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
folder = path.parent if more else path
def run():
    with loading_errors(NAME):
        AutoTokenizer.from_pretrained(folder, **more), AutoModelForCausalLM.from_pretrained(folder, **more)
"""
TIMED = """
import resource, time, torch
import transformers.models.auto.modeling_auto, peft
began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run()
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"{time.process_time() - began:.2f} {(most - before) / 1e6:.2f}")
"""


def timed(name: str, how: str) -> tuple[float, float]:
    """Return the processor's seconds of a load, and the GB it added to the largest resident size (kB on Linux)."""
    code = f"NAME = {name!r}\n{how}\n{TIMED}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.strip().splitlines()[-1])
    seconds, gigabytes = map(float, done.stdout.split()[-2:])
    return seconds, gigabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", help="`base`, folders, adapters, hub names in the cache, .gguf files")
    parser.add_argument("--repeats", type=int, default=3, help="of each load; the fastest is shown")
    given = parser.parse_args()
    print(f"{'':40} {'gentax':>18} {'transformers':>18}")
    for name in given.names:
        path = Path(name)
        for file in [path] if path.is_file() else path.glob("*.safetensors"):
            file.read_bytes()
        cells = []
        for how in (GENTAX, STOCK):
            best = min(timed(name, how) for _ in range(given.repeats))
            cells.append(f"{best[0]:7.2f} s {best[1]:5.2f} GB")
        print(f"{name[-40:]:40} {cells[0]:>18} {cells[1]:>18}")


if __name__ == "__main__":
    main()
