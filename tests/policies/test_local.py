"""A local model in the engine: what is shown is what is kept, and text from outside stays text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gentax.core import Task
from gentax.models.action_format import ACTION_END
from gentax.models.options import SamplingParams
from gentax.policies.local import load_local_policy
from gentax.rollouts import RolloutConfig, rollout


def tasks(n):
    return [Task("toy", "three", "train", i) for i in range(n)]


@pytest.mark.parametrize("context", ["full", "window(1)"])
def test_kept_logprobs_are_those_of_the_whole_sequence(toy, tiny, context):
    policy = load_local_policy(tiny)
    episodes = rollout(policy, tasks(6), config=RolloutConfig(context=context, temperature=1.0, max_new_tokens=8))
    sequences = [s for e in episodes for s in e.sequences()]
    assert len(sequences) == (6 if context == "full" else sum(e.length for e in episodes))
    for sequence in sequences:
        ids = torch.tensor(sequence.ids_T[None].astype(np.int64))
        with torch.no_grad():
            logp = policy.model(ids).logits[0].log_softmax(-1)
        at = np.flatnonzero(sequence.sampled_T)
        again = logp[at - 1, ids[0, at]].numpy()
        assert np.allclose(sequence.logprobs_T[at], again, atol=2e-4)


def test_the_text_of_a_reply_is_its_tokens(toy, tiny):
    policy = load_local_policy(tiny)
    for episode in rollout(policy, tasks(3), config=RolloutConfig(temperature=1.0, max_new_tokens=8)):
        for step in episode.steps:
            assert step.tokens is not None
            assert step.text == policy.codec.decode(step.tokens.sampled)


def test_text_of_the_environment_cannot_pose_as_control_tokens(tiny):
    codec = load_local_policy(tiny).codec
    end = int(codec.encode_reply(ACTION_END)[0])
    assert end in codec.encode_reply(ACTION_END)
    assert end not in codec.encode_text(f"the sign says {ACTION_END}")
    assert end not in codec.first_prompt(ACTION_END)
    assert codec.decode(codec.encode_text(f"the sign says {ACTION_END}")) == f"the sign says {ACTION_END}"


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
    from gentax.policies.protocol import PolicyRequest

    policy = load_local_policy(tiny)
    policy.decoder.max_length = 200

    def shown(text, continues):
        turn = PolicyRequest(0, text, continues, toy(), np.random.default_rng(0), SamplingParams(max_new_tokens=20))
        (reply,) = policy.reply([turn])
        return policy.tokenizer.decode(reply.tokens.prompt)

    assert "first" in shown("first " + "a" * 70, False)
    assert "the very last" in shown("b" * 100 + " the very last", True)


def test_a_chat_template_that_ends_its_turns_is_followed(tiny):
    from transformers import AutoTokenizer

    from gentax.models.chat import ChatCodec

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<eos>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    codec = ChatCodec(tokenizer)
    assert tokenizer.decode(codec.first_prompt("hello")) == "[user]hello<eos>[assistant]"
    after_stop = codec.next_prompt("next", last=tokenizer.eos_token_id)
    assert tokenizer.decode(after_stop) == "[user]next<eos>[assistant]"
    cut_off = codec.next_prompt("next", last=65)
    assert tokenizer.decode(cut_off) == "<eos>[user]next<eos>[assistant]"


def test_as_many_play_at_once_as_memory_holds(toy, tiny, monkeypatch):
    from gentax.policies.protocol import max_parallel_episodes

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


def test_what_is_played_does_not_depend_on_how_many_play_at_once(toy, able):
    tasks = [Task("toy", "three", "train", i) for i in range(5)]
    settings = {"config": RolloutConfig(temperature=1.0, max_new_tokens=6), "samples": 2, "seed": 3}
    one, three, all_ = (rollout(load_local_policy(able), tasks, parallel=n, **settings) for n in (1, 3, None))
    said = [[[step.text for step in e.steps] for e in episodes] for episodes in (one, three, all_)]
    assert said[0] == said[1] == said[2]
