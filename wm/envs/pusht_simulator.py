"""gym-pusht with the original's reset, any block, and the pusher's target given at each step."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any, NamedTuple

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # pygame still asks for pkg_resources
    import pygame  # noqa: F401  first, and silently: gym_pusht imports it too
    import pymunk
    from gym_pusht.envs.pusht import PushTEnv

from wm.envs.pusht_shapes import Block

AGENT_RADIUS = 15.0  # pixels
SUBSTEPS, SUBSTEP_S = 10, 0.01  # an env step is 0.1 s
STIFFNESS, DAMPING = 100.0, 20.0  # of the pusher's PD controller, 1/s^2 and 1/s


class Bodies(NamedTuple):
    """Where the pusher and the block are and how they move: pixels, radians, seconds; the angle keeps its turns."""

    agent_x: float
    agent_y: float
    block_x: float
    block_y: float
    angle: float
    agent_vx: float = 0.0
    agent_vy: float = 0.0
    block_vx: float = 0.0
    block_vy: float = 0.0
    spin: float = 0.0


class PushTSimulator(PushTEnv):
    """The physics of gym-pusht 0.1.8, which on pymunk 6 is the original's bit for bit (tests/golden/worlds).

    Its own `reset` sets the block's position before its angle, which turns it about the centre of gravity and so moves
    it by up to 90 pixels; here `place` sets the angle first. Contacts are counted per step as the original does.

    Source: github.com/huggingface/gym-pusht 0.1.8; gaoyuezhou/dino_wm 0a9492f, env/pusht.
    """

    def __init__(self, block: Block, agent_radius: float = AGENT_RADIUS) -> None:
        super().__init__(obs_type="state")
        self._kind, self._agent_radius = block, agent_radius

    def add_tee(self, space: Any, position: Any, angle: float, **_: Any) -> tuple[Any, list[Any]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The block that was asked for, where gym-pusht puts its T."""
        body = pymunk.Body(1.0, self._kind.moment)
        parts = [pymunk.Poly(body, part.corners) for part in self._kind.parts]
        body.center_of_gravity = self._kind.centre_of_gravity
        body.angle, body.position = angle, position
        space.add(body, *parts)
        return body, parts

    def add_circle(self, space: Any, position: Any, radius: float) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The pusher, with its own radius."""
        return PushTEnv.add_circle(space, position, self._agent_radius)

    @property
    def bodies(self) -> Bodies:
        """All ten numbers, now."""
        (x, y), (vx, vy) = self.agent.position, self.agent.velocity
        (block_x, block_y), (block_vx, block_vy) = self.block.position, self.block.velocity
        angle, spin = self.block.angle, self.block.angular_velocity
        return Bodies(x, y, block_x, block_y, angle, vx, vy, block_vx, block_vy, spin)

    @property
    def n_contacts(self) -> int:
        """Contact points per substep of the last step, rounded up."""
        return math.ceil(self.n_contact_points / SUBSTEPS)

    def place(self, bodies: Bodies) -> None:
        """A new space with everything where it is asked to be, and no cached contacts."""
        self._setup()
        self.agent.velocity = bodies.agent_vx, bodies.agent_vy
        self.agent.position = bodies.agent_x, bodies.agent_y
        self.block.angle = bodies.angle  # before the position: it turns the block about its centre of gravity
        self.block.position = bodies.block_x, bodies.block_y
        self.block.velocity = bodies.block_vx, bodies.block_vy
        self.block.angular_velocity = bodies.spin

    def settle(self) -> None:
        """One substep without control: what the original's reset ends with."""
        self.space.step(SUBSTEP_S)
        self.n_contact_points = 0

    def drive(self, target_x: float, target_y: float) -> None:
        """One env step of 0.1 s: the pusher is pulled towards a place, and pushes what is in its way."""
        agent, space = self.agent, self.space
        self.n_contact_points = 0
        for _ in range(SUBSTEPS):
            (x, y), (vx, vy) = agent.position, agent.velocity
            agent.velocity = (
                vx + (STIFFNESS * (target_x - x) - DAMPING * vx) * SUBSTEP_S,
                vy + (STIFFNESS * (target_y - y) - DAMPING * vy) * SUBSTEP_S,
            )
            space.step(SUBSTEP_S)
