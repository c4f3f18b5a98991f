"""A pusher that knows where the block is to go: demonstrations for Push-T."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from wm.contracts import World
from wm.envs.pusht import PIXELS_PER_ACTION, ROOM, PushTWorld
from wm.envs.pusht_path import next_place
from wm.envs.pusht_push import RECORDED, PushTable, compose, push_table, turned
from wm.envs.pusht_shapes import BLOCKS, shape_of_number
from wm.envs.pusht_simulator import DAMPING, STIFFNESS, SUBSTEP_S, SUBSTEPS

TRAVEL_PX, PUSH_PX = 15.0, 6.0  # pixels a step, on the way and in contact
AT_START_PX = 3.0  # how near the pusher must be to where a push starts
PX_PER_RADIAN = 57.0  # the success rule's 20 pixels weigh as much as its 20 degrees
NEAR, STILL_NEAR = 7.0, 15.0  # pixels of error at which the block has arrived, and up to which it counts as being there
PX_PER_STEP = 0.15  # what a plan may gain in error for one more step
FIRST_SPREAD, FIRST_BEST = 120, 60  # pushes that two-push plans begin with: spread over the table, and the best of it
SECOND_SLANTS, SECOND_RECORDED = (0.0,), 10  # they end with coarser ones: these are planned again when they are due
AGENT_ROOM = (-45.0, 557.0)  # pixels: the pusher may leave the picture to get behind the block, but not by more


class PushTExpert:
    """Brings the block to the goal's pose by straight pushes, and then the pusher to its own goal.

    It looks two pushes ahead through `push_table`, takes the pair that leaves the least error for its steps, walks round the
    block to where the first push starts, makes it, and plans again from where the block then is.

    Args:
        noise_std: of normal noise that is added to every action component, raw units; the next action sets it right.
        near: draw goals by `sample_near_problem` (block within 60 pixels and 45 degrees) instead of `sample_problem`.
    """

    def __init__(self, noise_std: float = 0.0, near: bool = False) -> None:
        if noise_std < 0:
            raise ValueError(f"noise_std is {noise_std}, expected at least 0")
        self.noise_std, self.near = noise_std, near
        self.goal: np.ndarray = np.zeros(7)  # the state that it tries to reach
        self._push: PushTable | None = None  # the push it is about, one row
        self._planned_at = np.zeros(3)  # the block's pose at which it was planned
        self._way: tuple[np.ndarray, np.ndarray] | None = None  # start and heading in the plane, once it has begun
        self._made = 0.0  # pixels of it
        self._arrived = False

    def reset(self, world: World, rng: np.random.Generator) -> None:
        """Draw a start and a goal, and put the world at the start.

        Raises:
            ValueError: the world is not Push-T.
        """
        if not isinstance(world, PushTWorld):
            raise ValueError(f"the pusht expert cannot act in world '{world.name}'")
        start, self.goal = world.sample_near_problem(rng) if self.near else world.sample_problem(rng)
        world.reset_to(start)
        self._push, self._way, self._arrived = None, None, False

    def act(self, world: World, rng: np.random.Generator) -> np.ndarray:
        """The next action (2,), raw units, within the world's range."""
        assert isinstance(world, PushTWorld)
        action = steer(world.state, self._next_place(world))
        if self.noise_std > 0:
            action = action + rng.normal(0, self.noise_std, size=2)
        return np.clip(action, world.action_low, world.action_high)

    def _next_place(self, world: PushTWorld) -> Float[np.ndarray, " 2"]:
        """Where the pusher should be after this step."""
        state = world.state
        agent, pose = state[:2], state[2:5]
        error = float(pose_error(pose, self.goal[2:5]))
        self._arrived = error < (STILL_NEAR if self._arrived else NEAR)
        if self._arrived:
            self._push = self._way = None
            return self._walk(world, agent, pose, self._clear_goal(world, pose))

        disturbed = self._way is None and pose_error(pose, self._planned_at) > RECORDED
        if self._push is None or disturbed:
            self._push, self._planned_at = plan_push(world, state, self.goal), pose
            self._way = None
        if self._push is None:
            return self._walk(world, agent, pose, self._clear_goal(world, pose))
        return self._along(world, agent, pose, self._push)

    def _along(
        self, world: PushTWorld, agent: Float[np.ndarray, " 2"], pose: Float[np.ndarray, " 3"], push: PushTable
    ) -> Float[np.ndarray, " 2"]:
        """To the start of a push, and then along it."""
        if self._way is None:
            start = pose[:2] + turned(push.start[0], pose[2])
            if np.linalg.norm(agent - start) > AT_START_PX:
                return self._walk(world, agent, pose, start)
            self._way, self._made = (start, turned(push.heading[0], pose[2])), 0.0
        start, heading = self._way
        self._made = min(self._made + PUSH_PX, float(push.length[0]))
        if self._made == push.length[0]:
            self._push = self._way = None
        return start + self._made * heading

    def _walk(
        self,
        world: PushTWorld,
        agent: Float[np.ndarray, " 2"],
        pose: Float[np.ndarray, " 3"],
        end: Float[np.ndarray, " 2"],
    ) -> Float[np.ndarray, " 2"]:
        """One step of the way round the block."""
        ahead = next_place(BLOCKS[shape_of_number(world.layout["shape"])], pose, world.agent_radius, agent, end) - agent
        distance = float(np.linalg.norm(ahead))
        return agent + ahead * min(1.0, TRAVEL_PX / max(distance, 1e-9))

    def _clear_goal(self, world: PushTWorld, pose: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " 2"]:
        """The pusher's goal, or the nearest place to it that leaves the block where it is."""
        block, angles = BLOCKS[shape_of_number(world.layout["shape"])], np.linspace(0, 2 * math.pi, 16, endpoint=False)
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        around = np.concatenate([self.goal[None, :2], *(self.goal[:2] + r * ring for r in (3, 6, 9, 12, 15, 18))])
        clear = block.clearance(pose, around) > world.agent_radius + 1
        return around[np.flatnonzero(clear)[0] if clear.any() else 0]


def steer(state: Float[np.ndarray, " 7"], place: Float[np.ndarray, " 2"]) -> Float[np.ndarray, " 2"]:
    """The action that brings the pusher exactly to a place in one step: its controller is linear."""
    return (place - state[:2] - _PX_PER_VELOCITY * state[5:7]) / (_PX_PER_COMMAND * PIXELS_PER_ACTION)


def pose_error(poses: Float[np.ndarray, "*n 3"], goal: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "*n"]:
    """Pixels, with the angle's difference on the circle in them."""
    apart = poses - goal
    turn = (apart[..., 2] + math.pi) % (2 * math.pi) - math.pi
    return np.sqrt(apart[..., 0] ** 2 + apart[..., 1] ** 2 + (PX_PER_RADIAN * turn) ** 2)


def plan_push(world: PushTWorld, state: Float[np.ndarray, " 7"], goal: Float[np.ndarray, " 7"]) -> PushTable | None:
    """The first of one or two pushes that bring the block nearest to the goal; None if none brings it nearer."""
    shape = shape_of_number(world.layout["shape"])
    table, pose = push_table(shape, world.agent_radius), state[2:5]
    once = compose(pose, table.moved)
    starts = pose[:2] + turned(table.start, pose[2])
    corners = np.array([part.corners for part in BLOCKS[shape].parts]).reshape(-1, 2)

    def possible(poses: np.ndarray, starts: np.ndarray) -> np.ndarray:
        reached = poses[:, None, :2] + turned(corners, poses[:, 2:])
        between_walls = (reached.min(axis=(1, 2)) > ROOM[0]) & (reached.max(axis=(1, 2)) < ROOM[1])
        return between_walls & (starts.min(axis=1) > AGENT_ROOM[0]) & (starts.max(axis=1) < AGENT_ROOM[1])

    fine = np.flatnonzero(possible(once, starts))
    if not fine.size:
        return None
    table, once, starts = table.take(fine), once[fine], starts[fine]
    steps = np.linalg.norm(starts - state[:2], axis=1) / TRAVEL_PX + table.length / PUSH_PX
    error = pose_error(once, goal[2:5])
    value = np.maximum(error, NEAR / 2) + PX_PER_STEP * steps
    best, best_value = int(value.argmin()), float(value.min())

    spread = np.linspace(0, fine.size - 1, FIRST_SPREAD).astype(int)
    first = np.unique(np.concatenate([spread, value.argsort()[:FIRST_BEST]]))
    ends = starts[first] + table.length[first, None] * turned(table.heading[first], pose[2])
    follow = push_table(shape, world.agent_radius, SECOND_SLANTS, SECOND_RECORDED)
    twice = compose(once[first, None], follow.moved[None])
    again = once[first, None, :2] + turned(follow.start[None], once[first, 2:])
    steps_2 = np.linalg.norm(again - ends[:, None], axis=-1) / TRAVEL_PX + follow.length / PUSH_PX
    value_2 = np.maximum(pose_error(twice, goal[2:5]), NEAR / 2) + PX_PER_STEP * (steps[first, None] + steps_2)
    i, j = np.nonzero(value_2 < best_value)
    kept = np.flatnonzero(possible(twice[i, j], again[i, j]))
    if kept.size:
        i, j = i[kept], j[kept]
        chosen = int(value_2[i, j].argmin())
        best, best_value = int(first[i[chosen]]), float(value_2[i[chosen], j[chosen]])
    return table.take(np.array([best])) if best_value < pose_error(pose, goal[2:5]) else None


def _one_step(command: float, velocity: float) -> float:
    """Pixels that the pusher moves in an env step."""
    place = 0.0
    for _ in range(SUBSTEPS):
        velocity += (STIFFNESS * (command - place) - DAMPING * velocity) * SUBSTEP_S
        place += velocity * SUBSTEP_S
    return place


_PX_PER_COMMAND, _PX_PER_VELOCITY = _one_step(1.0, 0.0), _one_step(0.0, 1.0)
