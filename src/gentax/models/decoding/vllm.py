"""Generation through vLLM in this process: token ids in, ids and log-probabilities out.

vLLM caches prefixes itself and applies a LoRA adapter without merging it. Each request has a seed from the episode's
generator, so episodes are reproducible on one machine and setup, but the tokens differ from those of the other
decoders. Log-probabilities are vLLM's `processed_logprobs`, those of the distribution sampled from. vLLM treats
temperatures between 0 and 0.01 as 0.01.

The weights stay in vLLM, so training and KL are refused. Written against vLLM's documented interface (0.22 to 0.33);
tests run a stand-in, and the real one where it is installed (0.32 on a CPU; not yet on a GPU).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from gentax.core import UsageError
from gentax.core.errors import PolicyFault
from gentax.core.imports import require
from gentax.models.action_format import ACTION_END
from gentax.models.checkpoint_check import ADAPTER_CONFIG, error_line, read_json
from gentax.models.decoding.sampling import ActiveRequest, StopCondition, check_lengths
from gentax.models.device import context_length
from gentax.models.options import ModelOptions, Sample, SamplingRequest

MAX_MODEL_LEN = 32768  # tokens of a sequence, at most, that memory is reserved for
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of adapters that vLLM can be configured for


class VLLMModel:
    """The configuration of a model in vLLM, in place of its weights; any other use raises a UsageError that says so.

    Args:
        folder: a Hugging Face model folder.
        options: how it is loaded.
    """

    def __init__(self, folder: Path, options: ModelOptions) -> None:
        import torch
        from transformers import AutoConfig, GenerationConfig

        require("vllm", "use_vllm")
        from vllm.platforms import current_platform

        self.folder = folder
        self.config = AutoConfig.from_pretrained(folder, trust_remote_code=options.trust_remote_code)
        self.generation_config = GenerationConfig(eos_token_id=_eos_ids(folder))
        self.device = torch.device(current_platform.device_type)
        stored = getattr(self.config, "dtype", None) or torch.float32  # vLLM's own `auto` turns float32 into float16
        self.dtype = stored if options.dtype == "auto" else getattr(torch, options.dtype)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self()

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise UsageError("this needs the model's weights, which vLLM keeps to itself: load it without use_vllm")


class VLLMDecoder:
    """A decoder over `vllm.LLM`.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        options: how it is loaded.
        adapter: the folder of a PEFT LoRA adapter for it.

    Raises:
        UsageError: vLLM is not installed, or cannot load the model.
    """

    reserved_bytes = 0

    def __init__(self, model: VLLMModel, tokenizer: Any, options: ModelOptions, adapter: Path | None = None) -> None:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # in this process, in a fixed order
        import vllm
        from vllm.lora.request import LoRARequest

        self.max_length = min(context_length(model.config), MAX_MODEL_LEN)
        self._params = vllm.SamplingParams
        self._adapter = None if adapter is None else LoRARequest("adapter", 1, str(adapter))
        marks = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        self._marks = sorted(marks | set(model.generation_config.eos_token_id))
        self._ends: dict[StopCondition, list[int]] = {}  # stop condition -> the markers that end a reply
        lora = {} if adapter is None else {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(adapter)}
        try:
            self._llm = vllm.LLM(
                model=str(model.folder),
                tokenizer=str(tokenizer.name_or_path),
                trust_remote_code=options.trust_remote_code,
                load_format="safetensors",
                dtype=str(model.dtype).removeprefix("torch."),
                max_model_len=self.max_length,
                enable_prefix_caching=True,
                logprobs_mode="processed_logprobs",
                generation_config="vllm",  # nothing from the checkpoint's generation_config.json
                seed=0,
                gpu_memory_utilization=options.vllm_memory,
                **lora,
            )
        except Exception as error:  # its engine raises errors of any kind
            raise UsageError(f"vLLM cannot load {model.folder}: {error_line(error)}") from error

    def cache_bytes(self, tokens: int) -> None:
        """Return None: vLLM manages its own memory."""

    def clear_cache(self) -> None:
        """Reset the prefix cache."""
        self._llm.reset_prefix_cache()

    def sample(self, requests: Sequence[SamplingRequest], stop: StopCondition) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up.

        Raises:
            ValueError: a prompt and its continuation exceed the model's positions.
            PolicyFault: vLLM failed.
        """
        check_lengths(requests, self.max_length)
        if stop not in self._ends:
            self._ends = {stop: [mark for mark in self._marks if stop([mark])]}
        ends = self._ends[stop]
        rows = [ActiveRequest(request) for request in requests]
        while live := [row for row in rows if not row.finished]:
            params = [self._params(**self._settings(row), stop_token_ids=ends) for row in live]
            prompts = [{"prompt_token_ids": [*row.request.prompt.tolist(), *row.ids]} for row in live]
            try:
                outputs = self._llm.generate(
                    prompts, sampling_params=params, use_tqdm=False, lora_request=self._adapter
                )
            except Exception as error:
                raise PolicyFault(f"vLLM failed: {error_line(error)}") from error
            for row, output in zip(live, outputs, strict=True):
                written = output.outputs[0]
                for token, logprobs in zip(written.token_ids, written.logprobs, strict=True):
                    if not row.finished:
                        row.append(token, logprobs[token].logprob, stop)
                # It may have stopped at a tag inside a thought, which ends nothing: the reply continues from the cache.
                row.finished = row.finished or not written.token_ids or row.ids[-1] in ends
        return [row.sample() for row in rows]

    def _settings(self, row: ActiveRequest) -> dict[str, Any]:
        params = row.request.params
        return {
            "temperature": params.temperature,
            "top_p": params.top_p,
            "top_k": params.top_k,
            "min_p": params.min_p,
            "max_tokens": len(row.request.uniforms) - len(row.ids),
            "seed": int(row.uniform * 2**53),
            "logprobs": 0,
            "stop": [ACTION_END],
            "include_stop_str_in_output": True,
            "ignore_eos": True,  # stop tokens are named
            "skip_special_tokens": False,
        }


def _eos_ids(folder: Path) -> list[int]:
    """Return the EOS ids of the checkpoint."""
    for name in ("generation_config.json", "config.json"):
        ends = read_json(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        if ends is not None:
            return ends if isinstance(ends, list) else [ends]
    return []


def _rank(adapter: Path) -> int:
    """Return the smallest rank known to vLLM that covers the adapter's."""
    settings = read_json(adapter / ADAPTER_CONFIG)
    rank = max([settings.get("r", 8), *settings.get("rank_pattern", {}).values()])
    return next((known for known in RANKS if known >= rank), rank)
