"""A vLLM server that plays in place of this process while TRL trains, and gets its new weights after each update."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gentax.core import UsageError
from gentax.models.action_format import ACTION_END
from gentax.models.decoding.sampling import ActiveRequest, StopCondition
from gentax.models.options import Sample, SamplingRequest


class ServerDecoder:
    """The interface of `models.decoding.Decoder` over TRL's client of a vLLM server: token ids in, token ids out.

    Each prompt is a request with its own seed, so that what an episode says does not hang on who plays beside it.
    """

    reserved_bytes = 0

    def __init__(self, client: Any, max_length: int) -> None:
        self.client, self.max_length = client, max_length

    def cache_bytes(self, tokens: int) -> None:
        """Return None: the server manages its own memory."""

    def clear_cache(self) -> None:
        """The server forgets by itself when it gets new weights."""

    def sample(self, requests: Sequence[SamplingRequest], stop: StopCondition) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up."""
        with ThreadPoolExecutor(64) as threads:
            return list(threads.map(lambda request: self._complete(request, stop), requests))

    def _complete(self, request: SamplingRequest, stop: StopCondition) -> Sample:
        row = ActiveRequest(request)
        while not row.finished:  # the server stops at any `</action>`; one in a thought is no end
            completion = self.client.generate(
                prompts=[[*request.prompt.tolist(), *row.ids]],
                temperature=request.params.temperature,
                top_p=request.params.top_p,
                top_k=request.params.top_k,
                min_p=request.params.min_p,
                max_tokens=len(request.uniforms) - len(row.ids),
                logprobs=0,
                generation_kwargs={
                    "seed": int(row.uniform * 2**53),
                    "stop": [ACTION_END],
                    "include_stop_str_in_output": True,
                    "skip_special_tokens": False,
                },
            )
            ids, logprobs = completion["completion_ids"][0], completion["logprobs"][0]
            for token, top in zip(ids, logprobs, strict=True):
                if not row.finished:
                    row.append(token, top[0], stop)
            row.finished = row.finished or not ids
        return row.sample()


def client_of(trainer: Any, server: str) -> Any:
    """Return this process's client of the server; refuse one whose probabilities are not those it samples from."""
    from trl.generation.vllm_client import VLLMClient

    client = trainer.vllm_generation.vllm_client if trainer.accelerator.is_main_process else VLLMClient(server)
    mode = client.get_server_info()["model_config"]["logprobs_mode"]
    if mode != "processed_logprobs":
        raise UsageError(f"{server} gives {mode}: start it with --logprobs-mode processed_logprobs")
    return client
