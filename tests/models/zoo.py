"""Tiny random models of today's architectures, each with a tokenizer and a chat template in its family's style.

`ZOO[name]()` builds a model in fp32, the same one every time; `tokenizer_for(name)` its tokenizer; `policy_for(name)`
a `LocalPolicy` of the two. Windows are 16 tokens, so that they matter in the shortest conversation, and weights are
large enough for a wrong mask, position or state to show in the log-probabilities.
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

# name -> (model type of transformers, what differs from `_SIZE`, style of the chat template)
_MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("llama", {}, "llama3"),
    "llama-llama3-rope": ("llama", {"rope_parameters": _LLAMA3_ROPE}, "llama3"),
    "llama-yarn": ("llama", {"rope_parameters": _YARN}, "llama3"),
    "llama-dynamic-rope": ("llama", {"rope_parameters": _DYNAMIC, "max_position_embeddings": 256}, "llama3"),
    "llama-gelu": ("llama", {"hidden_act": "gelu"}, "llama3"),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}, "llama3"),
    "qwen2": ("qwen2", {}, "chatml"),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1,
        "num_hidden_layers": 3}, "chatml"),
    "qwen3": ("qwen3", {"head_dim": 16}, "chatml"),
    "qwen3-moe": ("qwen3_moe", {**_EXPERTS, "head_dim": 16}, "chatml"),
    "qwen3-next": ("qwen3_next", {**_DELTA_NET, **_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 32},
        "chatml"),
    "qwen3.5": ("qwen3_5_text", _DELTA_NET, "chatml"),
    "mistral-window": ("mistral", {"sliding_window": WINDOW, "head_dim": 12}, "mistral"),
    "mixtral": ("mixtral", _EXPERTS, "mistral"),
    "gemma2": ("gemma2", {"head_dim": 16, "query_pre_attn_scalar": 8, "sliding_window": WINDOW,
        "attn_logit_softcapping": 4.0, "final_logit_softcapping": 6.0}, "gemma"),
    "gemma3": ("gemma3_text", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW,
        "num_hidden_layers": 3, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        "gemma"),
    "phi3": ("phi3", {"sliding_window": None}, "phi3"),
    "olmo2": ("olmo2", {}, "plain"),
    "olmo3": ("olmo3", {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}, "chatml"),
    "gpt2": ("gpt2", {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 1024, "n_inner": 64}, "plain"),
    "gpt-neox": ("gpt_neox", {}, "plain"),
    "gpt-oss": ("gpt_oss", {**_EXPERTS, "head_dim": 16, "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"], "rope_parameters": _YARN}, "harmony"),
    "lfm2": ("lfm2", {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"],
        "block_auto_adjust_ff_dim": False}, "chatml"),
    "falcon-h1": ("falcon_h1", {**_MAMBA, "mamba_d_ssm": 96, "head_dim": 12}, "chatml"),
    "granite": ("granite", {"logits_scaling": 0.5, "attention_multiplier": 0.3, "embedding_multiplier": 2.0,
        "residual_multiplier": 0.7}, "granite"),
    "granite-hybrid": ("granitemoehybrid", {**_MAMBA, "num_local_experts": 2, "num_experts_per_tok": 1,
        "shared_intermediate_size": 32, "layer_types": ["mamba", "attention"]}, "granite"),
    "mamba2": ("mamba2", {"num_heads": 4, "head_dim": 24, "state_size": 8, "n_groups": 1, "chunk_size": 8}, "plain"),
    "deepseek-v3": ("deepseek_v3", {"kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 12, "v_head_dim": 12, "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 2,
        "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1},
        "deepseek"),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0]}, "chatml"),
    "cohere2": ("cohere2", {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"],
        "logit_scale": 0.7}, "cohere"),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4}, "plain"),
}  # fmt: skip

_TURN = "{% for m in messages %}"
_GENERATE = "{% endfor %}{% if add_generation_prompt %}"
_STYLES: dict[str, tuple[str, str, tuple[str, ...]]] = {  # (template, token that ends a turn, control tokens)
    "plain": ("{% for m in messages %}{{ m['content'] }}\n{% endfor %}", "<eos>", ()),
    "chatml": (
        f"{_TURN}<|im_start|>{{{{ m['role'] }}}}\n{{{{ m['content'] }}}}<|im_end|>\n"
        f"{_GENERATE}<|im_start|>assistant\n{{% endif %}}",
        "<|im_end|>",
        ("<|im_start|>", "<|im_end|>"),
    ),
    "llama3": (
        f"{{{{ bos_token }}}}{_TURN}<|start_header_id|>{{{{ m['role'] }}}}<|end_header_id|>\n\n"
        f"{{{{ m['content'] | trim }}}}<|eot_id|>"
        f"{_GENERATE}<|start_header_id|>assistant<|end_header_id|>\n\n{{% endif %}}",
        "<|eot_id|>",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "gemma": (
        f"{{{{ bos_token }}}}{_TURN}<start_of_turn>{{{{ 'model' if m['role'] == 'assistant' else m['role'] }}}}\n"
        f"{{{{ m['content'] | trim }}}}<end_of_turn>\n{_GENERATE}<start_of_turn>model\n{{% endif %}}",
        "<end_of_turn>",
        ("<bos>", "<start_of_turn>", "<end_of_turn>"),
    ),
    "mistral": (
        f"{{{{ bos_token }}}}{_TURN}{{% if m['role'] == 'user' %}}[INST] {{{{ m['content'] }}}} [/INST]"
        "{% else %} {{ m['content'] }}</s>{% endif %}{% endfor %}",
        "</s>",
        ("<s>", "[INST]", "[/INST]", "</s>"),
    ),
    "phi3": (
        f"{_TURN}<|{{{{ m['role'] }}}}|>\n{{{{ m['content'] }}}}<|end|>\n{_GENERATE}<|assistant|>\n{{% endif %}}",
        "<|end|>",
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    ),
    "harmony": (
        f"{_TURN}<|start|>{{{{ m['role'] }}}}<|message|>{{{{ m['content'] }}}}<|end|>"
        f"{_GENERATE}<|start|>assistant<|message|>{{% endif %}}",
        "<|end|>",
        ("<|start|>", "<|message|>", "<|end|>"),
    ),
    "granite": (
        f"{_TURN}<|start_of_role|>{{{{ m['role'] }}}}<|end_of_role|>{{{{ m['content'] }}}}<|end_of_text|>\n"
        f"{_GENERATE}<|start_of_role|>assistant<|end_of_role|>{{% endif %}}",
        "<|end_of_text|>",
        ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
    ),
    "deepseek": (
        f"{{{{ bos_token }}}}{_TURN}{{% if m['role'] == 'assistant' %}}<|Assistant|>{{{{ m['content'] }}}}<|end|>"
        f"{{% else %}}<|User|>{{{{ m['content'] }}}}{{% endif %}}{_GENERATE}<|Assistant|>{{% endif %}}",
        "<|end|>",
        ("<|begin|>", "<|User|>", "<|Assistant|>", "<|end|>"),
    ),
    "cohere": (
        f"{{{{ bos_token }}}}{_TURN}<|START_OF_TURN|>{{% if m['role'] == 'assistant' %}}<|CHATBOT|>{{% else %}}<|USER|>"
        f"{{% endif %}}{{{{ m['content'] }}}}<|END_OF_TURN|>{_GENERATE}<|START_OF_TURN|><|CHATBOT|>{{% endif %}}",
        "<|END_OF_TURN|>",
        ("<BOS>", "<|START_OF_TURN|>", "<|END_OF_TURN|>", "<|USER|>", "<|CHATBOT|>"),
    ),
}
_BEGINS = {
    "llama3": "<|begin_of_text|>",
    "gemma": "<bos>",
    "mistral": "<s>",
    "deepseek": "<|begin|>",
    "cohere": "<BOS>",
}
_TEXT = (
    "Say the word you see. Answer <action>your action</action>\nGoal: Repeat what you see. The word is red. No. Yes."
)


def _build(name: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, settings, _ = _MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(zlib.crc32(name.encode()))
        config = AutoConfig.for_model(kind, **{**_SIZE, **settings})
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():  # biases are born as zeros and norms as ones: one that is left out would not show
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    model.generation_config.eos_token_id = [tokenizer_for(name).eos_token_id, *STOPS]
    return model.eval()


ZOO: dict[str, Callable[[], Any]] = {name: lambda name=name: _build(name) for name in _MODELS}


@lru_cache
def tokenizer_for(name: str) -> Any:
    """Return the tokenizer of a model of the zoo: one byte-level BPE for all, with the family's template and marks."""
    from gentax.training.pretrain import train_tokenizer

    style = _MODELS[name][2]
    template, end, marks = _STYLES[style]
    tokenizer = train_tokenizer(iter([_TEXT] * 20), 340)
    tokenizer.add_special_tokens({"additional_special_tokens": list(marks)}, replace_extra_special_tokens=False)
    if end != "<eos>":
        tokenizer.eos_token = end
    tokenizer.bos_token = _BEGINS.get(style)
    tokenizer.chat_template = template
    assert len(tokenizer) <= VOCABULARY
    return tokenizer


def policy_for(name: str) -> Any:
    """Return a `LocalPolicy` that plays with a model of the zoo."""
    from gentax.policies.local import LocalPolicy

    return LocalPolicy(ZOO[name](), tokenizer_for(name), name)
