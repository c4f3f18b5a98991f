"""The only door to MLflow: parents and children, metrics once each, params, tags and artifacts."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from wm.config.errors import UserError, nearest
from wm.config.platform import TrackingConfig
from wm.data.atomic import file_lock

PARENT = "mlflow.parentRunId"  # MLflow's own tag: its page nests children under it
IDENTITY = "wm.identity"  # what makes a run the same run when a command is repeated
_PARAM_LIMIT = 6000  # characters; MLflow refuses longer ones


class Tracker:
    """One MLflow experiment.

    Args:
        root: storage.root, where the default database and artifacts lie.
        experiment: its name.
        must_exist: refuse to make it.

    Raises:
        UserError: the tracking server does not answer, or the database cannot be opened.
    """

    def __init__(self, config: TrackingConfig, root: Path, experiment: str, must_exist: bool = False) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        _quieten()
        self.uri = tracking_uri(config, root)
        self.experiment = experiment
        root.mkdir(parents=True, exist_ok=True)
        # Two commands that make the embedded database at once break it.
        making = file_lock(root / "mlflow.lock") if config.uri is None else nullcontext()
        try:
            with making:
                self.client = MlflowClient(self.uri)
                self.client.search_experiments(max_results=1)
            found = self.client.get_experiment_by_name(experiment)
            if found is None and must_exist:
                names = [known.name for known in self.client.search_experiments() if known.name != "Default"]
                raise UserError(f"{redacted(self.uri)}: no experiment '{experiment}'.{nearest(experiment, names)}")
            if found is None:
                # Artifacts of the embedded store lie beside its database; a server has its own place for them.
                location = (root / "mlartifacts").as_uri() if config.uri is None else None
                self.experiment_id = self.client.create_experiment(experiment, artifact_location=location)
            else:
                self.experiment_id = found.experiment_id
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise UserError(
                f"tracking.uri={redacted(self.uri)}: MLflow does not answer ({_first_line(error)}); start the server, or leave "
                f"tracking.uri out to record under storage.root"
            ) from error

    def find(self, identity: str, parent: str | None = None) -> str | None:
        """The run with this identity (below this parent), or None."""
        clauses = [f"tags.`{IDENTITY}` = '{identity}'"]
        if parent is not None:
            clauses.append(f"tags.`{PARENT}` = '{parent}'")
        found = self.client.search_runs([self.experiment_id], " and ".join(clauses), max_results=1)
        return found[0].info.run_id if found else None

    def open_run(
        self,
        name: str,
        identity: str,
        *,
        parent: str | None = None,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> RunLog:
        """The run with this identity, made when there is none; it is RUNNING afterwards."""
        with _recorded():
            run_id = self.find(identity, parent)
            if run_id is None:
                own = {IDENTITY: identity, **(dict(tags or {})), **({PARENT: parent} if parent else {})}
                run_id = self.client.create_run(self.experiment_id, run_name=name, tags=own).info.run_id
                _log_params(self.client, run_id, params or {})
            else:
                self.client.update_run(run_id, status="RUNNING")
                for key, value in (tags or {}).items():
                    self.client.set_tag(run_id, key, value)
            return RunLog(self.client, run_id)


class RunLog:
    """One MLflow run. Rows may be given again, as a resumed run does: each (metric, step) is written once."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client = client
        self.run_id = run_id
        self._logged: dict[str, int] = {}
        for key in client.get_run(run_id).data.metrics:
            self._logged[key] = max(point.step for point in client.get_metric_history(run_id, key))

    def rows(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """`{"step": 20, "metrics": {...}}`, steps ascending. Returns how many numbers were new."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        fresh: list[Any] = []
        for row in rows:
            step = int(row["step"])
            for key, value in row["metrics"].items():
                if step > self._logged.get(key, -1):
                    fresh.append(Metric(key, float(value), now, step))
                    self._logged[key] = step
        with _recorded():
            for first in range(0, len(fresh), 500):
                self._client.log_batch(self.run_id, metrics=fresh[first : first + 500])
        return len(fresh)

    def artifact(self, file: Path, folder: str | None = None) -> None:
        """Copy a file, or a folder, into the run's artifacts."""
        log = self._client.log_artifacts if file.is_dir() else self._client.log_artifact
        with _recorded():
            log(self.run_id, str(file), folder)

    def text(self, name: str, content: str) -> None:
        """A text artifact."""
        with _recorded():
            self._client.log_text(self.run_id, content, name)

    def tag(self, **tags: str) -> None:
        """Set tags; `_` in a name stands for itself."""
        with _recorded():
            for key, value in tags.items():
                self._client.set_tag(self.run_id, key, value)

    def finish(self, status: str = "FINISHED") -> None:
        """FINISHED, FAILED or KILLED."""
        with _recorded():
            self._client.set_terminated(self.run_id, status)


@contextmanager
def _recorded() -> Iterator[None]:
    """One line for what cannot be written: a full disk, a server that has gone."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = _first_line(error)
        full = "full" in reason or (isinstance(error, OSError) and error.errno == errno.ENOSPC)
        hint = "free some space" if full else "see that it can be reached"
        raise UserError(f"MLflow cannot be written ({reason}); {hint} and run the same command") from error


def tracking_uri(config: TrackingConfig, root: Path) -> str:
    """The configured URI, or SQLite under the root."""
    return config.uri or f"sqlite:///{root / 'mlflow.db'}"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted paths."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def redacted(uri: str) -> str:
    """A URI without the password in it."""
    head, at, tail = uri.rpartition("@")
    return f"{head.split('//')[0]}//...@{tail}" if at and "//" in head else uri


def _log_params(client: Any, run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(key, str(value)[:_PARAM_LIMIT]) for key, value in params.items()]
    for first in range(0, len(entries), 100):
        client.log_batch(run_id, params=entries[first : first + 100])


def _quieten() -> None:
    """No telemetry, no migration log, and an unreachable server is an answer within seconds, not minutes."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    for name in ("mlflow", "mlflow.store.db.utils", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _first_line(error: Exception) -> str:
    text: Sequence[str] = str(error).splitlines()
    return redacted(text[0][:200]) if text else type(error).__name__
