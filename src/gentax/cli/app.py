"""Every command under one name, and `main`, which runs it. A user's mistake is one line on stderr and exit code 2."""

from __future__ import annotations

import os
import sys
import warnings

import typer

from gentax.cli import doctor, domains, evaluate, play, probe, rollout, study, tax, train
from gentax.cli.options import print_usage
from gentax.core.console import end_line, visible
from gentax.core.errors import EnvironmentFault, ExitCode, NonFiniteLoss, PolicyFault, StudyIncomplete, UsageError
from gentax.core.imports import extra_of, install_command

CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException, of click or of the copy within typer

app = typer.Typer(
    name="gentax",
    help="Measure, forecast and cut the generalization tax of LLM agents.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    study.demo,
    study.view,
    domains.domains,
    doctor.doctor,
    domains.check,
    play.play,
    rollout.rollout,
    evaluate.evaluate,
    evaluate.verify,
    rollout.diagnose,
    probe.probe,
    probe.diversity,
    probe.advise,
    train.train,
    train.merge,
    tax.tax,
    evaluate.card,
    study.reference,
):
    app.command(command.__name__)(command)
app.add_typer(study.app, name="study")
app.add_typer(train.base_app, name="base")


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        import gentax

        print(f"gentax {gentax.__version__}")
        raise typer.Exit()


def main() -> None:
    """Run `gentax`; the entry point of the package."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _complain(f"warning: {message}")  # without path and source line
            code = app(standalone_mode=False)
        if code == ExitCode.INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code or ExitCode.OK)
    except CLICK_ERROR as error:  # an unknown command or option, a value of the wrong type
        if type(error).__name__ != "NoArgsIsHelpError":  # then the help was printed instead
            _complain(_click_message(error))
        sys.exit(ExitCode.USAGE)
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "")
        if extra is None:
            raise
        _complain(f"{error.name} is not installed: {install_command(f'gentax[{extra}]')}")
        sys.exit(ExitCode.USAGE)
    except (UsageError, EnvironmentFault, NonFiniteLoss, PolicyFault, StudyIncomplete, OSError) as error:
        _complain(str(error))
        sys.exit(ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.FAILED)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # PyTorch's; torch is not loaded just for its name
            raise
        why = str(error).strip().partition("\n")[0][:200]
        _complain(f"{why} What takes less: a smaller --parallel, --dtype bfloat16, lora in a recipe")
        sys.exit(ExitCode.FAILED)
    except (KeyboardInterrupt, typer.Abort):
        _complain(
            "stopped; a study, a training run or a suite with --json resumes when the same command is given again"
        )
        sys.exit(ExitCode.INTERRUPTED)
    finally:
        print_usage()


def _click_message(error: Exception) -> str:
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    return f"{message} See {context.command_path} --help" if context is not None else message


def _complain(text: str) -> None:
    end_line()
    print(f"gentax: {' '.join(visible(text).split())}", file=sys.stderr)
