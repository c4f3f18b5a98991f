"""Planners: search for the actions whose imagined outcome lies nearest to a goal. They see no simulator.

Shape legend: B problems, N samples, H horizon, T context frames, P patch tokens, C latent channels, A F one model action.
"""

from wm.planning.bounds import ActionBounds
from wm.planning.cem import CemPlanner
from wm.planning.gradient import GradientPlanner
from wm.planning.icem import IcemPlanner
from wm.planning.mpc import Mpc, MpcIteration, MpcResult
from wm.planning.mppi import MppiPlanner
from wm.planning.objective import LatentObjective, latent_cost
from wm.planning.random import RandomPlanner

__all__ = [
    "ActionBounds",
    "CemPlanner",
    "GradientPlanner",
    "IcemPlanner",
    "LatentObjective",
    "Mpc",
    "MpcIteration",
    "MpcResult",
    "MppiPlanner",
    "RandomPlanner",
    "latent_cost",
]
