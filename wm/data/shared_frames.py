"""Decoded frames of a data set in shared memory: each episode is decoded once, by whichever process of the machine needs it first.

/dev/shm/wm-frames-<user>/<source's fingerprint>/episode_000012.npy   uint8 (T, H, W, 3), mapped by all who read it
/dev/shm/wm-frames-<user>/<source's fingerprint>/readers              a lock that every process which reads holds shared

Nobody waits for anybody: two that decode the same episode at once write the same bytes. A process of a few megabytes waits for
the last reader to end, however it ends, and removes the folder.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wm.config.errors import UserError
from wm.contracts import Source
from wm.data.atomic import atomic_file

SHARED_MEMORY = Path("/dev/shm")
LEFT_FREE = 0.1  # of the machine's memory: for models, batches and other people
_LOCK, _REMOVER_LOCK = "readers", "remover"
_REMOVER = """
import fcntl, os, shutil, sys
if os.fork():
    os._exit(0)
os.setsid()
folder, lock, own = sys.argv[1:]
try:
    mine = open(os.path.join(folder, own), "w")
    fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(os.path.join(folder, lock)) as readers:
        fcntl.flock(readers, fcntl.LOCK_EX)
        shutil.rmtree(folder, ignore_errors=True)
except OSError:  # another one waits already, or has removed it
    pass
"""
_logger = logging.getLogger(__name__)


class SharedFrames:
    """The frames of one source. Obeys `TokenStore`, with pixels in place of tokens.

    Args:
        episodes: those that will be read.
        root: a file system in memory.

    Raises:
        UserError: they do not fit into the memory that is free.
    """

    def __init__(self, source: Source, episodes: Sequence[int], root: Path = SHARED_MEMORY) -> None:
        self.source = source
        self._episodes = episodes
        sets = root / f"wm-frames-{os.getuid()}"
        self.folder = sets / source.fingerprint
        _make_own(sets)
        _remove_abandoned(sets)
        weakref.finalize(self, os.close, _join(self.folder))
        self._warned = False
        self._opened: dict[int, np.ndarray] = {}
        self._check_room()

    def path(self, episode: int) -> Path:
        """Where an episode's frames are, or will be."""
        return self.folder / f"episode_{episode:06d}.npy"

    def read(self, episode: int, indices: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3)."""
        if not self.path(episode).is_file() and not self._keep(episode):
            return self.source.episode(episode).frames(indices)
        if episode not in self._opened:
            self._opened[episode] = np.load(self.path(episode), mmap_mode="r", allow_pickle=False)
        return self._opened[episode][indices]

    def _keep(self, episode: int) -> bool:
        """Decodes an episode; False where there is no room for it."""
        length = self.source.lengths[episode]
        frames = self.source.episode(episode).frames(np.arange(length))
        try:
            if frames.nbytes > free_bytes(self.folder):
                raise OSError(errno.ENOSPC, "no memory left")
            with atomic_file(self.path(episode)) as partial, partial.open("wb") as file:
                np.save(file, frames)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            if not self._warned:
                _logger.warning(
                    "data.preload: no memory is left for %s; its frames are decoded again", self.source.name
                )
            self._warned = True
            return False
        return True

    def _check_room(self) -> None:
        missing = [episode for episode in self._episodes if not self.path(episode).is_file()]
        if not missing:
            return
        frame = self.source.episode(missing[0]).frames([0])
        needed = frame.nbytes * sum(self.source.lengths[episode] for episode in missing)
        free = free_bytes(self.folder)
        if needed > free:
            name, have = self.source.name, max(free, 0) / 2**30
            raise UserError(
                f"data.preload: the frames of sources.{name} take {needed / 2**30:.1f} GiB, and {have:.1f} GiB of memory can be had "
                f"({self.folder.parent.parent}, with {LEFT_FREE:.0%} of the machine to spare); leave data.preload out, or read fewer "
                f"episodes (data.sources.{name}.episodes)"
            )


def free_bytes(folder: Path) -> int:
    """What may be put there, with LEFT_FREE of the machine's memory to spare; of the container's memory where it has a limit."""
    memory = {name: int(value.split()[0]) * 1024 for name, value in _lines(Path("/proc/meminfo"), ":")}
    free = memory["MemAvailable"] - LEFT_FREE * memory["MemTotal"]
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free = min(free, (1 - LEFT_FREE) * limit - used)
    return int(min(free, shutil.disk_usage(folder).free))


def _lines(file: Path, separator: str) -> list[tuple[str, str]]:
    found = (line.partition(separator) for line in file.read_text(encoding="utf-8").splitlines())
    return [(name, value) for name, _, value in found]


def _number(file: Path) -> int | None:
    """None where there is no file, or it says `max`."""
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _make_own(folder: Path) -> None:
    """Anyone may write to shared memory: what lies in a folder of our name need not be ours."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise UserError(f"data.preload: {folder} belongs to another user; remove it, or leave data.preload out")


def _join(folder: Path) -> int:
    """A descriptor with the shared lock: while it is open nobody removes the folder."""
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        try:
            readers = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # removed in between
            continue
        fcntl.flock(readers, fcntl.LOCK_SH)  # waits for a removal to end, and for nothing else
        try:
            if os.fstat(readers).st_ino == (folder / _LOCK).stat().st_ino:
                break
        except FileNotFoundError:
            pass
        os.close(readers)
    # Not a child of ours: Ray ends the children of its workers with them.
    remover = [sys.executable, "-I", "-S", "-c", _REMOVER, str(folder), _LOCK, _REMOVER_LOCK]
    nowhere = subprocess.DEVNULL
    subprocess.run(remover, check=True, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    return readers


def _remove_abandoned(sets: Path) -> None:
    """What is left of readers whose remover was killed too."""
    for lock in sets.glob(f"*/{_LOCK}"):
        try:
            with lock.open("r+") as readers:
                fcntl.flock(readers, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
        except OSError:  # somebody reads it, or has just removed it
            continue
