"""Waypoints for the robosuite tasks: reach, grasp, raise, carry, lower, let go."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wm.contracts import World
from wm.envs.robosuite_goals import grip_rotation, nearest_grip_yaw, raised, rotation_vector
from wm.envs.robosuite_tasks import position, rotation
from wm.envs.robosuite_world import RobosuiteWorld

StageName = Literal["hover", "descend", "close", "raise", "carry", "lower", "open", "away"]

ACTION_METRES, ACTION_RADIANS = 0.05, 0.5  # of a full action
GAIN = 2.0  # of the pull that one action makes towards the waypoint
OPEN, CLOSED = -1.0, 1.0
HOVER = 0.08  # metres above the grasp
LOST = 0.07  # metres between the hand and the place on the object that it held


@dataclass(frozen=True)
class Grip:
    """How one task's object is held and put down.

    Args:
        at: the point between the finger tips in the object's frame, metres.
        clearance: metres above its place at which the object is carried.
        release: metres above its place at which it is let go of.
        follows_yaw: the fingers lie along the object's sides; else they are turned as is easy for the arm.
    """

    at: tuple[float, float, float] = (0.0, 0.0, 0.0)
    clearance: float = 0.08
    release: float = 0.004
    follows_yaw: bool = True


GRIPS = {
    "lift": Grip(),
    "stack": Grip(),
    "can": Grip(at=(0.0, 0.0, 0.015), clearance=0.17, release=0.01, follows_yaw=False),
    "square": Grip(at=(0.06, 0.0, 0.002), clearance=0.15, release=0.09),  # lets it slide down the peg
}

# Stages in order: gripper, how near is near enough (metres, radians), the fewest and most actions.
STAGES: dict[StageName, tuple[float, float, float, int, int]] = {
    "hover": (OPEN, 0.02, 0.15, 1, 60),
    "descend": (OPEN, 0.005, 0.06, 3, 40),
    "close": (CLOSED, 1.0, 10.0, 10, 10),
    "raise": (CLOSED, 0.02, 10.0, 1, 40),
    "carry": (CLOSED, 0.005, 0.05, 3, 90),
    "lower": (CLOSED, 0.006, 0.1, 3, 30),
    "open": (OPEN, 1.0, 10.0, 6, 6),
    "away": (OPEN, 0.0, 0.0, 1, 10**9),
}
ORDER: tuple[StageName, ...] = tuple(STAGES)


class RobosuiteExpert:
    """Does the task of a robosuite world under `control: osc_pose`, closing the loop on the object it carries.

    A `Policy`: `reset` draws a problem and puts the world at its start; `goal` is the state that it tries to reach.
    It reads the world's state, `hand` and nothing else. An object that slips out is picked up again.
    """

    def __init__(self) -> None:
        self.goal = np.zeros(0)
        self._go_hand, self._go_turned = np.zeros(3), np.eye(3)
        self._grasp = np.zeros(3)
        self._stage: StageName = "hover"
        self._num_actions = 0

    def reset(self, world: World, rng: np.random.Generator) -> None:
        """
        Raises:
            ValueError: not a robosuite world, or one that takes joint targets.
        """
        if not isinstance(world, RobosuiteWorld) or world.action_names[0] != "dx":
            raise ValueError(f"world '{world.name}' is not a robosuite world with control osc_pose")
        start, self.goal = world.sample_problem(rng)
        world.reset_to(start)
        self._go_hand, self._go_turned = world.hand_at(self.goal)
        self._enter("hover")

    def act(self, world: World, rng: np.random.Generator) -> np.ndarray:
        """The next action (7,)."""
        del rng
        assert isinstance(world, RobosuiteWorld)
        state = world.state
        hand, turned = world.hand
        if self._stage in ("raise", "carry", "lower") and self._is_lost(world.name, state, hand):
            self._enter("hover")
        wanted, wanted_turn = self._waypoint(world.name, state, hand)
        move, turn = wanted - hand, rotation_vector(wanted_turn @ turned.T)
        gripper, near, near_turn, fewest, most = STAGES[self._stage]
        if world.name == "lift" and self._stage == "away":
            gripper = CLOSED
        self._num_actions += 1
        arrived = np.linalg.norm(move) < near and np.linalg.norm(turn) < near_turn
        if self._num_actions >= most or (arrived and self._num_actions >= fewest):
            self._enter(self._next(world.name))
        pull = GAIN * np.concatenate([move / ACTION_METRES, turn / ACTION_RADIANS])
        return np.append(np.clip(pull, -1.0, 1.0), gripper)

    def _enter(self, stage: StageName) -> None:
        self._stage, self._num_actions = stage, 0

    def _next(self, task: str) -> StageName:
        if task == "lift" and self._stage == "close":
            return "away"
        return ORDER[ORDER.index(self._stage) + 1]

    def _waypoint(self, task: str, state: np.ndarray, hand: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the hand should be (3,) and how turned (3, 3)."""
        grip, held = GRIPS[task], self._held_point(task, state)
        place = position(self.goal, 0)
        match self._stage:
            case "hover":
                return raised(held, HOVER), self._grasp_turn(task, state)
            case "descend":
                self._grasp = held
                return held, self._grasp_turn(task, state)
            case "close":
                return self._grasp, self._grasp_turn(task, state)
            case "raise":
                height = place[2] + grip.clearance - position(state, 0)[2]
                return raised(hand, height), self._grasp_turn(task, state)
            case "carry":
                return raised(hand, grip.clearance) + place - position(state, 0), self._go_turned
            case "lower":
                return raised(hand, grip.release) + place - position(state, 0), self._go_turned
            case "open":
                return hand, self._go_turned
            case _:
                return self._go_hand, self._go_turned

    def _held_point(self, task: str, state: np.ndarray) -> np.ndarray:
        return position(state, 0) + rotation(state, 0) @ np.array(GRIPS[task].at)

    def _is_lost(self, task: str, state: np.ndarray, hand: np.ndarray) -> bool:
        return bool(np.linalg.norm(self._held_point(task, state) - hand) > LOST)

    def _grasp_turn(self, task: str, state: np.ndarray) -> np.ndarray:
        """The hand straight down, and so turned to the object as it will be in the goal."""
        ends = math.atan2(self._go_turned[1, 0], self._go_turned[0, 0])
        if not GRIPS[task].follows_yaw:
            return grip_rotation(nearest_grip_yaw(ends, math.pi))
        turns = _yaw(rotation(self.goal, 0)) - _yaw(rotation(state, 0))
        return grip_rotation(nearest_grip_yaw(ends - turns, 2 * math.pi))


def _yaw(turned: np.ndarray) -> float:
    return math.atan2(turned[1, 0], turned[0, 0])
