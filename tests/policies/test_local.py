"""A local model in the engine: what is shown is what is kept, and text from outside stays text."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gentax.core import Task
from gentax.models.action_format import ACTION_END
from gentax.models.requests import SamplingParams
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


def turns_of(toy, policy, seed=0):
    """Return a function that asks the policy the next turn of one conversation."""
    from gentax.policies.protocol import PolicyRequest

    rng, env = np.random.default_rng(seed), toy()

    def ask(message, continues=True, follow=None, slot=0, new=8):
        turn = PolicyRequest(slot, message, continues, env, rng, SamplingParams(max_new_tokens=new))
        return policy.reply([turn])[0] if follow is None else policy.append_reply(turn, follow)

    return ask


def test_an_answer_that_is_followed_is_read_later_and_not_learned_from(toy, tiny):
    from gentax.core import TokenSequence

    policy = load_local_policy(tiny)
    ask = turns_of(toy, policy)
    text = "<action>red</action>"
    replies = [
        ask("The word is red.", continues=False, follow=text),
        ask("Yes. The word is green."),
        ask("No.", follow=text),
        ask("The word is gold."),
    ]
    assert [reply.text == text for reply in replies] == [True, False, True, False]
    assert [reply.tokens.continues for reply in replies] == [False, True, True, True]
    assert [len(reply.tokens.sampled) == len(reply.tokens.logprobs) == 0 for reply in replies] == [True, False] * 2
    codec, second = policy.codec, replies[1].tokens
    answer = codec.encode_reply(text)
    whole = [
        codec.first_prompt("The word is red."), answer,
        codec.next_prompt("Yes. The word is green.", int(answer[-1])), second.sampled,
        codec.next_prompt("No.", int(second.sampled[-1])), answer,
        codec.next_prompt("The word is gold.", int(answer[-1])), replies[3].tokens.sampled,
    ]  # fmt: skip
    sequence = TokenSequence.of([reply.tokens for reply in replies])
    assert (sequence.ids_T == np.concatenate(whole)).all()
    assert (sequence.sampled_T == np.repeat([False, True, False, True], [sum(map(len, whole[:3])), len(whole[3]),
            sum(map(len, whole[4:7])), len(whole[7])])).all()  # fmt: skip
    assert (
        sequence.step_T[~sequence.sampled_T] == np.repeat([0, 1, 2, 3], [len(r.tokens.prompt) for r in replies])
    ).all()
    with torch.no_grad():
        logp = policy.model(torch.tensor(sequence.ids_T[None].astype(np.int64))).logits[0].log_softmax(-1)
    at = np.flatnonzero(sequence.sampled_T)
    assert np.allclose(sequence.logprobs_T[at], logp[at - 1, sequence.ids_T[at]].numpy(), atol=2e-4)
    alone = TokenSequence.of([replies[0].tokens])
    assert len(alone) == len(whole[0]) + len(answer)
    assert not alone.sampled_T.any()


def test_following_keeps_to_the_limit_of_the_model(toy, tiny):
    policy = load_local_policy(tiny)
    policy.decoder.max_length = 120
    ask = turns_of(toy, policy)
    held = 0
    for n in range(12):
        follow = f"<action>{'green ' * (40 if n == 5 else 5)}</action>" if n % 3 else None
        tokens = ask(f"No. The word is blue. {n}", continues=n > 0, follow=follow).tokens
        held = len(tokens.sampled) + len(tokens.prompt) + (held if tokens.continues else 0)
        assert held == sum(map(len, policy._conversations[0].ids)) <= 120
    assert policy.codec.first_prompt("No.")[0] == policy._conversations[0].ids[0][0]


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
    monkeypatch.setattr("gentax.models.memory.available_memory", lambda device: 21 * row)
    assert policy.max_parallel(100) == 16  # of 18 that fit into nine tenths
    rollout_config = RolloutConfig(temperature=1.0, max_new_tokens=6)
    rollout(policy, [Task("toy", "three", "train", n) for n in range(16)], config=rollout_config, parallel=16)
    held = policy.decoder.reserved_bytes
    assert held > 0
    monkeypatch.setattr("gentax.models.memory.available_memory", lambda device: 21 * row - held)
    assert policy.max_parallel(100) == 16  # the memory of those before is there for those to come
    monkeypatch.setattr("gentax.models.memory.available_memory", lambda device: -held)
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
