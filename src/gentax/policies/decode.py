"""Fast sampling from a Llama-like decoder: knows token ids, rows and a key-value cache, and nothing of text.

What makes it fast on a small model and a CPU, each against calling the stock `generate` on every step's prompt:
a row's cache is kept from one call to the next, so that only what is new in its prompt is computed; rows that ask the
same question (the episodes of a group) compute it once; new tokens are packed, without padding, through everything
but attention; finished rows leave the batch; projections of the same input are one product.

Left out: sliding windows, mixtures of experts, several devices. Models it does not know fall to `policies.stock`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from gentax.core.prefix import common

SUPPORTED = ("llama", "qwen2", "qwen3")
CHUNK = 4096  # packed tokens in one forward pass of a prefill
SHARE = 16  # tokens that a prompt must have in common with another row's before copying beats computing


@dataclass(frozen=True, slots=True)
class Sample:
    """What one row wrote."""

    ids: np.ndarray  # int32
    logprobs: np.ndarray  # float32, under the distribution sampled from


@dataclass(frozen=True, slots=True)
class Ask:
    """One row to continue: its slot, its whole prompt, how to sample, and uniform numbers to sample with."""

    slot: int
    prompt: np.ndarray  # int32
    temperature: float
    uniforms: np.ndarray  # float64; as many as tokens may be written


class Decoder:
    """Samples continuations for many rows at once.

    Args:
        model: a Hugging Face causal model of a type in `SUPPORTED`. Its projections are fused in place: the module's
            parameters become views, so that training the module is seen here without copying.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        self.device, self.dtype = model.device, model.dtype
        self.heads = config.num_attention_heads
        self.groups = config.num_key_value_heads or self.heads
        self.head = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.limit = config.max_position_embeddings
        self.eps = config.rms_norm_eps
        body = model.get_decoder()
        self.embed, self.norm, self.out = body.embed_tokens.weight, body.norm.weight, model.get_output_embeddings()
        self.layers = [_Layer(layer) for layer in body.layers]
        rotary = body.rotary_emb
        angles = torch.outer(torch.arange(self.limit, device=self.device).float(), rotary.inv_freq.float())
        angles = torch.cat([angles, angles], dim=-1)
        scale = rotary.attention_scaling
        self.cos, self.sin = (angles.cos() * scale).to(self.dtype), (angles.sin() * scale).to(self.dtype)
        self._row: dict[int, int] = {}  # slot -> row of the cache
        self._ids: dict[int, np.ndarray] = {}  # slot -> the tokens whose keys and values are in its row
        self._cache = [(self._empty(0, 0), self._empty(0, 0)) for _ in self.layers]

    def forget(self) -> None:
        """Drop what is cached: the weights changed. Rows are dealt out anew, so that what comes does not depend, in its
        last bits, on what was played before."""
        self._ids.clear()
        self._row.clear()

    @torch.inference_mode()
    def sample(self, asks: Sequence[Ask], stop: Callable[[list[int]], bool]) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up.

        Raises:
            ValueError: a prompt that with its continuation is longer than the model's positions.
        """
        longest = max(len(ask.prompt) + len(ask.uniforms) for ask in asks)
        if longest > self.limit:
            raise ValueError(f"{longest} tokens exceed the model's {self.limit} positions")
        self._reserve([ask.slot for ask in asks], longest)
        self._close_ranks([ask.slot for ask in asks])
        logits = self._prefill(asks, [self._cached(ask) for ask in asks])
        return self._decode(asks, logits, stop)

    # The cache.

    def _empty(self, rows: int, length: int) -> torch.Tensor:
        # Zeros, not whatever memory holds: a masked key has weight 0, and 0 times NaN is NaN.
        return torch.zeros(rows, self.groups, length, self.head, device=self.device, dtype=self.dtype)

    def _reserve(self, slots: Sequence[int], length: int) -> None:
        for slot in slots:
            self._row.setdefault(slot, len(self._row))
        rows, have = len(self._row), self._cache[0][0].shape
        if rows <= have[0] and length <= have[2]:
            return
        length = max(have[2], -(-length // 128) * 128)
        rows = max(have[0], rows)
        grown = []
        for pair in self._cache:
            fresh = (self._empty(rows, length), self._empty(rows, length))
            for old, new in zip(pair, fresh, strict=True):
                new[: have[0], :, : have[2]] = old
            grown.append(fresh)
        self._cache = grown

    def _close_ranks(self, slots: Sequence[int]) -> None:
        """Move the caches of `slots` to the first rows, so that attention reads them where they are."""
        asked = set(slots)
        idle = {row: slot for slot, row in self._row.items() if slot not in asked and row < len(slots)}
        for slot in slots:
            if (row := self._row[slot]) >= len(slots):
                place, other = idle.popitem()
                self._row[slot], self._row[other] = place, row
                self._ids.pop(other, None)
                length = len(self._ids.get(slot, ()))
                for tensor in itertools.chain.from_iterable(self._cache):
                    tensor[place, :, :length] = tensor[row, :, :length]

    def _cached(self, ask: Ask) -> int:
        """Return how many tokens at the start of the prompt are in the row's cache; the last is always computed."""
        have = self._ids.get(ask.slot)
        if have is None:
            return 0
        return min(common(have, ask.prompt), len(ask.prompt) - 1)

    def _copy(self, source: int, target: int, start: int, end: int) -> None:
        a, b = self._row[source], self._row[target]
        for keys, values in self._cache:
            keys[b, :, start:end] = keys[a, :, start:end]
            values[b, :, start:end] = values[a, :, start:end]

    # Prompts.

    def _prefill(self, asks: Sequence[Ask], kept: list[int]) -> torch.Tensor:
        """Bring every prompt into the cache; return the logits after its last token, (rows, vocabulary)."""
        leader: dict[bytes, int] = {}
        first = [leader.setdefault(ask.prompt.tobytes(), i) for i, ask in enumerate(asks)]
        compute = [i for i in range(len(asks)) if first[i] == i or len(asks[i].prompt) - kept[i] < SHARE]
        for i in compute:
            first[i] = i
        self._share_opening(asks, compute, kept)
        hidden = torch.empty(len(asks), self.embed.shape[1], device=self.device, dtype=self.dtype)
        for chunk in _chunks(sorted(compute, key=lambda i: len(asks[i].prompt) - kept[i]), asks, kept):
            rows = [self._row[asks[i].slot] for i in chunk]
            new = [asks[i].prompt[kept[i] :] for i in chunk]
            hidden[chunk] = self._forward(rows, new, [kept[i] for i in chunk])
        for i, ask in enumerate(asks):
            if first[i] != i:
                self._copy(asks[first[i]].slot, ask.slot, kept[i], len(ask.prompt))
                hidden[i] = hidden[first[i]]
            self._ids[ask.slot] = ask.prompt
        return self.out(hidden)

    def _share_opening(self, asks: Sequence[Ask], compute: list[int], kept: list[int]) -> None:
        """Compute once what the prompts of fresh rows begin with (the rules), and copy it to all of them."""
        fresh = [i for i in compute if kept[i] == 0]
        if len(fresh) < 2:
            return
        head = asks[fresh[0]].prompt
        shared = min(min(common(head, asks[i].prompt), len(asks[i].prompt) - 1) for i in fresh)
        if shared < SHARE:
            return
        self._forward([self._row[asks[fresh[0]].slot]], [head[:shared]], [0])
        for i in fresh[1:]:
            self._copy(asks[fresh[0]].slot, asks[i].slot, 0, shared)
        for i in fresh:
            kept[i] = shared

    def _forward(self, rows: list[int], new: list[np.ndarray], start: list[int]) -> torch.Tensor:
        """Run new tokens of several rows; return the hidden state after each row's last one, (rows, width)."""
        B, N = len(rows), [len(ids) for ids in new]
        wide = max(N)
        row_N = torch.tensor(np.repeat(rows, N), device=self.device)
        at_N = np.concatenate([np.arange(s, s + n) for s, n in zip(start, N, strict=True)])
        end = int(at_N.max()) + 1
        at_N = torch.tensor(at_N, device=self.device)
        x_N = self.embed[torch.tensor(np.concatenate(new), device=self.device).long()]
        cos_N, sin_N = self.cos[at_N, None], self.sin[at_N, None]
        ragged = any(n != wide for n in N)
        if ragged:
            pick = torch.tensor(np.concatenate([b * wide + np.arange(n) for b, n in enumerate(N)]), device=self.device)
        position = torch.tensor(start, device=self.device)[:, None] + torch.arange(wide, device=self.device)
        mask = torch.arange(end, device=self.device) <= position[:, :, None]
        mask = mask[:, None]
        whole = rows == list(range(B))
        index = slice(0, B) if whole else torch.tensor(rows, device=self.device)
        for layer, (keys, values) in zip(self.layers, self._cache, strict=True):
            q, k, v = layer.project(x_N, self.eps, self.heads, self.groups, self.head)
            q, k = _rotate(q, cos_N, sin_N), _rotate(k, cos_N, sin_N)
            keys[row_N, :, at_N], values[row_N, :, at_N] = k, v
            if ragged:
                padded = q.new_zeros(B * wide, self.heads, self.head)
                padded[pick] = q
            else:
                padded = q
            q_B = padded.view(B, wide, self.heads, self.head).transpose(1, 2)
            mixed = F.scaled_dot_product_attention(
                q_B, keys[index, :, :end], values[index, :, :end], attn_mask=mask, enable_gqa=self.groups != self.heads
            )
            mixed = mixed.transpose(1, 2).reshape(B * wide, self.heads * self.head)
            x_N = layer.finish(x_N, mixed[pick] if ragged else mixed, self.eps)
        last = torch.tensor(np.cumsum(N) - 1, device=self.device)
        return F.rms_norm(x_N[last], self.norm.shape, self.norm, self.eps)

    # Answers.

    def _decode(self, asks: Sequence[Ask], logits: torch.Tensor, stop: Callable[[list[int]], bool]) -> list[Sample]:
        ids: list[list[int]] = [[] for _ in asks]
        logprobs: list[list[float]] = [[] for _ in asks]
        live = list(range(len(asks)))
        while True:
            chosen, logp = _draw(logits, [(asks[i].temperature, asks[i].uniforms[len(ids[i])]) for i in live])
            going = []
            for i, token, value in zip(live, chosen, logp, strict=True):
                ids[i].append(token)
                logprobs[i].append(value)
                if not stop(ids[i]) and len(ids[i]) < len(asks[i].uniforms):
                    going.append(i)
            if not going:
                break
            live = sorted(going, key=lambda i: self._row[asks[i].slot])
            rows = [self._row[asks[i].slot] for i in live]
            new = [np.asarray(ids[i][-1:], np.int32) for i in live]
            start = [len(asks[i].prompt) + len(ids[i]) - 1 for i in live]
            logits = self.out(self._forward(rows, new, start))
        samples = []
        for ask, written, logp in zip(asks, ids, logprobs, strict=True):
            sample = Sample(np.asarray(written, np.int32), np.asarray(logp, np.float32))
            # The keys of the last token were never computed: it was sampled and not run.
            self._ids[ask.slot] = np.concatenate([ask.prompt, sample.ids[:-1]])
            samples.append(sample)
        return samples


class _Layer:
    """The weights of one layer, projections of the same input fused."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.qkv, self.qkv_bias = _fuse(attention.q_proj, attention.k_proj, attention.v_proj)
        self.up, self.up_bias = _fuse(mlp.gate_proj, mlp.up_proj)
        self.o, self.down = attention.o_proj, mlp.down_proj
        self.norm, self.norm2 = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        self.q_norm = getattr(attention, "q_norm", None)
        self.k_norm = getattr(attention, "k_norm", None)

    def project(self, x_N: torch.Tensor, eps: float, heads: int, groups: int, size: int) -> tuple[torch.Tensor, ...]:
        h = F.linear(F.rms_norm(x_N, self.norm.shape, self.norm, eps), self.qkv, self.qkv_bias)
        q, k, v = h.view(len(h), -1, size).split([heads, groups, groups], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return q, k, v

    def finish(self, x_N: torch.Tensor, mixed: torch.Tensor, eps: float) -> torch.Tensor:
        x_N = x_N + self.o(mixed)
        gate, up = F.linear(F.rms_norm(x_N, self.norm2.shape, self.norm2, eps), self.up, self.up_bias).chunk(2, dim=-1)
        return x_N + self.down(F.silu(gate) * up)


def _fuse(*parts: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Lay the weights of linear modules into one tensor, of which their parameters become views."""
    weights, biases = ([getattr(part, name) for part in parts] for name in ("weight", "bias"))
    return _joined(weights), None if biases[0] is None else _joined(biases)


def _joined(tensors: list[torch.Tensor]) -> torch.Tensor:
    first = tensors[0].data
    size = (sum(len(t) for t in tensors), *first.shape[1:])
    ends = [t.data_ptr() + t.numel() * t.element_size() for t in tensors[:-1]]
    same = len({t.untyped_storage().data_ptr() for t in tensors}) == 1
    if same and ends == [t.data_ptr() for t in tensors[1:]]:
        return first.as_strided(size, first.stride())  # joined before, by another decoder of the same model
    whole = torch.cat([t.data for t in tensors])
    for tensor, piece in zip(tensors, whole.split([len(t) for t in tensors]), strict=True):
        tensor.data = piece
    return whole


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


def _draw(logits: torch.Tensor, how: list[tuple[float, float]]) -> tuple[list[int], list[float]]:
    """Draw one token a row by inverting the distribution function; return tokens and log-probabilities."""
    temperature, uniform = (torch.tensor(t, device=logits.device) for t in zip(*how, strict=True))
    greedy = temperature == 0
    logp = torch.log_softmax(logits.float() / temperature.float().masked_fill(greedy, 1.0)[:, None], dim=-1)
    cumulative = logp.double().exp().cumsum(dim=-1)
    token = (cumulative < uniform.double()[:, None] * cumulative[:, -1:]).sum(dim=-1).clamp(max=logits.shape[-1] - 1)
    token = torch.where(greedy, logits.argmax(dim=-1), token)
    return token.tolist(), logp.gather(1, token[:, None])[:, 0].tolist()


def _chunks(order: list[int], asks: Sequence[Ask], kept: Sequence[int]) -> list[list[int]]:
    """Split rows, sorted by how much is new, so that a chunk's padded size stays bounded."""
    chunks: list[list[int]] = []
    for i in order:
        new = len(asks[i].prompt) - kept[i]
        if not chunks or new * (len(chunks[-1]) + 1) > CHUNK:
            chunks.append([])
        chunks[-1].append(i)
    return chunks
