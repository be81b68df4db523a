"""What `pip install gentax` brings: distributions and MB in site-packages, beside an earlier commit that brought all.

Each row is a virtual environment of its own in a temporary folder. Where there is to be PyTorch, its build for CPUs
comes first by exact version, as in the Makefile. Bytecode is not counted, since pip can leave it out. Example:

    python benchmarks/installation.py
    python benchmarks/installation.py "" local,domains    # the core, and two extras together
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEFORE = "bf5fb7d"  # the last commit whose `pip install gentax` brought PyTorch and Java
TORCH = "torch==2.13.0"


def pip(*arguments: object) -> None:
    """Run pip; end with its last line where it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.strip().splitlines()[-1])


def checkout(commit: str, folder: Path) -> Path:
    """Write the files of a commit into a folder."""
    folder.mkdir()
    archive = subprocess.run(["git", "-C", ROOT, "archive", commit], capture_output=True, check=True)
    subprocess.run(["tar", "x", "-C", folder], input=archive.stdout, check=True)
    return folder


def measure(source: Path, extras: str, torch: bool, folder: Path) -> tuple[int, float, float]:
    """Install a wheel in a new virtual environment; return its distributions, their MB and the seconds it took."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    began = time.perf_counter()
    install = ("--python", python, "install", "--no-compile")
    if torch:
        pip(*install, TORCH)
    pip(*install, f"{source}[{extras}]" if extras else source)
    seconds = time.perf_counter() - began
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    files = [file for file in packages.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    size = sum(file.stat().st_size for file in files)
    return len(list(distributions(path=[str(packages)]))), size / 1e6, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extras", nargs="*", default=["", "local", "domains", "local,domains", "all"])
    parser.add_argument("--before", default=BEFORE, metavar="COMMIT", help="compared with; '' for none")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pip("wheel", "--no-deps", "--wheel-dir", folder, checkout("HEAD", folder / "now"))
        (wheel,) = folder.glob("*.whl")
        print(f"wheel: {wheel.stat().st_size / 1e6:.1f} MB")
        print(f"{'pip install …':34}{'distributions':>14}{'MB':>8}{'seconds':>9}")
        rows = [(f"gentax[{extras}]" if extras else "gentax", wheel, extras) for extras in given.extras]
        if given.before:
            rows.insert(0, (f"gentax at {given.before}", checkout(given.before, folder / "before"), ""))
        for number, (name, source, extras) in enumerate(rows):
            torch = source != wheel or bool({"local", "all", "gguf", "trl"} & set(extras.split(",")))
            count, size, seconds = measure(source, extras, torch, folder / f"venv{number}")
            print(f"{name:34}{count:>14}{size:>8.0f}{seconds:>9.0f}", flush=True)


if __name__ == "__main__":
    main()
