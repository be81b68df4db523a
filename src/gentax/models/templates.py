"""Jinja templates of other people: rendered within limits; and what a chat template writes around messages.

A thread cannot be stopped, and Jinja's sandbox bounds neither time nor memory: two nested loops or `'a' * 10 ** 10`
would hang a run or fill the machine. Each template therefore has a small process (`jinja_worker.py`), which stops
itself after two seconds of CPU time or a gigabyte, and is killed if it does not.

A chat template is rendered once, when a model is loaded, for a few conversations of placeholder messages; the text
between the placeholders is all that is needed later. A template that loops, fails or writes too much is thus found at
loading, and what it does with particular texts (Qwen's looks for thoughts) never matters.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from gentax.core import UsageError, unknown
from gentax.models.action_format import (
    CALL_ID,
    THINK,
    TOOL,
    TOOL_ARGUMENT,
    TOOL_NAME,
    ToolCallFormat,
    detect_tool_call_format,
)
from gentax.models.options import ChatOptions

MAX_TEMPLATE_CHARS = 1 << 18  # models' own templates have up to some 30,000
TIMEOUT_S = 60.0  # wall-clock seconds, generous for a busy machine
WORKER = Path(__file__).with_name("jinja_worker.py")


class TemplateRenderError(Exception):
    """A compiled template that cannot render these variables. `str(error)` says why, on one line."""


class SandboxedTemplate:
    """A compiled template. Use it as a context, since it holds a process; the process also ends with the object.

    Args:
        source: the template's text.
        what: its name in errors, such as "the chat template of model".
        fields: the variables it may read; None for any, with missing ones empty.

    Raises:
        UsageError: a template that is too large, does not compile within the limits, or reads an unknown variable.
    """

    def __init__(self, source: str, what: str, fields: Sequence[str] | None = None) -> None:
        if len(source) > MAX_TEMPLATE_CHARS:
            raise UsageError(f"{what} has {len(source):,} characters; at most {MAX_TEMPLATE_CHARS:,} are read")
        self.source, self.what, self.fields = source, what, fields
        self._lock = threading.Lock()
        self._process: Any = None  # a subprocess.Popen[str] while it runs
        self._close = lambda: None
        try:
            unknown_fields = self._start()
        except TemplateRenderError as error:
            self.close()
            raise UsageError(f"{what} is no template that can be used: {error}") from None
        if unknown_fields:
            self.close()
            raise unknown(f"field of {what}", unknown_fields.split("\n")[0], fields or ())

    def render(self, variables: Mapping[str, Any]) -> str:
        """Render the template with these variables, which must be JSON values.

        Raises:
            TemplateRenderError: it raises an error, takes too much time or memory, or writes too much.
        """
        with self._lock:
            if self._process is None:
                self._start()
            return self._request(variables)

    def close(self) -> None:
        """End the process; rendering again starts another."""
        self._close()
        self._process = None

    def __enter__(self) -> SandboxedTemplate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> str:
        # -P: modules beside the worker must not stand in for the standard library's
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        self._close = weakref.finalize(self, _end, self._process)
        return self._request({"source": self.source, "fields": self.fields})

    def _request(self, request: Mapping[str, Any]) -> str:
        process = self._process
        timer = threading.Timer(TIMEOUT_S, process.kill)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            self.close()
            raise TemplateRenderError("it takes too long, or too much memory")
        answer = json.loads(line)
        if "error" in answer:
            raise TemplateRenderError(answer["error"])
        return str(answer["text"])


def _end(process: Any) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # what was still to be written cannot be any more
            pipe.close()
    process.wait()


_LEFT, _RIGHT = " \n", "\n "  # around a placeholder, to detect whether its text is trimmed
_ASSISTANT = "qzAnswerzq"
_ANSWER = {"role": "assistant", "content": _ASSISTANT}


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
    hole = Placeholder()
    opening = TemplatePart(("", "\n\n", "\n"), (hole, hole)) if system else TemplatePart(("", "\n"), (hole,))
    return ChatLayout(opening, TemplatePart(("\n", "\n"), (hole,)))


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
        with_answer = self._strict([_user("First"), _ANSWER], False)
        whole = self._strict([_user("First"), _ANSWER, _user("Next")], True)
        head, answered, rest = whole.partition(_ASSISTANT)
        if not answered or _ASSISTANT in rest:
            raise _MessageOmitted(f"{self.what} does not print the answers it is given")
        following = self._frame(rest, "Next")
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
            (before, after), (hole,) = frame.literals, frame.holes
            between = json.dumps("\n\n")[1:-1] if hole.as_json else "\n\n"
            holes = replace(hole, trims_right=False), replace(hole, trims_left=False)
            return TemplatePart((before, between, after), holes), True

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
    same = len(os.path.commonprefix([header, written]))  # noqa: RUF071  of texts
    if same < min(
        len(header), len(written)
    ):  # the prompt says more, such as an empty thought: the call begins where they part
        same = max((header.rfind(mark, 0, same) + 1 for mark in ("\n", ">", "]")), default=0)
    return written[same:]


def _mark(name: str, pad: str | None = None) -> str:
    left, right = (_LEFT, _RIGHT) if pad is None else (pad, pad)
    return f'{left}qz{name}a"qz{name}z{right}'


def _user(name: str) -> dict[str, str]:
    return {"role": "user", "content": _mark(name)}
