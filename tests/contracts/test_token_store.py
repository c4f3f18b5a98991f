"""What every token store must do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.wm.data.samples import EPISODES, STEPS, encoder, user_error, wall_copy, wall_source
from wm.build import build_encoder
from wm.config.encoder import TinyEncoderConfig
from wm.contracts import TokenStore
from wm.data.token_files import TokenFiles


def make_store(root: Path) -> TokenFiles:
    return TokenFiles(root, wall_source(), encoder().fingerprint)


def test_reads_what_the_encoder_says_in_half_precision(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    assert isinstance(store, TokenStore)
    assert list(store.write(encoder(), [3])) == [3]
    frames = torch.from_numpy(store.source.episode(3).frames(np.arange(STEPS)))
    expected = encoder().encode(frames[None])[0].numpy().astype(np.float16)
    for indices in (np.arange(STEPS), np.array([39, 0, 5])):
        tokens = store.read(3, indices)
        assert tokens.dtype == np.float16
        np.testing.assert_array_equal(tokens, expected[indices])
    assert expected.std() > 0.1


def test_goes_on_where_it_stopped(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    writing = store.write(encoder(), store.missing())
    assert [next(writing), next(writing)] == [0, 1]
    writing.close()
    before = store.path(0).stat().st_mtime_ns
    again = make_store(tmp_path)
    assert again.missing() == list(range(2, EPISODES))
    assert list(again.write(encoder(), again.missing())) == list(range(2, EPISODES))
    assert again.missing() == []
    assert store.path(0).stat().st_mtime_ns == before


def test_what_an_interruption_left_is_not_tokens(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    list(store.write(encoder(), [1]))
    store.path(0).with_name(f".{store.path(0).name}.12345678.partial").write_bytes(b"half")
    assert 0 in store.missing()
    assert 1 not in store.missing()


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path)

    def full(handle: object, tokens: object) -> None:
        handle.write(b"half")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space"):
        list(store.write(encoder(), [0]))
    assert store.missing() == list(range(EPISODES))
    assert sorted(path.name for path in store.folder.iterdir()) == ["about.json"]


def test_another_encoder_or_data_set_is_another_folder(tmp_path: Path) -> None:
    base = make_store(tmp_path)
    other = TokenFiles(tmp_path, wall_source(), "0" * 16)
    fewer = TokenFiles(tmp_path, wall_source(episodes=5), encoder().fingerprint)
    assert len({base.folder, other.folder, fewer.folder}) == 3
    assert make_store(tmp_path).folder == base.folder
    with pytest.raises(ValueError, match="another encoder"):
        list(other.write(encoder(), [0]))
    reseeded = build_encoder(TinyEncoderConfig(image_size=28, hidden_size=16, depth=1, heads=2, seed=1))
    assert reseeded.fingerprint != encoder().fingerprint


@pytest.mark.parametrize("kept_bytes", [0, 5, 100, 2000])
def test_a_damaged_file_is_named(tmp_path: Path, kept_bytes: int) -> None:
    store = make_store(tmp_path)
    list(store.write(encoder(), [0]))
    store.path(0).write_bytes(store.path(0).read_bytes()[:kept_bytes])
    assert str(store.path(0)) in user_error(lambda: store.read(0, np.arange(2)))


def test_missing_tokens_are_named(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    assert str(store.path(2)) in user_error(lambda: store.read(2, np.arange(2)))


def test_a_pickle_is_not_tokens(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.folder.mkdir(parents=True)
    np.save(store.path(0), np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert str(store.path(0)) in user_error(lambda: store.read(0, np.arange(1)))


def test_the_same_data_elsewhere_shares_its_tokens(tmp_path: Path) -> None:
    moved = TokenFiles(tmp_path, wall_source(wall_copy(tmp_path / "moved")), encoder().fingerprint)
    assert moved.folder == make_store(tmp_path).folder


class Running:
    """A video encoder that can be added up by hand: a frame's token is the sum of the frames so far."""

    dim, grid, fingerprint = 1, (1, 1), "running sum"

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        return frames[..., 0, 0, :1].float().cumsum(dim=1)[:, :, None]


@pytest.mark.parametrize("stride", [1, 3, 7, STEPS + 1])
def test_an_encoder_that_looks_back_sees_frames_a_stride_apart(tmp_path: Path, stride: int) -> None:
    """Fault: stored tokens of a window of neighbouring frames, where a clip of this frameskip shows others."""
    store = TokenFiles(tmp_path, wall_source(), "running sum", stride)
    list(store.write(Running(), [2]))
    pixels = store.source.episode(2).frames(np.arange(STEPS))[:, 0, 0, 0].astype(np.float32)
    expected = [sum(pixels[step] for step in range(frame % stride, frame + 1, stride)) for frame in range(STEPS)]
    np.testing.assert_array_equal(store.read(2, np.arange(STEPS))[:, 0, 0], np.array(expected, np.float16))


def test_each_stride_has_a_folder_of_its_own(tmp_path: Path) -> None:
    folders = {TokenFiles(tmp_path, wall_source(), "e", stride).folder for stride in (1, 2, 5)}
    assert len(folders) == 3
    assert TokenFiles(tmp_path, wall_source(), "e").folder in folders
