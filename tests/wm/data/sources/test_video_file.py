"""Frames by index are those of a decode from the start, whatever the video's keyframes, order and container."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest

from tests.wm.data.samples import refusal, user_error
from wm.data.sources import video_file
from wm.data.sources.video_file import MAX_OPEN, VideoFile

FRAMES, FPS = 60, 10


def moving(frames: int = FRAMES, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """A square that moves over noise that does not: each frame differs from the others."""
    rng = np.random.default_rng(seed)
    pictures = np.repeat(rng.integers(0, 120, (1, height, width, 3), dtype=np.uint8), frames, axis=0)
    for number, picture in enumerate(pictures):
        top, left = number * 7 % (height - 8), number * 5 % (width - 8)
        picture[top : top + 8, left : left + 8] = (255, 4 * number % 256, 0)
    return pictures


def save(path: Path, frames: np.ndarray, codec: str = "libx264", flags: str = "", **options: str) -> Path:
    """Encoded in the container of the path's suffix; `flags` are the mp4 muxer's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    muxer = {"movflags": flags} if flags else {}
    with av.open(str(path), "w", options=muxer) as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def sequential(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


KINDS: dict[str, Callable[[Path], Path]] = {
    "default": lambda folder: save(folder / "v.mp4", moving()),
    "gop_12": lambda folder: save(folder / "v.mp4", moving(), g="12"),
    "gop_2": lambda folder: save(folder / "v.mp4", moving(), g="2"),
    "gop_1": lambda folder: save(folder / "v.mp4", moving(), g="1"),
    "open_gop": lambda folder: save(folder / "v.mp4", moving(), **{"x264-params": "keyint=10:open-gop=1:scenecut=0"}),
    "mkv": lambda folder: save(folder / "v.mkv", moving(), g="12"),
    "mpeg4": lambda folder: save(folder / "v.mp4", moving(), codec="mpeg4", g="8"),
    "fragmented": lambda folder: save(folder / "v.mp4", moving(), flags="frag_keyframe+empty_moov", g="12"),
    "one_frame": lambda folder: save(folder / "v.mp4", moving(1)),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_frame_is_that_of_a_sequential_decode(tmp_path: Path, kind: str) -> None:
    path = KINDS[kind](tmp_path)
    every, video, rng = sequential(path), VideoFile(path), np.random.default_rng(1)
    assert len(video) == len(every)
    assert (video.size, round(video.fps)) == ((48, 64), FPS)
    np.testing.assert_allclose(video.times, np.arange(len(every)) / FPS, atol=2e-3)
    np.testing.assert_array_equal(video.frames(np.arange(len(every))), every)
    for _ in range(40):  # unordered and repeated, across calls on one decoder
        rows = rng.integers(0, len(every), rng.integers(1, 6))
        np.testing.assert_array_equal(video.frames(rows), every[rows])
    assert video.frames([]).shape == (0, 48, 64, 3)


@pytest.mark.parametrize("kind", ["default", "gop_12", "gop_2", "open_gop", "mkv"])
def test_a_range_of_a_longer_video(tmp_path: Path, kind: str) -> None:
    path = KINDS[kind](tmp_path)
    every = sequential(path)
    for first, last in ((0, 5), (0, 60), (1, 2), (9, 11), (23, 48), (58, 60)):
        part = VideoFile(path, first / FPS, last / FPS)
        assert len(part) == last - first
        np.testing.assert_array_equal(part.frames(np.arange(len(part))), every[first:last])
        np.testing.assert_array_equal(part.frames([len(part) - 1, 0]), every[[last - 1, first]])
        np.testing.assert_allclose(part.times, np.arange(len(part)) / FPS, atol=2e-3)
        with pytest.raises(IndexError):
            part.frames([len(part)])
    assert len(VideoFile(path, 5.0)) == 10


def test_indices_outside_are_refused(tmp_path: Path) -> None:
    video = VideoFile(save(tmp_path / "v.mp4", moving()))
    for wrong in ([FRAMES], [-1], [0, 1000]):
        with pytest.raises(IndexError, match=r"of 60 in .*v\.mp4"):
            video.frames(wrong)


def packets(path: Path) -> list[tuple[int, int, bool]]:
    """(byte, size, keyframe) of each packet."""
    with av.open(str(path)) as container:
        return [(p.pos or 0, p.size, p.is_keyframe) for p in container.demux(video=0) if p.size]


def spoiled(path: Path, numbers: range) -> Path:
    """A copy with noise in place of these packets' pictures; their headers stay."""
    data, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    for start, size, key in packets(path)[numbers.start : numbers.stop]:
        header = 1000 if key else 20
        data[start + header : start + size] = rng.integers(0, 256, max(0, size - header), dtype=np.uint8).tobytes()
    target = path.with_name("spoiled" + path.suffix)
    target.write_bytes(data)
    return target


def test_only_what_follows_the_keyframe_is_decoded(tmp_path: Path) -> None:
    path = save(tmp_path / "v.mp4", moving(), g="12")
    part = VideoFile(spoiled(path, range(24)))  # the first two groups of pictures
    np.testing.assert_array_equal(part.frames([59, 30]), VideoFile(path).frames([59, 30]))


def test_a_hole_in_the_file_is_no_frame(tmp_path: Path) -> None:
    path = save(tmp_path / "v.mp4", moving(), g="12")
    start, size, _ = packets(path)[40]
    data = path.read_bytes()
    (tmp_path / "hole.mp4").write_bytes(data[:start] + bytes(size) + data[start + size :])
    part = VideoFile(tmp_path / "hole.mp4")
    assert "hole.mp4" in user_error(lambda: part.frames(np.arange(FRAMES)))
    for row in (50, 48, 35):  # it goes on after an error, and the groups before and after are whole
        np.testing.assert_array_equal(part.frames([row]), VideoFile(path).frames([row]))


@pytest.mark.parametrize("flags", ["", "faststart"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.99])
def test_a_video_cut_short_is_refused(tmp_path: Path, flags: str, share: float) -> None:
    path = save(tmp_path / "v.mp4", moving(), flags=flags)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "v.mp4" in user_error(lambda: len(VideoFile(path)))


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    assert "missing" in user_error(lambda: VideoFile(tmp_path / "absent.mp4").frames([0]))
    (tmp_path / "text.mp4").write_text("not a video at all" * 100)
    assert "text.mp4: unreadable video" in user_error(lambda: len(VideoFile(tmp_path / "text.mp4")))
    assert refusal(lambda: VideoFile(tmp_path).fps) is not None
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert "sound.mp4: holds no video" in user_error(lambda: len(VideoFile(tmp_path / "sound.mp4")))


def test_another_file_under_the_same_name_is_another_video(tmp_path: Path) -> None:
    path = save(tmp_path / "v.mp4", moving())
    video = VideoFile(path)
    before = video.frames([30])
    save(path, moving(40, seed=1))
    assert len(video) == 40
    assert (video.frames([30]) != before).any()


def test_few_decoders_stay_open(tmp_path: Path) -> None:
    videos = [VideoFile(save(tmp_path / f"{number}.mp4", moving(3, seed=number))) for number in range(MAX_OPEN + 4)]
    with pytest.raises(IndexError):
        videos[0].frames([3])
    before = len(list(Path("/proc/self/fd").iterdir())) - len(video_file._DECODERS._idle)
    seen = [video.frames([1]) for video in videos]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + MAX_OPEN
    for video, expected in zip(videos, seen, strict=True):
        np.testing.assert_array_equal(video.frames([1]), expected)


def _checksums(video: VideoFile) -> list[int]:
    return [int(video.frames([row]).astype(np.int64).sum()) for row in (50, 3, 28, 29, 3)]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside threads, which is what is tried here
def test_workers_read_at_the_same_time(tmp_path: Path, method: str) -> None:
    video = VideoFile(save(tmp_path / "v.mp4", moving(), g="12"))
    expected = _checksums(video)
    assert len(pickle.dumps(video)) < 1000
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        found = [pool.submit(_checksums, video) for _ in range(6)]
        assert _checksums(video) == expected  # the parent goes on in its own file
        assert all(each.result(timeout=60) == expected for each in found)


def test_threads_do_not_share_a_decoder(tmp_path: Path) -> None:
    video = VideoFile(save(tmp_path / "v.mp4", moving(), g="12"))
    expected = _checksums(video)
    with ThreadPoolExecutor(4) as pool:
        assert all(each == expected for each in pool.map(_checksums, [video] * 12))


def test_a_forked_process_starts_with_nothing_open(tmp_path: Path) -> None:
    video = VideoFile(save(tmp_path / "v.mp4", moving(3)))
    video.frames([0])
    assert video_file._DECODERS._idle
    with video_file._DECODERS._lock, video_file._INDEXES._lock:  # as if another thread were reading
        child = os.fork()
        if child == 0:
            os._exit(int(bool(video_file._DECODERS._idle) or video_file._DECODERS._lock.locked()))
    assert os.waitpid(child, 0)[1] == 0
