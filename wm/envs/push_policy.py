"""Random pushes through what lies on the table: the original's data policy."""

from __future__ import annotations

import numpy as np

from wm.contracts import World
from wm.envs.push_path import random_push
from wm.envs.push_table import as_push_table, table_points


class PushParticlesPolicy:
    """Pushes from a random place through a random particle and some way past it, as the original made its data.

    An episode starts from the world's scene, the same every time. A push starts uniformly in [-4, 4]^2, more than 0.2
    from every particle, and ends on the line through a particle (one within 2.0 of their median), `past` beyond it in x;
    both coordinates of the end must be within +-1.5. After 1000 tries without such a push the answer is one that touches
    nothing: down and up in a corner of the table. `random` and `smooth` know nothing of what lies there: in the scene 35 % of
    uniform actions touch the rope and 65 % the grains, 41 % and 82 % of smooth ones.

    Args:
        past: range of the way past the particle, units along x. 1.0 is the original's rule in planning; 1.5 to 2.0, by a
            comment of its authors, made the published data.

    Source: gaoyuezhou/dino_wm 0a9492f, env/deformable_env (facts: WORLDS.md, section 4).
    """

    def __init__(self, past: tuple[float, float] = (1.0, 1.0)) -> None:
        if not 0 < past[0] <= past[1]:
            raise ValueError(f"past is {past}, expected 0 < low <= high")
        self.past = past

    def reset(self, world: World, rng: np.random.Generator) -> None:
        """Put the world in its scene; draws nothing.

        Raises:
            ValueError: the world is no table with things to push.
        """
        world.reset_to(as_push_table(world).scene_state)

    def act(self, world: World, rng: np.random.Generator) -> np.ndarray:
        """The next push (4,), units."""
        return random_push(table_points(world.state), rng, self.past)
