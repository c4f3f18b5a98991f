"""Plans over HTTP for someone's own robot loop: the model is loaded once; no data set, simulator or Ray.

python -m ray_jobs.serve wm_home/runs/HASH [path=value ...]      (or: wm serve ...)
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from wm.build import load
from wm.build_planning import action_bounds, build_objective, build_planner
from wm.config.errors import UserError
from wm.config.experiment import ExperimentConfig
from wm.config.resolve import with_overrides
from wm.config.yaml import parse_override
from wm.serving.interface import interface_of
from wm.serving.plan_queue import PlanQueue
from wm.serving.server import Log, PlanServer, Served
from wm.serving.service import PlanService
from wm.training.checkpoint import find_checkpoint, read_manifest
from wm.training_run import pick_device

CHANGEABLE = "plan"


def serve_checkpoint(
    path: Path,
    overrides: Sequence[str],
    console: Console,
    *,
    host: str = "127.0.0.1",
    port: int = 8900,
    timeout_s: float = 60.0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    which: Literal["latest", "best"] = "latest",
    log: Log = lambda line: None,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Args:
        timeout_s: for requests that state none.
        log: hears of the server's own faults.

    Raises:
        UserError: an override that the checkpoint decides, a model that cannot plan from frames, or an address that cannot be had.
    """
    try:
        checkpoint = find_checkpoint(path, which)
        config = plan_config(checkpoint, overrides)
        server = PlanServer(host, port, log)  # a port that is taken is said before the weights are read
        try:
            served = open_served(checkpoint, config, timeout_s, device)
        except BaseException:
            server.server_close()
            raise

        def ready() -> None:
            console.print(_headline(served, checkpoint), highlight=False, soft_wrap=True, markup=False)
            if not ipaddress.ip_address(str(server.server_address[0])).is_loopback:
                log(
                    f"warning: whoever can reach {server.url} can ask for plans: there is no password and no encryption"
                )
            console.print(f"{server.url}  (Ctrl-C ends it)", highlight=False, soft_wrap=True, markup=False)

        server.serve(served, ready)
    except KeyboardInterrupt:
        console.print("stopped", highlight=False)


def plan_config(checkpoint: Path, overrides: Sequence[str]) -> ExperimentConfig:
    """A checkpoint's config with some of `plan.*` changed. Raises UserError for anything else."""
    changes: dict[str, Any] = dict(map(parse_override, overrides))
    for key in changes:
        if key.split(".", 1)[0] != CHANGEABLE:
            raise UserError(f"{key}: the checkpoint decides this; `wm serve` takes {CHANGEABLE}.*")
    facts = read_manifest(checkpoint)["facts"]
    return with_overrides(ExperimentConfig.model_validate_json(json.dumps(facts["config"])), changes)


def open_served(
    checkpoint: Path, config: ExperimentConfig, timeout_s: float, device: Literal["auto", "cpu", "cuda"] = "auto"
) -> Served:
    """The model of a checkpoint, its planner and objective by `config`, ready to answer."""
    place = pick_device(device)
    model = load(checkpoint, str(place)).planned_by(config.plan)
    _need_none_of_the_simulator(config)
    bounds, memory_gb = action_bounds(config.plan, model), config.resources.planning_memory_gb
    planner = build_planner(config.plan.planner, model, memory_gb=memory_gb, bounds=bounds)
    interface = interface_of(model, config, planner.horizon, config.plan.steps_executed or planner.horizon)
    service = PlanService(model, planner, build_objective(config.plan.objective, model.model), interface)
    service.check()
    about = {
        "checkpoint": str(checkpoint),
        "variant": config.model.variant,
        "encoder": config.encoder.kind,
        "device": str(place),
    }
    return Served(service, PlanQueue(), about, timeout_s)


def _need_none_of_the_simulator(config: ExperimentConfig) -> None:
    """Raises UserError for limits: they need proprioception at every step, and an answer is many steps."""
    if config.plan.limits:
        raise UserError(
            f"plan.limits.{next(iter(config.plan.limits))}: a server does not see the robot move; put limits where actions are "
            "executed"
        )


def _headline(served: Served, checkpoint: Path) -> str:
    interface = served.service.interface
    size = interface.frame_size
    frames = "frames of any size" if size is None else f"frames {size[1]} x {size[0]}"
    proprio = f", proprio {', '.join(interface.proprio_names)}" if interface.proprio_names else ""
    return (
        f"{checkpoint}: {served.about['variant']} on {served.about['device']}; {frames}{proprio} -> {interface.num_planned} actions "
        f"({', '.join(interface.action_names)}), {interface.num_executed} to execute; planner {interface.planner}"
    )


def main() -> None:
    """python -m ray_jobs.serve CHECKPOINT [path=value ...]: as `wm serve`."""
    import sys

    from ray_jobs.cli import main as cli

    sys.argv[1:1] = ["serve"]
    cli()


if __name__ == "__main__":
    main()
