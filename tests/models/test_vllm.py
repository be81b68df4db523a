"""Playing through vLLM, where it is installed, and through a stand-in with its documented signatures."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from gentax.core import Task, UsageError
from gentax.core.errors import PolicyFault
from gentax.domains import make
from gentax.models.decoding.sampling import batch_filters, sample_tokens
from gentax.models.loading import load_model, load_tokenizer
from gentax.models.options import ModelOptions, SamplingParams, SamplingRequest
from gentax.models.source import BASE
from gentax.policies import load_policy_pair
from gentax.policies.local import load_local_policy
from gentax.policies.protocol import MAX_PARALLEL
from gentax.rollouts import RolloutConfig, rollout
from gentax.rollouts.prompt import build_message

THROUGH_VLLM = ModelOptions(use_vllm=True)


@dataclass(kw_only=True)
class FakeSamplingParams:
    """The fields of `vllm.SamplingParams` that are documented for 0.22 to 0.33 and used here, with their defaults."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False


@dataclass
class FakeLoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""


# The arguments of `vllm.LLM` that are documented for 0.22 to 0.33 and used here.
ENGINE_ARGUMENTS = {
    "tokenizer", "trust_remote_code", "dtype", "seed", "generation_config", "enable_prefix_caching", "logprobs_mode",
    "max_model_len", "enable_lora", "max_loras", "max_lora_rank", "gpu_memory_utilization", "load_format",
}  # fmt: skip


class FakeLLM:
    """Samples from the same model, token by token; stops as vLLM does."""

    made: FakeLLM

    def __init__(self, model, **settings):
        assert settings.keys() <= ENGINE_ARGUMENTS
        if "broken" in str(model):
            raise RuntimeError("no kernel\nfor this")
        self.settings = settings
        self.model, self.tokenizer = load_model(model), load_tokenizer(settings["tokenizer"])
        self.asked, self.adapters, self.resets = [], [], 0
        FakeLLM.made = self

    def generate(self, prompts, sampling_params=None, *, use_tqdm=True, lora_request=None):
        assert not use_tqdm
        self.adapters.append(lora_request)
        self.asked += sampling_params
        return [
            self._complete(prompt["prompt_token_ids"], p) for prompt, p in zip(prompts, sampling_params, strict=True)
        ]

    def _complete(self, prompt, p):
        rng, ids, logprobs = np.random.default_rng(p.seed), list(prompt), []
        ours = SamplingParams(p.temperature, p.top_p, p.top_k, p.min_p)
        while len(ids) - len(prompt) < p.max_tokens:
            with torch.no_grad():
                logits = self.model(torch.tensor([ids])).logits[:, -1]
            token, logp = sample_tokens(
                logits, torch.tensor([p.temperature]), torch.tensor([rng.random()]).double(), batch_filters([ours])
            )
            ids.append(int(token))
            logprobs.append({int(token): SimpleNamespace(logprob=float(logp))})
            new = ids[len(prompt) :]
            if ids[-1] in p.stop_token_ids or any(s in self.tokenizer.decode(new) for s in p.stop):
                break
        new = ids[len(prompt) :]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=new, logprobs=logprobs)])

    def reset_prefix_cache(self):
        self.resets += 1
        return True


@pytest.fixture
def fake_vllm(monkeypatch):
    names = ("vllm", "vllm.lora", "vllm.lora.request", "vllm.platforms")
    package, _, request, platforms = modules = [ModuleType(name) for name in names]
    package.LLM, package.SamplingParams, request.LoRARequest = FakeLLM, FakeSamplingParams, FakeLoRARequest
    platforms.current_platform = SimpleNamespace(device_type="cuda")
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture(params=["stand-in", "installed"])
def any_vllm(request, monkeypatch):
    """The stand-in, and vLLM itself, on a CPU or a GPU."""
    if request.param == "stand-in":
        return request.getfixturevalue("fake_vllm")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GB
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    return pytest.importorskip("vllm", reason="vLLM is not installed")


def test_episodes_are_played_and_their_tokens_kept(any_vllm):
    policy = load_local_policy(BASE, THROUGH_VLLM)
    tasks = [Task("crafting", "shallow", "train", n) for n in range(3)]
    config = RolloutConfig(temperature=0.7, horizon=2)
    episodes = rollout(policy, tasks, config=config, seed=1)
    again = rollout(policy, tasks, config=config, seed=1)
    assert [step.text for e in again for step in e.steps] == [step.text for e in episodes for step in e.steps]
    model = load_model(BASE)
    for episode in episodes:
        for sequence in episode.sequences():
            with torch.no_grad():
                logits = model(torch.tensor(sequence.ids_T[None].astype(np.int64))).logits[0] / config.temperature
            at = np.flatnonzero(sequence.sampled_T)
            expected = logits.log_softmax(-1)[at - 1, sequence.ids_T[at]]
            assert np.allclose(sequence.logprobs_T[at], expected, atol=1e-3)
    assert policy.max_parallel(4096) == MAX_PARALLEL  # vLLM plans its memory
    assert {**policy.runtime, "device": ""} == {"device": "", "dtype": "float32", "engine": "vllm"}
    policy.clear_cache()


def test_vllm_is_told_to_take_nothing_from_a_checkpoint(fake_vllm, able):
    policy = load_local_policy(able, THROUGH_VLLM)
    ids = np.arange(10, dtype=np.int32)
    requests = [SamplingRequest(n, ids, SamplingParams(), np.random.default_rng(n).random(1)) for n in range(2)]
    policy.decoder.sample(requests, lambda ids: ids[-1] == policy.tokenizer.eos_token_id)
    settings, asked = FakeLLM.made.settings, FakeLLM.made.asked
    assert settings["logprobs_mode"] == "processed_logprobs"
    assert settings["generation_config"] == "vllm"
    assert settings["enable_prefix_caching"]
    assert settings["dtype"] == "float32"  # as stored
    assert len({p.seed for p in asked}) == 2  # each request its own
    assert policy.tokenizer.eos_token_id in asked[0].stop_token_ids
    assert policy.runtime["device"] == "cuda"
    policy.clear_cache()
    assert FakeLLM.made.resets == 1


def test_sampling_settings_reach_vllm_and_replies_end_where_the_policy_says(fake_vllm, tiny):
    policy = load_local_policy(tiny, THROUGH_VLLM)
    params = SamplingParams(0.8, top_p=0.9, top_k=7, min_p=0.1)
    asked = SamplingRequest(0, np.arange(10, dtype=np.int32), params, np.random.default_rng(0).random(9))
    (sample,) = policy.decoder.sample([asked], lambda ids: len(ids) == 4)
    assert len(sample.ids) == len(sample.logprobs) == 4
    given = FakeLLM.made.asked[0]
    assert (given.temperature, given.top_p, given.top_k, given.min_p, given.max_tokens) == (0.8, 0.9, 7, 0.1, 9)
    with pytest.raises(ValueError, match="positions"):
        policy.decoder.sample([SamplingRequest(0, np.zeros(5000, np.int32), params, np.zeros(9))], lambda ids: False)


def test_a_closing_tag_within_a_thought_does_not_end_a_reply(any_vllm):
    """vLLM stops at the text `</action>`; in a thought it is no end, and the reply goes on as it would have."""
    policy = load_local_policy(BASE, THROUGH_VLLM)
    end = policy.tokenizer.convert_tokens_to_ids("</action>")
    env = make("crafting")
    observation, info = env.reset(seed=0)
    text, _ = build_message(RolloutConfig(), env.domain.rules, info["goal"], (), observation, None)
    prompt = policy.codec.first_prompt(text)
    asked = SamplingRequest(0, prompt, SamplingParams(0.5), np.random.default_rng(0).random(60))
    (once,) = policy.decoder.sample([asked], lambda ids: ids[-1] == end)
    assert once.ids[-1] == end
    (sample,) = policy.decoder.sample([asked], lambda ids: ids.count(end) == 2 or len(ids) == len(once.ids) + 5)
    assert len(sample.ids) > len(once.ids)
    assert sample.ids[: len(once.ids)].tolist() == once.ids.tolist()
    assert len(sample.ids) == len(sample.logprobs)
    if not hasattr(any_vllm, "LLM"):
        assert FakeLLM.made.asked[-1].max_tokens == 60 - len(once.ids)


def test_two_policies_that_are_compared_share_the_memory(fake_vllm, tiny):
    load_local_policy(tiny, THROUGH_VLLM)
    assert FakeLLM.made.settings["gpu_memory_utilization"] == 0.9
    load_policy_pair(tiny, tiny, THROUGH_VLLM)
    assert FakeLLM.made.settings["gpu_memory_utilization"] == 0.45
    with pytest.raises(UsageError, match="vllm_memory must be less than or equal to 1, not 90"):
        ModelOptions(vllm_memory=90)


def test_an_adapter_is_given_to_vllm_and_not_merged(fake_vllm, tiny, tmp_path):
    from peft import LoraConfig, get_peft_model

    get_peft_model(load_model(tiny), LoraConfig(r=24, target_modules=["q_proj"])).save_pretrained(tmp_path / "tuned")
    policy = load_local_policy(tmp_path / "tuned", ModelOptions(use_vllm=True, adapter_base=str(tiny)))
    asked = SamplingRequest(0, np.arange(10, dtype=np.int32), SamplingParams(), np.random.default_rng(0).random(2))
    policy.decoder.sample([asked], lambda ids: False)
    assert FakeLLM.made.settings["enable_lora"]
    assert FakeLLM.made.settings["max_lora_rank"] == 32
    assert FakeLLM.made.adapters[-1].lora_path == str(tmp_path / "tuned")
    assert policy.name == "tuned"


def test_commands_that_need_weights_refuse_vllm_in_one_line(fake_vllm, tiny):
    from gentax.models.scoring import sequence_kl

    policy = load_local_policy(tiny, THROUGH_VLLM)
    with pytest.raises(UsageError, match="use_vllm"):
        list(policy.model.parameters())
    ids, sampled = [np.arange(9)], [np.arange(9) > 4]
    with pytest.raises(UsageError, match="use_vllm"):
        sequence_kl(policy.model, policy.model, ids, sampled)


def test_without_vllm_one_line_says_how_to_install_it(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UsageError, match=r'use_vllm needs vllm: pip install "gentax\[vllm\]"'):
        load_local_policy(tiny, THROUGH_VLLM)


def test_options_that_vllm_lacks_are_refused_in_one_line(fake_vllm, tiny, tmp_path, monkeypatch):
    shutil.copytree(tiny, broken := tmp_path / "broken")
    with pytest.raises(UsageError, match=r"vLLM cannot load .*: no kernel for this$"):
        load_local_policy(broken, THROUGH_VLLM)
    policy = load_local_policy(tiny, THROUGH_VLLM)

    def fail(*_, **__):
        raise RuntimeError("out of memory\nmany lines")

    monkeypatch.setattr(FakeLLM.made, "generate", fail)
    asked = SamplingRequest(0, np.arange(10, dtype=np.int32), SamplingParams(), np.random.default_rng(0).random(2))
    with pytest.raises(PolicyFault, match=r"vLLM failed: out of memory many lines$"):
        policy.decoder.sample([asked], lambda ids: False)
