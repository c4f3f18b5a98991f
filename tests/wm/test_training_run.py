"""A run assembled from its config: its name, its folder and its lock."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.wm.data.samples import encoder, inputs, same, train, trained, user_error
from wm.data.sources.file_source import FileEpisode
from wm.data.token_files import TokenFiles
from wm.training.checkpoint import find_checkpoint, load_checkpoint
from wm.training.reporter import NullReporter
from wm.training_run import RunFolder, pick_device

HOLD = """
import fcntl, sys, time
with open(sys.argv[1], "w") as handle:
    fcntl.flock(handle, fcntl.LOCK_EX)
    print("held", flush=True)
    time.sleep(60)
"""


def test_one_trainer_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.lock():
        message = user_error(lambda: folder.lock(wait_s=0).__enter__())
        assert str(folder.path) in message
        with RunFolder(tmp_path / "other").lock(wait_s=0):
            pass
    with folder.lock(wait_s=0):  # free again
        pass


def test_the_lock_outlives_no_process(tmp_path: Path) -> None:
    """Another process holds it; killed, it leaves the lock free."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    command = [sys.executable, "-c", HOLD, str(folder.path / "lock")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert "another process" in user_error(lambda: folder.lock(wait_s=0).__enter__())
    finally:
        holder.kill()
        holder.communicate()
    began = time.monotonic()
    with folder.lock(wait_s=5):
        assert time.monotonic() - began < 5


def test_an_exception_frees_the_lock(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt), folder.lock():
        raise KeyboardInterrupt
    with folder.lock(wait_s=0):
        pass


def test_a_result_marks_the_run_complete(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.result() is None
    folder.finish({"val/copy_ratio_h1": 0.5})
    assert folder.result() == {"val/copy_ratio_h1": 0.5}
    with pytest.raises(ValueError, match="JSON"):
        folder.finish({"val/copy_ratio_h1": float("nan")})
    assert folder.result() == {"val/copy_ratio_h1": 0.5}


def test_the_hash_names_what_decides_the_numbers(tmp_path: Path) -> None:
    base = inputs(tmp_path, "align")
    assert base.folder.path == tmp_path / "runs" / base.hash
    same_run = [
        inputs(tmp_path / "elsewhere", "align"),
        inputs(tmp_path, "align", train__checkpoint_every_steps=7),
        inputs(tmp_path, "align", plan__planner__horizon=5, plan__episodes=3),
        inputs(tmp_path, "align", evaluate__grid__goal_horizons=[1]),
    ]
    assert {run.hash for run in same_run} == {base.hash}
    other = [
        inputs(tmp_path, "align", **{path: value})
        for path, value in {
            "seed": 1,
            "train__epochs": 3,
            "train__ema_decay": 0.5,
            "model__history_len": 1,
            "data__val_fraction": 0.2,
            "data__clip__frameskip": 4,
            "data__tokens": "store",
            "evaluate__horizons": [1],
        }.items()
    ]
    assert len({base.hash, inputs(tmp_path).hash, *(run.hash for run in other)}) == len(other) + 2


def test_checkpoints_of_another_config_in_the_folder_are_refused(tmp_path: Path) -> None:
    run, other = inputs(tmp_path), inputs(tmp_path, seed=1)
    train(run)
    run.folder.path.rename(other.folder.path)
    assert "another run" in user_error(lambda: train(other))


def test_the_checkpoint_tells_what_it_came_from() -> None:
    run = trained("align")
    facts = load_checkpoint(find_checkpoint(run.folder.path)).facts
    assert facts["train_hash"] == run.hash
    assert facts["data_fingerprint"] == run.dataset.fingerprint
    assert facts["encoder_fingerprint"] == encoder().fingerprint
    assert facts["config"] == run.config.model_dump(mode="json")
    assert (facts["token_dim"], facts["tokens_per_frame"]) == (16, 4)
    assert (facts["action_dim"], facts["proprio_dim"]) == (10, 2)


def test_local_batches_follow_the_schedule(tmp_path: Path) -> None:
    run = inputs(tmp_path)
    assert run.total_steps == 6
    assert len(list(run.local_batches(4))) == 2
    batch = next(run.local_batches(4))
    assert batch.num_clips == 4
    assert batch.num_frames == 3  # history and one predicted
    assert not batch.obs.is_pixels
    refs = run.clips.schedule.batch(1, 1)
    assert torch.equal(batch.actions, run.batch(list(refs)).actions)


def test_ranks_read_parts_of_one_batch(tmp_path: Path) -> None:
    clips = inputs(tmp_path).clips
    whole, halves = clips.read(3), [clips.read(3, rank, 2) for rank in range(2)]
    for rank, half in enumerate(halves):
        assert same({key: values[rank::2] for key, values in whole.items()}, half)


def test_variants_of_one_data_set_are_judged_on_the_same_clips(tmp_path: Path) -> None:
    first, second = inputs(tmp_path).validator(), inputs(tmp_path, "align_recon", seed=3).validator()
    for name in ("held_out", "probe"):
        a, b = getattr(first, name), getattr(second, name)
        assert torch.equal(a.obs.visual, b.obs.visual)
        assert torch.equal(a.actions, b.actions)
    assert first.held_out.num_clips == 6
    assert first.held_out.num_frames == 5
    assert first.probe.num_clips == 12


def test_horizons_beyond_the_episodes_are_refused(tmp_path: Path) -> None:
    run = inputs(tmp_path, evaluate__horizons=[1, 9])
    assert "evaluate.horizons" in user_error(run.validator)


def test_stored_tokens_train_as_online_ones_do(tmp_path: Path) -> None:
    online, stored = inputs(tmp_path), inputs(tmp_path, data__tokens="store")
    assert "tokens missing" in user_error(lambda: next(stored.local_batches(0)))
    store = stored.dataset.stores["wall"]
    assert isinstance(store, TokenFiles)
    list(store.write(encoder(), store.missing()))
    first, second = next(online.local_batches(0)), next(stored.local_batches(0))
    torch.testing.assert_close(first.obs.visual, second.obs.visual, rtol=0, atol=2e-3)  # float16
    assert torch.equal(first.actions, second.actions)
    stored.training(NullReporter(), stored.local_batches, keep_checkpoints=False).run()


DECODER = {"kind": "vqvae", "channel": 4, "num_blocks": 0, "block_channels": 4}


@pytest.mark.parametrize("tokens", ["online", "store"])
def test_a_decoder_trains_on_the_frames_of_its_clips(tmp_path: Path, tokens: str) -> None:
    run = inputs(tmp_path, data__tokens=tokens, model__decoder=DECODER)
    for store in run.dataset.stores.values():
        list(store.write(encoder(), store.missing()))  # type: ignore[attr-defined]
    batch = next(run.local_batches(1))
    assert not batch.obs.is_pixels
    assert batch.images is not None
    assert batch.images.dtype == torch.uint8
    refs = run.clips.schedule.batch(0, 1)
    for images, ref in zip(batch.images, refs, strict=True):
        frames = run.dataset.sources["wall"].episode(ref.episode).frames(ref.frame_indices)
        assert torch.equal(images, torch.from_numpy(frames))
    assert run.batch(list(refs)).images is None  # validation needs none
    assert batch.to(torch.device("meta")).images.is_meta  # type: ignore[union-attr]


def test_without_a_decoder_no_pixel_is_read_beside_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = inputs(tmp_path, data__tokens="store")
    store = run.dataset.stores["wall"]
    list(store.write(encoder(), store.missing()))  # type: ignore[attr-defined]

    def refuse(*given: object) -> None:
        raise AssertionError("frames were read")

    monkeypatch.setattr(FileEpisode, "frames", refuse)
    assert next(run.local_batches(0)).images is None
    watched = inputs(tmp_path, data__tokens="store", model__decoder=DECODER)
    with pytest.raises(AssertionError, match="frames were read"):
        next(watched.local_batches(0))


def test_device() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("cuda").type == "cuda"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
