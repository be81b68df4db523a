"""Settings dataclasses as command-line options: one option for each field, with the line of documentation under it.

A command that takes `play: RolloutConfig` is decorated with `@takes(play=RolloutConfig)`. Its options are then
`--context`, `--thinking` and so on, and it is called with one `RolloutConfig`. A new field is a new option of every
such command.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from gentax.core.settings import field_docs


@dataclasses.dataclass(frozen=True)
class Group:
    """A settings dataclass as a command takes it."""

    settings: type
    leave_out: tuple[str, ...] = ()  # fields that are no options of this command
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # other than the dataclass's own


def takes(**groups: type | Group) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a command take settings: each keyword is one of its parameters, which gets an instance of the dataclass."""
    known = {name: group if isinstance(group, Group) else Group(group) for name, group in groups.items()}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = typing.get_type_hints(command, include_extras=True)
        parameters: list[inspect.Parameter] = []
        fields: dict[str, list[str]] = {}  # group -> its options
        for parameter in inspect.signature(command).parameters.values():
            if parameter.name in known:
                options = _options(known[parameter.name])
                fields[parameter.name] = [option.name for option in options]
                parameters += options
            else:
                kind = inspect.Parameter.KEYWORD_ONLY
                parameters.append(parameter.replace(annotation=hints[parameter.name], kind=kind))

        @functools.wraps(command)
        def run(**given: Any) -> Any:
            for name, group in known.items():
                values = {field: given.pop(field) for field in fields[name]}
                lists = {field.name for field in dataclasses.fields(group.settings) if field.default == ()}
                given[name] = group.settings(**{k: tuple(v or ()) if k in lists else v for k, v in values.items()})
            return command(**given)

        del run.__wrapped__  # or the command's own signature would be looked up
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _options(group: Group) -> list[inspect.Parameter]:
    docs = field_docs(group.settings)
    hints = typing.get_type_hints(group.settings)
    made = []
    for field in dataclasses.fields(group.settings):
        if field.name in group.leave_out:
            continue
        flag = field.name.replace("_", "-")
        kind, flags = hints[field.name], [f"--{flag}"]
        default = group.defaults.get(field.name, field.default)
        if kind is bool and default:  # what is off without its flag needs no second one, which would take up the help
            flags = [f"--{flag}/--no-{flag}"]
        elif typing.get_origin(kind) is tuple:
            kind = list[typing.get_args(kind)[0]] | None  # type: ignore[misc]
        default = None if default == () else default
        many = flag.upper() if typing.get_origin(hints[field.name]) is tuple else None
        option = typer.Option(*flags, help=docs.get(field.name, ""), metavar=many)
        made.append(
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
            )
        )
    return made
