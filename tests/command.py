"""Run `gentax` in this process: as a person would, without the seconds that a new Python takes to import PyTorch."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.main

from gentax.cli import main

get_command = cache(typer.main.get_command)  # putting the commands together takes longer than most of them


class Done(NamedTuple):
    code: int
    out: str
    err: str


def run(*args: object, cwd: str | Path = ".", stdin: str = "", columns: int = 200) -> Done:
    """Run a command in the folder `cwd`, which it can import modules from. Neither stream is a terminal."""
    out, err = io.StringIO(), io.StringIO()
    modules = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr("typer.main.get_command", get_command)
        patch.setattr(sys, "argv", ["gentax", *map(str, args)])
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("TRANSFORMERS_VERBOSITY", "error")
        with pytest.raises(SystemExit) as ended:
            main()
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(cwd)):
            del sys.modules[name]  # another test may have another module of this name
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())
