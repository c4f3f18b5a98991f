"""`wm`: one command for experiments on DINO world models. Heavy imports happen inside the commands."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from ray_jobs.cli_data import add_data_commands
from ray_jobs.cli_diagnose import add_diagnose_command
from ray_jobs.cli_encoder import add_encoder_commands
from ray_jobs.cli_exchange import add_commands
from ray_jobs.cli_finetune import add_finetune_command
from ray_jobs.cli_plan import add_planning_commands
from ray_jobs.cli_serve import add_serve_command
from ray_jobs.cli_worlds import add_world_commands
from wm.config.errors import UserError
from wm.evaluation.metric_names import METRICS

app = typer.Typer(
    help="Train, plan with and compare DINO world models, on a laptop or a Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
data_app = typer.Typer(help="Make, fetch, convert, inspect and tokenize data.", no_args_is_help=True)
app.add_typer(data_app, name="data")
add_commands(app)
add_encoder_commands(app)
add_planning_commands(app)
add_finetune_command(app)
add_serve_command(app)
add_world_commands(app, data_app)
add_data_commands(data_app)
console = Console()
add_diagnose_command(app, console)
_BEGAN = time.monotonic()  # before the slow imports

DEMO_SPEC = "align_vs_align_recon"
DEMO_EPISODES, DEMO_STEPS, DEMO_FRAME_SIZE = 200, 60, 84

_METRIC_HELP = "\n\n".join(f"[bold]{escape(metric.name)}[/bold] {escape(metric.formula)}" for metric in METRICS)

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[PATH=VALUE]...", help="Config overrides, as in train.epochs=20.")
]
Checkpoint = Annotated[Path, typer.Argument(help="A run folder or a checkpoint folder.")]
Best = Annotated[bool, typer.Option("--best", help="A run's best checkpoint (train.best_metric), not its last.")]
Address = Annotated[
    str | None, typer.Option(help="The head's dashboard; default: RAY_ADDRESS, else http://127.0.0.1:8265.")
]


@app.command()
def demo() -> None:
    """Make Wall data, then train, plan with and compare three variants: about seven minutes on two cores, offline."""
    from experiments.spec import load_spec
    from ray_jobs.experiment import run_experiment
    from ray_jobs.make_data import make_wall
    from ray_jobs.runtime.progress import Narrator
    from ray_jobs.runtime.runs import storage_root

    narrator = Narrator(console)
    out = storage_root(None) / "data" / "wall"
    with narrator.step("Make Wall demonstrations", "episodes") as stage:
        made = make_wall(
            out,
            episodes=DEMO_EPISODES,
            steps=DEMO_STEPS,
            frame_size=DEMO_FRAME_SIZE,
            progress=lambda done, total: stage.update(done, total),
        )
        narrator.say(f"{DEMO_EPISODES} episodes in {out}" if made else f"{out} is there already")
    spec, overrides = load_spec(DEMO_SPEC)
    finished = run_experiment(spec, overrides, narrator)
    total = sum(narrator.seconds.values())
    for title, seconds in narrator.seconds.items():
        console.print(f"  {seconds:7.1f} s  {title}", highlight=False)
    console.print(
        f"  {total:7.1f} s  in all. `wm ui` opens MLflow; the report is {finished.report}",
        soft_wrap=True,
        highlight=False,
    )
    _exit_on_failures(finished.failures)


@app.command()
def train(
    spec: Annotated[str, typer.Argument(help="A spec file, or the name of a shipped one.")],
    overrides: Overrides = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only go on with runs that were started; refuse if none was.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Where the report goes.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds, as in 0,1,2.")] = None,
    episodes: Annotated[
        int | None, typer.Option(help="Planning problems for each goal horizon (plan.episodes).")
    ] = None,
) -> None:
    """Run an experiment: train every run of SPEC, plan with each, record in MLflow, compare."""
    from experiments.spec import load_spec
    from ray_jobs.experiment import run_experiment
    from ray_jobs.runtime.progress import Narrator

    given = [
        *(overrides or []),
        *_aliases(seeds=None if seeds is None else f"[{seeds}]", **{"plan.episodes": episodes}),
    ]
    loaded, config_overrides = load_spec(spec, given)
    finished = run_experiment(loaded, config_overrides, Narrator(console), only_resume=resume, html=html)
    _exit_on_failures(finished.failures)


@app.command()
def sweep(
    spec: Annotated[str, typer.Argument(help="A spec file, or the name of a shipped one.")],
    space: Annotated[str, typer.Option(help="A search space file, or the name of a shipped one.")],
    overrides: Overrides = None,
    trials: Annotated[int | None, typer.Option(help="In all, earlier ones included (sweep.num_trials).")] = None,
    seeds: Annotated[int | None, typer.Option(help="Training seeds of a trial (sweep.num_seeds).")] = None,
    episodes: Annotated[
        int | None, typer.Option(help="Planning problems for each goal horizon (plan.episodes).")
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="The run of SPEC that is searched; default: the space's base.")
    ] = None,
    case: Annotated[str | None, typer.Option(help="The case of SPEC; must be said when it has several.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would do and how long it would take; start no cluster.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only go on with a sweep that was started; refuse if none was.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Where the report goes.")] = None,
) -> None:
    """Search settings of SPEC over a space: propose, train, stop early, plan; then run the best again with fresh seeds."""
    from ray_jobs.runtime.searched import open_sweep

    aliases = _aliases(**{"sweep.num_trials": trials, "sweep.num_seeds": seeds, "plan.episodes": episodes})
    searched = open_sweep(spec, space, [*(overrides or []), *aliases], run=run, case=case)
    if dry_run:
        from ray_jobs.dry_run import dry_run as show

        show(searched, console)
        return
    from ray_jobs.runtime.progress import Narrator
    from ray_jobs.sweep import run_sweep

    finished = run_sweep(searched, Narrator(console), only_resume=resume, html=html, began=_BEGAN)
    _exit_on_failures([] if finished.record.best is not None else ["no trial was completed"])


@app.command(name="eval", epilog=_METRIC_HELP)
def evaluate(
    checkpoint: Checkpoint,
    overrides: Overrides = None,
    best: Best = False,
    out: Annotated[
        Path | None, typer.Option(help="Where eval.json and pictures go; default: beside the checkpoint.")
    ] = None,
) -> None:
    """Measure a trained model on held-out episodes: errors by horizon, actions, state, decoded pictures. No cluster."""
    from ray_jobs.eval import evaluate_checkpoint
    from ray_jobs.runtime.progress import Narrator

    evaluate_checkpoint(checkpoint, overrides or [], out, Narrator(console), "best" if best else "latest")


@app.command()
def compare(
    experiment: Annotated[
        str, typer.Argument(help="MLflow experiment: the spec's name, unless tracking.experiment says another.")
    ],
    run: Annotated[str | None, typer.Option(help="Which parent run, by id or name; default: the newest.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a self-contained report here.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    tracking_uri: Annotated[str | None, typer.Option(help="tracking.uri; default: under storage.root.")] = None,
) -> None:
    """Print the comparison table of a recorded experiment."""
    from experiments.comparison import compare as compare_record
    from experiments.comparison_text import render_text, to_markdown
    from experiments.ledger import read_record
    from experiments.report import write_report
    from experiments.tracking import Tracker
    from ray_jobs.runtime.runs import storage_root
    from wm.config.platform import TrackingConfig

    tracker = Tracker(TrackingConfig(uri=tracking_uri), storage_root(None), experiment, must_exist=True)
    record = read_record(tracker, run)
    table = compare_record(record)
    if markdown:
        typer.echo(to_markdown(table))
    else:
        for renderable in render_text(table):
            console.print(renderable)
    if html is not None:
        write_report(record, html)
        console.print(f"Report: {html}", soft_wrap=True, highlight=False)


@app.command()
def submit(
    spec: Annotated[str, typer.Argument(help="A spec file, or the name of a shipped one.")],
    overrides: Overrides = None,
    address: Address = None,
    space: Annotated[str | None, typer.Option(help="Search this space: a sweep instead of an experiment.")] = None,
    trials: Annotated[int | None, typer.Option(help="Trials of the sweep.", min=1)] = None,
    seeds: Annotated[int | None, typer.Option(help="Training seeds of a trial of the sweep.", min=1)] = None,
    encoder: Annotated[
        bool, typer.Option("--encoder", help="SPEC is an encoder's: as `wm pretrain-encoder` takes it.")
    ] = False,
    job_id: Annotated[str | None, typer.Option(help="A name that no job of the cluster has had.")] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Show the job's log until it ends.")] = True,
) -> None:
    """Run an experiment, a sweep (--space) or the training of an encoder on a Ray cluster, with this checkout as it is."""
    from ray_jobs.submit import prepare
    from ray_jobs.submit import submit as submit_job

    submission = prepare(spec, overrides or [], space=space, trials=trials, seeds=seeds, job_id=job_id, encoder=encoder)
    raise typer.Exit(submit_job(submission, address, Console(stderr=True), wait=follow))


@app.command()
def jobs(address: Address = None) -> None:
    """List the jobs of a Ray cluster, the newest first."""
    from ray_jobs.job_server import connect
    from ray_jobs.jobs import show

    show(connect(address), console)


@app.command()
def stop(
    job: Annotated[str, typer.Argument(help="Its id: `wm jobs` lists them.")],
    address: Address = None,
) -> None:
    """Stop a job and wait until it has ended."""
    from ray_jobs.job_server import connect
    from ray_jobs.jobs import stop as stop_job

    ended, asked = stop_job(connect(address), job)
    how = "ended as" if asked else "had ended already:"
    console.print(f"{job}: {how} {ended.status.value}", highlight=False, soft_wrap=True)


@app.command()
def gpus(
    quiet: Annotated[bool, typer.Option("--quiet", help="Only UUIDs, as CUDA_VISIBLE_DEVICES takes them.")] = False,
    min_free_gb: Annotated[float, typer.Option(help="With --quiet: GiB that must be free.", min=0)] = 2.0,
) -> None:
    """List this machine's NVIDIA cards, the freest first."""
    from ray_jobs.gpus import list_gpus

    list_gpus(console, quiet=quiet, min_free_gb=min_free_gb)


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000) -> None:
    """Open MLflow's web page on 127.0.0.1 (Ctrl-C ends it)."""
    from ray_jobs.ui import serve_ui

    raise typer.Exit(serve_ui(port, console))


@app.command()
def doctor() -> None:
    """Check this machine: one line each, and what to do about each failure."""
    from ray_jobs.doctor import diagnose

    raise typer.Exit(diagnose(console))


@data_app.command("inspect")
def data_inspect(
    path: Annotated[Path, typer.Argument(help="A data folder, or an HDF5 file.")],
    overrides: Overrides = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet PNG here.")] = None,
) -> None:
    """Say what a data set is: episodes, lengths, shapes, statistics, and what looks suspicious."""
    from ray_jobs.inspect_data import inspect_data
    from ray_jobs.runtime.progress import Narrator

    with Narrator(console).step(f"Look at {path}", "episodes") as stage:
        lines, _ = inspect_data(path, sheet, overrides or [], progress=stage.update)
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


@data_app.command("validate")
def data_validate(
    path: Annotated[Path, typer.Argument(help="A data folder, or an HDF5 file.")],
    overrides: Overrides = None,
    strict: Annotated[bool, typer.Option(help="What is only suspicious fails, too.")] = False,
) -> None:
    """Read every number and decode every frame; say what is wrong, episode by episode. Exit code 1 if anything is."""
    from ray_jobs.inspect_data import inspect_data
    from ray_jobs.runtime.progress import Narrator

    with Narrator(console).step(f"Read all of {path}", "episodes") as stage:
        _, report = inspect_data(path, None, overrides or [], every_frame=True, progress=stage.update)
    for finding in report.findings:
        console.print(str(finding), soft_wrap=True, highlight=False)
    odd = len(report.findings) - len(report.errors)
    console.print(f"{len(report.errors)} errors, {odd} suspicious", highlight=False)
    if report.errors or (strict and odd):
        raise typer.Exit(1)


@data_app.command("tokenize")
def data_tokenize(
    path: Annotated[Path, typer.Argument(help="A data folder.")],
    overrides: Overrides = None,
) -> None:
    """Encode every frame of a data set once with the frozen encoder (encoder.kind=tiny unless said otherwise)."""
    from ray_jobs.inspect_data import tokenize_folder
    from ray_jobs.runtime.progress import Narrator

    tokenize_folder(path, overrides or [], Narrator(console))


def _aliases(**given: Any) -> list[str]:
    """Flags that stand for a path, as overrides."""
    return [f"{path}={value}" for path, value in given.items() if value is not None]


def _exit_on_failures(failures: list[str]) -> None:
    if failures:
        raise typer.Exit(1)


def _on_terminate(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> None:
    """The console script: one line for a user's mistake, a word on how to go on after Ctrl-C."""
    signal.signal(signal.SIGTERM, _on_terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    error_console = Console(stderr=True)
    try:
        app()
    except UserError as error:
        error_console.print(f"error: {error}", style="red", soft_wrap=True, highlight=False, markup=False)
        sys.exit(2)
    except OSError as error:
        from wm.data.atomic import FULL

        if error.errno not in FULL:
            raise
        error_console.print(
            f"error: no space left on the disk ({error.filename}); free some and run the same command", soft_wrap=True
        )
        sys.exit(2)
    except SystemExit as leaving:
        # Typer turns Ctrl-C into an exit of its own; a command that has dealt with it raises one without this cause.
        if isinstance(getattr(leaving.__context__, "__cause__", None), KeyboardInterrupt):
            error_console.print("stopped. What is done is kept: the same command goes on from there.", highlight=False)
        raise


if __name__ == "__main__":
    main()
