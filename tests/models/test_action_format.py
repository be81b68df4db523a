"""Replies may be anything: what is read out of them, in each format."""

from __future__ import annotations

import pytest

from gentax.models.action_format import (
    TOOL_CALL_FORMATS,
    ParsedReply,
    detect_tool_call_format,
    format_instructions,
    parse_reply,
    parse_tool_calls,
    write_reply,
)


@pytest.mark.parametrize("how", ["tags", "json", "tool_calls"])
@pytest.mark.parametrize("thought", [None, "it is free"])
def test_a_formatted_reply_is_parsed_to_the_same_action(how, thought):
    for action in ("go left", 'say "hi"', "émigré 🙂", "{x}"):
        assert parse_reply(write_reply(action, thought, how), how) == ParsedReply(action, thought or "")


@pytest.mark.parametrize(
    ("text", "action", "thought"),
    [
        ('```json\n{"thought": "a {b}", "action": "left"}\n```', "left", "a {b}"),
        ('Sure: {"action": "a"}, or rather {"action": "b"}.', "b", ""),
        ('<think>{"action": "no"}</think>\n{"action": "yes"}', "yes", '{"action": "no"}'),
        ('open thought</think>{"action": "yes"}', "yes", "open thought"),
        ('{"thought": "two\nlines", "action": "go\\ud800"}', "go?", "two\nlines"),
        ('{"action": 3}', "3", ""),
        ('{"action": {"a": 1}}', "", ""),
        ('{"action": "cut', "", ""),
        ("{" * 100_000, "", ""),
        ('{"a":' * 50_000, "", ""),
        ("", "", ""),
    ],
)
def test_json_is_found_anywhere_in_a_reply(text, action, thought):
    assert parse_reply(text, "json") == (action, thought)


@pytest.mark.parametrize("name", TOOL_CALL_FORMATS)
def test_tool_calls_of_every_family_are_parsed_and_other_tools_ignored(name):
    family = TOOL_CALL_FORMATS[name]
    call = family.write('open "door"')
    assert parse_tool_calls(f"I open it.\n{call}", family).action == 'open "door"'
    assert parse_reply(call, "tool_calls").action == 'open "door"'
    assert parse_tool_calls(f"{call}\n{family.write('go on')}", family).action == "go on"
    assert not parse_tool_calls(call.replace("act", "rm"), family).action
    for n in range(len(call) // 2):
        assert parse_tool_calls(call[:n], family).action == ""
    for nasty in ("\x00" + call * 300, "act(" * 3000, "<tool_call>" * 3000, "[TOOL_CALLS]" * 3000 + "{" * 3000):
        parse_tool_calls(nasty, family)


def test_tool_calls_are_parsed_and_not_evaluated():
    family = TOOL_CALL_FORMATS["pythonic"]
    assert parse_tool_calls("act(action=__import__('os').getcwd())", family).action == ""
    assert parse_tool_calls("```tool_code\nact('go')\n```", family).action == "go"


def test_the_tool_call_family_is_detected_from_the_template():
    marks = {"<tool_call>": "hermes", "<function=": "qwen_xml", "[TOOL_CALLS]": "mistral", "x": "hermes"}
    for mark, name in marks.items():
        assert detect_tool_call_format(f"… {mark} …") is TOOL_CALL_FORMATS[name]


def test_each_format_has_its_instructions():
    assert format_instructions("tags", True) == "Answer <think>your thoughts</think><action>your action</action>"
    assert format_instructions("json", False) == 'Answer with one JSON object: {"action": "your action"}'
    assert "tool act" in format_instructions("tool_calls", False)


def test_parsing_of_the_shipped_model_s_replies_is_unchanged():
    text = "Page.<think>I search.</think><action>search[a.\n<think>It is blue.</think><action>click[green]</action>"
    assert parse_reply(text).action == "search[a.\n<think>It is blue.</think><action>click[green]"
    assert parse_reply("left</think><action>up</action>") == ("up", "")
