"""Statistics that stay those of another run: what new episodes must have for a trained model to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from wm.config.errors import UserError
from wm.contracts import Source
from wm.data.labels import LabelGroups
from wm.data.normalization import DataStatistics

_OTHER_UNITS = 5.0  # times the spread that the model knows


def check_vectors(kept: DataStatistics, sources: Mapping[str, Source], labels: LabelGroups) -> None:
    """Raises UserError for a source whose action, proprio or state is another vector than the one that the model was trained on."""

    def check(kind: str, members: Sequence[str], trained: tuple[str, ...]) -> None:
        for name in members:
            found = tuple(getattr(sources[name], f"{kind}_names"))
            if found != trained:
                raise UserError(
                    f"data.sources.{name}: its {kind} ({', '.join(found)}) is not the one that the model of train.start was trained "
                    f"on ({', '.join(trained) or 'none'}), so it would be read in the wrong units"
                )

    check("action", labels.actions, kept.action_names)
    for adapter, members in labels.adapters.items():
        check("action", members, kept.adapters[adapter].names if adapter in kept.adapters else kept.action_names)
    if kept.proprio is not None:
        check("proprio", labels.proprio, kept.proprio_names)
    if kept.state is not None:
        check("state", labels.state, kept.state_names)


def unit_notes(kept: DataStatistics, own: DataStatistics) -> list[str]:
    """A line for each vector that looks as if it were in other units.

    Args:
        kept: of the run that is started from, by which the model reads.
        own: of the new training episodes.
    """
    notes: list[str] = []
    for kind in ("action", "proprio"):
        old, new = getattr(kept, kind), getattr(own, kind)
        if old is None or new is None:
            continue
        spread = np.maximum(new.std / old.std, old.std / np.maximum(new.std, 1e-12))
        moved = np.abs(new.mean - old.mean) / old.std
        odd = np.flatnonzero((np.maximum(spread, moved) > _OTHER_UNITS) & (new.high > new.low))
        if len(odd):
            names = ", ".join(getattr(own, f"{kind}_names")[column] for column in odd)
            notes.append(
                f"{kind} ({names}): mean or spread is more than {_OTHER_UNITS:g} times that of the episodes the model was trained "
                "on; it goes on reading them in the old units: are the new ones in others?"
            )
    return notes
