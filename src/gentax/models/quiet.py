"""Other libraries, asked to be quiet while they load or save a model, and their exceptions made into one line each."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from gentax.core import UsageError
from gentax.models.headers import reason


@contextmanager
def loading(where: str) -> Iterator[None]:
    """Let nothing of a load reach the terminal but one line that names the model and says what is wrong.

    Whatever a stranger's files make transformers, tokenizers, safetensors or PEFT raise is a UsageError: theirs are
    of every kind, panics of Rust among them. Interrupts pass.
    """
    try:
        with quiet():
            yield
    except (UsageError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except MemoryError:
        raise UsageError(f"cannot load {where}: there is not enough memory") from None
    except BaseException as error:  # Rust's panics are no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(error, ZeroDivisionError):
            raise UsageError(f"cannot load {where}: its config.json has a size that is 0") from error
        if "instantiate the backend tokenizer" in str(error):  # four lines of advice on converting slow tokenizers
            raise UsageError(f"cannot load {where}: there is no tokenizer.json or other file of one") from error
        raise UsageError(f"cannot load {where}: {reason(error)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings, log lines and progress bars of transformers off the terminal."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
