"""Options of models and sampling, requests and samples, as plain values without PyTorch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from gentax.core import UsageError, unknown
from gentax.core.settings import settings

MAX_NEW_TOKENS, MAX_NEW_TOKENS_THINKING = 512, 2048  # default for models other than the shipped one
PRECISIONS = ("auto", "bf16", "fp32")  # of the arithmetic of learning
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
ActionFormat = Literal["tags", "json", "tool_calls"]


@settings
class ModelOptions:
    """How a model is loaded, or its server asked. Device and dtype are recorded in every result: a number format can
    change what a policy does."""

    device: str = "auto"
    """Where the weights are: `cpu`, `cuda`, `cuda:1` …; `auto` takes a GPU where there is one."""
    dtype: Dtype = "auto"
    """The number format of the weights: `auto` is the one they are stored in (fp32 for a GGUF file), or `float32`,
    `bfloat16`, `float16`."""
    adapter_base: str | None = None
    """The model that a PEFT adapter is for, where its own configuration names none or another place."""
    trust_remote_code: bool = False
    """Whether a model's own Python files are run. They can do whatever you can do on this machine."""
    use_vllm: bool = False
    """Whether vLLM plays, in this process. Such a policy can be measured, not trained."""
    vllm_memory: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The share of the GPU's memory that vLLM takes (its `gpu_memory_utilization`); two policies that are compared take
    half of it each."""
    cache: str | None = None
    """A folder that keeps a server's replies: a request that was answered before is not asked again."""
    input_price: NonNegativeFloat = 0.0
    """What a server's million tokens of prompts cost, in dollars."""
    output_price: NonNegativeFloat = 0.0
    """What a server's million tokens of replies cost, in dollars."""
    spend_limit: NonNegativeFloat | None = None
    """Dollars after which servers are asked no more; the episodes that are left end as errors."""

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.spend_limit is not None and not self.input_price + self.output_price:
            raise UsageError("a spend limit needs prices: input_price and output_price, in dollars a million tokens")


def check_device(name: str) -> None:
    """Raise UsageError for what is no name of a device. Whether it is there is seen when a model is loaded."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise unknown("device", name, ("auto", "cpu", "cuda", "cuda:0", "cuda:1"))


@settings
class ChatOptions:
    """How a conversation is written for a model: the inputs of its chat template besides the messages."""

    thinking: bool = False  # whether the model is asked to think before it acts
    system_prompt: str = ""  # "" for none
    action_format: ActionFormat = "tags"  # see `action_format.py`


@settings
class SamplingParams:
    """How a reply is sampled. Recorded log-probabilities are those of the resulting distribution."""

    temperature: NonNegativeFloat = 1.0  # 0 takes the most likely token
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0  # nucleus sampling (arXiv 1904.09751); 1 is off
    top_k: NonNegativeInt = 0  # the k most likely tokens; 0 is off
    # Tokens at least this likely relative to the most likely one (arXiv 2407.01082); 0 is off.
    min_p: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_new_tokens: PositiveInt = 32


@dataclass(frozen=True, slots=True)
class SamplingRequest:
    """A row to continue: its slot, whole prompt, sampling parameters and uniform numbers."""

    slot: int
    prompt: np.ndarray  # int32
    params: SamplingParams
    uniforms: np.ndarray  # float64 in [0, 1); as many as tokens may be written


@dataclass(frozen=True, slots=True)
class Sample:
    """The tokens sampled for a row."""

    ids: np.ndarray  # int32
    logprobs: np.ndarray  # float32, under the distribution sampled from
