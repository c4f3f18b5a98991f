"""cluster.yaml passes what `ray up` checks, offline; and what it must never hold is not there."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from wm.config.platform import ResourcesConfig

FILE = Path(__file__).parents[2] / "cluster.yaml"
TEXT = FILE.read_text(encoding="utf-8")

SECRETS = {
    "an AWS key id": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a private key": r"BEGIN [A-Z ]*PRIVATE KEY",
    "a long random word": r"(?<![\w/.-])(?=\w*\d)(?=\w*[A-Za-z])[A-Za-z0-9+]{32,}(?![\w/.-])",
    "a value of a secret": r"(?i)(secret|password|passwd|api_?key|access_?key|token)\w*\s*[:=]\s*(?!~/)\S",
    "a password in a URL": r"://[^/\s:]+:[^/\s@]+@",
}


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does it before it speaks to the cloud; raises for what is wrong."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    full = prepare_config(copy.deepcopy(config))
    validate_config(full)
    return full


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load(TEXT)


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    full = prepared(config)
    assert set(full["available_node_types"]) == set(config["available_node_types"])


def test_every_size_is_bounded_and_starts_at_nothing(config: dict[str, Any]) -> None:
    full = prepared(config)
    workers = {name: node for name, node in full["available_node_types"].items() if name != full["head_node_type"]}
    assert workers
    for node in workers.values():
        assert 0 == node["min_workers"] < node["max_workers"] <= full["max_workers"]
        assert node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert full["available_node_types"][full["head_node_type"]].get("max_workers", 0) == 0
    assert 0 < full["idle_timeout_minutes"] <= 30


def test_gpus_are_on_workers_only(config: dict[str, Any]) -> None:
    nodes = config["available_node_types"]
    assert "GPU" not in nodes[config["head_node_type"]]["resources"]
    assert "InstanceMarketOptions" not in nodes[config["head_node_type"]]["node_config"]  # a taken head ends every job
    with_gpu = [name for name, node in nodes.items() if node["resources"].get("GPU")]
    without = [name for name, node in nodes.items() if not node["resources"].get("GPU") and node["resources"]["CPU"]]
    assert with_gpu == ["gpu"]
    assert without == ["cpu"]


def test_every_node_has_the_same_home_and_asks_for_the_token(config: dict[str, Any]) -> None:
    mount = re.search(r"mountpoint -q (\S+)", " ".join(config["setup_commands"]))
    assert mount
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        start = commands[-1]
        assert f"WM_HOME={mount[1]} " in start
        assert "RAY_AUTH_MODE=token" in start
        assert start.index("export PATH") < start.index("ray start")
    head = config["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in head
    assert "RAY_enable_autoscaler_v2=1" in head


def test_setup_is_that_of_the_lock(config: dict[str, Any]) -> None:
    assert any("scripts/setup.sh" in command for command in config["setup_commands"])
    pip = [c for c in [*config["setup_commands"], *config["head_setup_commands"]] if "pip install" in c]
    assert all(re.search(r"pip install -q \w+==[\d.]+", command) for command in pip)


def test_what_it_tells_to_submit_is_a_setting() -> None:
    named = re.findall(r"resources\.(\w+)=", TEXT)
    assert named
    assert set(named) <= ResourcesConfig.model_fields.keys()


@pytest.mark.parametrize("what", SECRETS)
def test_no_secret(what: str) -> None:
    found = re.search(SECRETS[what], TEXT)
    assert not found, f"{what}: {found and found[0]}"


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("an AWS key id", "aws: AKIAIOSFODNN7EXAMPLE"),
        ("a value of a secret", "aws_secret_access_key: wJalr"),
        ("a value of a secret", "export RAY_AUTH_TOKEN=abc"),
        ("a long random word", "x: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"),
        ("a password in a URL", "uri: https://me:pw@mlflow"),
    ],
)
def test_a_secret_would_be_found(what: str, line: str) -> None:
    assert re.search(SECRETS[what], line)


def with_change(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *folders, last = path.split("/")
    node = config
    for name in folders:
        node = node[name]
    node[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("idle_timeout_minuts", 5),
        ("available_node_types/gpu/max_worker", 5),
        ("available_node_types/gpu/resources/CPU", 0.5),
        ("available_node_types/gpu/min_workers", 13),  # more than all together
        ("max_workers", "many"),
        ("head_node_type", "haed"),
        ("setup_commands", "one string"),
    ],
)
def test_a_mistake_in_a_copy_is_caught(config: dict[str, Any], path: str, value: Any) -> None:
    with pytest.raises(Exception, match=r"(?s).+"):
        prepared(with_change(config, path, value))
