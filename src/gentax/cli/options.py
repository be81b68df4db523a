"""Options that several commands share, how they are read, and settings dataclasses as options."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gentax.core.console import printable, status
from gentax.core.errors import UsageError
from gentax.core.settings import field_docs

if TYPE_CHECKING:
    from gentax.models.options import ModelOptions
    from gentax.policies import Policy
    from gentax.policies.endpoint import EndpointPolicy

MODEL = "a folder, a hub's `org/name[@revision]`, an adapter's folder, a `.gguf` file"  # how a model is named
POLICY = f"`base`, `random`, `expert`, {MODEL}, `http://…/v1#model`, or `module:policy`."  # and a policy

PolicyName = Annotated[str, typer.Option("--policy", help=POLICY)]
Trajectories = Annotated[int, typer.Option(help="Episodes of each domain: tasks times samples.")]
Json = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Also write the result to this file as JSON.")
]
Table = Annotated[
    Path | None,
    typer.Option("--table", metavar="FILE", help="Also write the result as a table: `.csv` or `.parquet`."),
]
Domains = Annotated[
    list[str] | None,
    typer.Option(
        "--domain", "-d", metavar="NAME[:LEVEL]", help="A domain, with a level if not its default. May be repeated."
    ),
]
Tasks = Annotated[int, typer.Option(help="Test tasks of each domain.")]
Samples = Annotated[int, typer.Option(help="Episodes on each task.", min=1, max=10_000)]
Seed = Annotated[int, typer.Option(help="Seeds every random number drawn.")]
Parallel = Annotated[
    int | None,
    typer.Option(help="Episodes in flight at once; as many as memory holds without it, 128 at most.", min=1),
]
AllowUnreadable = Annotated[
    bool,
    typer.Option("--allow-unreadable", help="Play on when most of the first replies hold no action."),
]


def read_domains(names: list[str] | None) -> dict[str, str | None]:
    """Read `--domain` options; all installed domains when none is given. Raises UsageError for unknown ones."""
    from gentax.domains import domains, make, missing_modules
    from gentax.domains.registry import parse_domain

    if not names:
        return {name: None for name, record in domains().items() if not missing_modules(record)}
    pairs = list(map(parse_domain, names))
    levels = dict(pairs)
    if len(levels) < len(pairs):
        twice = next(name for n, (name, _) in enumerate(pairs) if name in dict(pairs[:n]))
        raise UsageError(f"domain {twice} is named twice; one command plays it at one level")
    for name, level in levels.items():
        make(name, level).close()  # an unknown level is refused before anything is played
    return levels


def load_policy(name: str, options: ModelOptions) -> Policy:
    """Load a policy by its name, with a status line: PyTorch and weights take seconds or more."""
    from gentax.policies import load_policy as load

    _print_loading(name)
    policy = load(name, options)
    _remember_servers(policy)
    return policy


def load_pair(base: str, tuned: str, options: ModelOptions) -> tuple[Policy, Policy]:
    """Load two policies that are compared, with a status line."""
    from gentax.policies import load_policy_pair

    _print_loading(base, tuned)
    pair = load_policy_pair(base, tuned, options)
    _remember_servers(*pair)
    return pair


def _print_loading(*names: str) -> None:
    from gentax.policies.endpoint import hide_password
    from gentax.policies.load import SCRIPTED_BY_NAME

    if loaded := [hide_password(name) for name in names if name not in SCRIPTED_BY_NAME]:
        status(f"  loading {' and '.join(loaded)}")


_asked: list[EndpointPolicy] = []  # by this command


def _remember_servers(*policies: Policy) -> None:
    from gentax.policies.endpoint import EndpointPolicy

    _asked.extend(policy for policy in policies if isinstance(policy, EndpointPolicy))


def print_usage() -> None:
    """Say what the servers of this command were asked and what it cost, however it ended."""
    while _asked:
        policy = _asked.pop(0)
        if policy.usage.requests or policy.usage.cached:
            print(f"{printable(policy.name)}: {policy.usage}")


@dataclasses.dataclass(frozen=True)
class SettingsGroup:
    """A settings dataclass as a command takes it."""

    settings: type
    exclude: tuple[str, ...] = ()  # fields that are not options of this command
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # that differ from the dataclass's own


def with_settings(**groups: type | SettingsGroup) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turn settings dataclasses into options of a command: an option for each field, with its docstring.

    Each keyword is a parameter of the command and its dataclass. `@with_settings(play=RolloutConfig)` gives a command
    the options `--context`, `--thinking` and so on, and calls it with one `RolloutConfig`.
    """
    by_name = {name: g if isinstance(g, SettingsGroup) else SettingsGroup(g) for name, g in groups.items()}
    options_of = {name: _options(group) for name, group in by_name.items()}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        hints = typing.get_type_hints(command, include_extras=True)
        parameters: list[inspect.Parameter] = []
        for name, parameter in inspect.signature(command).parameters.items():
            keyword = parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += options_of.get(name, [keyword])

        @functools.wraps(command)
        def run(**values: Any) -> Any:
            for name, group in by_name.items():
                fields = {option.name: values.pop(option.name) for option in options_of[name]}
                lists = {field.name for field in dataclasses.fields(group.settings) if field.default == ()}
                values[name] = group.settings(**{k: tuple(v or ()) if k in lists else v for k, v in fields.items()})
            return command(**values)

        del run.__wrapped__  # or typer would read the command's own signature
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _options(group: SettingsGroup) -> list[inspect.Parameter]:
    """Return a keyword parameter for each field of a settings dataclass, annotated as an option."""
    docs, hints = field_docs(group.settings), typing.get_type_hints(group.settings)
    parameters = []
    for field in dataclasses.fields(group.settings):
        if field.name in group.exclude:
            continue
        hint, flag = hints[field.name], field.name.replace("_", "-")
        hint = str if typing.get_origin(hint) is typing.Literal else hint  # refused by the dataclass, with the nearest
        default, flags, metavar = group.defaults.get(field.name, field.default), [f"--{flag}"], None
        if hint is bool and default:  # an option that is off by default needs no second flag, which would fill the help
            flags = [f"--{flag}/--no-{flag}"]
        elif typing.get_origin(hint) is tuple:
            hint, metavar = list[typing.get_args(hint)[0]] | None, flag.upper()  # type: ignore[misc]
        annotation: Any = Annotated[hint, typer.Option(*flags, help=docs.get(field.name, ""), metavar=metavar)]
        keyword = inspect.Parameter.KEYWORD_ONLY
        default = None if default == () else default
        parameters.append(inspect.Parameter(field.name, keyword, default=default, annotation=annotation))
    return parameters
