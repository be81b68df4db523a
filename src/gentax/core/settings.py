"""Settings are documented, frozen dataclasses validated by pydantic. What does not fit is a `UsageError` of one line.

`@settings` makes such a dataclass; `read_settings` reads one from a mapping (YAML, JSON, the command line's `-s`), and
`plain` writes one.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import itertools
import json
import os
import re
import textwrap
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, ConfigDict, Field, NonNegativeFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from gentax.core.errors import UsageError, unknown
from gentax.core.files import check_nested, read_text

T = TypeVar("T")


def _some_weight(weights: dict[str, float]) -> dict[str, float]:
    if weights and not sum(weights.values()) > 0:
        raise ValueError("the weights sum to 0")
    return weights


Share = Annotated[float, Field(ge=0, le=1)]
Mixture = Annotated[dict[str, NonNegativeFloat], AfterValidator(_some_weight)]
"""Weights by name; what they stand for is their share of the sum."""


def shares(mixture: Mapping[str, float]) -> dict[str, float]:
    """Return the weights over their sum, without those of 0."""
    total = sum(mixture.values())
    return {name: weight / total for name, weight in mixture.items() if weight > 0}


@typing.dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, Field))
def settings(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose values are validated, with `UsageError` for what does not fit."""
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    dataclass: Any = pydantic_dataclass(frozen=True, config=config)(cls)
    init = dataclass.__init__

    @wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            init(self, *args, **kwargs)
        except ValidationError as error:
            raise _refusal(cls, error, "") from None

    dataclass.__init__ = checked
    return cast("type[T]", dataclass)


def read_settings(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Make a `cls` from `values`; nested settings from nested mappings.

    Args:
        cls: a class made by `settings`. Its `old_keys`, if it has them, say of keys of earlier versions what became of
            them; so does the error.
        values: its fields; those left out keep their defaults, also those of a group that has other defaults in `cls`
            than its own class.
        where: what is being read, for the error message.

    Raises:
        UsageError: a key that `cls` does not have (with the nearest it has), a value that does not fit, a missing key.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} must be a mapping of settings, not {values!r}")
    text = json.dumps(
        _onto_defaults(cls, values),
        default=lambda v: plain(v) if dataclasses.is_dataclass(v) else str(v),
        ensure_ascii=False,
    ).encode(errors="replace")  # halves of a character, which JSON can hold and text cannot, become question marks
    try:  # as JSON, so that lists may be tuples while `true` is no number and "3" is no integer
        return _adapter(cast(Hashable, cls)).validate_json(text, strict=True)
    except ValidationError as error:
        raise _refusal(cls, error, where) from None


@cache
def _adapter(cls: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(cls)


def _onto_defaults(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with, in each group that they give in part, the defaults that the group has in `cls`."""
    read = dict(values)
    for field in dataclasses.fields(cls):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        group = read.get(field.name)
        if dataclasses.is_dataclass(default) and isinstance(group, Mapping):
            read[field.name] = plain(default) | _onto_defaults(type(default), group)
    return read


def _refusal(cls: Any, error: ValidationError, where: str) -> UsageError:
    """Return the first of the errors as one line that names the key and the value."""
    errors = error.errors(include_url=False)
    first = next((e for e in errors if e["type"] == "unexpected_keyword_argument"), errors[0])
    path = [part for part in first["loc"] if part != "[key]"]
    key, value, kind = ".".join(map(str, path)), first["input"], first["type"]
    message = first["msg"].replace("an object", "a mapping")
    original = first.get("ctx", {}).get("error")
    if isinstance(original, UsageError):
        return original
    if kind in ("unexpected_keyword_argument", "missing", "missing_argument"):
        place = ": ".join(filter(None, [where, ".".join(map(str, path[:-1]))])) or "settings"
        if kind != "unexpected_keyword_argument":
            return UsageError(f"{place} lacks the key {path[-1]!r}")
        fields = [field.name for field in dataclasses.fields(_at(cls, path[:-1]))]
        name = str(path[-1])
        old = getattr(cls, "old_keys", {})  # by name, or by path where the name is a setting elsewhere
        if why := old.get(key) or old.get(name):
            return UsageError(f"{place}: `{name}` {why}")
        return unknown(f"key in {place}", name, fields)
    place = f"{where}: {key}" if where and key else where + key
    if kind == "literal_error":
        return unknown(f"{key} in {where}" if where else key, value, re.findall(r"'([^']*)'", first["ctx"]["expected"]))
    if original is not None:
        return UsageError(f"{place}: {original}")
    return UsageError(f"{place} {message.replace('Input should be', 'must be')}, not {repr(value)[:80]}")


def _at(hint: Any, path: Iterable[Any]) -> Any:
    """Return the class of settings that lies at `path` in another."""
    for part in path:
        if dataclasses.is_dataclass(hint):
            hint = typing.get_type_hints(hint)[part]
        else:  # an item of a list or a mapping
            hint = next(arg for arg in reversed(typing.get_args(hint)) if arg is not Ellipsis)
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    return hint


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file. Raises UsageError when it is not there, too large, or not YAML."""
    path = Path(path)
    if not os.path.lexists(path):
        near = sorted(str(p) for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        raise unknown("file", path, near)
    text = read_text(path, YAML_LIMIT)
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise UsageError(f"cannot read {path}: {' '.join(str(error).split())}") from None


YAML_LIMIT = 1 << 20  # bytes of a file of settings
MAX_VALUES = 100_000  # in one, aliases followed: a few lines of them can stand for billions


def parse_yaml(text: str) -> Any:
    """Return what YAML says, with 1e-4 as a number, which YAML 1.1 takes for text.

    Raises:
        ValueError: no YAML, a key that is given twice, too many values, or values nested too deeply.
    """
    try:
        import yaml  # only where something is read

        class Loader(yaml.SafeLoader):
            """Safe, reads numbers as JSON does, and refuses a key that is given twice."""

            def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
                keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
                if twice := {key for key in keys if key != "<<" and keys.count(key) > 1}:
                    raise ValueError(f"line {node.start_mark.line + 1}: {min(twice)[:80]!r} is given twice")
                return super().construct_mapping(node, deep)

        number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
        Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
        value = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check_nested(value, MAX_VALUES)
    return value


def field_docs(cls: type) -> dict[str, str]:
    """Return the line of documentation under each field of a dataclass, by the field's name."""
    docs = {}
    if dataclasses.is_dataclass(base := cls.__base__):
        docs = field_docs(base)
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    for node, after in itertools.pairwise(body.body):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            docs[node.target.id] = " ".join(str(after.value.value).split())
    return docs


def plain(settings: Any) -> dict[str, Any]:
    """Return a dataclass as plain JSON-like values, for hashing, storing and printing.

    A field with `metadata={"omit_default": True}` is left out while it has its default: it was added after values had
    been hashed and stored without it.
    """
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    late = {field.name: field.default for field in dataclasses.fields(settings) if field.metadata.get("omit_default")}
    return {name: _plain(value) for name, value in values.items() if name not in late or value != late[name]}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return copy.deepcopy(value)
