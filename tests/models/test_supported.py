"""Kinds of models: what cannot be learned as it plays is refused by name."""

from __future__ import annotations

import pytest
import torch

from gentax.core import UsageError
from gentax.models.scoring.supported import refuse_unlike

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
NAMES = {"gpt2": {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}}  # where a kind has its own


def made(kind: str, **settings):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **NAMES.get(kind, SMALL), **settings)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "granite", "gpt2"])
def test_usual_decoders_fit(kind):
    refuse_unlike(made(kind))


@pytest.mark.parametrize(
    ("kind", "settings", "says"),
    [
        ("mistral", {"sliding_window": 16}, "mistral attends to a window of 16 tokens"),
        ("gemma2", {"head_dim": 8, "sliding_window": None}, "gemma2 caps its logits"),
        ("mamba", {}, "models of type mamba cannot be trained here"),
        ("bloom", {"n_head": 4}, "models of type bloom cannot be trained here"),
    ],
)
def test_others_are_refused_by_name(kind, settings, says):
    with pytest.raises(UsageError, match=says):
        refuse_unlike(made(kind, **settings))
