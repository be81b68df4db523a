"""The command line: one thin file a command. What a user can mend is one line on stderr and exit code 2."""

from __future__ import annotations

import os
import sys
import warnings


def main() -> None:
    """Run `gentax`; the entry point of the package."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import typer

    from gentax.cli.app import app
    from gentax.core.errors import EnvironmentFault, NonFiniteLoss, PolicyFault, UsageError

    refused: type[Exception] = typer.BadParameter.__mro__[2]  # ClickException, of click or of the copy within typer
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _say(f"warning: {message}")  # no path and line of source
            code = app(standalone_mode=False)
        if code == 130:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code or 0)
    except refused as error:  # an unknown command or option, a value of the wrong type
        if message := _first_line(error):
            _say(message)
        sys.exit(2)
    except UsageError as error:
        _say(str(error))
        sys.exit(2)
    except (EnvironmentFault, NonFiniteLoss, PolicyFault, OSError) as error:
        _say(f"{error}")
        sys.exit(1)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # PyTorch's, which is not loaded for its name
            raise
        why = str(error).strip().partition("\n")[0][:200]
        _say(f"{why} What takes less: a smaller --parallel, --dtype bfloat16, gradient_checkpointing in a recipe")
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        _say("stopped; a study, a training run or a suite with --json goes on when the same command is given again")
        sys.exit(130)


def _first_line(error: Exception) -> str:
    """Return what is wrong with the command line; nothing where the help was printed instead."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return ""
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    return f"{message} See {context.command_path} --help" if context is not None else message


def _say(text: str) -> None:
    from gentax.cli.show import shown
    from gentax.core.console import end_line

    end_line()
    print(f"gentax: {shown(text)}", file=sys.stderr)
