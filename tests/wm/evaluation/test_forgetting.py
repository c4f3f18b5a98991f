"""What is said to be learnt and forgotten: differences of the same metrics on the same clips."""

from __future__ import annotations

import json

from wm.evaluation.forgetting import Change, Forgetting, Judged

OLD = Judged({"val/copy_ratio_h1": 0.25, "val/state_probe_r2": 0.75}, {"val/copy_ratio_h1": 0.75, "val/only": 1.0})
NEW = Judged({"val/copy_ratio_h1": 1.5}, {"val/copy_ratio_h1": 0.5})


def test_forgetting_is_after_less_before_on_the_old_data_alone() -> None:
    found = Forgetting("0123456789ab", OLD, NEW)
    assert found.forgotten == {"forgetting/copy_ratio_h1": 0.5}
    assert Forgetting("0123456789ab", None, NEW, "gone").forgotten == {}
    assert found.metrics == ["val/copy_ratio_h1", "val/state_probe_r2", "val/only"]
    assert OLD.of("val/state_probe_r2") == Change(0.75, None)


def test_it_is_read_back_as_it_was() -> None:
    for found in (Forgetting("0123456789ab", OLD, NEW), Forgetting("0123456789ab", None, NEW, "gone")):
        assert Forgetting.from_json(json.loads(json.dumps(found.to_json()))) == found
