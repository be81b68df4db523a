"""Records: frozen dataclasses that are written as JSON values and read back by their types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, ClassVar, Self


class Record:
    """A base of dataclasses with `to_json` and `from_json`. A field with `compare=False` is not written."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"arbitrary_types_allowed": True, "allow_inf_nan": False}

    def to_json(self) -> Any:
        """Return the fields as JSON values."""
        return {one.name: json_value(getattr(self, one.name)) for one in fields(self) if one.compare}  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, values: Any, where: str = "") -> Self:
        """Read what `to_json` wrote; further keys are ignored. Raises UsageError, which begins with `where`."""
        from gentax.core.settings import read_settings  # takes pydantic

        return read_settings(cls, values, where or f"a {cls.__name__.lower()}")


def json_value(value: Any) -> Any:
    """Return a value as JSON has it: records as objects, sets as sorted lists, keys as text."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value):
        return {one.name: json_value(getattr(value, one.name)) for one in fields(value) if one.compare}
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    return value
