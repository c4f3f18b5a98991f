"""YAML and the override grammar."""

from __future__ import annotations

import pytest

from wm.config.errors import UserError
from wm.config.yaml import parse_override, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20", 20),
        ("1e-3", 0.001),  # PyYAML alone reads text here
        ("1e3", 1000.0),
        (".5", 0.5),
        ("true", True),
        ("null", None),
        ("", None),
        ("none", "none"),
        ('"20"', "20"),
        ("'a: b'", "a: b"),
        ("[1, 2]", [1, 2]),
        ("[1e-3, x]", [0.001, "x"]),
        ("{kind: cem, horizon: 3}", {"kind": "cem", "horizon": 3}),
        ("a=b", "a=b"),
    ],
)
def test_override_values(text, value):
    path, parsed = parse_override(f"plan.planner={text}")
    assert path == "plan.planner"
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["train.epochs", "=3", " =3"])
def test_an_override_needs_a_path_and_a_value(text):
    with pytest.raises(UserError, match=r"expected path=value, as in train\.epochs=20"):
        parse_override(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "not valid YAML"),
        ("a: b: c", "not valid YAML: mapping values are not allowed"),
        ("a: 1\na: 2", "duplicate key a"),
        ("a: {b: 1, b: 2}", "duplicate key b"),
        ("a: ${nowhere}", "'nowhere' not found"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("- 1", "expected a mapping of keys to values at the top"),
        ("1: 2", "key 1 must be text"),
        ("\ta: 1", "not valid YAML"),
    ],
)
def test_faults_get_one_line_with_the_file_s_name(text, words):
    with pytest.raises(UserError) as raised:
        parse_yaml(text, "spec.yaml")
    message = str(raised.value)
    assert message.startswith("spec.yaml: ")
    assert words in message
    assert "\n" not in message


def test_an_override_that_is_not_yaml_is_named():
    with pytest.raises(UserError, match=r"^'train.epochs=\[1': not valid YAML"):
        parse_override("train.epochs=[1")


def test_files(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("# nothing but a comment\n")
    assert read_yaml(file) == {}
    file.write_text("lr: 1e-3\nname: 'Größe'\nbase: &b {x: 1}\ncopy: *b\n", encoding="utf-8")
    assert read_yaml(file) == {"lr": 0.001, "name": "Größe", "base": {"x": 1}, "copy": {"x": 1}}
    with pytest.raises(UserError, match=r"none\.yaml: no such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="no such file"):
        read_yaml(tmp_path)
