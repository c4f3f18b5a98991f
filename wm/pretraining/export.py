"""A trained encoder as a folder: what `encoder.pretrained` names afterwards. wm/encoders/trained.py reads it and knows the layout."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm.data.atomic import atomic_folder
from wm.encoders.trained import ABOUT, FORMAT, WEIGHTS, no_bars, sha256_of


def export_encoder(folder: Path, network: Any, facts: Mapping[str, Any]) -> None:
    """A Dinov2Model as float16, with what is to be known of it. A folder that is there is replaced.

    Args:
        facts: plain values; `image_size`, the side it was trained at, must be among them.
    """
    with atomic_folder(folder) as partial:
        with no_bars():
            copy.deepcopy(network).half().save_pretrained(partial, safe_serialization=True)
        (partial / WEIGHTS).chmod(0o644)  # safetensors leaves it to its owner alone
        about = {"format": FORMAT, **facts, "sha256": sha256_of(partial / WEIGHTS)}
        (partial / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
