"""Which clips are planned on: a function of data, seed, goal horizon and frameskip, and of nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.wm.data.samples import user_error
from wm.evaluation.offline_clips import DrawnClip, check_horizons, clip_refs, draw_clips, labelled_episodes


def source_of(*lengths: int, labelled: Any = None) -> Any:
    """Episodes of these lengths; `labelled` are those with actions, all unless said otherwise."""

    def episode(index: int) -> Any:
        has = labelled is None or index in labelled
        return SimpleNamespace(id=f"s/{index}", actions=np.zeros((lengths[index], 2)) if has else None)

    return SimpleNamespace(name="s", lengths=lengths, episode=episode)


def drawn(source: Any, episodes: list[int], **values: Any) -> list[DrawnClip]:
    given = {"count": 6, "goal_horizon": 3, "frameskip": 2, "seed": 0, **values}
    return draw_clips(source, episodes, **given)


def test_every_episode_gives_one_before_any_gives_two() -> None:
    clips = drawn(source_of(9, 20, 20, 6), [0, 1, 2, 3], count=5)
    assert {clip.episode for clip in clips[:3]} == {0, 1, 2}  # the last has no frame 6 steps after its first
    assert len({clip.id for clip in clips}) == 5
    for clip in clips:
        assert 0 <= clip.start <= (9, 20, 20)[clip.episode] - 7
        assert clip.other_episode != clip.episode
        assert 0 <= clip.other_start <= (9, 20, 20)[clip.other_episode] - 7
        assert clip.id == f"s/{clip.episode}@{clip.start}"


def test_fewer_are_the_first_of_more_and_the_seed_decides() -> None:
    source = source_of(*[40] * 5)
    many = drawn(source, list(range(5)), count=12)
    assert drawn(source, list(range(5)), count=4) == many[:4]
    assert drawn(source, list(range(5)), count=12) == many
    assert drawn(source, list(range(5)), count=12, seed=1) != many
    assert drawn(source, list(range(5)), count=12, goal_horizon=4) != many


def test_no_clip_comes_twice() -> None:
    clips = drawn(source_of(8, 9), [0, 1], count=50)
    assert sorted(clip.id for clip in clips) == ["s/0@0", "s/0@1", "s/1@0", "s/1@1", "s/1@2"]
    (alone,) = {clip.other_episode for clip in drawn(source_of(9), [0])}
    assert alone == 0  # one episode is its own control


def test_history_comes_before_the_start_where_there_is_some() -> None:
    refs = [clip_refs(DrawnClip("", 4, start, 7, 2), "s", 5, 3, history_len=3)[0] for start in (0, 2, 5, 30)]
    assert [(ref.start, ref.num_frames) for ref in refs] == [(0, 6), (2, 6), (2, 7), (24, 8)]
    other = clip_refs(DrawnClip("", 4, 30, 7, 2), "s", 5, 3, history_len=3)[1]
    assert (other.source, other.episode, other.start, other.num_frames) == ("s", 7, 2, 6)


def test_a_goal_beyond_every_end_names_the_longest_possible() -> None:
    source = source_of(21, 40)
    check_horizons(source, [0], [4], 5)
    message = user_error(lambda: check_horizons(source, [0], [2, 5], 5))
    assert message.startswith("evaluate.grid.goal_horizons: 5 is too long; the longest possible is 4")
    assert "21 env steps" in message
    assert "not one model step fits" in user_error(lambda: check_horizons(source, [0], [1], 21))


def test_episodes_without_actions_are_left_out() -> None:
    assert labelled_episodes(source_of(9, 9, 9, labelled=(1,)), [0, 1]) == ([1], 1)
    assert "none of its 2 episodes has actions" in user_error(
        lambda: labelled_episodes(source_of(9, 9, labelled=()), [0, 1])
    )
    assert "no held-out episode" in user_error(lambda: labelled_episodes(source_of(9), []))


@pytest.mark.parametrize("start", [0, 7])
def test_the_history_of_the_model_changes_no_clip(start: int) -> None:
    for history_len in (1, 2, 4):
        ref, _ = clip_refs(DrawnClip("", 0, start, 0, 0), "s", 2, 2, history_len)
        assert ref.frame_indices[-3:].tolist() == [start, start + 2, start + 4]
