"""The command line: one thin file a command. What a user can mend is one line on stderr and exit code 2."""

from __future__ import annotations

import os
import sys
import warnings


def main() -> None:
    """Run `gentax`; the entry point of the package."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from gentax.cli.app import app
    from gentax.core.errors import EnvironmentFault, NonFiniteLoss, PolicyFault, UsageError

    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _say(f"warning: {message}")  # no path and line of source
            app()
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
    except KeyboardInterrupt:
        _say("stopped; a study, a training run or a suite with --json goes on when the same command is given again")
        sys.exit(130)


def _say(text: str) -> None:
    from gentax.cli.show import shown
    from gentax.core.progress import end_line

    end_line()
    print(f"gentax: {shown(text)}", file=sys.stderr)
