"""`gentax doctor`: what works on this machine, what does not, and what mends it.

Packages and domains are tried in processes of their own, so that one that hangs or crashes is a line of the table.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from gentax.cli import options as o
from gentax.cli.output import console, print_text, write_result
from gentax.core.console import one_line, status, visible
from gentax.core.errors import ExitCode
from gentax.core.imports import EXTRAS, install_command, installed_versions, not_installed

LIMIT = 120  # seconds that a package has to be imported in, and a domain to start a task
REASON = 400  # characters of what went wrong
AT_ONCE = 2  # processes

# Printed by a process that has PyTorch: its build, what it computes on, and whether bf16 is fast there.
TORCH = """
import torch
from gentax.models.device import has_native_bf16
def device(number):
    torch.zeros(1, device=f"cuda:{number}")
    about = torch.cuda.get_device_properties(number)
    return f"{about.name}, {about.total_memory / 1e9:.0f} GB, bf16 {'fast' if has_native_bf16('cuda') else 'slow'}"
devices = [device(number) for number in range(torch.cuda.device_count())]
devices += ["Apple GPU"] if torch.backends.mps.is_available() else []
cpu = f"CPU, {torch.get_num_threads()} threads, bf16 {'fast' if has_native_bf16('cpu') else 'slow (no instructions)'}"
build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for CPUs"
print(f"{torch.__version__}, built {build}; {'; '.join([*devices, cpu])}")
"""
DOMAIN = """
import gentax
env = gentax.make({name!r})
env.reset(options={{"index": 0}})
env.step("look")
env.close()
"""


class State(StrEnum):
    """How a thing is."""

    OK = "ok"
    MISSING = "not installed"
    WARNING = "warning"
    BROKEN = "broken"


STYLES = {State.OK: "green", State.MISSING: "dim", State.WARNING: "yellow", State.BROKEN: "bold red"}


@dataclass(frozen=True)
class Finding:
    """A line of the table."""

    name: str
    state: State
    found: str
    mend: str = ""  # a command, or what to do


def doctor(
    network: Annotated[
        bool, typer.Option("--network", help="Also try to reach the hub that models are downloaded from.")
    ] = False,
    json: o.Json = None,
) -> None:
    """Say what works on this machine, what does not, and what mends it. Exit code 1 when something installed is broken.

    Packages are imported and each domain starts a task, which takes some seconds.

    Example: `gentax doctor`
    """
    from gentax.domains import domains as registered

    groups: dict[str, list[Callable[[], Finding]]] = {
        "machine": [_python, _gentax, _hardware, *_folders(), *([_hub] if network else [])],
        "extras": [partial(_extra, name) for name in EXTRAS],
        "engines": [_torch, _java],
        "domains": [partial(_domain, name) for name in registered()],
    }
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("", "state", "found, and what mends it"):
        table.add_column(column, overflow="fold")
    findings = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for group, of in groups.items():
            status(f"  trying {group}")
            found = [*pool.map(lambda look: look(), of)]
            findings += found
            table.add_row(Text(group, style="bold"))
            for one in found:
                table.add_row(Text(visible(one.name)), Text(one.state, style=STYLES[one.state]), _details(one))
    console.print(table, soft_wrap=False)
    broken = [one for one in findings if one.state is State.BROKEN]
    print_text(
        f"{len(broken)} of the things that are installed do not work: {', '.join(one.name for one in broken)}."
        if broken
        else "Everything that is installed works."
    )
    write_result(json, {"ok": not broken, "findings": [asdict(one) for one in findings]})
    if broken:
        raise typer.Exit(ExitCode.FAILED)


def _details(one: Finding) -> Text:
    text = Text(visible(one.found))
    return text.append(f"\n{visible(one.mend)}", style="cyan") if one.mend else text


def _try(code: str) -> tuple[bool, str]:
    """Run Python code in a process of its own; return whether it ended well, and the last line that it printed."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired:
        return False, f"did not end within {LIMIT} s"
    well = done.returncode == 0
    lines = (done.stdout if well else done.stderr).decode(errors="replace").strip().splitlines()
    if done.returncode < 0:
        return False, f"the process died of signal {-done.returncode}"
    return well, one_line(lines[-1] if lines else "")[:REASON]


# The machine.


def _python() -> Finding:
    return Finding("Python", State.OK, f"{platform.python_version()} in {sys.prefix}")


def _gentax() -> Finding:
    """Look at gentax and at what every installation of it needs."""
    import gentax

    found = f"{gentax.__version__} in {Path(gentax.__file__).parent}"
    if wrong := _wrong_versions():
        return Finding("gentax", State.BROKEN, f"{found}; {'; '.join(wrong)}", install_command("--upgrade", "gentax"))
    return Finding("gentax", State.OK, found)


def _wrong_versions(extra: str = "") -> list[str]:
    """Return which packages that gentax, or an extra of it, names are there in another version, or lacking."""
    from packaging.requirements import Requirement

    wrong = []
    for needed in map(Requirement, metadata.requires("gentax") or ()):
        for_all = needed.marker is None or needed.marker.evaluate({"extra": ""})
        for_extra = not for_all and needed.marker is not None and needed.marker.evaluate({"extra": extra})
        if needed.name == "gentax" or not (for_extra if extra else for_all):
            continue
        have = installed_versions(needed.name).get(needed.name)
        if have is None:
            wrong.append(f"{needed.name} is not installed")
        elif not needed.specifier.contains(have, prereleases=True):
            wrong.append(f"{needed.name} is {have}, and gentax takes {needed.specifier}")
    return wrong


def _hardware() -> Finding:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    found = f"{cores} cores; {memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB of memory are free; "
    return Finding("hardware", State.OK, found + f"{disk.free / 1e9:.1f} GB of disk are free in this folder")


def _folders() -> Iterator[Callable[[], Finding]]:
    """Look whether what is written can be written."""
    from huggingface_hub import constants

    cache = os.environ.get("GENTAX_CACHE") or Path.home() / ".cache" / "gentax"
    yield partial(_folder, "this folder", Path.cwd(), "give --out a folder that can be written")
    yield partial(_folder, "temporary", Path(tempfile.gettempdir()), "set TMPDIR to a folder that can be written")
    yield partial(_folder, "cache", Path(cache), "set GENTAX_CACHE to a folder that can be written")
    yield partial(_folder, "hub's cache", Path(constants.HF_HUB_CACHE), "set HF_HOME to a folder that can be written")


def _folder(name: str, path: Path, mend: str) -> Finding:
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return Finding(name, State.OK, f"{path} can be written")
    except OSError as fault:
        return Finding(name, State.WARNING, f"{path} cannot be written: {fault.strerror}", mend)


def _hub() -> Finding:
    from huggingface_hub import constants

    try:
        with urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=10):
            return Finding("hub", State.OK, f"{constants.ENDPOINT} answers")
    except (OSError, ValueError) as fault:
        why = one_line(f"{constants.ENDPOINT} cannot be reached: {getattr(fault, 'reason', fault)}")[:REASON]
        return Finding("hub", State.WARNING, why, "models that are in folders, or in the cache, work without it")


# What is installed.


def _extra(name: str) -> Finding:
    extra, install = EXTRAS[name], install_command(f"gentax[{name}]")
    if missing := not_installed(*extra.modules):
        some = "" if len(missing) == len(extra.modules) else f"; only {', '.join(missing)} lacking"
        return Finding(name, State.MISSING, extra.about + some, install)
    if wrong := _wrong_versions(name):
        return Finding(name, State.BROKEN, "; ".join(wrong), install)
    works, said = _try(f"import {', '.join(extra.modules)}")
    if works:
        return Finding(name, State.OK, extra.about)
    return Finding(name, State.BROKEN, said, install_command("--force-reinstall", f"gentax[{name}]"))


def _torch() -> Finding:
    if not_installed("torch"):
        return Finding("PyTorch", State.MISSING, EXTRAS["local"].about, install_command("gentax[local]"))
    works, said = _try(TORCH)
    if not works:
        return Finding("PyTorch", State.BROKEN, said, install_command("--force-reinstall", "torch"))
    if "built for CPUs" in said and shutil.which("nvidia-smi"):
        said += "; there is an NVIDIA GPU, which this build cannot use"
        return Finding("PyTorch", State.WARNING, said, install_command("--force-reinstall", "torch"))
    return Finding("PyTorch", State.OK, said)


def _java() -> Finding:
    """Look for a Java that runs, where there are domains that need one."""
    install = install_command("gentax[domains]")
    if not_installed("py4j"):
        return Finding("Java", State.MISSING, "only sciworld, twx-cooking and twx-mapreader need it", install)
    from gentax.domains.java import javas

    failures: list[str] = []
    for java in javas():
        try:
            done = subprocess.run([java, "-version"], capture_output=True, timeout=LIMIT, stdin=subprocess.DEVNULL)
            lines = done.stderr.decode(errors="replace").splitlines()
            if done.returncode == 0 and lines:
                return Finding("Java", State.OK, "; ".join([f"{one_line(lines[0])}: {java}", *failures]))
            failures.append(f"{java} ends with {done.returncode}")
        except (OSError, subprocess.TimeoutExpired) as fault:
            failures.append(f"{java} does not run: {one_line(str(fault))[:REASON]}")
    return Finding("Java", State.BROKEN, "; ".join(failures) or "no Java on this machine", install)


def _domain(name: str) -> Finding:
    from gentax.domains import domain, missing_modules

    record = domain(name)
    if missing := missing_modules(record):
        return Finding(name, State.MISSING, f"needs {', '.join(missing)}", record.enable)
    works, said = _try(DOMAIN.format(name=name))
    if works:
        return Finding(name, State.OK, "can be played")
    kind, _, reason = said.partition(": ")  # the last line of a traceback
    return Finding(name, State.BROKEN, reason if "." in kind else said, "" if "`pip" in said else record.enable)
