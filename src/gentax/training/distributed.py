"""Several processes that learn as one (torch.distributed): what they tell each other, and FSDP2 sharding.

Processes are started by torchrun, or by anything else that sets its variables (Ray Train does). Each plays its own
groups; gradients and counts are summed, so the weights stay the same everywhere and a step is that of all episodes
together. Where one process has no room for a whole model, weights, gradients and optimizer state are spread over them
(`learner.check_memory`): a sharded parameter is a `DTensor`, of which every process holds a slice, and a layer's slices
come together while the layer computes. So a pass of a sharded model is something that all processes do together,
equally often (`in_lockstep`). Functions that take sharded tensors take whole ones too and leave them as they are. Left
out: tensor and pipeline parallelism.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import torch

from gentax.models.device import resolve_device
from gentax.models.scoring import make_batches, state_logits
from gentax.models.scoring.batch import ScoringBatch


@dataclass(frozen=True)
class World:
    """The processes of a run; one that is alone needs no library for it."""

    rank: int = 0
    size: int = 1
    local: int = 0
    """The number of this process among those on its machine."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum(self, value: float) -> float:
        """Return the sum of `value` over all processes."""
        return value

    def max(self, value: int) -> int:
        """Return the largest `value` of any process."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Return each process's `value` (plain JSON-like values), in order of rank."""
        return [value]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by the sum of those of all processes; where none has one there is none afterwards."""

    def barrier(self) -> None:
        """Return when every process has come here."""


@dataclass(frozen=True)
class _Several(World):
    """Processes that talk through torch.distributed."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where messages are: NCCL sends from the GPU."""

    def sum(self, value: float) -> float:
        return float(self._reduced(torch.tensor(value, dtype=torch.float64)))

    def max(self, value: int) -> int:
        return int(self._reduced(torch.tensor(value, dtype=torch.int64), torch.distributed.ReduceOp.MAX))

    def gather(self, value: Any) -> list[Any]:
        text = json.dumps(value).encode()  # not all_gather_object, which pickles
        lengths = self._gathered(torch.tensor([len(text)], dtype=torch.int64))
        longest = int(max(lengths))
        padded = torch.frombuffer(bytearray(text.ljust(longest)), dtype=torch.uint8)
        return [json.loads(bytes(part.tolist())) for part in self._gathered(padded)]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        whole = []
        for parameter in parameters:
            if not is_sharded(parameter):
                whole.append(parameter)
            elif parameter.grad is not None:
                parameter.grad.mul_(self.size)  # its backward pass left the mean of the processes
        has_grad = torch.tensor([float(parameter.grad is not None) for parameter in whole])
        for parameter, count in zip(whole, self._reduced(has_grad).tolist(), strict=True):
            if count:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                torch.distributed.all_reduce(parameter.grad)

    def barrier(self) -> None:
        self.max(0)

    def _reduced(self, value: torch.Tensor, how: Any = torch.distributed.ReduceOp.SUM) -> torch.Tensor:
        value = value.to(self.device)
        torch.distributed.all_reduce(value, how)
        return value

    def _gathered(self, value: torch.Tensor) -> list[torch.Tensor]:
        value = value.to(self.device)
        parts = [torch.empty_like(value) for _ in range(self.size)]
        torch.distributed.all_gather(parts, value)
        return parts


@contextmanager
def join(device_name: str = "auto") -> Iterator[World]:
    """Meet the other processes that torchrun started, and part from them at the end; alone without torchrun.

    Args:
        device_name: as a user says it (see `resolve_device`).

    Raises:
        UsageError: a device that does not exist here.
    """
    size = int(os.environ.get("WORLD_SIZE", 1)) if {"RANK", "MASTER_ADDR"} <= os.environ.keys() else 1
    if size == 1:
        yield World()
        return
    rank = int(os.environ["RANK"])
    world = World(rank, size, int(os.environ.get("LOCAL_RANK", rank)))
    device = resolve_device(device_name, world.local, world.size)
    ours = not torch.distributed.is_initialized()  # Ray Train has done it, and tidies up by itself
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if ours:
        for module in ("fsdp", "nn.functional"):  # imported later, they would hold the group as a default argument
            import_module(f"torch.distributed.{module}")
        backend = "nccl" if device.type == "cuda" else "gloo"
        # One process may gather what is imitated, or play, for hours while the others wait.
        torch.distributed.init_process_group(
            backend, store=_fresh_store(), rank=rank, world_size=size, timeout=timedelta(days=7)
        )
    try:
        several = _Several(rank, size, world.local, device)
        yield several
        several.barrier()  # nobody leaves while another still talks
    finally:
        if ours:
            _leave()


def _leave() -> None:
    """Destroy the process group, and what still refers to it: a group that lives on has threads, and where these are
    alive when Python ends, the process may abort after all its work is done."""
    while _meshes:  # PyTorch's caches of sharded operations keep them
        getattr(_meshes.pop(), "_pg_registry", {}).clear()
    gc.collect()  # sharded models, which refer to themselves
    torch.distributed.destroy_process_group()


_meshes: list[Any] = []  # that this run's models are spread over
_joined = itertools.count()  # how often this process has joined others


def _fresh_store() -> Any:
    """Return a place where processes leave their addresses for each other, empty each time they meet anew."""
    return torch.distributed.PrefixStore(f"gentax-{next(_joined)}", _store())


@cache
def _store() -> Any:
    store, _, _ = next(torch.distributed.rendezvous("env://"))
    return store


def shard(model: Any, size: int, device: torch.device, whole: Iterable[torch.nn.Parameter] = ()) -> None:
    """Spread a causal model's parameters over all processes, in place: a unit for each layer, one for all the rest.

    Args:
        model: the same in every process, and perhaps on the CPU: a layer at a time moves to the device, then this
            process's slice of it.
        size: how many processes there are.
        device: where the slices are to be.
        whole: parameters that every process keeps whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (size,))
    _meshes.append(mesh)
    whole = set(whole)
    body = model.get_decoder()
    for layer in [part for part in body.modules() if type(part).__name__ in (model._no_split_modules or ())]:
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    # The head is called after the body and may share the embedding's weights: it belongs to the body's unit, which
    # stays together from the body's forward pass to the end of the backward pass.
    body.add_module("head_of_this_body", model.get_output_embeddings())
    fully_shard(body, mesh=mesh, reshard_after_forward=False, ignored_params=whole)
    for parameter in whole:
        parameter.data = parameter.data.to(device)


def in_lockstep(model: Any, batches: Sequence[ScoringBatch], world: World) -> Iterator[ScoringBatch]:
    """Yield batches, each for one forward pass and, unless gradients are off, one backward; then make empty passes
    while another process has more.

    Processes must not talk to each other otherwise inside the loop. For a model that is not sharded these are just the
    batches.
    """
    sharded = hasattr(model.get_decoder(), "reshard")
    missing = world.max(len(batches)) - len(batches) if sharded else 0
    yield from batches
    for _ in range(missing):
        (empty,) = make_batches(model, [np.zeros(1, np.int32)], [np.zeros(1, bool)])
        nothing = state_logits(model, empty, "fp32").sum()
        if nothing.requires_grad:
            nothing.backward()


def is_sharded(tensor: torch.Tensor) -> bool:
    """Return whether a process holds only a slice of `tensor`."""
    return hasattr(tensor, "full_tensor")


def gathered(tensor: torch.Tensor) -> torch.Tensor:
    """Return the whole of a tensor. All processes call it together."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def to_save(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return the whole of a tensor; of a sharded one on the CPU, and None but in the first process. All call it."""
    if not is_sharded(tensor):
        return tensor
    whole = tensor.full_tensor()
    return whole.cpu() if torch.distributed.get_rank() == 0 else None


def slice_like(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return the part of `whole` that this process holds of `like`; all of it where `like` is not sharded."""
    if not is_sharded(like):
        return whole
    from torch.distributed.tensor import distribute_tensor

    # Every process has the whole, so nothing needs to be sent.
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def clip_grad_norm(parameters: Iterable[torch.nn.Parameter], limit: float) -> float:
    """Scale gradients (all sharded or all whole) so that their joint norm is at most `limit`; return it before."""
    return float(gathered(torch.nn.utils.clip_grad_norm_(parameters, limit)))
