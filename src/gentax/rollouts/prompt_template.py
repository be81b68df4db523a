"""Prompt templates of the user's own: a Jinja file that writes the message which starts a conversation.

In a window it writes every prompt. In an append-only context it writes the first message; the later ones are the
observation, and the admissible actions where they are listed. It is rendered like a chat template, within limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from gentax.core import UsageError
from gentax.models.templates import LARGEST, Template, TemplateFailed

FIELDS = ("rules", "goal", "history", "observation", "admissible", "step", "format", "thinking")
_SEEN = "what-is-seen-now"


def check_template(file: str) -> None:
    """Render a template for two made-up steps.

    Raises:
        UsageError: no such file, one that does not compile or render, that reads a field which does not exist, or
            that does not show the observation.
    """
    _checked(*_identity(file))


def fill_template(file: str, fields: Mapping[str, Any]) -> str:
    """Return the prompt that a template writes of `FIELDS`. Raises UsageError where it fails."""
    return _filled(_checked(*_identity(file)), fields)


def template_text(file: str) -> str:
    """Return the text of a template. Raises UsageError for a file that is not there, is no text or is too large."""
    path = Path(file)
    try:
        if path.stat().st_size > 4 * LARGEST:
            raise UsageError(f"the prompt template {file} is too large: {path.stat().st_size:,} bytes")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no prompt template {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the prompt template {file} cannot be read: {error}") from None


def _identity(file: str) -> tuple[str, float]:
    try:
        return file, Path(file).stat().st_mtime
    except (OSError, ValueError):
        return file, 0.0


@lru_cache(maxsize=8)
def _checked(file: str, _: float) -> Template:
    template = Template(template_text(file), f"the prompt template {file}", FIELDS)
    example = {"rules": "", "goal": "", "format": "", "observation": _SEEN, "thinking": False}
    past = [{"observation": "before", "action": "done"}]
    for more in (
        {"history": [], "admissible": None, "step": 1},
        {"history": past, "admissible": ["left", "right"], "step": 2},
    ):
        if _SEEN not in _filled(template, example | more):
            raise UsageError(f"the prompt template {file} does not show the observation; write {{{{ observation }}}}")
    return template


def _filled(template: Template, fields: Mapping[str, Any]) -> str:
    try:
        return template.render(fields)
    except TemplateFailed as fault:
        raise UsageError(f"{template.what} fails: {fault}") from None
