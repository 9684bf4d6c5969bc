"""Checkpoints to resume from: whole or absent, the last two kept."""

from __future__ import annotations

import logging
import os
import re
import time
import zipfile
import zlib
from pathlib import Path

import lightning as L

from mt.errors import MTError
from mt.training.module import TrainingModule, UpdateCallback

_log = logging.getLogger("mt")
_NAME = re.compile(r"step-(\d+)\.ckpt")


class Checkpoints(UpdateCallback):
    """Saves the state of training at intervals of time, and whenever asked.

    Args:
        folder: Where checkpoints lie, as `step-N.ckpt`.
        minutes: Between two of them.
        keep: How many are kept, so that a damaged one has a predecessor.
    """

    def __init__(self, folder: Path, minutes: float, keep: int = 2):
        self.folder, self.minutes, self.keep = folder, minutes, keep
        self.due = False
        """Save after this update, whatever the time."""
        self._saved = time.monotonic()
        self._step = -1

    def on_update_end(self, trainer: L.Trainer, module: TrainingModule) -> None:
        """Save where a checkpoint is due."""
        late = time.monotonic() - self._saved > 60 * self.minutes
        if trainer.world_size > 1:  # clocks differ, and every process must take part
            late = trainer.global_step % 20 == 0 and trainer.strategy.broadcast(late)
        if self.due or late:
            self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the end, for a run that is resumed with a larger budget."""
        if self.due or trainer.global_step != self._step:
            self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write a checkpoint; a reader sees it whole or not at all."""
        path = self.folder / f"step-{trainer.global_step}.ckpt"
        temporary = path.with_suffix(".part")
        try:
            trainer.save_checkpoint(temporary)
        except (OSError, RuntimeError) as error:  # torch raises the second where a disk is full
            temporary.unlink(missing_ok=True)
            raise MTError(
                f"{path}: cannot write the checkpoint ({error}); free some disk space, then go on "
                "with --resume"
            ) from error
        if trainer.is_global_zero:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            for old in find_checkpoints(self.folder)[self.keep :]:
                old.unlink()
            for left in self.folder.glob("*.part"):  # of a process that was killed
                left.unlink()
        self._saved, self._step, self.due = time.monotonic(), trainer.global_step, False


def find_checkpoints(folder: Path) -> list[Path]:
    """List a folder's checkpoints, the newest first."""
    found = [
        (int(match[1]), path) for path in folder.glob("*") if (match := _NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found, reverse=True)]


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """Find the newest checkpoint that is whole, by its checksums; warn of any that is not."""
    for path in find_checkpoints(folder):
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is None:
                    return path
        except (zipfile.BadZipFile, EOFError, zlib.error):
            pass
        _log.warning("%s: damaged; trying the one before", path)
    return None
