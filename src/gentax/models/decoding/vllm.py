"""Playing through vLLM in this process: token ids in, ids and log-probabilities out.

vLLM caches prefixes by itself and applies a LoRA adapter without merging it. It samples with a seed for each request,
taken from the episode's own generator, so that episodes are reproducible on one machine and setup; the tokens are not
those that the other decoders sample from the same generator. Log-probabilities are vLLM's `processed_logprobs`: those
of the distribution sampled from. Temperatures between 0 and 0.01 count as 0.01 there.

The weights stay in vLLM: what needs them (training, KL) refuses. Written against vLLM's documented interface (0.22 to
0.33) and tested with a stand-in that has it; it has not been run on the real thing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from gentax.core import UsageError
from gentax.core.errors import PolicyFault
from gentax.models.action_format import ACTION_END
from gentax.models.checkpoint import ADAPTER_CONFIG, read_json
from gentax.models.decoding.sampling import ActiveRequest, StopCondition, check_lengths
from gentax.models.memory import context_length
from gentax.models.requests import ModelOptions, Sample, SamplingRequest

INSTALL = 'pip install "gentax[vllm]"'
MOST = 32768  # tokens of a sequence that memory is planned for, at most
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of adapters, that vLLM can be told to expect


class VLLMDecoder:
    """The interface of the other decoders over `vllm.LLM`.

    Args:
        folder: a Hugging Face model folder.
        tokenizer: its tokenizer.
        options: how it is loaded.
        adapter: the folder of a PEFT LoRA adapter for it.

    Raises:
        UsageError: vLLM is not installed, or cannot load the model.
    """

    cache_bytes_per_token = None  # vLLM plans its memory by itself
    reserved_bytes = 0

    def __init__(self, folder: Path, tokenizer: Any, options: ModelOptions, adapter: Path | None = None) -> None:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # in this process, in a fixed order
        try:
            import vllm
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            raise UsageError(f"use_vllm needs vLLM: {INSTALL}") from error
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder, trust_remote_code=options.trust_remote_code)
        self.max_length = min(context_length(config), MOST)
        self._params = vllm.SamplingParams
        self._adapter = None if adapter is None else LoRARequest("adapter", 1, str(adapter))
        marks = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        self._marks = sorted(marks | set(_ends(folder)))
        self._ends: dict[StopCondition, list[int]] = {}  # of the marks, those that end a reply
        lora = {} if adapter is None else {"enable_lora": True, "max_loras": 1, "max_lora_rank": _rank(adapter)}
        try:
            self._llm = vllm.LLM(
                model=str(folder),
                tokenizer=str(tokenizer.name_or_path),
                trust_remote_code=options.trust_remote_code,
                load_format="safetensors",
                dtype=_dtype(config) if options.dtype == "auto" else options.dtype,
                max_model_len=self.max_length,
                enable_prefix_caching=True,
                logprobs_mode="processed_logprobs",
                generation_config="vllm",  # nothing from the checkpoint's generation_config.json
                seed=0,
                gpu_memory_utilization=options.vllm_memory,
                **lora,
            )
        except Exception as error:  # its engine raises whatever went wrong below it
            raise UsageError(f"vLLM cannot load {folder}: {_line(error)}") from error

    def clear_cache(self) -> None:
        """Drop what is cached."""
        self._llm.reset_prefix_cache()

    def sample(self, requests: Sequence[SamplingRequest], stop: StopCondition) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until as many tokens as it has uniforms.

        Raises:
            ValueError: a prompt that with its continuation is longer than the model's positions.
            PolicyFault: vLLM failed.
        """
        check_lengths(requests, self.max_length)
        if stop not in self._ends:
            self._ends = {stop: [mark for mark in self._marks if stop([mark])]}
        ends = self._ends[stop]
        rows = [ActiveRequest(request) for request in requests]
        while live := [row for row in rows if not row.over]:
            params = [self._params(**self._settings(row), stop_token_ids=ends) for row in live]
            prompts = [{"prompt_token_ids": [*row.request.prompt.tolist(), *row.ids]} for row in live]
            try:
                made = self._llm.generate(prompts, sampling_params=params, use_tqdm=False, lora_request=self._adapter)
            except Exception as error:
                raise PolicyFault(f"vLLM failed: {_line(error)}") from error
            for row, output in zip(live, made, strict=True):
                written = output.outputs[0]
                for token, logprobs in zip(written.token_ids, written.logprobs, strict=True):
                    if not row.over:
                        row.write(token, logprobs[token].logprob, stop)
                # It stopped at a tag that ends nothing, such as one in a thought: the reply goes on, from the cache.
                row.over = row.over or not written.token_ids or row.ids[-1] in ends
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
            "ignore_eos": True,  # those that end a reply are named
            "skip_special_tokens": False,
        }


class VLLMModel:
    """Stands where other policies have a model: its configuration, without weights.

    Whatever else is asked of it raises a UsageError that says so.
    """

    def __init__(self, folder: Path, options: ModelOptions) -> None:
        import torch
        from transformers import AutoConfig, GenerationConfig

        self.config = AutoConfig.from_pretrained(folder, trust_remote_code=options.trust_remote_code)
        self.generation_config = GenerationConfig(eos_token_id=_ends(folder))
        self.device = torch.device("cuda")
        self.dtype = getattr(torch, _dtype(self.config) if options.dtype == "auto" else options.dtype)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self()

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        raise UsageError("this needs the model's weights, which vLLM keeps to itself: load it without use_vllm")


def _ends(folder: Path) -> list[int]:
    """Return the ids that the checkpoint says end a text."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        ends = read_json(path).get("eos_token_id") if path.is_file() else None
        if ends is not None:
            return ends if isinstance(ends, list) else [ends]
    return []


def _rank(adapter: Path) -> int:
    """Return the least rank vLLM can expect that covers the adapter's."""
    settings = read_json(adapter / ADAPTER_CONFIG)
    rank = max([settings.get("r", 8), *settings.get("rank_pattern", {}).values()])
    return next((known for known in RANKS if known >= rank), rank)


def _dtype(config: Any) -> str:
    """Return the number format the weights are stored in; vLLM's own `auto` turns float32 into float16."""
    return str(getattr(config, "dtype", None) or "torch.float32").removeprefix("torch.")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
