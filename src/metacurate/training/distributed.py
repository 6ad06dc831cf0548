"""Ranks: this process's place among them, as torchrun tells it in the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from metacurate.needs import needs

with needs("train"):
    import torch
    import torch.distributed as dist

from metacurate.errors import UserError


@dataclass(frozen=True)
class Ranks:
    """This process is ``rank`` of ``world_size``; it computes on ``device``."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this rank writes files."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """A plain value of each rank, on all ranks, in their order."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def agree(self, problem: UserError | None) -> None:
        """Raise the first rank's UserError on all ranks, so that none waits for another."""
        found = next((p for p in self.gather(problem) if p is not None), None)
        if found is not None:
            raise found


@contextmanager
def ranks() -> Iterator[Ranks]:
    """Join the process group that torchrun describes; alone without it.

    CUDA with NCCL if there is a GPU for each process, else the CPU with gloo.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    if cuda and local >= torch.cuda.device_count():
        raise UserError(
            f"process {local} on this machine has no GPU (there are {torch.cuda.device_count()}); "
            "start one process a GPU: torchrun --nproc-per-node"
        )
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if world_size == 1:
        yield Ranks(0, 1, device)
        return
    dist.init_process_group("nccl" if cuda else "gloo")
    try:
        yield Ranks(dist.get_rank(), world_size, device)
    finally:
        dist.destroy_process_group()
