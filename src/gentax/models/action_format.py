"""Action formats: how a reply states its action, written and parsed only here.

- `tags`: `<think>…</think><action>…</action>`, or the action alone;
- `json`: one JSON object, `{"thought": "…", "action": "…"}`, or the action alone;
- `tool_calls`: a call of the tool `act`, in the notation of the model's family.

`<think>…</think>` is parsed as the thought in every format. Replies may be any string; nothing here raises.

Chat templates say how a family declares tools and writes calls, but not how a call is parsed, so each family has a
parser here; the family is detected from the chat template. A call of another tool, or without an action, is no action.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, NamedTuple

THINK, THINK_END, ACTION, ACTION_END = "<think>", "</think>", "<action>", "</action>"
MAX_JSON_OBJECTS = 256  # opening braces tried; a reply may be nothing but braces
_ACTION = re.compile(re.escape(ACTION) + r"(.*?)" + re.escape(ACTION_END), re.DOTALL)
_THOUGHT = re.compile(re.escape(THINK) + r"(.*?)" + re.escape(THINK_END), re.DOTALL)


class ParsedReply(NamedTuple):
    """A parsed reply. `action` is "" when there is none."""

    action: str
    thought: str


def write_reply(action: str, thought: str | None = None, action_format: str = "tags") -> str:
    """Format a reply; without a thought when `thought` is None.

    A tool call takes the notation of Hermes and Qwen here; `ChatCodec.format_reply` uses the model's own.
    """
    if action_format == "json":
        return json.dumps({"action": action} if thought is None else {"thought": thought, "action": action})
    if action_format == "tool_calls":
        thoughts = "" if thought is None else f"{THINK}{thought}{THINK_END}"
        return thoughts + TOOL_CALL_FORMATS["hermes"].write(action)
    return f"{'' if thought is None else THINK + thought + THINK_END}{ACTION}{action}{ACTION_END}"


def parse_reply(text: str, action_format: str = "tags") -> ParsedReply:
    """Parse the last action and the first thought of `text`."""
    if action_format == "json":
        return parse_json(text)
    if action_format == "tool_calls":
        return parse_any_tool_call(text)
    actions = _ACTION.findall(text)
    thought = _THOUGHT.search(text)
    return ParsedReply(actions[-1].strip() if actions else "", thought.group(1).strip() if thought else "")


def format_instructions(action_format: str, thinking: bool) -> str:
    """Return the line of a prompt that says how to answer."""
    if action_format == "tool_calls":
        return f"{'Think, then answer' if thinking else 'Answer'} by calling the tool act with your action"
    ask = write_reply("your action", "your thoughts" if thinking else None, action_format)
    return f"Answer {'with one JSON object: ' if action_format == 'json' else ''}{ask}"


def split_thought(text: str) -> tuple[str, str]:
    """Return the first thought, and the text after the last one; the prompt may have opened the thought.

    >>> split_thought("<think>left is free</think> left"), split_thought("left is free</think>left")
    (('left is free', ' left'), ('left is free', 'left'))
    """
    before, end, _ = text.partition(THINK_END)
    if not end:
        return "", text
    match = _THOUGHT.search(text)
    thought = before if THINK not in before or match is None else match.group(1)
    return thought.strip(), text.rpartition(THINK_END)[2]


def in_open_thought(text: str, opened: bool) -> bool:
    """Return whether a reply is still in its thought, which its prompt may have `opened`."""
    return THINK_END not in text and (opened or text.lstrip().startswith(THINK))


def parse_json(text: str) -> ParsedReply:
    """Parse the last JSON object with an action: bare, in a code fence or surrounded by text."""
    thought, rest = split_thought(text)
    for obj in reversed(list(iter_json_objects(rest))):
        action = obj.get("action")
        if isinstance(action, (str, int, float)) and not isinstance(action, bool):
            own = obj.get("thought")
            return ParsedReply(_clean(str(action)), _clean(own) if isinstance(own, str) and own.strip() else thought)
    return ParsedReply("", thought)


def iter_json_objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the outermost JSON objects in `text`."""
    decoder = json.JSONDecoder(strict=False)  # models break lines within strings
    at = tried = 0
    while (at := text.find("{", at)) >= 0 and tried < MAX_JSON_OBJECTS:
        tried += 1
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        if isinstance(value, dict):
            yield value


def _clean(text: str) -> str:
    """Replace the lone surrogates that JSON can spell."""
    return text.encode("utf-8", "replace").decode("utf-8").strip()


TOOL_NAME, TOOL_ARGUMENT = "act", "action"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": TOOL_NAME,
        "description": "Do one action in the environment.",
        "parameters": {
            "type": "object",
            "properties": {TOOL_ARGUMENT: {"type": "string", "description": "The action, as the rules say it."}},
            "required": [TOOL_ARGUMENT],
        },
    },
}
Reader = Callable[[str], Iterator[str | None]]  # yields the action of each call in a text, None for another tool's
CALL_ID = "call00000"  # Mistral's templates want nine letters and digits
MAX_TOOL_CALLS = 64  # parsed in one reply; the last one counts


@dataclass(frozen=True)
class ToolCallFormat:
    """A model family's notation of tool calls."""

    marks: tuple[str, ...]  # a chat template with one of them uses this format
    read: Reader
    form: str  # how a call is written where the template does not show it; %s is the action
    end: str = ""  # what closes a call; a reply ends there
    quoted: bool = True  # the action is a JSON string in `form`

    def write(self, action: str) -> str:
        """Format a call."""
        return self.form % (json.dumps(action, ensure_ascii=False) if self.quoted else action)


def action_of_call(value: Any) -> str | None:
    """Return the action of a call in JSON values: {"name": …, "arguments": …}, or OpenAI's {"function": …}."""
    if not isinstance(value, dict):
        return None
    value = value.get("function") if isinstance(value.get("function"), dict) else value
    if value.get("name", TOOL_NAME) not in (TOOL_NAME, f"functions.{TOOL_NAME}"):
        return None
    return action_of_arguments(next((value[key] for key in ("arguments", "parameters", "args") if key in value), None))


def action_of_arguments(arguments: Any) -> str | None:
    """Return the action in a call's arguments: a mapping, or its JSON text."""
    if isinstance(arguments, str):
        arguments = next(iter_json_objects(arguments), None)
    action = arguments.get(TOOL_ARGUMENT) if isinstance(arguments, dict) else None
    if not isinstance(action, (str, int, float)) or isinstance(action, bool):
        return None
    return _clean(str(action))


def _json_calls(text: str) -> Iterator[str | None]:
    return map(action_of_call, iter_json_objects(text))


def _hermes(text: str) -> Iterator[str | None]:
    return (action_of_call(next(iter_json_objects(call), None)) for call in text.split("<tool_call>")[1:])


_PARAMETER = re.compile(
    rf"<function={TOOL_NAME}>.{{0,200}}?<parameter={TOOL_ARGUMENT}>(.*?)(?:</parameter>|</function>|</tool_call>|$)",
    re.DOTALL,
)
_GLM = re.compile(
    rf"<tool_call>\s*{TOOL_NAME}\s*<arg_key>{TOOL_ARGUMENT}</arg_key>\s*<arg_value>(.*?)(?:</arg_value>|$)", re.DOTALL
)
_HARMONY = re.compile(rf"to=functions\.{TOOL_NAME}\b[^{{]{{0,200}}<\|message\|>")
_ARGS = re.compile(rf"\[TOOL_CALLS\]\s*{TOOL_NAME}\s*(?:\[CALL_ID\][^\[]{{0,64}})?\[ARGS\]")
_DEEPSEEK = re.compile(rf"<｜tool▁sep｜>{TOOL_NAME}\b")
_GEMMA = re.compile(rf"call:{TOOL_NAME}\{{.{{0,200}}?{TOOL_ARGUMENT}:<\|\"\|>(.*?)<\|\"\|>", re.DOTALL)
_CALL = re.compile(r"<tool_call>|\[TOOL_CALLS\]|to=functions|```|\{|<\||<｜")  # where a call may start
_PYTHONIC = re.compile(rf"\b{TOOL_NAME}\(")


def _matches(pattern: re.Pattern[str]) -> Reader:
    """Return a reader of what a pattern captures."""
    return lambda text: (match.group(1).strip() for match in pattern.finditer(text))


def _json_after(pattern: re.Pattern[str]) -> Reader:
    """Return a reader of the JSON arguments after each match."""
    return lambda text: (
        action_of_arguments(next(iter_json_objects(text[match.end() :]), None)) for match in pattern.finditer(text)
    )


def _mistral(text: str) -> Iterator[str | None]:
    return chain(_json_after(_ARGS)(text), _json_calls(text.partition("[TOOL_CALLS]")[2]))


def _llama(text: str) -> Iterator[str | None]:
    return chain(_json_calls(text), _pythonic(text))


def _pythonic(text: str) -> Iterator[str | None]:
    """Parse `act(action="left")`: Llama 4, LFM2 and the fenced calls of Gemma."""
    return (_keyword(text[match.start() :]) for match in _PYTHONIC.finditer(text))


def _keyword(text: str) -> str | None:
    """Return the action of the Python call that `text` starts with; it is parsed, not run."""
    for end in (match.end() for match in re.finditer(r"\)", text[:4096])):
        try:
            call = ast.parse(text[:end], mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        values = [keyword.value for keyword in call.keywords if keyword.arg == TOOL_ARGUMENT] + call.args  # type: ignore[attr-defined]
        return action_of_arguments({TOOL_ARGUMENT: getattr(values[0], "value", None)}) if values else None
    return None


_HERMES_FORM = f'<tool_call>\n{{"name": "{TOOL_NAME}", "arguments": {{"{TOOL_ARGUMENT}": %s}}}}\n</tool_call>'
# The first whose marker a chat template contains; formats with unique markers come before those that share one.
TOOL_CALL_FORMATS = {
    "harmony": ToolCallFormat(
        ("<|channel|>",),
        _json_after(_HARMONY),
        f'<|channel|>commentary to=functions.{TOOL_NAME} <|constrain|>json<|message|>{{"{TOOL_ARGUMENT}": %s}}<|call|>',
        "<|call|>",
    ),
    "gemma4": ToolCallFormat(
        ("<|tool_call>",),
        _matches(_GEMMA),
        f'<|tool_call>call:{TOOL_NAME}{{{TOOL_ARGUMENT}:<|"|>%s<|"|>}}<tool_call|>',
        "<tool_call|>",
        quoted=False,
    ),
    "deepseek": ToolCallFormat(
        ("<｜tool▁call▁begin｜>",),
        _json_after(_DEEPSEEK),
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>{TOOL_NAME}\n```json\n"
        f'{{"{TOOL_ARGUMENT}": %s}}\n'
        "```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<｜tool▁calls▁end｜>",
    ),
    "qwen_xml": ToolCallFormat(
        ("<function=",),
        _matches(_PARAMETER),
        f"<tool_call>\n<function={TOOL_NAME}>\n<parameter={TOOL_ARGUMENT}>\n%s\n</parameter>\n</function>\n</tool_call>",
        "</tool_call>",
        quoted=False,
    ),
    "glm": ToolCallFormat(
        ("<arg_key>",),
        _matches(_GLM),
        f"<tool_call>{TOOL_NAME}\n<arg_key>{TOOL_ARGUMENT}</arg_key>\n<arg_value>%s</arg_value>\n</tool_call>",
        "</tool_call>",
        quoted=False,
    ),
    "mistral": ToolCallFormat(
        ("[TOOL_CALLS]",),
        _mistral,
        f'[TOOL_CALLS] [{{"name": "{TOOL_NAME}", "arguments": {{"{TOOL_ARGUMENT}": %s}}}}]',
        "}]",
    ),
    "hermes": ToolCallFormat(("<tool_call>",), _hermes, _HERMES_FORM, "</tool_call>"),
    "llama": ToolCallFormat(
        ("<|python_tag|>", '"parameters": '),
        _llama,
        f'{{"name": "{TOOL_NAME}", "parameters": {{"{TOOL_ARGUMENT}": %s}}}}',
        "}}",
    ),
    "pythonic": ToolCallFormat(
        ("tool_code", "<|tool_call_start|>", "tool_list_start"), _pythonic, f"[{TOOL_NAME}({TOOL_ARGUMENT}=%s)]", ")]"
    ),
}


def detect_tool_call_format(template: str) -> ToolCallFormat:
    """Return the format that a chat template shows; that of Hermes, which most others copy, where it shows none."""
    for family in TOOL_CALL_FORMATS.values():
        if any(mark in template for mark in family.marks):
            return family
    return TOOL_CALL_FORMATS["hermes"]


def parse_tool_calls(text: str, family: ToolCallFormat) -> ParsedReply:
    """Parse the last call of a reply and its thought: a marked one, else the words before the call."""
    thought, rest = split_thought(text)
    for read in (family.read, _json_calls):  # many models omit the markers and write plain JSON
        actions = [action for action in islice(read(rest), MAX_TOOL_CALLS) if action]
        if actions:
            break
    if not thought and actions:
        thought = _CALL.split(rest, maxsplit=1)[0].replace(THINK, "").strip()
    return ParsedReply(actions[-1] if actions else "", thought)


def parse_any_tool_call(text: str) -> ParsedReply:
    """Parse a reply of a model whose family is not known, by trying each parser."""
    for family in TOOL_CALL_FORMATS.values():
        if (reply := parse_tool_calls(text, family)).action:
            return reply
    return ParsedReply("", split_thought(text)[0])
