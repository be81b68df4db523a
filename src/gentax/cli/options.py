"""Options that several commands share, how they are read, and settings dataclasses as options."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.models import OptionInfo

from gentax.cli.output import check_output, check_table
from gentax.core.console import status, visible
from gentax.core.errors import UsageError
from gentax.core.settings import field_docs
from gentax.models.options import ModelOptions
from gentax.rollouts import EvalRolloutConfig

if TYPE_CHECKING:
    from gentax.policies import Policy
    from gentax.policies.endpoint import EndpointPolicy

MODEL = "a folder, a hub's `org/name[@revision]`, an adapter's folder, a `.gguf` file"  # how a model is named
POLICY = f"`base`, `random`, `expert`, {MODEL}, `http://…/v1#model`, or `module:policy`."  # and a policy

PolicyName = Annotated[str, typer.Option(help=POLICY)]
Trajectories = Annotated[int, typer.Option(help="Episodes of each domain: tasks times samples.")]
Domains = Annotated[
    list[str] | None,
    typer.Option(
        "--domain", "-d", metavar="NAME[:LEVEL]", help="A domain, with a level if not its default. May be repeated."
    ),
]
Samples = Annotated[int, typer.Option(help="Episodes on each task.", min=1, max=10_000)]
Parallel = Annotated[
    int | None,
    typer.Option(help="Episodes in flight at once; as many as memory holds without it, 128 at most.", min=1),
]
AllowUnreadable = Annotated[
    bool,
    typer.Option("--allow-unreadable", help="Go on when no action can be read in most of the first replies."),
]


def output_file(help: str, check: Callable[..., Any] = check_output) -> Any:
    """Return an option for an output file: one that cannot be written is refused before anything is played."""
    return typer.Option(metavar="FILE", help=help, callback=check)


Json = Annotated[Path | None, output_file("Also write the result to this file as JSON.")]
Table = Annotated[Path | None, output_file("Also write the result as a table: `.csv` or `.parquet`.", check_table)]


@dataclasses.dataclass(frozen=True)
class SettingsGroup:
    """Marks a parameter of a command whose type is a settings dataclass: each of its fields becomes an option."""

    exclude: tuple[str, ...] = ()  # fields that are not options of this command
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # that differ from the dataclass's own


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How episodes are played, whatever the policy and the prompt."""

    seed: int = 0
    """Seeds every random number drawn."""
    parallel: Parallel = None
    allow_unreadable: AllowUnreadable = False

    def arguments(self) -> dict[str, Any]:
        """Return them as arguments of `evaluate`, `probe`, `paired_evaluation` and `rollout`."""
        stop = not self.allow_unreadable
        return {"seed": self.seed, "parallel": self.parallel, "stop_if_unreadable": stop, "progress": True}


RunArgs = Annotated[RunOptions, SettingsGroup()]
ModelArgs = Annotated[ModelOptions, SettingsGroup()]
RolloutArgs = Annotated[EvalRolloutConfig, SettingsGroup(exclude=("horizon", "reward"))]


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


_servers: list[EndpointPolicy] = []  # of this command, for `print_usage`


def _remember_servers(*policies: Policy) -> None:
    from gentax.policies.endpoint import EndpointPolicy

    _servers.extend(policy for policy in policies if isinstance(policy, EndpointPolicy))


def print_usage() -> None:
    """Say what the servers of this command were asked and what it cost, however it ended."""
    while _servers:
        policy = _servers.pop(0)
        if policy.usage.requests or policy.usage.cached:
            print(f"{visible(policy.name)}: {policy.usage}")


def with_settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option, with its docstring, for each field of its parameters that are a `SettingsGroup`.

    A parameter `config: Annotated[EvalRolloutConfig, SettingsGroup()]` becomes the options `--context`, `--thinking`
    and so on; the command is called with one `EvalRolloutConfig`.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    options_of: dict[str, list[inspect.Parameter]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        metadata = getattr(hints[name], "__metadata__", ())
        if group := next((one for one in metadata if isinstance(one, SettingsGroup)), None):
            options_of[name] = _options(hints[name].__origin__, group)
            parameters += options_of[name]
        else:
            parameters.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        for name, options in options_of.items():
            fields = {option.name: values.pop(option.name) for option in options}
            settings = hints[name].__origin__
            lists = {field.name for field in dataclasses.fields(settings) if field.default == ()}  # typer gives None
            values[name] = settings(**{k: tuple(v or ()) if k in lists else v for k, v in fields.items()})
        return command(**values)

    del run.__wrapped__  # or typer would read the command's own signature
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _options(settings: type, group: SettingsGroup) -> list[inspect.Parameter]:
    """Return a keyword parameter for each field of a settings dataclass, annotated as an option.

    A field may be `Annotated` with a `typer.Option` of its own; its help is the field's docstring unless it has one.
    """
    docs, kinds = field_docs(settings), typing.get_type_hints(settings)
    hints = typing.get_type_hints(settings, include_extras=True)
    parameters = []
    for field in dataclasses.fields(settings):
        if field.name in group.exclude:
            continue
        kind, flag = kinds[field.name], field.name.replace("_", "-")
        metadata = getattr(hints[field.name], "__metadata__", ())
        option = copy.copy(next((one for one in metadata if isinstance(one, OptionInfo)), typer.Option()))
        default = group.defaults.get(field.name, field.default)
        kind = str if typing.get_origin(kind) is typing.Literal else kind  # the dataclass names the nearest
        # An option that is off by default needs no second flag, which would fill the help.
        flags = f"--{flag}/--no-{flag}" if kind is bool and default else f"--{flag}"
        if typing.get_origin(kind) is tuple:
            kind, option.metavar = list[typing.get_args(kind)[0]] | None, option.metavar or flag.upper()  # type: ignore[misc]
        own = [one for one in (option.default, *(option.param_decls or ())) if isinstance(one, str)]
        option.default = ...  # typer keeps the first flag there; `own` has it
        option.param_decls, option.help = (*dict.fromkeys(own or [flags]),), option.help or docs.get(field.name, "")
        default = inspect.Parameter.empty if default is dataclasses.MISSING else None if default == () else default
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(field.name, keyword, default=default, annotation=Annotated[kind, option]))
    return parameters
