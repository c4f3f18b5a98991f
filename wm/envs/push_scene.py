"""The table, its light, its camera and its pusher, as a MuJoCo model around whatever lies on it.

MuJoCo's x and y are the table frame of the actions, z is up. The particles' frame of the original has y up: particle
(x, y, z) is at (x, -z, y) here.
"""

from __future__ import annotations

from typing import NamedTuple

from wm.envs.push_path import Pusher

TABLE_HEIGHT = 0.5  # units of 100 mm
TABLE_HALF_X, TABLE_HALF_Z = 3.5, 4.5
GRAVITY = 98.1  # units/s^2 = 9.81 m/s^2
STEP_S = 0.005
PUSHER_FRICTION = 0.1  # of all its contacts, whatever it meets
PARKED = (-50.0, -50.0, 20.0, 0.0)  # x, y, z, yaw where the pusher is when it has left
UNSEEN_GROUP = 3  # of geoms that are never drawn
BIGGER_PUSHER = 1.6  # `shift: agent_size`


class Look(NamedTuple):
    """What can be seen; colours are r g b in 0..1.

    Args:
        objects: colour of the rope or the grains.
        light: direction that the light shines in, and its strength.
        camera, right, up: place and axes of the camera.
    """

    objects: str
    table: str = "0.63 0.63 0.63"
    floor: str = "0.25 0.25 0.27"
    light: str = "-0.1 -0.1 -5"
    strength: float = 0.55
    # 45 degrees down along (-1, -1): the original's (6, 10, -6) with yaw 135 and pitch -45.
    camera: str = "6 6 10"
    right: str = "-1 1 0"
    up: str = "-0.5 -0.5 0.70710678"


def shifted_look(look: Look, shift: str) -> Look:
    """The look under a shift that can be seen; `agent_size` is none.

    `light`: from the side and dimmer. `colours`: blue objects. `background`: a wooden table on green. `camera`: turned by
    20 degrees about the middle of the table, and nearer.
    """
    match shift:
        case "light":
            return look._replace(light="3 1 -3", strength=0.35)
        case "colours":
            return look._replace(objects="0.15 0.35 0.85")
        case "background":
            return look._replace(table="0.55 0.40 0.25", floor="0.15 0.35 0.2")
        case "camera":
            # (6, 6) turned to 65 degrees and drawn in by a tenth; the axes turn with it.
            return look._replace(camera="3.23 6.92 9.05", right="-0.906 0.423 0", up="-0.299 -0.641 0.707")
        case _:
            return look


def shifted_pusher(pusher: Pusher, shift: str) -> Pusher:
    """`agent_size`: the pusher's foot 1.6 times as wide; a stick also as deep."""
    if shift != "agent_size":
        return pusher
    depth = pusher.half_depth * (BIGGER_PUSHER if pusher.round else 1)
    return pusher._replace(half_width=pusher.half_width * BIGGER_PUSHER, half_depth=depth)


def scene_xml(
    objects: str,
    excludes: str,
    pusher: Pusher,
    pusher_height: float,
    look: Look,
    friction: float,
    rolling: float,
) -> str:
    """The whole model.

    Contact bits: table and floor have type 1 and meet geoms of affinity 1; objects and pusher have type 2 and meet
    geoms of affinity 2. So the pusher meets objects only.

    Args:
        objects: bodies (MJCF) on the table; their geoms of material `object`.
        excludes: pairs of bodies (MJCF) that do not collide.
        pusher_height: of its body, units.
        friction: sliding, of table and floor.
        rolling: friction in units; above 0 contacts with the table resist rolling.
    """
    half = pusher_height / 2
    if pusher.round:
        foot = f'type="capsule" size="{pusher.half_width} {half}" pos="0 0 {half}"'  # centre of its tip at the origin
    else:
        foot = f'type="box" size="{pusher.half_depth} {pusher.half_width} {half}" pos="0 0 {half + 0.01}"'
    strength = f"{look.strength} {look.strength} {look.strength}"
    table = f'size="{TABLE_HALF_X} {TABLE_HALF_Z} {TABLE_HEIGHT / 2}" pos="0 0 {TABLE_HEIGHT / 2}"'
    ground = f'friction="{friction} 0.005 {rolling}" condim="{6 if rolling > 0 else 3}" contype="1" conaffinity="0"'
    return f"""
<mujoco>
  <compiler angle="radian"/>
  <option timestep="{STEP_S}" gravity="0 0 -{GRAVITY}" integrator="implicitfast" cone="elliptic" solver="CG"
          tolerance="1e-6">
    <flag autoreset="disable"/>
  </option>
  <statistic extent="8" center="0 0 {TABLE_HEIGHT}"/>
  <visual>
    <headlight ambient="0.35 0.35 0.35" diffuse="0.2 0.2 0.2" specular="0 0 0"/>
    <quality offsamples="4" numslices="12" numstacks="8"/>
    <map znear="0.1" zfar="10"/>
  </visual>
  <asset>
    <material name="object" rgba="{look.objects} 1" specular="0.2" shininess="0.3"/>
    <material name="table" rgba="{look.table} 1" specular="0.1"/>
    <material name="floor" rgba="{look.floor} 1" specular="0"/>
  </asset>
  <default><geom solref="0.01 1" solimp="0.9 0.95 0.01"/></default>
  <worldbody>
    <light directional="true" castshadow="false" pos="0 0 8" dir="{look.light}" diffuse="{strength}" specular="0.2 0.2 0.2"/>
    <camera name="view" pos="{look.camera}" xyaxes="{look.right} {look.up}" fovy="45"/>
    <geom type="plane" size="30 30 1" material="floor" {ground}/>
    <geom type="box" {table} material="table" {ground}/>
    <body name="pusher" gravcomp="1">
      <joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 1 0"/>
      <joint type="slide" axis="0 0 1"/><joint type="hinge" axis="0 0 1"/>
      <geom name="foot" {foot} mass="1000" friction="{PUSHER_FRICTION}" priority="1" contype="2" conaffinity="0"
            group="{UNSEEN_GROUP}"/>
    </body>
    {objects}
  </worldbody>
  <contact>{excludes}</contact>
</mujoco>"""
