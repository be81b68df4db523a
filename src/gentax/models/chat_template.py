"""Read a chat template: what it writes around the messages of a conversation that only grows.

A template is rendered once, when a model is loaded, for a few conversations of placeholder messages; the text between
the placeholders is all that is needed later. A template that loops, fails or writes too much is thus found at loading,
and what it does with particular texts (Qwen's looks for thoughts) never matters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gentax.core import UsageError
from gentax.models.action_format import (
    CALL_ID,
    THINK,
    TOOL,
    TOOL_ARGUMENT,
    TOOL_NAME,
    ToolCallFormat,
    detect_tool_call_format,
)
from gentax.models.jinja_sandbox import SandboxedTemplate, TemplateRenderError
from gentax.models.options import ChatOptions

_LEFT, _RIGHT = " \n", "\n "  # around a placeholder, to detect whether its text is trimmed
_ASSISTANT = "qzAnswerzq"


@dataclass(frozen=True)
class Placeholder:
    """The place of a message in a template's output, and what the template does to its text."""

    trims_left: bool = False
    trims_right: bool = False
    as_json: bool = False  # the text stands within a JSON string

    def fill(self, text: str) -> str:
        """Return a message's text as the template writes it."""
        if self.trims_left:
            text = text.lstrip()
        if self.trims_right:
            text = text.rstrip()
        return json.dumps(text, ensure_ascii=False)[1:-1] if self.as_json else text


@dataclass(frozen=True)
class TemplatePart:
    """What a template writes around some messages: a literal before each, and one after the last."""

    literals: tuple[str, ...]
    holes: tuple[Placeholder, ...]


@dataclass(frozen=True)
class ChatLayout:
    """A chat template in parts."""

    opening: TemplatePart  # the system prompt, if it is a message of its own, and the first message
    following: TemplatePart  # from the end of an answer to where the next one begins
    after_call: TemplatePart | None = None  # the same where the message is a tool call's result; None: as any message
    system_in_message: bool = False  # the system prompt stands before the first message, in the same turn
    lead: str = ""  # written by the model before its answer, such as a space or gpt-oss's channel
    opens_thought: bool = False  # a prompt ends with <think>
    family: ToolCallFormat | None = None  # how tools are called; None where no tool is offered
    call: TemplatePart | None = None  # how the template writes a call; None: as the family does


def plain_layout(system: bool) -> ChatLayout:
    """Return the layout for models without a chat template: a line break after each message and answer."""
    opening = (
        TemplatePart(("", "\n\n", "\n"), (Placeholder(), Placeholder()))
        if system
        else TemplatePart(("", "\n"), (Placeholder(),))
    )
    return ChatLayout(opening, TemplatePart(("\n", "\n"), (Placeholder(),)))


@lru_cache(maxsize=64)
def read_chat_template(
    source: str, special_tokens: tuple[tuple[str, str], ...], options: ChatOptions, name: str
) -> ChatLayout:
    """Return what a chat template writes around messages.

    Args:
        source: the template.
        special_tokens: by name, as templates know them: `bos_token` and so on.
        options: thinking (passed as `enable_thinking` and `thinking`), system prompt, action format.
        name: of the model, for errors.

    Raises:
        UsageError: a template that does not compile, is too large or slow, does not write its messages, or has no tools
            where they are needed.
    """
    what = f"the chat template of {name}"
    with SandboxedTemplate(source, what) as template:
        return _Reader(template, dict(special_tokens), options, what).layout()


class _MessageOmitted(UsageError):
    """A template that omits a message."""


class _Reader:
    def __init__(
        self, template: SandboxedTemplate, special_tokens: Mapping[str, str], options: ChatOptions, what: str
    ) -> None:
        self.template, self.options, self.what = template, options, what
        self.in_parts = False  # whether messages are lists of parts, as templates of models with images want them
        self.variables: dict[str, Any] = {
            **special_tokens,
            "enable_thinking": options.thinking,
            "thinking": options.thinking,
        }
        if options.action_format == "tool_calls":
            self.variables["tools"] = [TOOL]

    def layout(self) -> ChatLayout:
        try:
            return self._layout()
        except _MessageOmitted:
            self.in_parts = True
            return self._layout()

    def _layout(self) -> ChatLayout:
        prompt = self._strict([_user("First")], True)
        opening, in_message = self._opening(prompt)
        with_answer = self._strict([_user("First"), _answer()], False)
        whole = self._strict([_user("First"), _answer(), _user("Next")], True)
        _, answered, rest = whole.partition(_ASSISTANT)
        if not answered or _ASSISTANT in rest:
            raise _MessageOmitted(f"{self.what} does not print the answers it is given")
        following = self._frame(rest, "Next")
        head = whole.partition(_ASSISTANT)[0]
        lead = head.removeprefix(prompt) if head.startswith(prompt) else ""
        thought = prompt.rstrip().endswith(THINK)
        if "tools" not in self.variables:
            return ChatLayout(opening, following, None, in_message, lead, thought)
        if TOOL_NAME not in prompt or TOOL_NAME in self._strict([_user("First")], True, tools=None):
            raise UsageError(f"{self.what} offers no tools to the model; say --action-format tags or json")
        family = detect_tool_call_format(self.template.source)
        call, after_call = self._call(prompt, with_answer.partition(_ASSISTANT)[2], family.end)
        return ChatLayout(opening, following, after_call, in_message, lead, thought, family, call)

    def _opening(self, prompt: str) -> tuple[TemplatePart, bool]:
        """Return the part of the first prompt, and whether the system prompt stands in the first message."""
        if not self.options.system_prompt:
            return self._frame(prompt, "First"), False
        system = {"role": "system", "content": _mark("System")}
        try:
            return self._frame(self._render([system, _user("First")], True), "System", "First"), False
        except (TemplateRenderError, UsageError):  # it knows no system prompt, or drops it
            frame = self._frame(prompt, "First")
            (hole,) = frame.holes
            (before, after), right = frame.literals, Placeholder(False, hole.trims_right, hole.as_json)
            between = json.dumps("\n\n")[1:-1] if hole.as_json else "\n\n"
            return TemplatePart(
                (before, between, after), (Placeholder(hole.trims_left, False, hole.as_json), right)
            ), True

    def _call(self, prompt: str, end: str, closing: str) -> tuple[TemplatePart | None, TemplatePart | None]:
        """Return how a call is written, and what stands around its result; None for what the template does not show.

        Args:
            prompt: a prompt, up to where the model answers.
            end: the text after an answer that is the last message.
            closing: the marker that ends a call, where a reply ends.
        """
        for arguments in ({TOOL_ARGUMENT: _mark("Action", "")}, json.dumps({TOOL_ARGUMENT: _mark("Action", "")})):
            # some write arguments as JSON themselves, others want them as text
            call = {"id": CALL_ID, "type": "function", "function": {"name": TOOL_NAME, "arguments": arguments}}
            reply = {"role": "assistant", "content": "", "tool_calls": [call]}
            result = {"role": "tool", "name": TOOL_NAME, "tool_call_id": CALL_ID, "content": _mark("Result")}
            try:
                history = self._render([_user("First")], False)
                alone = self._render([_user("First"), reply], False)
                conversation = self._render([_user("First"), reply, result], True)
                written = self._frame(alone, "Action")
                after = self._frame(conversation, "Action", "Result")
            except (TemplateRenderError, UsageError):
                continue
            header, behind = written.literals
            before = _behind_header(header, history, prompt)
            rest = behind.removesuffix(end) if end and behind.endswith(end) else behind
            if before is None or not after.literals[1].startswith(rest):
                continue
            if closing in rest:
                rest = rest[: rest.index(closing) + len(closing)]
            around = after.literals[1].removeprefix(rest), after.literals[2]
            return TemplatePart((before, rest), written.holes), TemplatePart(around, after.holes[1:])
        return None, None

    def _strict(self, messages: Sequence[Mapping[str, Any]], generation: bool, **changed: Any) -> str:
        try:
            return self._render(messages, generation, **changed)
        except TemplateRenderError as error:
            raise UsageError(f"{self.what} cannot write a conversation: {error}") from None

    def _render(self, messages: Sequence[Mapping[str, Any]], generation: bool, **changed: Any) -> str:
        if self.in_parts:
            messages = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]
        variables = {**self.variables, **changed, "messages": list(messages), "add_generation_prompt": generation}
        return self.template.render({key: value for key, value in variables.items() if value is not None})

    def _frame(self, text: str, *marks: str) -> TemplatePart:
        """Split a text at its placeholders, each of which must occur once, in order."""
        literals, holes = [], []
        for mark in marks:
            match = re.search(rf"qz{mark}a(.{{1,2}})qz{mark}z", text)
            if match is None or match.group(1) not in ('"', '\\"') or f"qz{mark}a" in text[match.end() :]:
                raise _MessageOmitted(f"{self.what} does not print the messages it is given")
            as_json = match.group(1) != '"'
            left, right = (json.dumps(pad)[1:-1] if as_json else pad for pad in (_LEFT, _RIGHT))
            before, text = text[: match.start()], text[match.end() :]
            trims_left = not before.endswith(left)
            trims_right = not text.startswith(right)
            literals.append(before if trims_left else before.removesuffix(left))
            text = text if trims_right else text.removeprefix(right)
            holes.append(Placeholder(trims_left, trims_right, as_json))
        return TemplatePart((*literals, text), tuple(holes))


def _behind_header(before: str, history: str, prompt: str) -> str | None:
    """Return the text before a call in the model's own turn, after the header that a prompt ends with."""
    if not before.startswith(history):
        return None
    header, written = prompt.removeprefix(history), before.removeprefix(history)
    same = next((n for n, (a, b) in enumerate(zip(header, written, strict=False)) if a != b), None)
    if same is None:
        same = min(len(header), len(written))
    elif same < len(header):  # the prompt says more, such as an empty thought: the call begins where they part
        same = max((header.rfind(mark, 0, same) + 1 for mark in ("\n", ">", "]")), default=0)
    return written[same:]


def _mark(name: str, pad: str | None = None) -> str:
    left, right = (_LEFT, _RIGHT) if pad is None else (pad, pad)
    return f'{left}qz{name}a"qz{name}z{right}'


def _user(name: str) -> dict[str, str]:
    return {"role": "user", "content": _mark(name)}


def _answer() -> dict[str, str]:
    return {"role": "assistant", "content": _ASSISTANT}
