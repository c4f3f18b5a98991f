"""The layout of robomimic's demonstrations converted for DINO-WM; any labelled data set fits it.

    states.pth (N, T, S)  proprios.pth (N, T, Dp)  rel_actions.pth (N, T, A)  seq_lengths.pkl
    {action,state,proprio}_{mean,std}.pth  obses/episode_{:05d}.mp4
    names.json              ours: names of the columns, and the frame rate

Shorter episodes end in zeros. Without a state of its own a data set's state is its proprio; without proprio there is no
proprios.pth, and readers take the state. Source: MinghaoFu/dino_wm, datasets/robomimic_dset.py (facts: SCIENCE section 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wm.config.errors import UserError
from wm.data.atomic import write_json
from wm.data.sources.robomimic import NAMES
from wm.data.writers.writer import (
    FolderWriter,
    need_even_sides,
    save_pickle,
    save_tensor,
    save_video,
    stacked,
)
from wm.types import RecordedEpisode


class RobomimicWriter(FolderWriter):
    """Actions and vectors as they are, frames as videos."""

    lacks = "robomimic's converted layout has no place for: success, goal, exact frames (its videos are lossy)"

    def check(self) -> None:
        """Raises UserError without actions, without both state and proprio, and for frames that no video can hold."""
        facts = self.facts
        if not facts.action_names:
            raise UserError(f"dino_wm: holds an action for every step, and '{facts.world}' has none")
        if not facts.state_names and not facts.proprio_names:
            raise UserError(f"dino_wm: holds a state for every step, and '{facts.world}' has neither state nor proprio")
        need_even_sides(facts)

    def write_frames(self, index: int, episode: RecordedEpisode) -> None:
        """One video an episode."""
        save_video(self.folder / "obses" / f"episode_{index:05d}.mp4", episode.frames, self.facts.fps)

    def finish(self, episodes: Sequence[RecordedEpisode]) -> None:
        """Arrays, their statistics and names."""
        facts = self.facts
        lengths = [len(episode.frames) or len(episode.states) for episode in episodes]
        fields = {"action": ("actions", "rel_actions.pth", facts.action_names)}
        if facts.proprio_names:
            fields["proprio"] = ("proprio", "proprios.pth", facts.proprio_names)
        fields["state"] = ("states", self.marker, facts.state_names)
        if not facts.state_names:
            fields["state"] = ("proprio", self.marker, facts.proprio_names)
        arrays = {key: stacked(episodes, field) for key, (field, _, _) in fields.items()}
        write_json(self.folder / NAMES, {"fps": facts.fps, **{key: list(names) for key, (*_, names) in fields.items()}})
        save_pickle(self.folder / "seq_lengths.pkl", lengths)
        for key, values in arrays.items():
            rows = np.concatenate([each[:length] for each, length in zip(values, lengths, strict=True)])
            for name, number in (("mean", rows.mean(0, np.float64)), ("std", rows.std(0, np.float64, ddof=1))):
                save_tensor(self.folder / f"{key}_{name}.pth", number.astype(np.float32))
        for key, (_, file, _) in fields.items():  # the state, whose file is the marker, comes last
            save_tensor(self.folder / file, arrays[key])
