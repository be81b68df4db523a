"""Environments of other people, wherever a domain's name is asked for: `LIBRARY:NAME`, or `module:factory`.

A library is one of `LIBRARIES`. The factory is a `Domain` record, a `TextEnv` class, a function that makes one (it
takes what `TextEnv` takes, by name, and may wrap what it returns), or anything that makes a `gymnasium.Env` of text, or
one that can be turned into text. Of the last kind the following is read, where it is there: `rules`,
`horizon`, `caveats`, `copies` (how many may be open at once) and the docstring of the environment; `goal`, `admissible`
(or `admissible_commands`, `available_actions`), `valid`, `success` and `content` in `info`; `expert()`, the next action
of an expert. Its tasks are seeds of `reset`; each split has a third of the range. `content` is any text that names what
the task is made of (its map, its question): given that, no two splits share any; without it nobody can say.

An environment of numbers becomes one of text: what is shown comes from `describe(observation)`, an attribute of the
environment or of one of its wrappers, or from an environment that renders itself as text (`render_mode="ansi"`). Of
a dict the texts are shown, in their order: those under `text` where it has that, as BALROG's wrappers do; its `mission`
is the goal. The names of discrete actions come from its `actions` (a list of names, or an enumeration), else
from the lines `- 0: Move left` that Gymnasium's docstrings have, else they are the numbers. An environment with a
`language_action_space` takes its actions by name.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import EnumMeta
from functools import cache, partial
from typing import Any, NamedTuple, cast

import gymnasium
from gymnasium.spaces import Dict, Discrete, Text

from gentax.core.env import (
    SPLITS,
    Domain,
    ExpertAction,
    Level,
    StepResult,
    Task,
    TextEnv,
    content_hash,
    split_of,
    stable_seed,
)
from gentax.core.errors import UsageError, unknown
from gentax.core.imports import load_attribute

LANGUAGE_ACTIONS = "language_action_space"  # of BALROG's wrappers: the actions in words, which `step` takes as they are
ADMISSIBLE = ("admissible", "admissible_commands", "available_actions")  # of `info`: the actions there are now
MISSION = "mission"  # of BabyAI and MiniGrid: the goal, in an observation
_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_ESCAPE = r"\x1b\[[0-9;]*m"
_COLOURED = re.compile(rf"\x1b\[(?:[34](?P<colour>[0-7])|[0-9;]*)m(?P<text>[^\x1b]*){_ESCAPE}")
_SECTION = r"^[ \t]*## {}\s*\n(.*?)(?=^[ \t]*## |\Z)"  # some docstrings are indented unevenly
_ACTION_LINE = re.compile(r"^\s*[-*] (\d+): (.+?)\s*$", re.M)
_ABOUT_LIMIT = 1200  # characters of a docstring that go into the rules


def make_registered(name: str) -> gymnasium.Env[Any, Any]:
    """Make the environment that Gymnasium has registered as `name`, rendering itself as text if it can.

    Raises:
        UsageError: there is none, or it shows neither text nor a text rendering.
    """
    if name not in gymnasium.registry:
        raise unknown("environment of gymnasium", name, gymnasium.registry)
    try:
        env = gymnasium.make(name)
        if isinstance(env.observation_space, Text) or callable(attribute(env, "describe")) or _has_texts(env):
            return env
        modes = env.metadata.get("render_modes", [])
        env.close()
        if "ansi" not in modes:
            raise UsageError(
                f"{name} shows {env.observation_space} and cannot render itself as text: give it a "
                "`describe(observation)` in a factory of your own, module:factory"
            )
        return gymnasium.make(name, render_mode="ansi")
    except (gymnasium.error.Error, ImportError) as error:
        raise UsageError(f"{name} cannot be made: {' '.join(str(error).split())}") from error


def attribute(env: gymnasium.Env[Any, Any], name: str, default: Any = None) -> Any:
    """Return an attribute of an environment or of one of its wrappers."""
    return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else default


def _has_texts(env: gymnasium.Env[Any, Any]) -> bool:
    """Return whether an environment says that its observations are dicts with a text, or takes actions in words."""

    def has_text(space: Any) -> bool:
        return isinstance(space, Text) or (isinstance(space, Dict) and any(map(has_text, space.spaces.values())))

    return has_text(getattr(env, "observation_space", None)) or attribute(env, LANGUAGE_ACTIONS) is not None


def texts_of(observation: Any) -> str:
    """Return the texts of a dict but its `mission`, in their order; anything else as text.

    Raises:
        UsageError: a dict without a text.
    """
    if not isinstance(observation, Mapping):
        return str(observation)
    if "text" in observation:
        return texts_of(observation["text"])
    texts = [
        texts_of(shown) for key, shown in observation.items() if key != MISSION and isinstance(shown, (str, Mapping))
    ]
    if not texts:
        raise UsageError(f"an observation has no text, but {', '.join(map(str, observation))}: it takes a `describe`")
    return "\n".join(text for text in texts if text)


def _action_names(env: gymnasium.Env[Any, Any], numbers: range) -> list[str]:
    given = attribute(env, "actions")
    if isinstance(given, EnumMeta):
        given = [member.name for member in given]  # type: ignore[var-annotated]
    if isinstance(given, (list, tuple)) and len(given) >= len(numbers):
        return [str(name) for name in given[: len(numbers)]]
    documented = dict(_ACTION_LINE.findall(_section(env, "Action Space")))
    listed = list(map(str, numbers))
    return [documented[n] for n in listed] if set(listed) <= set(documented) else listed


def rules_of(env: gymnasium.Env[Any, Any]) -> str:
    """Return the rules that a registered environment's docstring gives: its first sentence and its description."""
    text = inspect.getdoc(type(env.unwrapped)) or ""
    parts = [text.partition("## ")[0].partition("\n\n")[0], _section(env, "Description")]
    return "\n".join(" ".join(part.split()) for part in parts if part.strip())[:_ABOUT_LIMIT]


def _section(env: gymnasium.Env[Any, Any], title: str) -> str:
    found = re.search(_SECTION.format(title), inspect.getdoc(type(env.unwrapped)) or "", re.M | re.S)
    return found[1] if found else ""


def _name_colour(match: re.Match[str]) -> str:
    """What a terminal shows in colour says so in words."""
    return f"[{_COLOURS[int(match['colour'])]} {match['text']}]" if match["colour"] else f"[{match['text']}]"


class _Interface(NamedTuple):
    """How an environment is read and acted on in words."""

    describe: Callable[[Any], object] | None  # an observation as text; None where it is text already
    actions: dict[str, Any] | None  # what `step` takes, by the names of actions, in order; None where that is any text


def _interface_of(env: gymnasium.Env[Any, Any]) -> _Interface:
    """Say how an environment is read and acted on.

    Raises:
        UsageError: its actions are neither text nor discrete.
    """
    describe = attribute(env, "describe")
    shows = getattr(env, "observation_space", None)
    if not callable(describe):
        unreadable = env.render_mode == "ansi" and not isinstance(shows, Text) and not _has_texts(env)
        describe = (lambda observation: env.render()) if unreadable else None
    actions = getattr(env, "action_space", None)
    words = attribute(env, LANGUAGE_ACTIONS)
    if words is not None:
        return _Interface(describe or texts_of, {str(word): word for word in words})
    if isinstance(actions, Discrete):
        numbers = range(int(actions.start), int(actions.start + actions.n))
        return _Interface(describe or texts_of, dict(zip(_action_names(env, numbers), numbers, strict=True)))
    if describe is None and not isinstance(shows, Dict):
        return _Interface(None, None)
    if actions is not None and not isinstance(actions, Text):
        raise UsageError(
            f"{env.unwrapped} takes actions of {type(actions).__name__}, which have no names: wrap it with a "
            "gymnasium.ActionWrapper that takes text"
        )
    return _Interface(describe or texts_of, None)


LIBRARIES = {  # name -> what makes an environment of a name in it; the module is loaded when it is asked for
    "gymnasium": "gentax.domains.external:make_registered",
    "openenv": "gentax.integrations.openenv:OpenEnvClientEnv",
    "reasoning-gym": "gentax.integrations.reasoning_gym:ReasoningGymEnv",
    "textarena": "gentax.integrations.textarena:TextArenaEnv",
    "verifiers": "gentax.integrations.verifiers:VerifiersEnv",
}
HORIZON = 50  # steps, where the environment does not say: the paper's
TASKS = 1_000_000  # in each split
RULES = "Reach the goal. Each turn, read what is said and answer with one action."
EXPERT_THOUGHT = "The reference does this."  # an expert of somebody's own gives actions alone
ATTEMPTS = 1000  # seeds that are tried for a task of a split; an eighth of all contents are validation
_THIRD = (1 << 31) // 3
_attempt_of: dict[str, int] = {}  # task id -> the first seed of its split; starting some environments takes a second


class ExternalEnv(NamedTuple):
    """A domain of somebody's own: its record, and what makes it, given the settings of a `TextEnv` by name."""

    record: Domain
    make: Callable[..., gymnasium.Env[str, str]]


@cache
def load_external(name: str, others: tuple[str, ...] = ()) -> ExternalEnv:
    """Return the domain called `name`, which is of the form `LIBRARY:NAME` or `module:factory`.

    `others` are the names of domains that may have been meant.

    Raises:
        UsageError: no such module or attribute, a module that fails, or what the factory makes is no environment; a
            library that is not installed.
    """
    library, _, rest = name.partition(":")
    if library in LIBRARIES:
        module, _, made_by = LIBRARIES[library].partition(":")
        factory: Any = partial(getattr(importlib.import_module(module), made_by), rest)
    else:
        factory = load_attribute("domain", name, (*others, *LIBRARIES))
    if isinstance(factory, Domain):
        return _own(name, factory, load_attribute("domain", factory.entry))
    if inspect.isclass(factory) and issubclass(factory, TextEnv):
        return _own(name, factory.domain, factory)
    env = _called(name, factory)
    try:
        if isinstance(env.unwrapped, TextEnv):
            return _own(name, env.unwrapped.domain, factory)
        record = _record_of(name, env)
    finally:
        env.close()

    def make(level: str | None = None, **settings: Any) -> Adapter:
        check_settings(TextEnv, name, settings)
        return Adapter(record, factory, level=level, **settings)

    return ExternalEnv(record, make)


def check_settings(factory: Any, name: str, settings: dict[str, Any]) -> None:
    """Raise UsageError unless the constructor takes all `settings`, following it through its base classes."""
    valid = {
        parameter.name
        for cls in inspect.getmro(factory)
        if "__init__" in vars(cls) and issubclass(cls, TextEnv)
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    } - {"level"}
    for key in settings:
        if key not in valid:
            raise unknown(f"setting of {name}", key, valid)


def _own(name: str, record: Domain, factory: Callable[..., gymnasium.Env[str, str]]) -> ExternalEnv:
    """Return a domain that is one of ours in all but name: its tasks are called after `name`."""
    record = replace(record, name=name, entry=name)

    def make(**settings: Any) -> gymnasium.Env[str, str]:
        try:
            inspect.signature(factory).bind(**settings)
        except TypeError as error:
            raise UsageError(f"domain {name!r}: its factory must take settings by name, but {error}") from None
        env = factory(**settings)
        cast(TextEnv, env.unwrapped).domain = record
        return env

    return ExternalEnv(record, make)


def _called(name: str, factory: Any) -> gymnasium.Env[Any, Any]:
    """Call the factory without arguments. Raises UsageError when that gives no environment."""
    if not callable(factory):
        raise UsageError(f"domain {name!r} is a {type(factory).__name__}, which makes no environment")
    try:
        env = factory()
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"domain {name!r} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(env, gymnasium.Env):
        raise UsageError(f"domain {name!r} makes a {type(env).__name__}, not a gymnasium.Env")
    return env


def _record_of(name: str, env: gymnasium.Env[Any, Any]) -> Domain:
    """Return the record of an environment that has none."""
    bare = env.unwrapped
    about = (inspect.getdoc(type(bare)) or type(bare).__name__).strip().splitlines()[0]
    documented = rules_of(env) if _interface_of(env).describe else ""
    rules = attribute(env, "rules") or documented or RULES
    return Domain(
        name=name,
        entry=name,
        about=about,
        rules=str(rules),
        levels={"default": Level(_horizon(env) or HORIZON, about)},
        default_level="default",
        licence="its own",
        origin=name,
        copies=attribute(env, "copies", Domain.copies),
    )


def _horizon(env: gymnasium.Env[Any, Any]) -> int | None:
    """Return after how many steps an environment says that its episodes end, if it does."""
    limit = env.spec.max_episode_steps if env.spec is not None else None
    return limit or attribute(env, "horizon") or attribute(env, "max_steps")


class Adapter(TextEnv):
    """Any Gymnasium environment as a `TextEnv`: shows its states in words and takes the names of its actions.

    A text that names none of the actions is refused, and the environment does not move.
    Success is `info["success"]` (or `is_success`); without it, an episode that ended by itself with a reward above 0.
    The sparse reward is 1 on success, the dense one the environment's own.

    Where the environment says what a task is made of (`info["content"]` of `reset`), that decides its split, so that
    splits share nothing. Where it does not, splits have seeds of their own, and may share tasks.
    """

    def __init__(self, record: Domain, factory: Callable[[], gymnasium.Env[Any, Any]], **settings: Any) -> None:
        self.domain = record
        super().__init__(**settings)
        self._env = _called(record.name, factory)
        self._describe, actions = _interface_of(self._env)
        self._names = None if actions is None else list(actions)
        self._actions = {name.strip().lower(): action for name, action in (actions or {}).items()}
        self._listed: list[str] | None = None
        self._guessed_success = self._guessed_valid = False

    def size(self, split: str) -> int:
        return TASKS

    def _reset_task(self, task: Task) -> tuple[str, str]:
        for attempt in range(_attempt_of.get(task.id, 0), ATTEMPTS):
            seed = stable_seed(task.id, attempt) % _THIRD + _THIRD * SPLITS.index(task.split)
            observation, info = self._env.reset(seed=seed)
            content = info.get("content")
            self._content = None if content is None else content_hash(self.domain.name, content)
            if self._content is None or split_of(self._content) == task.split:
                _attempt_of[task.id] = attempt
                break
        else:
            raise UsageError(
                f"domain {self.domain.name!r}: none of {ATTEMPTS} seeds brings a task of the {task.split} split; "
                "info['content'] of reset() must differ from task to task"
            )
        self._read(info)
        goal = info.get("goal")
        if goal is None and self._describe and isinstance(observation, Mapping):
            goal = observation.get(MISSION)
        return str(goal or attribute(self._env, "goal") or self.domain.about), self._text(observation)

    def expert(self) -> ExpertAction | None:
        expert = attribute(self._env, "expert")
        action = expert() if callable(expert) else None
        return None if action is None else ExpertAction(str(action), EXPERT_THOUGHT)

    def fingerprint(self) -> str:
        return super().fingerprint() if self._content is None else f"{super().fingerprint()}\n{self._content}"

    def caveats(self) -> list[str]:
        stated = [str(caveat) for caveat in attribute(self._env, "caveats", ())]
        if _horizon(self._env) != self.domain.levels["default"].horizon:  # some state it only after a reset
            stated.append(f"it states no horizon: episodes are cut after {HORIZON} steps")
        if self._guessed_valid:
            stated.append("it does not say which actions are valid: none counts as invalid")
        if self._guessed_success:
            stated.append("it states no success: an episode that ended by itself with a reward above 0 counts as one")
        return stated

    def _step(self, action: str) -> StepResult:
        taken = action if self._names is None else self._actions.get(action.strip().lower())
        if taken is None:
            return StepResult(self.observation, 0.0, False, False, False)
        observation, reward, terminated, truncated, info = self._env.step(taken)
        self._read(info)
        success = info.get("success", info.get("is_success"))
        self._guessed_success |= success is None and bool(terminated)
        self._guessed_valid |= self._names is None and "valid" not in info
        won = bool(terminated and float(reward) > 0 if success is None else success)
        paid = float(reward) if self.reward == "dense" else float(won)
        over = bool(terminated or truncated)
        return StepResult(self._text(observation), paid, over, won, bool(info.get("valid", True)))

    def admissible(self) -> list[str] | None:
        return self._listed

    def render(self) -> str:
        shown = self._env.render() if self._env.render_mode == "ansi" else None
        return shown if isinstance(shown, str) else self.observation

    def close(self) -> None:
        self._env.close()

    def _read(self, info: dict[str, Any]) -> None:
        listed = next((info[key] for key in ADMISSIBLE if info.get(key) is not None), self._names)
        self._listed = None if listed is None else [str(action) for action in listed]

    def _text(self, observation: Any) -> str:
        if self._describe is not None:
            return _COLOURED.sub(_name_colour, str(self._describe(observation)))
        if not isinstance(observation, str):
            raise UsageError(f"domain {self.domain.name!r} shows a {type(observation).__name__} and not text")
        return observation
