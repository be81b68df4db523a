"""`gentax play`: a person plays, or watches a policy."""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gentax.cli import options as o
from gentax.cli.options import SettingsGroup, with_settings
from gentax.cli.output import console
from gentax.core.console import visible
from gentax.core.errors import UsageError
from gentax.models.options import ModelOptions
from gentax.rollouts import EvalRolloutConfig

if TYPE_CHECKING:
    from gentax.core import Episode, TextEnv

_HELP = "Type an action. Also: ? lists what is possible, ! asks the expert, q leaves."
NEAREST = 5  # admissible actions named for one that is not


@with_settings
def play(
    domain: Annotated[str, typer.Argument(help="A domain, `NAME` or `NAME:LEVEL`.")],
    index: Annotated[int, typer.Option(help="The number of the task in its split, from 0.")] = 0,
    split: Annotated[str, typer.Option(help="The split of the task: `train`, `validation` or `test`.")] = "train",
    expert: Annotated[bool, typer.Option("--expert", help="Watch the domain's expert.")] = False,
    policy: Annotated[str | None, typer.Option(help=f"Watch a policy: {o.POLICY}")] = None,
    xsb: Annotated[
        str | None, typer.Option(metavar="FILE", help="Sokoban only: play the rooms of an XSB file.")
    ] = None,
    *,
    settings: Annotated[EvalRolloutConfig, SettingsGroup(exclude=("horizon", "reward"), defaults={"thinking": True})],
    model: o.ModelArgs,
) -> None:
    """Play a task in the terminal, or watch a policy play it.

    Examples: `gentax play sokoban`, `gentax play sciworld --expert`, `gentax play sokoban --policy base --index 3`,
    `gentax play babyai --wrap "distract(volume=60)" --wrap menu`
    """
    from gentax.domains import make
    from gentax.domains.registry import parse_domain
    from gentax.wrappers import wrap as wrapped

    if expert and policy is not None:
        raise UsageError("--expert and --policy exclude each other")
    name, level = parse_domain(domain)
    env: Any = wrapped(make(name, level, split=split, **({} if xsb is None else {"xsb": xsb})), settings.wrap)
    try:
        if expert or policy is not None:
            _watch(env, "expert" if expert else str(policy), model, index, split, settings)
        else:
            _play_by_hand(env, index, split)
    finally:
        env.close()


def _watch(env: TextEnv, policy: str, model: ModelOptions, index: int, split: str, settings: EvalRolloutConfig) -> None:
    from gentax.core import Task
    from gentax.rollouts import EnvPool, rollout

    task = Task(env.domain.name, env.level, split, index)
    settings = replace(settings, wrap=())  # the environment is wrapped already
    with EnvPool(settings, factory=lambda _: env) as pool:
        (episode,) = rollout(o.load_policy(policy, model), [task], config=settings, pool=pool, progress=True)
    _print_episode(episode)


def _print_episode(episode: Episode) -> None:
    console.print(f"[bold]{episode.task.id}[/]")
    console.print(visible(episode.goal), style="bold", markup=False)
    for number, step in enumerate(episode.steps, 1):
        console.print()
        console.print(visible(step.observation), markup=False)
        if step.thought:
            console.print(f"  ({visible(step.thought)})", style="dim", markup=False)
        note = "   (cut off)" if step.truncated else "" if step.valid else "   (refused)"
        console.print(f"{number:>3} > {visible(step.action or step.text)}{note}", style="cyan", markup=False)
    console.print()
    console.print(visible(episode.final), markup=False)
    _print_outcome(episode.outcome.value, episode.ret, episode.length)


def _play_by_hand(env: TextEnv, index: int, split: str) -> None:
    _, info = env.reset(options={"index": index, "split": split})
    console.print(visible(env.domain.rules), style="dim", markup=False)
    console.print(f"{visible(info['goal'])}\n", style="bold", markup=False)
    console.print(_HELP, style="dim", markup=False)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  with it, arrow keys edit the line and bring earlier ones back
    total, over, won = 0.0, False, False
    doubted = ""  # an action that the environment does not list, until it is confirmed
    console.print(visible(env.render()), markup=False)
    while not over:
        try:
            typed = input(f"{env.steps + 1:>3} > ").strip()
        except EOFError:
            console.print()
            break
        if typed == "q":
            break
        if typed == "?":
            actions = env.admissible() or ["(this domain does not list them)"]
            console.print(visible("  ".join(actions)), style="dim", markup=False)
            continue
        if typed == "!":
            hint = env.expert()
            text = "the expert has no action here" if hint is None else visible(f"{hint.action}   {hint.thought}")
            console.print(text, markup=False)
            continue
        action = doubted if not typed else typed if typed == doubted else _as_listed(typed, env.admissible())
        if not action:
            doubted = typed
            if typed:
                console.print(visible(_ask_again(typed, env.admissible() or [])), style="dim", markup=False)
            continue
        doubted = ""
        observation, reward, terminated, truncated, info = env.step(action)
        total, over, won = total + reward, terminated or truncated, bool(info["success"])
        shown = env.render()
        console.print(visible(shown), markup=False)
        if shown != observation:
            console.print(visible(observation), style="dim", markup=False)
    _print_outcome("success" if won else "failure" if over else "left", total, env.steps)


def _as_listed(typed: str, admissible: list[str] | None) -> str:
    """Return the admissible action that was typed, whatever its case and spaces; "" when there is none.

    Where a domain does not list its actions it is what was typed.
    """
    if admissible is None:
        return typed
    same = {" ".join(action.lower().split()): action for action in admissible}
    return typed if typed in admissible else same.get(" ".join(typed.lower().split()), "")


def _ask_again(typed: str, admissible: list[str]) -> str:
    """Ask for another action, naming the nearest ones, or for a confirmation: a list may be incomplete."""
    near = difflib.get_close_matches(typed.lower(), admissible, n=NEAREST, cutoff=0.4) or admissible[:NEAREST]
    more = "" if len(near) == len(admissible) else ", … (? lists all)"
    return f"{typed[:80]!r} is not listed here, so no step was taken. Nearest: {', '.join(near)}{more}. Enter sends it."


def _print_outcome(outcome: str, ret: float, length: int) -> None:
    style = {"success": "bold green", "failure": "bold red"}.get(outcome, "bold")
    console.print(f"{outcome} after {length} steps, return {ret:.2f}", style=style)
