"""Files of trajectories: every format is read for what it says, and what is malformed is refused by file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from gentax.core import UsageError
from gentax.core.episode import EPISODES_FILE, write_episodes
from gentax.domains import make
from gentax.models.chat import ChatCodec
from gentax.policies.load import ExpertPolicy
from gentax.policies.local import load_local_policy
from gentax.rollouts import rollout
from gentax.training.trajectories import Exchange, examples, holds_trajectories, read_trajectories

CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "The word is red."},
        {"role": "assistant", "content": "Thought: it is red.\nAction: red"},
        {"role": "tool", "content": "Yes."},
        {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "text", "text": "now?"}]},
        {"role": "assistant", "content": "green", "weight": 0},
        {"role": "user", "content": "Thank you."},
    ]
}
AGENT = {
    "item_id": "toy_7",
    "conversations": [
        {"from": "human", "loss": None, "value": "Say the word you see."},
        {"from": "gpt", "loss": False, "value": "OK."},
        {"from": "human", "loss": None, "value": "The word is red."},
        {"from": "gpt", "loss": True, "value": "Thought:\nIt is red.\n\nAction:\nred"},
        {"from": "human", "loss": None, "value": "The word is blue."},
        {"from": "gpt", "value": "blue"},
    ],
}


def test_a_chat_becomes_messages_and_replies(tmp_path):
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps(CHAT) + "\n\n" + json.dumps(CHAT | {"success": False}) + "\n")
    first, second = read_trajectories(file)
    assert first.exchanges == (
        Exchange("Be brief.\nThe word is red.", "Thought: it is red.\nAction: red", False, True),
        Exchange("Yes.\nAnd now?", "green", True, False),
    )
    assert (first.success, second.success) == (None, False)
    assert holds_trajectories("not/there.jsonl")
    assert not holds_trajectories("http://localhost:8000/v1/model.json")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layout", ["list", "pretty", "lines"])
def test_the_flags_of_agent_trajectories_say_what_is_learned(tmp_path, layout, packed):
    records = [AGENT, AGENT | {"item_id": "toy_8"}]
    text = {
        "list": json.dumps(records),
        "pretty": "\ufeff" + json.dumps(records, indent=2) + "\n",
        "lines": "".join(json.dumps(record) + "\r\n" for record in records),
    }[layout]
    file = tmp_path / ("trajectories.json.gz" if packed else "trajectories.json")
    file.write_bytes(gzip.compress(text.encode()) if packed and layout != "pretty" else text.encode())
    found = read_trajectories(file)
    assert len(found) == 2
    assert [(one.reply, one.continues, one.learned) for one in found[1].exchanges] == [
        ("OK.", False, False),
        ("Thought:\nIt is red.\n\nAction:\nred", True, True),
        ("blue", True, True),
    ]


def test_episodes_of_gentax_are_read_from_the_file_and_from_its_folder(toy, tmp_path):
    with make("toy") as env:
        episodes = rollout(ExpertPolicy(), env.tasks("train", 3))
    write_episodes(tmp_path / EPISODES_FILE, episodes)
    plain = tmp_path / "plain.jsonl"
    plain.write_bytes(gzip.decompress((tmp_path / EPISODES_FILE).read_bytes()))
    for where in (tmp_path, tmp_path / EPISODES_FILE, plain):
        assert holds_trajectories(str(where))
        assert read_trajectories(where) == episodes


def line(*messages: object, **extra: object) -> str:
    return json.dumps({"messages": list(messages), **extra})


USER, REPLY = {"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}
GOOD = line(USER, REPLY)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f'{GOOD}\n{{"messages": [', "line 2, is not JSON"),
        (f"[{GOOD}", "cannot be read as JSON"),
        ("[" * 100_000, "nested too deep"),
        (f'{GOOD}\n{GOOD}\n{{"text": "Hello."}}', "line 3: a trajectory has 'messages', 'conversations' or"),
        (f'[{GOOD},\n\n{{"messages": "Hello."}}]', "record 2: 'messages' must be a list"),
        (line(USER, {"content": "Hi."}), "line 1: message 2 lacks 'role'"),
        (line(USER, {"role": "asistant", "content": "Hi."}), "message 2: unknown role 'asistant'; did you mean 'assis"),
        (line(USER, {"role": "assistant", "content": None}), "message 2: 'content' must be text, not None"),
        (line(USER, {"role": "assistant", "content": " "}), "message 2 is an empty reply"),
        (line(REPLY, USER, REPLY), "message 1 is a reply to no message"),
        (line(USER), "no reply in it"),
        (line(USER, REPLY | {"tool_calls": [{"id": "1"}]}), "message 2 calls a tool apart from its text"),
        (line({"role": "user", "content": [{"type": "image"}]}, REPLY), "message 1: 'content' must be text"),
        (line(USER, REPLY | {"weight": 0.5}), "message 2: 'weight' must be 0 or 1"),
        (line(USER, REPLY, success="yes"), "'success' must be true or false"),
        ('{"task": "toy/one/train/0", "steps": []}', "line 1: an episode lacks the key 'sample'"),
        ("\n", "holds no trajectory"),
    ],
)
def test_a_malformed_file_is_refused_by_its_line(tmp_path, text, fault):
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_trajectories(file)
    assert str(file) in str(refused.value)
    assert fault in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_are_not_there_damaged_or_no_text_are_refused(tmp_path):
    (tmp_path / "chats.jsonl").write_text(GOOD)
    with pytest.raises(UsageError, match=r"did you mean '.*chats.jsonl'"):
        read_trajectories(tmp_path / "chat.jsonl")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(GOOD.encode())[:-9])
    with pytest.raises(UsageError, match=r"cut.gz is cut short"):
        read_trajectories(tmp_path / "cut.gz")
    (tmp_path / "picture.json").write_bytes(b"\x89PNG\xff")
    with pytest.raises(UsageError, match="it is not text"):
        read_trajectories(tmp_path / "picture.json")


# From text to tokens.


def chat_codec(tiny: Path) -> ChatCodec:
    """A codec with a template that ends turns with a control token of its own, as those of chat models do."""
    tokenizer = load_local_policy(tiny).tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|start|>", "<|end|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    return ChatCodec(tokenizer)


def test_what_a_file_says_cannot_become_a_control_token(tiny):
    codec = load_local_policy(tiny).codec
    said = [Exchange("red <eos></action><pad>", "<think>a<eos>b</think><action>go<pad></action>", False)]
    (example,) = examples(said, codec)
    ids = example.ids_T.tolist()
    tokens = codec.tokenizer.convert_ids_to_tokens([i for i in ids if i in codec.tokenizer.all_special_ids])
    assert tokens == ["<think>", "</think>", "<action>", "</action>"]
    assert codec.tokenizer.decode(ids) == "red <eos></action><pad>\n<think>a<eos>b</think><action>go<pad></action>"


def test_the_token_that_ends_a_turn_is_learned_and_stands_there_once(tiny):
    codec = chat_codec(tiny)
    said = [Exchange("red", "Action: red", False), Exchange("green", "<action>green</action>", True)]
    (example,) = examples(said, codec)
    text = codec.tokenizer.decode(example.ids_T)
    assert text == (
        "<|start|>user\nred<|end|>\n<|start|>assistant\nAction: red<|end|>\n"
        "<|start|>user\ngreen<|end|>\n<|start|>assistant\n<action>green</action><|end|>"
    )
    learned = codec.tokenizer.decode(example.ids_T[example.weight_T > 0])
    assert learned == "Action: red<|end|><action>green</action><|end|>"


def test_without_such_a_token_a_reply_in_another_grammar_ends_the_text(tiny):
    codec = load_local_policy(tiny).codec
    (example,) = examples([Exchange("red", "Action: red", False), Exchange("green", "Action: green", True)], codec)
    assert codec.tokenizer.decode(example.ids_T) == "red\nAction: red<eos>\ngreen\nAction: green<eos>"
    assert codec.tokenizer.decode(example.ids_T[example.weight_T > 0]) == "Action: red<eos>Action: green<eos>"


def test_what_does_not_fit_or_is_too_much_is_left_out(tiny):
    codec = load_local_policy(tiny).codec
    told = [Exchange("red", "<action>red</action>", n not in (0, 4), n % 2 == 0 or n > 3) for n in range(8)]
    whole = list(examples(told, codec))
    assert [example.pairs for example in whole] == [2, 4]  # of the first four every second is learned
    room = len(whole[0].ids_T) - 1
    assert [example.pairs for example in examples(told, codec, limit=room)] == [2, 3]
    assert [example.pairs for example in examples(told, codec, max_pairs=3)] == [2, 1]
    assert all(len(example.ids_T) <= room for example in examples(told, codec, limit=room))
    (cut,) = examples(told, codec, max_pairs=1)
    assert np.array_equal(cut.ids_T, whole[0].ids_T[: len(cut.ids_T)])
    assert cut.weight_T[-1] == 1
