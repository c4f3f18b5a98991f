"""Which sources of a mixture carry which vectors. Vectors are the same where the names of their entries are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wm.config.errors import UserError
from wm.contracts import Source


@dataclass(frozen=True)
class LabelGroups:
    """Sources by the vector that they carry.

    A clip whose proprio or state is not the model's own counts as one without it; actions have an adapter for each vector.

    Args:
        actions: with the model's own actions: those that it plans.
        adapters: with other actions, by the name of the first source that has them.
        proprio, state: with the model's own proprio and state.
        notes: what is not the model's own, in sentences.
    """

    actions: tuple[str, ...] = ()
    adapters: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    proprio: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def with_actions(self) -> set[str]:
        """Sources with actions of any kind."""
        return {*self.actions, *(name for members in self.adapters.values() for name in members)}

    def adapter_of(self, source: str) -> str | None:
        """The adapter of a source, None where it needs none."""
        return next((name for name, members in self.adapters.items() if source in members), None)


def label_groups(sources: Mapping[str, Source], train: Mapping[str, Sequence[int]], primary: str | None) -> LabelGroups:
    """By the training episodes. The model's own actions are those of `primary`, or of the first source that has any.

    Its own proprio and state are those of the first of the sources with its actions, or of any other where these have none.

    Raises UserError when `primary` has no actions.
    """

    def by_vector(kind: str, attribute: str, order: Sequence[str]) -> list[tuple[str, ...]]:
        found: dict[tuple[str, ...], list[str]] = {}
        for name in order:
            episodes = (sources[name].episode(index) for index in train[name])
            if any(getattr(episode, attribute) is not None for episode in episodes):
                found.setdefault(tuple(getattr(sources[name], f"{kind}_names")), []).append(name)
        return [tuple(members) for members in found.values()]

    def others(kind: str, groups: Sequence[Sequence[str]], what: str) -> list[str]:
        def shown(name: str) -> str:
            return ", ".join(getattr(sources[name], f"{kind}_names"))

        return [
            f"data.sources.{name}: its {kind} ({shown(name)}) is not that of {groups[0][0]} ({shown(groups[0][0])}): {what}"
            for members in groups[1:]
            for name in members
        ]

    order = sorted(sources, key=lambda name: name != primary)
    actions = by_vector("action", "actions", order)
    own = actions[0] if actions else ()
    if primary is not None and primary not in own:
        raise UserError(f"data.primary: '{primary}' has no actions; name a source that has")
    order.sort(key=lambda name: name not in own)
    proprio, state = by_vector("proprio", "proprio", order), by_vector("state", "state", order)
    adapters = {members[0]: members for members in actions[1:]}
    notes = [
        *others("action", actions, "it has an adapter of its own, and no plan holds it"),
        *others("proprio", proprio, "it is not used"),
        *others("state", state, "it is not used"),
    ]
    return LabelGroups(own, adapters, proprio[0] if proprio else (), state[0] if state else (), tuple(notes))
