"""Joining a cluster: what every node must have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ray_jobs.runtime import cluster
from wm.config.errors import UserError


def test_one_node_shares_with_itself(ray_cluster: Any, tmp_path: Path) -> None:
    cluster.check_shared(tmp_path)
    assert not list(tmp_path.iterdir())


def test_nodes_that_do_not_see_the_root_are_named(
    ray_cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two nodes are played by one: a task on it answers for a disk of its own."""
    real = ray_cluster.nodes()
    mine = ray_cluster.get_runtime_context().get_node_id()
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [{**real[0], "NodeID": mine}])
    monkeypatch.setattr(
        cluster.ray, "get_runtime_context", lambda: type("C", (), {"get_node_id": lambda self: "another"})()
    )
    cluster.check_shared(tmp_path)  # a task there reads what was written here
    with pytest.raises(UserError, match="not shared with 1 of 2 nodes"):
        cluster.check_shared(tmp_path, lambda path, text: Path(path + ".elsewhere").is_file())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["nowhere", "ray://", "http://[", "host:port"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UserError, match="RAY_ADDRESS="):
        cluster.check_answers(address)


def test_a_refused_token_is_named_although_ray_says_it_elsewhere() -> None:
    import os
    import tempfile

    with tempfile.TemporaryFile() as said:
        with cluster._stderr_to(said):
            os.write(2, b"Unauthenticated: RPC error: InvalidAuthToken: ...")
        said.seek(0)
        text = cluster._why_not("10.0.0.1:6379", ConnectionError("Failed to connect"), said.read())
    assert text.startswith("RAY_ADDRESS=10.0.0.1:6379: the cluster refuses this token")
    assert "Failed to connect" in cluster._why_not("10.0.0.1:6379", ConnectionError("Failed to connect"), b"")
