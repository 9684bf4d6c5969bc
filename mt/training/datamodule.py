"""Training batches, planned and laid out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import lightning as L
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mt.batches import Ints


class Movable(Protocol):
    """A batch of any task: tensors that go to a device together."""

    def to(self, device: torch.device) -> Any:
        """Move what the device computes with."""


class TrainingBatch(NamedTuple):
    """One device's share of an update."""

    batch: Movable
    normalizer: int
    """What the sum of the loss is divided by: target tokens (ends of sentences included, by the
    best segmentation), classes or values of the whole update, over all devices and accumulated
    batches."""


class Share(NamedTuple):
    """Which part of every update a process computes."""

    devices: int
    """Processes that train together."""
    rank: int
    """Which of them this is."""
    accumulate: int
    """Batches that each of them computes for an update."""


class TrainingData(ABC):
    """What is trained on, shared out to updates.

    Args:
        tokens: Budget of a batch on each device.
        workers: Processes that prepare batches ahead; 0 prepares them in the training process.
    """

    def __init__(self, tokens: int, workers: int):
        self.tokens, self.workers = tokens, workers
        self._updates: dict[int, int] = {}

    @abstractmethod
    def plan(self, tokens: int, seed: int, epoch: int) -> list[Ints]:
        """Plan the updates of an epoch, each with a budget of `tokens`: a pure function."""

    def updates(self, tokens: int) -> int:
        """Count the updates of an epoch; it is the same for every seed and epoch."""
        if tokens not in self._updates:
            self._updates[tokens] = len(self.plan(tokens, 0, 0))
        return self._updates[tokens]

    @abstractmethod
    def batch(self, update: Ints, parts: int, part: int, seed: tuple[int, ...]) -> TrainingBatch:
        """Lay out one part of an update.

        Args:
            update: One of a plan's.
            parts: Devices times accumulated batches.
            part: Which of them.
            seed: Of what is random in it.
        """


class BatchStream(IterableDataset[TrainingBatch]):
    """All batches of a run on one device, epoch after epoch, from any update on."""

    def __init__(self, data: TrainingData, seed: int, share: Share, start: int, stop: int):
        self.data, self.seed, self.share = data, seed, share
        self.start, self.stop = start, stop

    def __iter__(self) -> Iterator[TrainingBatch]:
        worker = get_worker_info()
        workers, mine = (worker.num_workers, worker.id) if worker else (1, 0)
        devices, rank, accumulate = self.share
        parts = devices * accumulate
        tokens = self.data.tokens * parts
        updates = self.data.updates(tokens)
        plan, planned = [], -1
        for step in range(self.start, self.stop):
            epoch, index = divmod(step, updates)
            if epoch != planned:
                plan, planned = self.data.plan(tokens, self.seed, epoch), epoch
            for micro in range(accumulate):
                # Loader processes take turns, so that their batches come in the planned order.
                if ((step - self.start) * accumulate + micro) % workers == mine:
                    part = micro * devices + rank
                    yield self.data.batch(plan[index], parts, part, (self.seed, step, part))


class DataModule(L.LightningDataModule):
    """Feeds a trainer from where its last checkpoint stood.

    The whole run is one pass of Lightning over one stream: where it resumes is then just a number
    of updates, the same in the middle of an epoch as at its end.
    """

    def __init__(self, data: TrainingData, seed: int, updates: int):
        super().__init__()
        self.data, self.seed, self.updates = data, seed, updates

    def train_dataloader(self) -> DataLoader[TrainingBatch]:
        """Make the loader of the batches that are still to come."""
        trainer = self.trainer
        assert trainer is not None
        share = Share(trainer.world_size, trainer.global_rank, trainer.accumulate_grad_batches)
        stream = BatchStream(self.data, self.seed, share, trainer.global_step, self.updates)
        return DataLoader(
            stream,
            batch_size=None,
            num_workers=self.data.workers,
            pin_memory=torch.cuda.is_available(),
        )
