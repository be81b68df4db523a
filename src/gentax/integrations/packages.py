"""Importing a package that gentax does not bring: what is missing is named with the command that installs it."""

from __future__ import annotations

import importlib
from types import ModuleType

from gentax.core.errors import UsageError


def require(module: str, what: str, install: str) -> ModuleType:
    """Import `module`.

    Args:
        module: its name.
        what: that needs it, for the message.
        install: what `pip install` is given.

    Raises:
        UsageError: it is not installed, or fails while it is imported.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise UsageError(f"{what}: {module} is installed without {error.name}: pip install {install}") from error
        raise UsageError(f"{what} needs {module}: pip install {install}") from None
    except Exception as error:
        raise UsageError(f"{what}: {module} cannot be imported: {type(error).__name__}: {error}") from error
