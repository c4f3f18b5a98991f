"""Grains on a table, pushed by a board: the granular world of DINO-WM, in MuJoCo."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from wm.config.worlds import GranularWorldConfig
from wm.envs.push_path import Pusher
from wm.envs.push_scene import TABLE_HEIGHT, Look, scene_xml, shifted_look, shifted_pusher
from wm.envs.push_table import PUSHER_DOFS, PushTableWorld

RADIUS = 0.07  # units of 100 mm: the widest at which the tightest goal, scaled by 0.6, is still one layer
PITCH = 0.227  # of the scene's grid: 97 grains on 2.236 x 2.236
MASS = 0.05
FRICTION = 1.0
ROLLING = 0.035  # units: half of the radius, so that a grain stays on slopes of up to 27 degrees
BOARD = Pusher(half_width=0.48, half_depth=0.13, round=False)
BOARD_HEIGHT = 1.3
LOOK = Look(objects="0.85 0.62 0.25")

GOAL_SCALE = (0.6, 0.9)
GOAL_SHIFT = 1.0


class GranularWorld(PushTableWorld):
    """Grains in one layer, pushed by a flat board: key points are their centres.

    A grain is a free sphere that hardly rolls: a state of positions then says everything, where boxes would also need their
    orientations (restored upright and unturned they overlap, and fly apart). It is smaller than the original's irregular
    grain of 0.2, on the same grid: goals can then be reached, where the original's interpenetrate.

    Goals: the scene's x and z scaled by U(0.6, 0.9) and both shifted by the same |U(-1, 1)|, each with a sign of its own;
    scaled by less than 0.62 the grains touch, and settling moves them apart.
    """

    name: str = "granular"
    thickness: float = RADIUS
    chained: bool = False
    reach: float = RADIUS

    def __init__(self, config: GranularWorldConfig) -> None:
        self._num_grains = config.num_grains
        pusher = shifted_pusher(BOARD, config.shift)
        grain = (
            f'<freejoint/><geom type="sphere" size="{RADIUS}" mass="{MASS}" friction="{FRICTION} 0.005 0.0001" condim="3" '
            f'contype="2" conaffinity="3" material="object"/>'
        )
        xml = scene_xml(
            f"<body>{grain}</body>" * config.num_grains,
            excludes="",
            pusher=pusher,
            pusher_height=BOARD_HEIGHT,
            look=shifted_look(LOOK, config.shift),
            friction=FRICTION,
            rolling=ROLLING,
        )
        super().__init__(xml, config.num_grains, pusher, config.frame_size, config.start_pushes)

    def _scene(self) -> Float[np.ndarray, "n 3"]:
        """A square grid around the origin, its last row not full."""
        side = int(np.ceil(np.sqrt(self._num_grains)))
        rows, columns = np.divmod(np.arange(self._num_grains), side)
        ground = np.full(self._num_grains, TABLE_HEIGHT + RADIUS)
        return np.column_stack([(rows - (side - 1) / 2) * PITCH, ground, (columns - (side - 1) / 2) * PITCH])

    def _draw_goal(self, rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
        goal = self.scene_state.reshape(-1, 3).copy()
        goal[:, [0, 2]] *= rng.uniform(*GOAL_SCALE)
        goal[:, [0, 2]] += rng.uniform(0, GOAL_SHIFT) * rng.choice([-1.0, 1.0], size=2)
        return goal

    def _pose(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "q"]:
        upright = np.zeros((len(points), 4))
        upright[:, 0] = 1
        return np.hstack([points, upright]).ravel()

    def _points(self) -> Float[np.ndarray, "n 3"]:
        return self._data.qpos[PUSHER_DOFS:].reshape(-1, 7)[:, :3].copy()
