"""Settings are documented dataclasses; this reads them from mappings and refuses what they do not have."""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from gentax.core.errors import UsageError, unknown

T = TypeVar("T")

# Keys of recipes and studies up to version 0.1 and what they are called now. An old key is refused with the new one.
RENAMED = {
    "base": "model",
    "checkpoint_every": "save_steps",
    "clip": "epsilon",
    "clip_high": "epsilon_high",
    "discount": "gamma",
    "entropy": "entropy_coef",
    "epochs": "num_train_epochs",
    "estimator": "advantage_estimator",
    "explore": "exploration",
    "group": "num_generations",
    "head_start": "expert_prefix",
    "held_out": "held_out_domains",
    "imitate": "sft",
    "kl": "beta",
    "lr": "learning_rate",
    "mix": "mixture",
    "new_states": "count_bonus",
    "pairs": "max_pairs",
    "per": "loss_aggregation",
    "play": "rollout",
    "rank": "r",
    "retain": "forgetting",
    "schedule": "curriculum",
    "smoothing": "gae_lambda",
    "std": "normalize_std",
    "steps": "max_steps",
    "stop_at": "kl_budget",
    "trl_server": "vllm_server_base_url",
    "validate_every": "eval_steps",
    "validate_tasks": "eval_tasks",
    "warmup": "warmup_steps",
}


def read_settings(cls: type[T], values: Mapping[str, Any], where: str, default: T | None = None) -> T:
    """Make a `cls` from `values`; nested dataclasses from nested mappings.

    Args:
        cls: a dataclass.
        values: its fields; those left out keep their defaults.
        where: what is being read, for the error message.
        default: what holds where `values` are silent; the fields' own defaults when None. A group of settings is
            read onto the default that it has in `cls`, which may differ from that of its own class.

    Raises:
        UsageError: a key that `cls` does not have (with the nearest it has), a value of another type, a missing key.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} must be a mapping of settings, not {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    given = {}
    for key, value in values.items():
        if key not in fields:
            if RENAMED.get(key) in fields:
                raise UsageError(f"{where}: `{key}` is now `{RENAMED[key]}`")
            raise unknown(f"key in {where}", key, fields)
        given[key] = _convert(hints[key], value, f"{where}: {key}", _default(fields[key]))
    if default is not None:
        return dataclasses.replace(default, **given)  # type: ignore[type-var]
    for name, f in fields.items():
        if name not in given and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise UsageError(f"{where} lacks the key {name!r}")
    return cls(**given)


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file. Raises UsageError when it is not there or not YAML."""
    import yaml  # only where a file is read

    path = Path(path)
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = sorted(str(p) for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        raise unknown("file", path, near) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read {path}: {' '.join(str(error).split())}") from None


def field_docs(cls: type) -> dict[str, str]:
    """Return the line of documentation under each field of a dataclass, by the field's name."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    docs = {}
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
    return {f.name: _plain(value) for f, value in _fields_shown(settings)}


def _fields_shown(settings: Any) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    for f in dataclasses.fields(settings):
        value = getattr(settings, f.name)
        if not (f.metadata.get("omit_default") and value == _default(f)):
            yield f, value


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return copy.deepcopy(value)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _convert(hint: Any, value: Any, where: str, default: Any = None) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        return read_settings(hint, value, where, default if isinstance(default, hint) else None)
    if origin in (tuple, list):
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise UsageError(f"{where} must be a list, not {value!r}")
        return tuple(_convert(args[0], v, where) for v in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UsageError(f"{where} must be a mapping, not {value!r}")
        return {_convert(args[0], k, where): _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Any or (isinstance(value, hint) and not (hint is int and isinstance(value, bool))):
        return value
    if hint is float and isinstance(value, str):
        try:  # YAML 1.1 reads 1e-4 as text
            return float(value)
        except ValueError:
            pass
    raise UsageError(f"{where} must be of type {getattr(hint, '__name__', hint)}, not {value!r}")
