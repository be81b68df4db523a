"""Sampling for many conversations at once: bring the prompts into the cache, then write token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gentax.models.decoding.cache import Cache, Rows
from gentax.models.decoding.graph import Recorder
from gentax.models.decoding.plan import plan
from gentax.models.decoding.prefill import run
from gentax.models.decoding.step import Alike, Step, step
from gentax.models.decoding.weights import Weights
from gentax.models.requests import Sample, SamplingRequest
from gentax.models.sampling import draw

SUPPORTED = ("llama", "qwen2", "qwen3")
CHUNK, LARGE_CHUNK = 1024, 8192  # tokens of prompts in one pass: what fits a processor's caches, and elsewhere

Stop = Callable[[list[int]], bool]


@dataclass(slots=True)
class _Answer:
    """An ask while it is answered."""

    ask: SamplingRequest
    row: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    kind: int = 0  # the same for answers whose tokens, prompt included, are the same but for the last
    over: bool = False
    moved: int | None = None  # from which token on its keys and values are in a copy of its row

    @property
    def position(self) -> int:
        """Of the last token: it was sampled, and its keys and values are not computed yet."""
        return len(self.ask.prompt) + len(self.ids) - 1

    @property
    def uniform(self) -> float:
        return float(self.ask.uniforms[min(len(self.ids), len(self.ask.uniforms) - 1)])

    def write(self, token: int, logprob: float, stop: Stop) -> None:
        self.ids.append(token)
        self.logprobs.append(logprob)
        self.over = stop(self.ids) or len(self.ids) == len(self.ask.uniforms)


class Decoder:
    """Samples continuations for many rows at once.

    Args:
        model: a Hugging Face causal model of a type in `SUPPORTED`; see `Weights` for what is done to it.
    """

    def __init__(self, model: Any) -> None:
        self.weights = w = Weights(model)
        self.limit = w.positions
        like = torch.zeros(0, w.groups, 0, w.head, device=w.device, dtype=w.dtype)
        self.cache = Cache(len(w.layers), like, w.positions)
        self.recorder = Recorder(w) if w.device.type == "cuda" else None

    def forget(self) -> None:
        """Drop what is cached: the weights changed."""
        self.cache.forget()

    @torch.inference_mode()
    def sample(self, asks: Sequence[SamplingRequest], stop: Stop) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up.

        Raises:
            ValueError: a prompt that with its continuation is longer than the model's positions.
        """
        longest = max(len(ask.prompt) + len(ask.uniforms) for ask in asks)
        if longest > self.limit:
            raise ValueError(f"{longest} tokens exceed the model's {self.limit} positions")
        rows = self.cache.seat([ask.slot for ask in asks], longest)
        answers = [_Answer(ask, row) for ask, row in zip(asks, rows, strict=True)]
        in_rows = sorted(answers, key=lambda answer: answer.row)
        self._write(in_rows, self._read(in_rows), stop)
        samples = []
        for answer in answers:
            sample = Sample(np.asarray(answer.ids, np.int32), np.asarray(answer.logprobs, np.float32))
            self.cache.holds(answer.ask.slot, np.concatenate([answer.ask.prompt, sample.ids[:-1]]))
            samples.append(sample)
        return samples

    def _read(self, at: Sequence[_Answer]) -> torch.Tensor:
        """Bring the prompt of answer n into row n of the cache; return the logits after each, (rows, vocabulary)."""
        kept = [self.cache.kept(answer.ask.slot, answer.ask.prompt) for answer in at]
        chunk = CHUNK if self.weights.device.type == "cpu" else LARGE_CHUNK
        work = plan([answer.ask.prompt for answer in at], range(len(at)), kept, chunk)
        for source, target, start, end in work.copies:
            self.cache.rows.put(target, start, end, self.cache.rows, source)
        for answer, last in zip(at, work.last_B.tolist(), strict=True):
            answer.kind = last
        ends = [run(self.weights, self.cache.rows, part) for part in work.passes]
        return self.weights.logits(torch.cat(ends)).index_select(0, self._tensor(work.last_B))

    def _write(self, at: list[_Answer], logits: torch.Tensor, stop: Stop) -> None:
        """Write answers token by token, answer n in row n. One that is over keeps its row, idly, until half are."""
        rows = self.cache.rows.first(len(at))
        now = self._now(at)
        token_B, logp_B = draw(logits, now.temperature_B, now.uniform_B)
        while True:
            for answer, token, logp in zip(at, token_B.tolist(), logp_B.tolist(), strict=True):
                if not answer.over:
                    answer.write(token, logp, stop)
            live = sum(not answer.over for answer in at)
            if not live:
                break
            if self.recorder is None and live <= len(at) // 2:
                at, rows = self._narrowed(at, rows)
            now = self._now(at)
            end = max(answer.position for answer in at) + 1
            if self.recorder is not None:
                token_B, logp_B = self.recorder(self.cache.rows, now, end)
            else:
                token_B, logp_B = step(self.weights, rows, now, end, self._alike(at))
        self._settle(at, rows)

    def _narrowed(self, at: list[_Answer], rows: Rows) -> tuple[list[_Answer], Rows]:
        """Return the answers that are not over, and a copy of their rows without gaps."""
        self._settle(at, rows)
        going = [b for b, answer in enumerate(at) if not answer.over]
        live = [at[b] for b in going]
        for answer in live:
            answer.moved = answer.position if answer.moved is None else answer.moved
        return live, rows.taken(going, max(len(answer.ask.prompt) + len(answer.ask.uniforms) for answer in live))

    def _settle(self, at: Sequence[_Answer], rows: Rows) -> None:
        """Take what answers that are over computed in copies of their rows back into the cache."""
        for b, answer in enumerate(at):
            if answer.over and answer.moved is not None:
                self.cache.rows.put(answer.row, answer.moved, answer.position, rows, b)

    def _alike(self, at: Sequence[_Answer]) -> Alike | None:
        """Tell which rows are the same, if any are."""
        numbers: dict[tuple[int, int, int], int] = {}
        for answer in at:
            answer.kind = numbers.setdefault((answer.kind, len(answer.ids), answer.ids[-1]), len(numbers))
        if len(numbers) == len(at):
            return None
        _, first_D, kind_B = np.unique([answer.kind for answer in at], return_index=True, return_inverse=True)
        return Alike(self._tensor(first_D), self._tensor(kind_B))

    def _now(self, at: Sequence[_Answer]) -> Step:
        last = [answer.ids[-1] if answer.ids else 0 for answer in at]  # the first token follows from the prompt alone
        columns = (
            np.array(last),
            np.array([answer.position for answer in at]),
            np.array([answer.ask.params.temperature for answer in at], np.float32),
            np.array([answer.uniform for answer in at]),
        )
        return Step(*map(self._tensor, columns))

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.weights.device)
