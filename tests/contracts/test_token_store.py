"""What every token store must do."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from tests.wm.data.samples import EPISODES, STEPS, encoder, user_error, wall_copy, wall_source
from wm.build import build_encoder
from wm.config.data import TokenFormat
from wm.config.encoder import TinyEncoderConfig
from wm.contracts import TokenStore
from wm.data import token_files
from wm.data.token_files import TokenFiles
from wm.data.token_format import from_tensors, to_tensors

FORMATS: tuple[TokenFormat, ...] = ("float16", "int8")


def make_store(root: Path, kept_as: TokenFormat = "float16") -> TokenFiles:
    return TokenFiles(root, wall_source(), encoder().fingerprint, kept_as=kept_as)


def encoded(store: TokenFiles, episode: int) -> np.ndarray:
    frames = torch.from_numpy(store.source.episode(episode).frames(np.arange(STEPS)))
    return encoder().encode(frames[None])[0].numpy()


@pytest.mark.parametrize("kept_as", FORMATS)
def test_reads_what_the_encoder_says(tmp_path: Path, kept_as: TokenFormat) -> None:
    """A float16 store to the bit; an int8 store to half a step of its 254, a channel, and what float16 rounds."""
    store = make_store(tmp_path, kept_as)
    assert isinstance(store, TokenStore)
    assert list(store.write(encoder(), [3])) == [3]
    expected = encoded(store, 3)
    tokens = store.read(3, np.arange(STEPS))
    assert tokens.dtype == np.float16
    if kept_as == "float16":
        np.testing.assert_array_equal(tokens, expected.astype(np.float16))
    else:
        step = (expected.max(axis=(0, 1)) - expected.min(axis=(0, 1))) / 254
        lost = np.abs(tokens.astype(np.float32) - expected)
        assert (lost <= 0.5 * step + 2e-3).all()
        assert (lost > 0.25 * step).any()  # a byte it is
    assert expected.std() > 0.1


@pytest.mark.parametrize("kept_as", FORMATS)
@pytest.mark.parametrize("indices", [[39, 0, 5], [7], [0, 5, 10, 15], [3, 4, 5, 9, 8, 7, 7], []])
def test_frames_in_any_order_are_the_sequence_s_own(tmp_path: Path, kept_as: TokenFormat, indices: list[int]) -> None:
    store = make_store(tmp_path, kept_as)
    list(store.write(encoder(), [3]))
    whole = store.read(3, np.arange(STEPS))
    chosen = np.array(indices, dtype=np.int64)
    np.testing.assert_array_equal(store.read(3, chosen), whole[chosen])
    assert len(np.unique(whole.reshape(STEPS, -1), axis=0)) > STEPS // 2


@pytest.mark.parametrize("index", [-1, STEPS])
def test_a_frame_that_is_not_there_is_refused(tmp_path: Path, index: int) -> None:
    store = make_store(tmp_path)
    list(store.write(encoder(), [3]))
    with pytest.raises(IndexError, match=f"of {STEPS}"):
        store.read(3, np.array([0, index]))


def test_int8_takes_half_the_disk_and_says_what_is_lost(tmp_path: Path) -> None:
    sizes, told = {}, {}
    for kept_as in FORMATS:
        store = make_store(tmp_path, kept_as)
        list(store.write(encoder(), [1, 2]))
        list(make_store(tmp_path, kept_as).write(encoder(), [5]))  # another process, say
        sizes[kept_as] = store.path(1).stat().st_size
        told[kept_as] = json.loads((store.folder / "about.json").read_text(encoding="utf-8"))["relative_error"]
        errors = []
        for episode in (1, 2, 5):
            exact, tokens = encoded(store, episode), store.read(episode, np.arange(STEPS)).astype(np.float32)
            errors.append(np.sqrt(np.square(tokens - exact).mean() / np.square(exact - exact.mean(axis=(0, 1))).mean()))
        assert told[kept_as]["episodes"] == 3
        assert told[kept_as]["mean"] == pytest.approx(np.mean(errors), rel=0.05)  # of 32 frames of 40
        assert told[kept_as]["worst"] == pytest.approx(max(errors), rel=0.05)
    assert sizes["int8"] < 0.6 * sizes["float16"]
    assert told["float16"]["worst"] < 1e-3 < told["int8"]["mean"] < told["int8"]["worst"] < 0.01


def test_a_channel_that_never_changes_is_kept_exactly() -> None:
    tokens = torch.randn(20, 4, 3) * 1e-4
    tokens[..., 0], tokens[..., 1] = 0.0, 6.5
    kept = to_tensors(tokens, "int8")
    restored = from_tensors(kept["tokens"], kept["scale"], kept["offset"])
    np.testing.assert_array_equal(restored[..., :2], tokens[..., :2].numpy())
    assert np.abs(restored[..., 2] - tokens[..., 2].numpy()).max() < 4e-6


@pytest.mark.parametrize("kept_as", FORMATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e5])
def test_tokens_that_are_no_numbers_are_refused(tmp_path: Path, kept_as: TokenFormat, value: float) -> None:
    store = make_store(tmp_path, kept_as)
    tokens = torch.zeros(3, 4, 16)
    tokens[1, 2, 3] = value
    assert "not finite, or too large" in user_error(lambda: store.save(0, tokens))
    assert 0 in store.missing()


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


def test_a_killed_process_is_counted_too(tmp_path: Path) -> None:
    killed, after = make_store(tmp_path / "killed", "int8"), make_store(tmp_path / "whole", "int8")
    for episode in (1, 2, 3):  # and nothing is said of them
        killed.save(episode, torch.from_numpy(encoded(killed, episode)))
    list(killed.write(encoder(), [5]))
    list(after.write(encoder(), [1, 2, 3, 5]))
    told = [json.loads((store.folder / "about.json").read_text(encoding="utf-8")) for store in (killed, after)]
    assert told[0] == told[1]
    assert told[0]["relative_error"]["episodes"] == 4
    killed.path(2).unlink()
    list(killed.write(encoder(), []))
    about = json.loads((killed.folder / "about.json").read_text(encoding="utf-8"))
    assert about["relative_error"]["episodes"] == 3


def test_what_an_interruption_left_is_not_tokens(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    list(store.write(encoder(), [1]))
    store.path(0).with_name(f".{store.path(0).name}.12345678.partial").write_bytes(b"half")
    assert 0 in store.missing()
    assert 1 not in store.missing()


@pytest.mark.parametrize("kept_as", FORMATS)
def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_as: TokenFormat) -> None:
    """The second of three episodes fails: the first stays, of the others nothing does, and the next try is whole."""
    store = make_store(tmp_path, kept_as)
    saved = []

    def full(tensors: object, path: Path, metadata: object) -> None:
        if saved:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        saved.append(path)
        save_file(tensors, path, metadata)  # type: ignore[arg-type]

    monkeypatch.setattr(token_files, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        list(store.write(encoder(), [0, 1, 2]))
    assert store.missing() == list(range(1, EPISODES))
    assert sorted(path.name for path in store.folder.iterdir()) == ["about.json", "about.lock", store.path(0).name]
    monkeypatch.undo()
    assert list(store.write(encoder(), store.missing())) == list(range(1, EPISODES))
    assert (
        json.loads((store.folder / "about.json").read_text(encoding="utf-8"))["relative_error"]["episodes"] == EPISODES
    )


def test_another_encoder_or_data_set_is_another_folder(tmp_path: Path) -> None:
    base = make_store(tmp_path)
    other = TokenFiles(tmp_path, wall_source(), "0" * 16)
    fewer = TokenFiles(tmp_path, wall_source(episodes=5), encoder().fingerprint)
    assert len({base.folder, other.folder, fewer.folder}) == 3
    assert make_store(tmp_path).folder == base.folder
    with pytest.raises(ValueError, match="another encoder"):
        list(other.write(encoder(), [0]))
    assert make_store(tmp_path, "int8").folder not in {base.folder, other.folder, fewer.folder}
    reseeded = build_encoder(TinyEncoderConfig(image_size=28, hidden_size=16, depth=1, heads=2, seed=1))
    assert reseeded.fingerprint != encoder().fingerprint


def others(root: Path) -> dict[str, TokenFiles]:
    return {
        "source": TokenFiles(root, wall_source(episodes=5), encoder().fingerprint),
        "encoder": TokenFiles(root, wall_source(), "0" * 16),
        "stride": TokenFiles(root, wall_source(), encoder().fingerprint, stride=5),
        "format": make_store(root, "int8"),
    }


@pytest.mark.parametrize("other", ["source", "encoder", "stride", "format"])
def test_a_file_of_another_fingerprint_is_never_read(tmp_path: Path, other: str) -> None:
    """Fault: a folder copied or renamed by hand: its name says one thing, its tokens are another's."""
    store, wrong = make_store(tmp_path), others(tmp_path)[other]
    wrong.save(0, torch.randn(STEPS, 4, 16))
    shutil.copytree(wrong.folder, store.folder)
    message = user_error(lambda: store.read(0, np.arange(2)))
    assert f"tokens of another {other};" in message
    assert str(store.path(0)) in message
    store.save(0, torch.randn(STEPS, 4, 16))
    assert store.read(0, np.arange(2)).shape == (2, 4, 16)  # written again, it is read


@pytest.mark.parametrize("kept_as", FORMATS)
@pytest.mark.parametrize("kept_bytes", [0, 5, 100, 2000, -1])
@pytest.mark.parametrize("is_open", [False, True])
def test_a_damaged_file_is_named(tmp_path: Path, kept_as: TokenFormat, kept_bytes: int, is_open: bool) -> None:
    """Also one that is cut short while it is read: under a memory map that would end the process."""
    store = make_store(tmp_path, kept_as)
    list(store.write(encoder(), [0]))
    wanted = np.array([0])  # which may be whole: a file cut short is not read at all
    if is_open:
        wanted = np.array([STEPS - 1])
        store.read(0, wanted)
    whole = store.path(0).read_bytes()
    store.path(0).write_bytes(whole[:kept_bytes])
    assert str(store.path(0)) in user_error(lambda: store.read(0, wanted))
    store.path(0).write_bytes(whole)
    assert store.read(0, wanted).shape == (1, 4, 16)


def test_missing_tokens_are_named(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    assert str(store.path(2)) in user_error(lambda: store.read(2, np.arange(2)))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"a": 1}),
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}",
        (19).to_bytes(8, "little") + b'{"tokens": {"a":1}}',
        (2**62).to_bytes(8, "little") + b"{}",
    ],
    ids=["pickle", "list", "empty", "entry", "length"],
)
def test_what_is_no_tensor_file_is_not_tokens(tmp_path: Path, content: bytes) -> None:
    store = make_store(tmp_path)
    store.folder.mkdir(parents=True)
    store.path(0).write_bytes(content)
    assert str(store.path(0)) in user_error(lambda: store.read(0, np.arange(1)))


def test_files_are_closed_when_others_are_opened(tmp_path: Path) -> None:
    """Fault: a descriptor for each of 10,000 episodes."""
    store = make_store(tmp_path)
    many = token_files._OPEN_FILES + 40
    for episode in range(many):
        store.path(episode).parent.mkdir(parents=True, exist_ok=True)
        tokens = {"tokens": np.full((2, 1, 1), episode, np.float16)}
        save_file(tokens, store.path(episode), {**store._facts})
    before = len(list(Path("/proc/self/fd").iterdir()))
    for episode in range(many):
        assert store.read(episode, np.array([1])).item() == episode
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= token_files._OPEN_FILES


def test_long_episodes_are_encoded_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: memory of the encoder's device that grows with the episode. The tokens are the same."""
    whole, pieces = make_store(tmp_path / "whole"), make_store(tmp_path / "pieces")
    list(whole.write(encoder(), [0]))
    sizes: list[int] = []

    class Counting:
        dim, grid, fingerprint = encoder().dim, encoder().grid, encoder().fingerprint

        def encode(self, frames: torch.Tensor) -> torch.Tensor:
            sizes.append(frames.shape[1])
            return encoder().encode(frames)

    monkeypatch.setattr(token_files, "_FRAMES_AT_ONCE", 16)
    list(pieces.write(Counting(), [0]))
    assert sizes == [16, 16, 8]
    every = np.arange(STEPS)
    np.testing.assert_allclose(pieces.read(0, every), whole.read(0, every), rtol=0, atol=2e-3)


def test_the_same_data_elsewhere_shares_its_tokens(tmp_path: Path) -> None:
    moved = TokenFiles(tmp_path, wall_source(wall_copy(tmp_path / "moved")), encoder().fingerprint)
    assert moved.folder == make_store(tmp_path).folder


class Running:
    """A video encoder that can be added up by hand: a frame's token is the sum of the frames so far."""

    dim, grid, fingerprint = 1, (1, 1), "running sum"

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        return frames[..., 0, 0, :1].float().cumsum(dim=1)[:, :, None]


@pytest.mark.parametrize("stride", [1, 3, 7, STEPS + 1])
def test_an_encoder_that_looks_back_sees_frames_a_stride_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stride: int
) -> None:
    """Fault: stored tokens of a window of neighbouring frames, where a clip of this frameskip shows others."""
    store = TokenFiles(tmp_path, wall_source(), "running sum", stride)
    monkeypatch.setattr(token_files, "_FRAMES_AT_ONCE", 4)  # of one that looks at each frame alone
    list(store.write(Running(), [2]))
    pixels = store.source.episode(2).frames(np.arange(STEPS))[:, 0, 0, 0].astype(np.float32)
    expected = [sum(pixels[step] for step in range(frame % stride, frame + 1, stride)) for frame in range(STEPS)]
    np.testing.assert_array_equal(store.read(2, np.arange(STEPS))[:, 0, 0], np.array(expected, np.float16))


def test_each_stride_has_a_folder_of_its_own(tmp_path: Path) -> None:
    folders = {TokenFiles(tmp_path, wall_source(), "e", stride).folder for stride in (1, 2, 5)}
    assert len(folders) == 3
    assert TokenFiles(tmp_path, wall_source(), "e").folder in folders
