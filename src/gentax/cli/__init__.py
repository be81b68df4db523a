"""The command line: one thin file per command."""

from gentax.cli.app import main

__all__ = ["main"]
