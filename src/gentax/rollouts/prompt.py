"""The rollout configuration, and how the history becomes a prompt.

`full` is append-only: the first message has the rules, the goal and the first observation, later ones only what is new.
`window(k)` makes each step a prompt of its own with the last k steps, as in arXiv 2601.18217. Observations are passed
on unchanged; the tokenizer ensures that they cannot pose as control tokens.

A user's prompt template, a Jinja file, replaces the message that starts a conversation: every prompt in a window, the
first in an append-only context. It is rendered within limits, like a chat template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt

from gentax.core import Episode, Step, UsageError
from gentax.core.settings import settings
from gentax.models.action_format import format_instructions
from gentax.models.options import MAX_NEW_TOKENS, MAX_NEW_TOKENS_THINKING, ActionFormat, ChatOptions, SamplingParams
from gentax.models.templates import SandboxedTemplate, TemplateRenderError
from gentax.wrappers import parse_wrapper

ADMISSIBLE_SHOWN = 40  # actions listed in a prompt, at most; some environments accept thousands


def _later(default: Any) -> Any:
    """A setting that came after results and suites had been written: `plain` leaves it out at its default."""
    return field(default=default, metadata={"omit_default": True})


@settings
class RolloutConfig:
    """How episodes are played. The same settings must hold for two policies that are compared."""

    old_keys: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("top_p", "top_k", "min_p"), "is for evaluation only: a setting of EvalRolloutConfig"
    )

    context: str = "full"
    """`full` (append-only) or `window(k)` (each step its own prompt, with the last k steps)."""
    thinking: bool = False
    """Whether the policy is asked to think before it acts."""
    admissible: bool = False
    """Whether the prompt lists the admissible actions."""
    temperature: NonNegativeFloat = 0.4
    """Sampling temperature; 0 takes the likeliest token."""
    max_new_tokens: NonNegativeInt = 0
    """Tokens a reply may have; 0 is by model: 32 for the shipped one and 512 for others, with thinking 160 and 2048.
    Two policies that are compared get the larger of theirs."""
    horizon: int | None = None
    """Steps after which an episode is cut off; the level's own when null."""
    reward: Literal["sparse", "dense", "shaped"] = "sparse"
    """`sparse`, 1 on success; `dense`, the domain's own signal of progress; or `shaped`, sparse and, for each step, by
    how much it came nearer to success (see `gentax.wrappers.Shaping`; only some domains know the distance)."""
    wrap: tuple[str, ...] = ()
    """Wrappers, the first innermost, such as `distract(volume=80, probability=0.5)`, `rename` or `menu`."""
    action_format: ActionFormat = _later("tags")
    """How a reply says its action: `tags` (`<action>…</action>`), `json` (`{"action": "…"}`), or `tool_calls` (the
    model's own notation, through its chat template)."""
    system_prompt: str = _later("")
    """A system prompt; before the first message where the chat template knows none."""
    prompt_template: str = _later("")
    """A Jinja file that writes the prompt in place of the built-in one (see docs/explanation/prompts.md)."""

    def __post_init__(self) -> None:
        self.window()
        if self.horizon is not None and self.horizon < 1:
            raise UsageError(f"the horizon must be at least 1 step, not {self.horizon}")
        for description in self.wrap:
            parse_wrapper(description)
        self.sampling  # noqa: B018  refuses what cannot be sampled with
        if self.prompt_template:
            load_template(self.prompt_template)

    def window(self) -> int | None:
        """Return k of `window(k)`, or None for `full`."""
        if self.context == "full":
            return None
        match = re.fullmatch(r"window\((\d+)\)", self.context)
        if match is None:
            raise UsageError(f"unknown context {self.context!r}; it is 'full' or 'window(k)', for example 'window(2)'")
        return int(match.group(1))

    @property
    def sampling(self) -> SamplingParams:
        return SamplingParams(
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens or (MAX_NEW_TOKENS_THINKING if self.thinking else MAX_NEW_TOKENS),
        )

    @property
    def chat(self) -> ChatOptions:
        return ChatOptions(self.thinking, self.system_prompt, self.action_format)


@settings
class EvalRolloutConfig(RolloutConfig):
    """How episodes are played that nothing is trained on: unlikely tokens can be left out."""

    top_p: float = _later(1.0)
    """Nucleus sampling: the likeliest tokens that hold this much probability; 1 is off."""
    top_k: int = _later(0)
    """The k likeliest tokens only; 0 is off."""
    min_p: float = _later(0.0)
    """Tokens at least this likely relative to the likeliest only; 0 is off."""

    @property
    def sampling(self) -> SamplingParams:
        return replace(super().sampling, top_p=self.top_p, top_k=self.top_k, min_p=self.min_p)


def with_token_budget(config: RolloutConfig, *policies: object) -> RolloutConfig:
    """Return the config with `max_new_tokens` settled: the largest default of the policies.

    Policies that are compared must have the same budget. It stays 0 where no policy has a default, as with scripted
    ones.
    """
    if config.max_new_tokens:
        return config
    defaults = [p.default_max_new_tokens(config.chat) for p in policies if hasattr(p, "default_max_new_tokens")]
    return replace(config, max_new_tokens=max(defaults)) if defaults else config


def build_message(
    config: RolloutConfig,
    rules: str,
    goal: str,
    steps: Sequence[Step],
    observation: str,
    admissible: Sequence[str] | None,
) -> tuple[str, bool]:
    """Return the user message of this step, and whether it continues the conversation."""
    k = config.window()
    now = observation if admissible is None else f"{observation}\n{_listed(admissible)}"
    if k is None and steps:
        return now, True
    instructions = format_instructions(config.action_format, config.thinking)
    recent = steps[max(0, len(steps) - k) :] if k else ()
    if config.prompt_template:
        fields = {
            "rules": rules,
            "goal": goal,
            "history": [{"observation": step.observation, "action": step.action} for step in recent],
            "observation": observation,
            "admissible": None if admissible is None else list(admissible),
            "step": len(steps) + 1,
            "format": instructions,
            "thinking": config.thinking,
        }
        return _render(load_template(config.prompt_template), fields), False
    head = f"{rules}\n{instructions}\nGoal: {goal}\n"
    if not steps or k is None:
        return head + now, False
    past = "".join(f"{step.observation}\n> {step.action}\n" for step in recent)
    return f"{head}Step {len(steps) + 1}\n{past}{now}", False


def _listed(admissible: Sequence[str]) -> str:
    shown = " | ".join(admissible[:ADMISSIBLE_SHOWN])
    rest = len(admissible) - ADMISSIBLE_SHOWN
    return f"Possible: {shown}" + (f" | and {rest} more" if rest > 0 else "")


def episode_prompts(config: RolloutConfig, episode: Episode) -> list[str]:
    """Return the whole text before the policy at each step of an episode, its own replies included."""
    shown: list[str] = []
    for n, step in enumerate(episode.steps):
        admissible = step.admissible if config.admissible else None
        text, continues = build_message(
            config, episode.rules, episode.goal, episode.steps[:n], step.observation, admissible
        )
        shown.append(f"{shown[-1]}{episode.steps[n - 1].text}\n{text}\n" if continues else f"{text}\n")
    return shown


TEMPLATE_FIELDS = ("rules", "goal", "history", "observation", "admissible", "step", "format", "thinking")
_EXAMPLE_OBSERVATION = "what-is-seen-now"
_EXAMPLES: tuple[dict[str, Any], ...] = (
    {"history": [], "admissible": None, "step": 1},
    {"history": [{"observation": "before", "action": "done"}], "admissible": ["left", "right"], "step": 2},
)


def load_template(file: str) -> SandboxedTemplate:
    """Return a prompt template after rendering it for two example steps; a file that changed is read anew.

    Raises:
        UsageError: no such file, a template that does not compile or render, reads an unknown field, or does not show
            the observation.
    """
    return _load_template(file, template_text(file))


def template_text(file: str) -> str:
    """Return the text of a template. Raises UsageError for a file that is missing or no text."""
    try:
        return Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no prompt template {file}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"the prompt template {file} cannot be read: {error}") from None


@lru_cache(maxsize=8)
def _load_template(file: str, text: str) -> SandboxedTemplate:
    template = SandboxedTemplate(text, f"the prompt template {file}", TEMPLATE_FIELDS)
    for example in _EXAMPLES:
        fields = {"rules": "", "goal": "", "format": "", "observation": _EXAMPLE_OBSERVATION, "thinking": False}
        if _EXAMPLE_OBSERVATION not in _render(template, fields | example):
            raise UsageError(f"the prompt template {file} does not show the observation; write {{{{ observation }}}}")
    return template


def _render(template: SandboxedTemplate, fields: Mapping[str, Any]) -> str:
    try:
        return template.render(fields)
    except TemplateRenderError as error:
        raise UsageError(f"{template.what} fails: {error}") from None
