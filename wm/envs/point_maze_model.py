"""The point maze as a MuJoCo model: floor, walls, ball, two motors, and how each shift changes them.

Coordinates are those of the recorded states: x along rows, y along columns, cell (row, column) centred at (row - 0.2, column - 0.2).
MuJoCo's own are larger by 1.2, where the ball's body stands. There the floor's checker pattern and the camera have their places.

Source: D4RL (arXiv 2004.07219), maze model; facts from WORLDS.md, section 3.
"""

# pyright: reportAttributeAccessIssue=false
# mujoco is a compiled module without stubs.

from __future__ import annotations

from typing import NamedTuple

from wm.config.worlds import PointMazeShift
from wm.envs.mujoco_camera import View
from wm.envs.physics import mujoco
from wm.envs.point_maze_layouts import Cell, Maze

BODY_OFFSET = 1.2  # world units
CELL_OFFSET = 0.2
HALF_CELL = 0.5
TIMESTEP_S = 0.01

_WALL_HALF_HEIGHT = 0.2
_BALL_RADIUS, _BALL_DENSITY = 0.1, 1000.0  # units, kg per cubic unit
_SITE_RADIUS = 0.2  # what is seen of the ball; the ball itself is transparent
_FOVY_DEG = 45


class _Look(NamedTuple):
    """What a shift may change.

    Args:
        scale: of the ball, its mass kept.
        azimuth, elevation: camera, degrees.
        ambient, diffuse: of the lamp at the camera, RGB.
        lamp: a second one, from the side, casting shadows.
    """

    ball: str = ".3 .6 .3"
    wall: str = ".7 .5 .3"
    floor: tuple[str, str] = (".2 .3 .4", ".1 .2 .3")
    scale: float = 1.0
    azimuth: float = 90.0
    elevation: float = -90.0
    ambient: str = ".4 .4 .4"
    diffuse: str = ".8 .8 .8"
    lamp: str = ""


_LOOKS: dict[PointMazeShift, _Look] = {
    "none": _Look(),
    "light": _Look(
        ambient=".2 .2 .2",
        diffuse=".25 .25 .3",
        lamp='<light directional="true" dir="1 .6 -1" diffuse=".7 .6 .4" specular="0 0 0" castshadow="true"/>',
    ),
    "colours": _Look(ball=".8 .3 .3", wall=".4 .45 .7"),
    "background": _Look(floor=(".55 .5 .4", ".45 .4 .3")),
    "camera": _Look(azimuth=75.0, elevation=-75.0),
    "agent_size": _Look(scale=1.5),
}


def centre_of(cell: Cell) -> tuple[float, float]:
    """(x, y) of a cell's middle, units of the state."""
    return cell[0] - CELL_OFFSET, cell[1] - CELL_OFFSET


def build_model(maze: Maze, shift: PointMazeShift, frame_size: int) -> mujoco.MjModel:
    """The model of one maze. Those of all mazes have the same textures.

    The solver starts every step from nothing (no warm start), so that position and velocity are all there is to restore; against the
    original, which warm-starts, that is a difference of 1e-14.
    """
    look = _LOOKS[shift]
    walls = "".join(
        f'<geom type="box" pos="{row + 1} {column + 1} 0" size="{HALF_CELL} {HALF_CELL} {_WALL_HALF_HEIGHT}" rgba="{look.wall} 1"/>'
        for row, column in maze.closed_cells
    )
    ball, site = look.scale * _BALL_RADIUS, look.scale * _SITE_RADIUS
    return mujoco.MjModel.from_xml_string(f"""
<mujoco model="point maze">
  <option timestep="{TIMESTEP_S}" gravity="0 0 0" iterations="20" integrator="Euler"><flag warmstart="disable"/></option>
  <default>
    <geom condim="1" margin="0.002"/>
    <joint type="slide" damping="1"/>
    <motor gear="100" ctrllimited="true" ctrlrange="-1 1"/>
  </default>
  <asset>
    <texture name="floor" type="2d" builtin="checker" rgb1="{look.floor[0]}" rgb2="{look.floor[1]}" width="100" height="100"/>
    <material name="floor" texture="floor" texrepeat="20 20"/>
  </asset>
  <visual>
    <global fovy="{_FOVY_DEG}" offwidth="{frame_size}" offheight="{frame_size}"/>
    <headlight ambient="{look.ambient}" diffuse="{look.diffuse}" specular=".1 .1 .1"/>
    <map znear=".01"/>
    <quality shadowsize="2048"/>
  </visual>
  <worldbody>
    {look.lamp}
    <geom type="plane" size="40 40 .25" pos="0 0 -.1" material="floor" contype="0" conaffinity="0"/>
    {walls}
    <body pos="{BODY_OFFSET} {BODY_OFFSET} 0">
      <joint name="x" axis="1 0 0"/>
      <joint name="y" axis="0 1 0"/>
      <geom type="sphere" size="{ball}" density="{_BALL_DENSITY / look.scale**3}" rgba="0 0 0 0"/>
      <site size="{site}" rgba="{look.ball} 1"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="x"/>
    <motor joint="y"/>
  </actuator>
</mujoco>
""")


def camera_view(model: mujoco.MjModel, maze: Maze, shift: PointMazeShift) -> View:
    """From above the middle of the maze, at the distance of MuJoCo's extent of the model: the original's rule."""
    look = _LOOKS[shift]
    middle_x, middle_y = ((side + 3) / 2 for side in maze.sides)
    return View((middle_x, middle_y, 0.0), float(model.stat.extent), look.azimuth, look.elevation)
