"""A local model in the engine: what it is shown, what is kept, how much it may write, and what does not fit."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "models"))

from tokenizers_made import tokenizer

from gentax.core import Task, UsageError
from gentax.evals.evaluate import Evaluation, evaluate
from gentax.metrics.episode_scores import Truncation
from gentax.models.options import ChatOptions, SamplingParams
from gentax.policies.load import ExpertPolicy
from gentax.policies.local import LocalPolicy, load_local_policy
from gentax.policies.protocol import PolicyRequest, max_parallel_episodes
from gentax.rollouts import RolloutConfig, rollout
from gentax.training.trajectories import examples, exchanges

HERMES = (
    "{% if tools %}<|im_start|>system\n{{ tools[0]|tojson }} <tool_call>{% endif %}{% for m in messages %}"
    "<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}\n"
    "{% if m.role == 'tool' %}<tool_response>{{ m.content }}</tool_response>"
    "{% elif m.tool_calls %}<tool_call>\n{{ m.tool_calls[0].function|tojson }}\n</tool_call>"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tasks(n):
    return [Task("toy", "three", "train", i) for i in range(n)]


def model_of(template, limit=512, **given):
    """A tiny model with a tokenizer of today's kind."""
    from transformers import LlamaConfig, LlamaForCausalLM

    made = tokenizer("byte_level", template, **given)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(made), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=limit, eos_token_id=made.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    return LocalPolicy(LlamaForCausalLM(config).eval(), made, "tiny")


def turn(toy, message, continues=False, new=20, **chat):
    rng = np.random.default_rng(0)
    return PolicyRequest(0, message, continues, toy(), rng, SamplingParams(max_new_tokens=new), ChatOptions(**chat))


def test_the_budget_follows_the_model(tiny):
    ours, other = load_local_policy(tiny), model_of("chatml", limit=4096)
    assert [ours.default_max_new_tokens(ChatOptions(thinking)) for thinking in (False, True)] == [32, 160]
    assert [other.default_max_new_tokens(ChatOptions(thinking)) for thinking in (False, True)] == [512, 1024]
    assert model_of("chatml", limit=1 << 15).default_max_new_tokens(ChatOptions(True)) == 2048


def test_the_budget_is_settled_and_recorded(toy, tiny):
    result = evaluate(load_local_policy(tiny), {"toy": "one"}, tasks=2)
    assert result.config.max_new_tokens == 32
    assert result.to_json()["play"]["max_new_tokens"] == 32
    assert max(step.written for e in result.episodes["toy"] for step in e.steps) <= 32


def test_a_reply_that_used_up_its_budget_is_truncated_and_not_invalid(toy, tiny):
    (episode,) = rollout(load_local_policy(tiny), tasks(1), config=RolloutConfig(temperature=1.0, max_new_tokens=1))
    assert [step.truncated for step in episode.steps] == [True] * 6
    assert (episode.truncated, episode.invalid) == (6, 0)
    lost = Truncation.of([episode])
    assert lost.truncated == 1.0
    assert "--max-new-tokens" in lost.sentences("tiny")[0]
    assert not Truncation.of([dataclasses.replace(episode, steps=())])
    summary = Evaluation("tiny", RolloutConfig(), {"toy": [episode, dataclasses.replace(episode, sample=1)]})
    assert summary.truncation().truncated == 1.0


def test_a_message_that_fits_is_shown_whole_and_the_cut_of_one_that_does_not_is_said(toy):
    policy = model_of("chatml", limit=512)
    text = " ".join(f"w{n}" for n in range(100))
    assert 300 < len(policy.codec.first_prompt(text)) < 480
    (reply,) = policy.reply([turn(toy, text)])
    assert not reply.prompt_cut
    assert text in policy.tokenizer.decode(reply.tokens.prompt)
    with pytest.warns(UserWarning, match="its middle was cut"):
        (reply,) = policy.reply([turn(toy, text * 3)])
    assert reply.prompt_cut
    assert len(reply.tokens.prompt) == 492  # all that there is
    shown = policy.tokenizer.decode(reply.tokens.prompt)
    assert shown.startswith("<|im_start|>user\nw0 w1 ")
    assert shown.endswith("w99<|im_end|>\n<|im_start|>assistant\n")


def test_exchanges_that_do_not_fit_are_dropped_and_counted(toy):
    policy = model_of("chatml", limit=256)
    dropped = []
    for n in range(8):
        (reply,) = policy.reply([turn(toy, f"{n}: " + "the word is red " * 4, continues=n > 0, new=8)])
        dropped.append(reply.dropped)
        assert sum(map(len, policy._conversations[0].ids)) <= 256
    assert sum(dropped) > 0
    assert policy.tokenizer.decode(policy._conversations[0].ids[0]).startswith("<|im_start|>user\n0: ")


def test_a_context_shorter_than_the_prompt_is_refused_in_one_line(toy):
    policy = model_of("chatml", limit=64)
    for new in (63, 100):
        with pytest.raises(UsageError, match="the context of tiny holds 64 tokens, and with") as fault:
            policy.reply([turn(toy, "the word is red " * 9, new=new)])
        assert "\n" not in str(fault.value)


@pytest.mark.parametrize("how", ["tags", "json", "tool_calls"])
@pytest.mark.parametrize("context", ["full", "window(1)"])
def test_an_expert_teaches_in_the_model_s_own_notation(toy, how, context):
    policy = model_of(HERMES, limit=4096, added=("<tool_call>", "</tool_call>"))
    config = RolloutConfig(context=context, action_format=how, thinking=how == "json", max_new_tokens=4)
    for episode in rollout(ExpertPolicy(), tasks(2), config=config):
        codec = policy.codec_for(config.chat)
        (made, *_) = examples(exchanges(episode, config, write=codec.format_reply), codec)
        told = policy.tokenizer.decode(made.ids_T)
        for step in episode.steps[:1]:
            assert codec.format_reply(step.action, step.thought if config.thinking else None) in told
        if how == "tool_calls" and context == "full":
            assert "<tool_response>Yes." in told
            assert policy.tokenizer.convert_tokens_to_ids("<tool_call>") in made.ids_T


def test_a_system_prompt_and_the_tool_reach_the_model(toy):
    policy = model_of(HERMES)
    config = RolloutConfig(system_prompt="Be brief.", action_format="tool_calls", temperature=1.0, max_new_tokens=4)
    (episode,) = rollout(policy, tasks(1), config=config)
    shown = policy.tokenizer.decode(episode.steps[0].tokens.prompt)
    assert shown.count("Be brief.") == 1
    assert '"name": "act"' in shown
    assert "calling the tool act" in shown
    with pytest.raises(UsageError, match="the chat template of tiny offers no tools"):
        rollout(model_of("chatml"), tasks(1), config=config)


def test_the_text_of_a_reply_is_its_tokens(toy, tiny):
    policy = load_local_policy(tiny)
    for episode in rollout(policy, tasks(3), config=RolloutConfig(temperature=1.0, max_new_tokens=8)):
        for step in episode.steps:
            assert step.tokens is not None
            assert step.text == policy.codec.decode(step.tokens.sampled)


@pytest.mark.parametrize("text", ["", "\x00", "\ud800 lone", "🙂 emoji", "ünïcödé", "\r\n\t", "a" * 5000])
def test_any_text_can_be_read(tiny, text):
    codec = load_local_policy(tiny).codec
    assert codec.decode(codec.encode_text(text)) == text.encode("utf-8", "replace").decode()


def test_a_conversation_longer_than_the_model_keeps_its_rules_and_its_latest_turns(toy, tiny):
    policy = load_local_policy(tiny)
    policy.decoder.max_length = 160
    episodes = rollout(policy, tasks(2), config=RolloutConfig(temperature=1.0, max_new_tokens=30))
    head = policy.codec.first_prompt("Say the word you see.")[:6]
    for episode in episodes:
        for sequence in episode.sequences():
            assert len(sequence) <= 160
            assert (sequence.ids_T[:6] == head).all()


def test_the_latest_message_is_kept_when_it_is_the_second_and_long(toy, tiny):
    policy = load_local_policy(tiny)
    policy.decoder.max_length = 200

    def shown(text, continues):
        turn = PolicyRequest(0, text, continues, toy(), np.random.default_rng(0), SamplingParams(max_new_tokens=20))
        (reply,) = policy.reply([turn])
        return policy.tokenizer.decode(reply.tokens.prompt)

    assert "first" in shown("first " + "a" * 70, False)
    assert "the very last" in shown("b" * 100 + " the very last", True)


def test_as_many_play_at_once_as_memory_holds(toy, tiny, monkeypatch):
    policy = load_local_policy(tiny)
    assert max_parallel_episodes(policy, 10**9) == 128  # a context is never longer than the model's
    config = policy.model.config
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    row = token * 100 + 8 * config.vocab_size
    monkeypatch.setattr("gentax.models.device.available_memory", lambda device: 21 * row)
    assert policy.max_parallel(100) == 16  # of 18 that fit into nine tenths
    rollout_config = RolloutConfig(temperature=1.0, max_new_tokens=6)
    rollout(policy, [Task("toy", "three", "train", n) for n in range(16)], config=rollout_config, parallel=16)
    held = policy.decoder.reserved_bytes
    assert held > 0
    monkeypatch.setattr("gentax.models.device.available_memory", lambda device: 21 * row - held)
    assert policy.max_parallel(100) == 16  # the memory of those before is there for those to come
    monkeypatch.setattr("gentax.models.device.available_memory", lambda device: -held)
    assert policy.max_parallel(100) == 1


def test_the_memory_of_playing_is_given_back_where_it_is_much(toy, tiny, monkeypatch):
    policy, tasks = load_local_policy(tiny), [Task("toy", "three", "train", n) for n in range(3)]
    rollout_config = RolloutConfig(temperature=1.0, max_new_tokens=6)

    def said():
        return [[step.text for step in episode.steps] for episode in rollout(policy, tasks, config=rollout_config)]

    before, held = said(), policy.decoder.reserved_bytes
    policy.release_memory()
    assert policy.decoder.reserved_bytes == held > 0  # a small model's is kept for the next rollout
    monkeypatch.setattr("gentax.policies.local.available_memory", lambda device: held)
    policy.release_memory()
    assert policy.decoder.reserved_bytes == 0
    assert said() == before
