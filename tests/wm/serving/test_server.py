"""The whole way over HTTP: plans as the library makes them, one line for every mistake, and a server that stays up."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from tests.wm.data.samples import SIZE
from tests.wm.serving.client import Client, encoded, frame, opened, request, serving
from wm.build import build_world, plan
from wm.config.errors import UserError
from wm.config.worlds import WallWorldConfig
from wm.serving.server import MAX_BODY_BYTES, MAX_CONNECTIONS, Served

ENDLESS = "plan.planner.num_iterations=100000000"


@pytest.fixture(scope="module")
def served() -> Served:
    return opened()


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Client]:
    with serving(served, pytest.fail) as found:
        yield found


@pytest.fixture(scope="module")
def endless() -> Iterator[Client]:
    """Its planner never ends by itself."""
    with serving(opened(ENDLESS), pytest.fail) as found:
        yield found


def answered(client: Client, **changes: Any) -> dict[str, Any]:
    answer = client.plan(**request(**changes))
    assert answer.status == 200, answer.body
    return answer.body


def test_a_plan_is_the_librarys(client: Client, served: Served) -> None:
    found = answered(client, seed=7)
    ours = plan(served.service.model, frame(), frame(20), proprio=np.array([20.0, 30.0]), seed=7)
    np.testing.assert_array_equal(found["actions"], ours.actions)
    assert np.shape(found["actions"]) == (10, 2)
    assert found["execute"] == 10
    assert found["cost"] == pytest.approx(float(ours.plan.cost), rel=1e-6)
    assert len(found["cost_per_iteration"]) == 2
    assert found["seed"] == 7
    assert found["plan_s"] > 0
    assert found["warnings"] == []


def test_same_request_and_seed_same_actions(client: Client) -> None:
    first, again, other = (answered(client, seed=seed) for seed in (3, 3, 4))
    assert [first[key] == again[key] for key in first if key != "plan_s"] == [True] * 7
    assert first["actions"] != other["actions"]
    assert answered(client) == {**answered(client, seed=0), "plan_s": pytest.approx(0, abs=60)}


def test_the_inputs_matter(client: Client) -> None:
    plain = answered(client)["actions"]
    assert answered(client, goal=encoded(frame(20, episode=3)))["actions"] != plain
    assert answered(client, start=encoded(frame(5, episode=3)))["actions"] != plain
    assert answered(client, proprio=[40.0, 10.0])["actions"] != plain
    assert answered(client, warm_start=plain)["actions"] != plain
    assert answered(client, warm_start=[])["actions"] == plain


def test_the_start_is_no_distance_from_itself(client: Client) -> None:
    """alpha is 0 here: proprio does not count."""
    assert answered(client, goal=encoded(frame()))["start_cost"] == 0
    assert answered(client)["start_cost"] > 0


def test_closed_loop_on_the_wall() -> None:
    """Look, ask, act, ask again with what is left: state for state what the planner does in this process."""
    config = WallWorldConfig(frame_size=SIZE)
    served = opened("plan.execute_steps=1", "plan.planner.horizon=3")
    service, model = served.service, served.service.model
    goal_world = build_world(config)
    goal_world.reset_to(np.array([48.0, 20.0]))
    goal = goal_world.render()

    def loop(act: Any) -> np.ndarray:
        world = build_world(config)
        rest: Any = []
        states = [world.state]
        for turn in range(4):
            actions, execute = act(world, rest, turn)
            states += [np.array(world.step(np.asarray(action))) for action in actions[:execute]]
            rest = actions[execute:]
        return np.stack(states)

    def here(world: Any, rest: Any, turn: int) -> tuple[Any, int]:
        context = model.dynamics.encode(model.observe(world.render(), world.proprio))
        target = model.dynamics.encode(model.observe(goal, None))
        start = model.model_actions(np.asarray(rest)) if len(rest) else None
        found = service._search(context, target, start, turn)
        return model.env_actions(found.actions), 5

    with serving(served, pytest.fail) as client:

        def there(world: Any, rest: Any, turn: int) -> tuple[Any, int]:
            sent = {"start": encoded(world.render()), "goal": encoded(goal), "proprio": world.proprio.tolist()}
            found = answered(client, **sent, warm_start=rest, seed=turn)
            assert found["execute"] == 5
            assert len(found["actions"]) == 15
            return found["actions"], found["execute"]

        states = loop(there)
    assert states.shape == (21, 2)
    assert np.ptp(states, axis=0).min() > 0
    np.testing.assert_array_equal(states, loop(here))


def test_schema_describes_what_is_sent_and_answered(client: Client) -> None:
    schema = client.ask("GET", "/schema?verbose=1").body
    assert schema["frame"]["height"] == schema["frame"]["width"] == SIZE
    assert schema["proprio"] == {
        "needed": True,
        "goal_needed": False,
        "size": 2,
        "names": ["x", "y"],
        "units": "raw, as in the training data",
    }
    assert schema["action"]["names"] == ["dx", "dy"]
    assert (schema["frameskip"], schema["horizon"], schema["num_actions"], schema["execute"]) == (5, 2, 10, 10)
    assert schema["planner"] == "cem"
    for part in ("request", "response", "error"):
        jsonschema.Draft202012Validator.check_schema(schema[part])
    jsonschema.validate(request(), schema["request"])
    jsonschema.validate(answered(client), schema["response"])
    jsonschema.validate(client.ask("GET", "/nowhere").body, schema["error"])
    for wrong in ({"proprio": None}, {"proprio": [1]}, {"seed": -1}, {"goals": ""}, {"warm_start": [[1]]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(request(**wrong), schema["request"])
        assert client.plan(**request(**wrong)).status == 400


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"goal": None}, "goal: must be given"),
        ({"gaol": "x"}, "gaol: no such key. Did you mean 'goal'?"),
        ({"x" * 10**6: 1}, "no such key"),
        ({"start": 3}, "start: input should be a valid string (got 3)"),
        ({"start": "%%%"}, "start: not base64"),
        ({"start": ""}, "start: empty"),
        ({"start": "aGVsbG8="}, "start: neither a PNG nor a JPEG"),
        ({"start": "data:image/png;base64,aGVsbG8="}, "start: a data URL"),
        ({"goal": encoded(np.zeros((SIZE, 40, 3), np.uint8))}, "goal: 40 x 28 pixels (width x height), but the model"),
        ({"proprio": None}, "proprio: must be given; 2 numbers, raw: x, y"),
        ({"proprio": [1.0, 2.0, 3.0]}, "proprio: 3 numbers, expected 2: x, y"),
        ({"proprio": [1.0, "2"]}, "proprio.1: input should be a valid number (got '2')"),
        ({"proprio": [1.0, True]}, "proprio.1"),
        ({"proprio": [1.0, 1e10]}, "proprio.1: input should be less than or equal to 1000000000 (got 10000000000.0)"),
        ({"proprio": "y" * 10**6}, "proprio: input should be a valid"),
        ({"goal_proprio": [1.0]}, "goal_proprio: 1 numbers, expected 2"),
        ({"warm_start": [[0.0, 0.0]] * 4}, "warm_start: 4 actions, expected a multiple of the frameskip 5, at most 10"),
        ({"warm_start": [[0.0, 0.0]] * 15}, "warm_start: 15 actions"),
        ({"warm_start": [[0.0, 0.0]] * 4 + [[0.0]]}, "warm_start.4: 1 numbers, expected 2: dx, dy"),
        ({"seed": 1.5}, "seed: input should be a valid integer (got 1.5)"),
        ({"seed": 2**63}, "seed"),
        ({"timeout_s": 0}, "timeout_s: input should be greater than 0 (got 0)"),
        ({"timeout_s": "1"}, "timeout_s"),
    ],
)
def test_a_wrong_value_is_one_line(client: Client, changes: dict[str, Any], words: str) -> None:
    answer = client.plan(**request(**changes))
    assert answer.status == 400
    assert words in answer.error
    client.health()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"\xff\xfe", "the body is not JSON"),
        (b"[1]", "must be a JSON object with keys start, goal"),
        (b'{"proprio": [NaN, 1.0]}', "NaN is no number of JSON"),
        (b'{"proprio": [1e999, 1.0]}', "start: must be given"),
        (b'{"seed": 1, "seed": 2}', "key 'seed' is given twice"),
        (b"[" * 100_000, "the body is not JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "the body is not JSON"),
    ],
)
def test_a_broken_body_is_one_line(client: Client, body: bytes, words: str) -> None:
    answer = client.ask("POST", "/plan", body)
    assert answer.status == 400
    assert words in answer.error
    client.health()


def test_infinity_in_disguise(client: Client) -> None:
    body = json.dumps(request(proprio=[0.5, 1.0])).replace("0.5", "1e999").encode()
    answer = client.ask("POST", "/plan", body)
    assert answer.status == 400
    assert answer.error.startswith("proprio.0: ")


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/", 404, "/: no such path. Valid: /health, /plan, /schema."),
        ("POST", "/plna", 404, "Did you mean '/plan'?"),
        ("GET", "/" + "x" * 5000, 404, "no such path"),
        ("GET", "/" + "x" * 70000, 414, "Too Long"),
        ("GET", "/plan", 405, "ask with POST"),
        ("DELETE", "/health", 405, "ask with GET"),
        ("BREW", "/health", 405, "no such method"),
    ],
)
def test_paths_and_methods(client: Client, method: str, path: str, status: int, words: str) -> None:
    answer = client.ask(method, path)
    assert answer.status == status
    assert words in answer.error


def test_what_the_headers_say_is_looked_at_first(client: Client) -> None:
    assert client.ask("POST", "/plan", request(), Origin="https://example.com").status == 403
    assert client.ask("POST", "/plan", b"2\r\n{}\r\n0\r\n\r\n", Transfer_Encoding="chunked").status == 411
    assert client.ask("POST", "/plan", b"", Content_Length="-1").status == 400
    # The body is sent whole before the answer is read: it must not be lost with the connection.
    answer = client.ask("POST", "/plan", b" " * (MAX_BODY_BYTES + 1))
    assert answer.status == 413
    assert str(MAX_BODY_BYTES) in answer.error
    assert client.ask("POST", "/plan", json.dumps(request()).encode().ljust(MAX_BODY_BYTES)).status == 200


def raw(client: Client, sent: bytes) -> bytes:
    host, port = client.host.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(sent)
        with suppress(OSError):  # it may have answered and gone
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_what_is_not_http(client: Client) -> None:
    assert b"the body ended after 2 of 100 bytes" in raw(
        client, b"POST /plan HTTP/1.1\r\nContent-Length: 100\r\n\r\n{}"
    )
    assert b'"status": 400' in raw(client, b"\x16\x03\x01 hello there\r\n\r\n")
    assert b'"status": 431' in raw(client, b"GET /health HTTP/1.1\r\nA: " + b"x" * 100_000 + b"\r\n\r\n")
    assert b"413" in raw(client, b"POST /plan HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 999999999\r\n\r\n")
    assert b'"status": "ok"' in raw(client, b"GET /health HTTP/1.0\r\n\r\n")
    raw(client, b"")
    client.health()


def test_a_timeout_ends_the_search(endless: Client) -> None:
    for _ in range(2):  # the second finds a server that is free again
        answer = endless.plan(**request(timeout_s=0.4))
        assert answer.status == 504
        assert "no plan within 0.4 s" in answer.error
        assert 0.3 < answer.wall_s < 5
        endless.wait_until_idle(5)


def test_too_many_at_once_are_sent_away(endless: Client) -> None:
    with ThreadPoolExecutor(9) as pool:
        answers = list(pool.map(lambda n: endless.plan(**request(timeout_s=2.0)), range(9)))
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [503] * 4 + [504] * 5
    for answer in answers:
        if answer.status == 503:
            assert "one plan at a time, and 4 requests wait already" in answer.error
            assert answer.headers["Retry-After"] == "1"
            assert answer.wall_s < 2
    endless.wait_until_idle(5)


def test_requests_side_by_side_get_their_own_plans(client: Client) -> None:
    alone = [answered(client, seed=seed)["actions"] for seed in range(5)]
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(lambda seed: answered(client, seed=seed)["actions"], range(5)))
    assert together == alone


def test_more_connections_than_it_keeps(client: Client) -> None:
    host, port = client.host.split(":")
    held = [socket.create_connection((host, int(port)), timeout=10) for _ in range(MAX_CONNECTIONS)]
    with socket.create_connection((host, int(port)), timeout=10) as one_more:
        assert one_more.recv(1 << 12).startswith(b"HTTP/1.1 503")
    for connection in held:
        connection.close()
    until_s = time.monotonic() + 10
    while client.ask("GET", "/health").status == 503:
        assert time.monotonic() < until_s


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("a secret of ours"), "the server failed (RuntimeError); its own output says more"),
        (UserError("the model returned NaN"), "the model returned NaN"),
        (torch.OutOfMemoryError("CUDA"), "not enough memory for this planner"),
    ],
)
def test_a_planner_that_fails_is_no_end(error: Exception, line: str) -> None:
    served, said = opened(), []
    whole = served.service.planner

    class Broken:
        horizon = 2

        def plan(self, *given: Any) -> Any:
            raise error

    with serving(served, said.append) as client:
        served.service.planner = Broken()
        answer = client.plan(**request())
        assert answer.status == 500
        assert line in answer.error
        assert "secret" not in answer.error
        assert len(said) == 1
        served.service.planner = whole
        assert answered(client)["actions"]


def test_the_end_of_the_server_ends_a_plan() -> None:
    with ThreadPoolExecutor(2) as pool:
        with serving(opened(ENDLESS), pytest.fail) as client:
            waiting = [pool.submit(client.plan, **request(timeout_s=60)) for _ in range(2)]
            while client.health()["waiting"] < 1:
                time.sleep(0.02)
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 5
        for each in waiting:
            assert each.result().status == 503
            assert each.result().error == "the server is ending"


def test_warnings(client: Client) -> None:
    (warning,) = answered(client, proprio=[1e4, 30.0])["warnings"]
    assert warning.startswith("proprio: x = 10000 is ")
    served = opened("plan.planner.kind=random", variant="baseline")
    blind = replace(served.service.interface, frame_size=None, proprio_names=())
    served.service.interface = blind
    with serving(served, pytest.fail) as other:
        found = answered(other)
        assert found["cost"] is None
        assert found["cost_per_iteration"] == []
        words = ("does not say what size", "proprio: not used", "'random' did not ask")
        assert all(any(word in warning for warning in found["warnings"]) for word in words)
        assert "but start has 28 x 28" in other.plan(**request(goal=encoded(np.zeros((30, 28, 3), np.uint8)))).error


def test_a_plan_far_from_the_data_is_said(served: Served) -> None:
    with serving(opened("plan.planner.init_std=100.0", "plan.bounds=none"), pytest.fail) as wild:
        assert any("clip to your robot's limits" in warning for warning in answered(wild)["warnings"])
