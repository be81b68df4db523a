"""Weights, gradients and optimiser state spread over the processes of a run: FSDP2, and what is said of its tensors.

A sharded parameter is a `DTensor`: every process holds a slice of it, and a layer's slices come together while the
layer computes. So a pass of a sharded model is a thing that all processes do together, as many times each (`in_step`).
The functions below take whole tensors and models as well, and leave them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gentax.models.scoring import Batch, batches, score

if TYPE_CHECKING:
    from gentax.training.parallel import World


def shard(model: Any, size: int, device: torch.device, whole: Iterable[torch.nn.Parameter] = ()) -> None:
    """Spread a causal model's parameters over all processes, in place: a unit for each layer, one for all the rest.

    Args:
        model: a model of transformers, the same in every process. It may be on the CPU: what moves to the device is a
            layer at a time, then this process's slice of it.
        size: how many processes there are.
        device: where the slices are to be.
        whole: parameters that every process keeps whole.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (size,))
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


def in_step(model: Any, made: Sequence[Batch], world: World) -> Iterator[Batch]:
    """Yield batches, each for one forward pass and, unless gradients are off, one backward; then make empty passes
    while another process has more.

    Nothing else may be said between the processes inside the loop. For a model that is not sharded these are just the
    batches.

    Args:
        model: what the passes are made with.
        made: this process's batches; none is fine.
        world: the processes.
    """
    sharded = hasattr(model.get_decoder(), "reshard")
    missing = world.most(len(made)) - len(made) if sharded else 0
    yield from made
    for _ in range(missing):
        (empty,) = batches(model, [np.zeros(1, np.int32)], [np.zeros(1, bool)])
        nothing = score(model, empty, "fp32").sum()
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


def clip(parameters: Iterable[torch.nn.Parameter], limit: float) -> float:
    """Scale gradients down so that their joint norm is at most `limit`; return the norm before.

    Args:
        parameters: all sharded or all whole.
        limit: the largest norm.
    """
    return float(gathered(torch.nn.utils.clip_grad_norm_(parameters, limit)))
