"""Several processes that train one network, as `torchrun` starts them: each takes its share of every batch.

The processes find each other by the environment (RANK, WORLD_SIZE, MASTER_ADDR …); without it there is one. Gradients
are averaged by DistributedDataParallel, over NCCL on GPUs and gloo elsewhere. Buffers are those of rank 0, which alone
validates and writes. The CUDA branches have not been run on several GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tilesseg.errors import JobError

PATIENCE = timedelta(days=1)
"""Longest time that a process waits for another one: rank 0 validates meanwhile."""


@dataclass(frozen=True, slots=True)
class Processes:
    """Processes of a training, seen from one of them."""

    rank: int = 0
    """Number of this process, from 0."""
    world: int = 1
    """Number of processes."""

    @property
    def first(self) -> bool:
        """Whether this process validates, writes and speaks."""
        return self.rank == 0

    def wrap(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Network whose gradients are averaged over all processes; itself, where there is one."""
        if self.world == 1:
            return network
        on_gpu = device.type == "cuda"
        if on_gpu:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(network, device_ids=[device] if on_gpu else None)

    def total(self, values: Tensor) -> Tensor:
        """Sum of a tensor over all processes."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values

    def from_first(self, values: Tensor) -> Tensor:
        """Tensor of rank 0; the others wait for it."""
        if self.world > 1:
            distributed.broadcast(values, src=0)
        return values

    def share(self, batch: int) -> int:
        """Number of patches of a batch that each process takes.

        Raises:
            JobError: the batch cannot be shared equally.
        """
        if batch % self.world:
            raise JobError(
                f"sampling.batch is {batch}, and {self.world} processes train; make it a multiple of {self.world}"
            )
        return batch // self.world


@contextmanager
def joined_processes(device: torch.device) -> Iterator[Processes]:
    """Processes that `torchrun` started, connected while the context lasts; one where it started none."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Processes(distributed.get_rank(), world)
    finally:
        distributed.destroy_process_group()


def is_first_process() -> bool:
    """Whether this process is alone, or the first that `torchrun` started: the only one that speaks."""
    return os.environ.get("RANK", "0") == "0"


def device_of_process(device: torch.device) -> torch.device:
    """Device of this process: of several on a machine, each takes the GPU of its local rank."""
    local = os.environ.get("LOCAL_RANK")
    alone = device.type != "cuda" or local is None or int(os.environ.get("WORLD_SIZE", "1")) == 1
    return device if alone else torch.device("cuda", int(local or 0))
