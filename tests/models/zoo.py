"""Tiny random models of today's architectures, and a tokenizer for all of them.

`ZOO[name]()` builds a model in fp32, the same one every time; `policy_for(name)` a `LocalPolicy` of it. Windows are 16
tokens, so that they matter in the shortest conversation, and weights are large enough for a wrong mask, position or
state to show in the log-probabilities.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

VOCABULARY = 384  # of every model; the tokenizers have fewer entries
WINDOW = 16
STOPS = range(300, 320)  # ordinary tokens that also end a reply, so that rows leave a batch one after the other

_SIZE = {
    "vocab_size": VOCABULARY, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024, "initializer_range": 0.25,
    "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
# An initializer_range of 0.25 would let the float32 rounding of the model itself exceed the tolerance.
_DELTA_NET = {
    "initializer_range": 0.1, "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"], "head_dim": 16,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
}  # fmt: skip
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 24, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
_LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 256}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}

# name -> (model type of transformers, what differs from `_SIZE`)
_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-llama3-rope": ("llama", {"rope_parameters": _LLAMA3_ROPE}),
    "llama-yarn": ("llama", {"rope_parameters": _YARN}),
    "llama-dynamic-rope": ("llama", {"rope_parameters": _DYNAMIC, "max_position_embeddings": 256}),
    "llama-gelu": ("llama", {"hidden_act": "gelu"}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2": ("qwen2", {}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1,
        "num_hidden_layers": 3}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3-moe": ("qwen3_moe", {**_EXPERTS, "head_dim": 16}),
    "qwen3-next": ("qwen3_next", {**_DELTA_NET, **_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 32}),
    "qwen3.5": ("qwen3_5_text", _DELTA_NET),
    "mistral-window": ("mistral", {"sliding_window": WINDOW, "head_dim": 12}),
    "mixtral": ("mixtral", _EXPERTS),
    "gemma2": ("gemma2", {"head_dim": 16, "query_pre_attn_scalar": 8, "sliding_window": WINDOW,
        "attn_logit_softcapping": 4.0, "final_logit_softcapping": 6.0}),
    "gemma3": ("gemma3_text", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW,
        "num_hidden_layers": 3, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    "phi3": ("phi3", {"sliding_window": None}),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}),
    "gpt2": ("gpt2", {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 1024, "n_inner": 64}),
    "gpt-neox": ("gpt_neox", {}),
    "gpt-oss": ("gpt_oss", {**_EXPERTS, "head_dim": 16, "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"], "rope_parameters": _YARN}),
    "lfm2": ("lfm2", {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"],
        "block_auto_adjust_ff_dim": False}),
    "falcon-h1": ("falcon_h1", {**_MAMBA, "mamba_d_ssm": 96, "head_dim": 12}),
    "granite": ("granite", {"logits_scaling": 0.5, "attention_multiplier": 0.3, "embedding_multiplier": 2.0,
        "residual_multiplier": 0.7}),
    "granite-hybrid": ("granitemoehybrid", {**_MAMBA, "num_local_experts": 2, "num_experts_per_tok": 1,
        "shared_intermediate_size": 32, "layer_types": ["mamba", "attention"]}),
    "mamba2": ("mamba2", {"num_heads": 4, "head_dim": 24, "state_size": 8, "n_groups": 1, "chunk_size": 8}),
    "deepseek-v3": ("deepseek_v3", {"kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 12, "v_head_dim": 12, "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 2,
        "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0]}),
    "cohere2": ("cohere2", {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"],
        "logit_scale": 0.7}),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4}),
}  # fmt: skip

_TEMPLATE = (  # in the style of Llama 3; those of other families are tested in test_chat.py
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_MARKS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
_TEXT = (
    "Say the word you see. Answer <action>your action</action>\nGoal: Repeat what you see. The word is red. No. Yes."
)


def _build(name: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, settings = _MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(zlib.crc32(name.encode()))
        config = AutoConfig.for_model(kind, **{**_SIZE, **settings})
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():  # biases are born as zeros and norms as ones: one that is left out would not show
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    model.generation_config.eos_token_id = [tokenizer().eos_token_id, *STOPS]
    return model.eval()


ZOO: dict[str, Callable[[], Any]] = {name: lambda name=name: _build(name) for name in _MODELS}


@lru_cache
def tokenizer() -> Any:
    """Return the tokenizer of all models of the zoo, a byte-level BPE."""
    from gentax.training.pretrain import train_tokenizer

    made = train_tokenizer(iter([_TEXT] * 20), 340)
    made.add_special_tokens({"additional_special_tokens": _MARKS}, replace_extra_special_tokens=False)
    made.bos_token, made.eos_token, made.chat_template = _MARKS[0], _MARKS[-1], _TEMPLATE
    assert len(made) <= VOCABULARY
    return made


def policy_for(name: str) -> Any:
    """Return a `LocalPolicy` that plays with a model of the zoo."""
    from gentax.policies.local import LocalPolicy

    return LocalPolicy(ZOO[name](), tokenizer(), name)
