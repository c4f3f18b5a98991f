"""Frames of a video file by index: from the keyframe before each, forward, exactly.

A `VideoFile` is a path and a range of seconds from its first frame on: small, picklable, safe to fork. Indexes (when each frame
and each keyframe comes) and open decoders belong to the process; a few decoders stay open, and a forked worker starts with none.
A file that is cut short or has a hole is refused; changed bits inside a picture look to a decoder like another picture.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from wm.config.errors import UserError

MAX_OPEN = 8  # decoders a process keeps open; each holds some 20 uncompressed frames
MAX_INDEXED = 2048  # ranges whose index a process keeps; 8 bytes a frame
MARGIN_FRAMES = 32  # frames may be stored this far from their place in time: H.264 and HEVC reorder at most 16
KEEP_DECODING = 3  # a keyframe at most this far ahead is decoded towards, not sought: decoders run about so far ahead


@dataclass(frozen=True)
class VideoFile:
    """A video, or the part of one from `start_s` to before `end_s` (None: its end).

    Every method raises UserError naming the file when it is missing, unreadable or cut short.
    """

    path: Path
    start_s: float = 0.0
    end_s: float | None = None

    def __len__(self) -> int:
        """Frames in the range."""
        return len(self._index.pts)

    @property
    def fps(self) -> float:
        """Frames a second, on average over the file."""
        return self._index.fps

    @property
    def times(self) -> np.ndarray:
        """Seconds since `start_s` of every frame, float64 (n,)."""
        index = self._index
        return (index.pts - index.origin) * index.time_base - self.start_s

    @property
    def size(self) -> tuple[int, int]:
        """Height, width."""
        return self._index.size

    def frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3), RGB, in the order asked; an index may come several times.

        Raises:
            IndexError: for an index outside 0..len - 1.
        """
        rows = np.asarray(indices, np.int64).reshape(-1)
        index = self._index
        if rows.size and not 0 <= rows.min() <= rows.max() < len(index.pts):
            raise IndexError(f"frames {rows.min()}..{rows.max()} of {len(index.pts)} in {self.path}")
        wanted, places = np.unique(rows, return_inverse=True)
        pictures = np.empty((len(rows), *index.size, 3), np.uint8)
        with _readable(self.path), _DECODERS.borrowed(self.path, index.stamp) as decoder:
            for number, frame in enumerate(decoder.decode(index, wanted)):
                pictures[places == number] = frame.to_ndarray(format="rgb24")
        return pictures

    @property
    def _index(self) -> _Index:
        stamp = _stamp(self.path)
        return _INDEXES.get((stamp, self.start_s, self.end_s), lambda: self._make_index(stamp))

    def _make_index(self, stamp: _Stamp) -> _Index:
        with _readable(self.path), _DECODERS.borrowed(self.path, stamp) as decoder:
            return decoder.index(self.start_s, self.end_s, stamp)


_Stamp = tuple[str, int, int]  # path, bytes, time of the last change: another file under an old name is another video


@dataclass(frozen=True)
class _Index:
    """Where the frames of a range are. `pts` (n,) and those of keyframes rise; `origin` is the file's first."""

    stamp: _Stamp
    pts: np.ndarray
    key_pts: np.ndarray
    origin: int
    time_base: float
    fps: float
    size: tuple[int, int]


class _Decoder:
    """One open file, somewhere in it. One thread: workers are many, clips are short, and closing must not join threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.container: InputContainer = av.open(str(path))
        found = self.container.streams.video
        if not found or found[0].codec_context is None:  # pyright: ignore[reportUnnecessaryComparison]  (it may be)
            self.container.close()
            raise UserError(
                f"{path}: holds no video" if not found else f"{path}: holds a damaged video, or an unknown codec"
            )
        self.stream: VideoStream = found[0]
        self.stream.codec_context.thread_count = 1
        self._frames: Iterator[VideoFrame] = iter(())
        self._last: int | None = None  # pts of the last decoded frame

    def index(self, start_s: float, end_s: float | None, stamp: _Stamp) -> _Index:
        """Reads the packets of a range without decoding them."""
        stream, time_base = self.stream, float(self.stream.time_base or 0)
        rate = stream.average_rate or stream.guessed_rate
        if not rate or not time_base:
            raise UserError(f"{self.path}: tells no frame rate")
        fps = float(rate)
        origin = stream.start_time or 0
        first = -np.inf if start_s <= 0 else origin + (start_s - 0.5 / fps) / time_base
        last = np.inf if end_s is None else origin + (end_s - 0.5 / fps) / time_base
        self._seek(int(max(first, origin) - MARGIN_FRAMES / fps / time_base))
        pts: list[int] = []
        keys: list[int] = []
        for packet in self.container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.is_corrupt or packet.pts is None:
                raise UserError(f"{self.path}: cut short or damaged after {len(pts)} frames")
            if packet.dts is not None and packet.dts >= last:
                break
            if packet.is_keyframe:
                keys.append(packet.pts)
            if first <= packet.pts < last:
                pts.append(packet.pts)
        whole = not np.isfinite(first) and not np.isfinite(last)
        if whole and len(pts) < stream.frames:
            raise UserError(f"{self.path}: cut short: {len(pts)} of {stream.frames} frames")
        pts.sort()
        keys.sort()
        if pts and (not keys or keys[0] > pts[0]):
            raise UserError(f"{self.path}: damaged: no keyframe at or before its first frame")
        size = stream.codec_context.height, stream.codec_context.width
        return _Index(stamp, np.array(pts, np.int64), np.array(keys, np.int64), origin, time_base, fps, size)

    def decode(self, index: _Index, wanted: np.ndarray) -> Iterator[VideoFrame]:
        """The frames of these rising positions, one after another."""
        for position in wanted:
            target = int(index.pts[position])
            key = int(index.key_pts[np.searchsorted(index.key_pts, target, "right") - 1])
            if not self._leads_to(index, target, key):
                self._start(key)
            frame = self._forward(target)
            if frame is None:  # a container may put the seek a little after the keyframe
                self._start(key - int(MARGIN_FRAMES / index.fps / index.time_base))
                frame = self._forward(target)
            if frame is None:
                raise UserError(f"{self.path}: frame {position} cannot be decoded: damaged or cut short")
            yield frame

    def _leads_to(self, index: _Index, target: int, key: int) -> bool:
        """Whether going on from here costs no more than a seek to the keyframe."""
        if self._last is None or self._last >= target:
            return False
        here, there = np.searchsorted(index.pts, [self._last, key])
        return self._last >= key or (self._last >= index.pts[0] and there - here <= KEEP_DECODING)

    def _forward(self, target: int) -> VideoFrame | None:
        for frame in self._frames:
            self._last = frame.pts
            if frame.pts is None or frame.pts >= target:
                return frame if frame.pts == target and not frame.is_corrupt else None
        return None

    def _start(self, timestamp: int) -> None:
        self._seek(timestamp)
        self._frames = self.container.decode(self.stream)

    def _seek(self, timestamp: int) -> None:
        self._last, self._frames = None, iter(())
        self.container.seek(timestamp, stream=self.stream)


class _Pool:
    """Open decoders. One that is in use is not in the pool, so that no two threads share it."""

    def __init__(self) -> None:
        self._idle: OrderedDict[_Stamp, _Decoder] = OrderedDict()
        self._lock = Lock()

    @contextmanager
    def borrowed(self, path: Path, stamp: _Stamp) -> Iterator[_Decoder]:
        """A decoder of this file. After an error it is not used again."""
        with self._lock:
            found = self._idle.pop(stamp, None)
        decoder = found or _Decoder(path)
        try:
            yield decoder
        except BaseException:
            decoder.container.close()
            raise
        with self._lock:
            spare = [self._idle.pop(stamp)] if stamp in self._idle else []
            self._idle[stamp] = decoder
            while len(self._idle) > MAX_OPEN:
                spare.append(self._idle.popitem(last=False)[1])
        for each in spare:
            each.container.close()


class _Indexes:
    """The last used indexes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[object, _Index] = OrderedDict()
        self._lock = Lock()

    def get(self, key: object, make: Callable[[], _Index]) -> _Index:
        with self._lock:
            found = self._kept.pop(key, None)
        found = found or make()
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > MAX_INDEXED:
                self._kept.popitem(last=False)
        return found


_DECODERS = _Pool()
_INDEXES = _Indexes()


def _forget() -> None:
    """In a forked process: an inherited file shares its position with the parent's, an inherited lock may be held for ever."""
    global _DECODERS, _INDEXES
    _DECODERS, _INDEXES = _Pool(), _Indexes()


os.register_at_fork(after_in_child=_forget)


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path}: video missing or unreadable ({error.strerror})") from error
    return str(path), found.st_size, found.st_mtime_ns


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except av.FFmpegError as error:
        raise UserError(f"{path}: unreadable video ({error.strerror})") from error
