"""robomimic's HDF5 file of demonstrations, of any labelled data set (layout: wm/data/writers/robosuite_hdf5.py).

robomimic's SequenceDataset needs num_samples, actions, the chosen obs keys and, unless train.hdf5_load_next_obs is false,
next_obs; absent rewards and dones it takes as zeros. Its rollouts, playback and dataset_states_to_obs need simulator states and
model_file. Source: ARISE-Initiative/robomimic, robomimic/utils/dataset.py.
"""

from __future__ import annotations

import numpy as np

from wm.config.errors import UserError
from wm.data.sources.robomimic import ARM_NAMES
from wm.data.sources.robomimic_hdf5 import PROPRIO_KEY, STATE_KEY
from wm.data.writers.robosuite_hdf5 import NUM_PROPRIO, RobosuiteWriter, arm_vectors
from wm.types import RecordedEpisode


class RobomimicHdf5Writer(RobosuiteWriter):
    """One file, demo.hdf5; simulator states and models where the episodes have them.

    Vectors of a Panda have robosuite's keys; any other are obs/proprio and obs/state.
    """

    lacks = "robomimic's HDF5 has no place for: layout, goal"

    def check(self) -> None:
        """Raises UserError without actions."""
        if not self.facts.action_names:
            raise UserError(f"robomimic: holds an action for every step, and '{self.facts.world}' has none")

    def _vectors(self, episode: RecordedEpisode) -> dict[str, np.ndarray]:
        if self._is_arm(episode):
            return arm_vectors(episode)
        vectors = {PROPRIO_KEY: episode.proprio, STATE_KEY: episode.states}
        return {key: values for key, values in vectors.items() if values.shape[1]}

    def _is_arm(self, episode: RecordedEpisode) -> bool:
        names, states = self.facts.proprio_names, episode.states
        if names != ARM_NAMES:
            return False
        return not states.shape[1] or np.array_equal(states[:, :NUM_PROPRIO], episode.proprio)
