"""Where clips come from and how they are cut."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wm.config.augment import AugmentConfig
from wm.config.base import Config, NonNegativeInt, PositiveInt
from wm.config.errors import nearest
from wm.config.mixture import LABELLED, MixtureConfig

TokenFormat = Literal["float16", "int8"]
DinoWmLayout = Literal["wall_single", "point_maze", "pusht_noise", "deformable", "robomimic", "franka"]


class _Tagged(Config):
    """A source of which a part may be taken.

    Args:
        tags: lowest and highest value of an episode's tags (`wall_x: [10, 20]`); others are left out, of training and of the
            held-out half, which stay what they are without. One folder as two sources, with weights that change, is a curriculum.
    """

    tags: dict[str, tuple[float, float]] = {}

    @model_validator(mode="after")
    def _check_tags(self) -> Self:
        for tag, (low, high) in self.tags.items():
            if not low <= high:
                raise ValueError(f"tags.{tag}: [{low:g}, {high:g}] is no range: the lowest value comes first")
        return self


class DinoWmSourceConfig(_Tagged):
    """A data set in one of DINO-WM's released layouts.

    Args:
        path: a folder; a relative one lies under `storage.root/data`.
        layout: which layout it is (wm/data/sources has a page on each); a folder of another layout is refused, never guessed.
        episodes: at most this many, in order; None for all. Of a pusht_noise folder with train/ and val/: of each of the two.
        labels: `none` hides actions, proprio and state, so that the clips train as unlabelled video.
        with_velocity: whether velocities.pth, where it is there, is part of state and proprio; pusht_noise and the older
            robomimic folders have one.
        colors: the order of a frame's channels on disk. Only franka has it, and must say it: its recorders wrote both.
    """

    kind: Literal["dino_wm"] = "dino_wm"
    path: Annotated[str, Field(min_length=1)]
    layout: DinoWmLayout = "wall_single"
    episodes: PositiveInt | None = None
    labels: Literal["all", "none"] = "all"
    with_velocity: bool = True
    colors: Literal["rgb", "bgr"] | None = None

    @model_validator(mode="after")
    def _check_layout(self) -> Self:
        if not self.with_velocity and self.layout not in ("pusht_noise", "robomimic"):
            raise ValueError(f"with_velocity: false, but layout {self.layout} keeps no velocities apart")
        if (self.colors is None) == (self.layout == "franka"):
            wanted = "say rgb or bgr: franka's recorders wrote both" if self.colors is None else "only franka has it"
            raise ValueError(f"colors: {wanted}")
        return self


class PrecomputedSourceConfig(Config):
    """Features recorded as files: tokens without pixels, for `encoder.kind: precomputed` (layout: wm/data/sources/precomputed.py).

    Args:
        path: a folder; a relative one lies under `storage.root/data`.
        episodes: at most this many, in order; None for all.
        labels: `none` hides actions, proprio and state.
        action_names, proprio_names, state_names: of the columns, in order; empty numbers them.
    """

    kind: Literal["precomputed"] = "precomputed"
    path: Annotated[str, Field(min_length=1)]
    episodes: PositiveInt | None = None
    labels: Literal["all", "none"] = "all"
    action_names: tuple[str, ...] = ()
    proprio_names: tuple[str, ...] = ()
    state_names: tuple[str, ...] = ()


class RobomimicSourceConfig(_Tagged):
    """Demonstrations of robomimic or robosuite, one HDF5 file with pictures (layout: wm/data/sources/robomimic_hdf5.py).

    Args:
        path: a file, or a folder with one; a relative one lies under `storage.root/data`.
        camera: whose pictures; None for the only one, or agentview.
        proprio_keys: low-dim obs keys, joined in this order; a key may name columns, as in `object[:7]`. None for joint
            positions 7, gripper 2 and joint velocities 7, where the file has them.
        state_keys: the same for the state. None for proprio and `object`: of lift, can, square and stack the poses of the
            objects, as the worlds have them, wherever robosuite's version put them, of other tasks all of it; no state where there
            is no `object`.
        filter: a subset that the file names under mask/ (train, valid, ...); None for all.
        episodes: at most this many, by number; None for all.
        labels: `none` hides actions, proprio and state.
    """

    kind: Literal["robomimic"] = "robomimic"
    path: Annotated[str, Field(min_length=1)]
    camera: str | None = None
    proprio_keys: tuple[str, ...] | None = None
    state_keys: tuple[str, ...] | None = None
    filter: str | None = None
    episodes: PositiveInt | None = None
    labels: Literal["all", "none"] = "all"


class LerobotSourceConfig(_Tagged):
    """A LeRobot data set, format v3.0 or v2.x, with videos or pictures (layout: wm/data/sources/lerobot_layout.py).

    Args:
        path: a folder, a relative one under `storage.root/data`; or a hub id (`lerobot/pusht`), whose files go there when they
            are first needed.
        revision: of the hub's repository; None for its main branch.
        camera: `main` of `observation.images.main`, or the whole key; None for the only one, or main.
        action_keys, proprio_keys, state_keys: features, joined in this order; one may name columns, as in
            `observation.state[:7]`. None for `action`, `observation.state` and `observation.environment_state`, where
            there are such; a data set with `action.absolute` or `observation.states.joint` instead is refused until they are
            named, or [] is given.
        episodes: at most this many, by number; None for all.
        labels: `none` hides actions, proprio and state, so that the clips train as unlabelled video.
    """

    kind: Literal["lerobot"] = "lerobot"
    path: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    camera: str | None = None
    action_keys: tuple[str, ...] | None = None
    proprio_keys: tuple[str, ...] | None = None
    state_keys: tuple[str, ...] | None = None
    episodes: PositiveInt | None = None
    labels: Literal["all", "none"] = "all"


SourceConfig = Annotated[
    DinoWmSourceConfig | PrecomputedSourceConfig | RobomimicSourceConfig | LerobotSourceConfig,
    Field(discriminator="kind"),
]


class ClipConfig(Config):
    """How a clip is cut from an episode: its length follows from the model and the loss.

    Args:
        frameskip: env steps per model step, F.
    """

    frameskip: PositiveInt = 5


class DataConfig(Config):
    """The training and held-out clips.

    Args:
        sources: named data sets.
        mixture: how much of every global batch comes from which of them.
        primary: the source whose actions the model plans, and whose proprio and state are its own; None is the first, by name,
            that has actions. Sources with another action vector get an adapter each; another proprio or state is not used.
        val_fraction: share of each source's episodes held out (SCIENCE: 90/10).
        split_seed: of the torch generator that draws the split.
        held_out_last: hold out each source's last so many episodes instead, where a published split says so; None draws them.
        max_faulty: share of each source's episodes that may be left out because they cannot be used: a frame file that is missing
            or cut short, NaN, timestamps of another rate; with tokens=online also frames of another size than most have. They are
            listed; beyond it the run stops. 0 stops at the first.
        tokens: `store` encodes every frame once and keeps the patch tokens; `online` encodes in the worker at every step.
        token_format: of the store. `int8` is half of `float16` on disk, at an error of about 0.5 % of the tokens' spread (measured
            for each store, in its about.json) and about twice the CPU to read.
        augment: random changes of the training clips' pictures, never of held-out ones.
        preload: decode each training episode once and keep its frames in shared memory, for all processes of a machine, until the
            last of them ends. Refused where they do not fit. Nothing for stored tokens, whose files the system keeps in memory by
            itself.
    """

    sources: dict[str, SourceConfig] = {}
    mixture: MixtureConfig = MixtureConfig()
    primary: str | None = None
    clip: ClipConfig = ClipConfig()
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    split_seed: NonNegativeInt = 42
    held_out_last: PositiveInt | None = None
    max_faulty: Annotated[float, Field(ge=0, lt=1)] = 0
    tokens: Literal["store", "online"] = "store"
    token_format: TokenFormat = "float16"
    augment: AugmentConfig = AugmentConfig()
    preload: bool = False

    @model_validator(mode="after")
    def _pictures_are_read(self) -> Self:
        if self.augment.is_on and self.tokens == "store":
            raise ValueError(
                "augment changes pictures, and tokens=store reads their tokens: say tokens=online, which encodes every batch anew, "
                "or leave augment out"
            )
        if self.preload and self.tokens == "store":
            raise ValueError(
                "preload keeps decoded frames, and tokens=store reads none (its files are mapped: the system keeps them in memory by "
                "itself): leave preload out, or say tokens=online"
            )
        for name, source in self.sources.items():
            if self.augment.is_on and isinstance(source, PrecomputedSourceConfig):
                raise ValueError(
                    f"augment changes pictures, and sources.{name} holds features: leave augment out, or name a source of pictures"
                )
        return self

    @model_validator(mode="after")
    def _mixture_names_sources(self) -> Self:
        for name in self.mixture.pools(self.sources).get(LABELLED, ()):
            if self.mixture.is_given and getattr(self.sources[name], "labels", "all") == "none":
                raise ValueError(f"mixture.groups.{LABELLED}: sources.{name}.labels=none hides its labels")
        return self

    @model_validator(mode="after")
    def _format_has_a_store(self) -> Self:
        if self.tokens == "online" and self.token_format != "float16":
            raise ValueError(f"token_format: {self.token_format} is of stored tokens, but tokens=online stores none")
        return self

    @model_validator(mode="after")
    def _primary_is_a_source(self) -> Self:
        if self.primary is not None and self.primary not in self.sources:
            raise ValueError(f"primary: no source is named '{self.primary}'.{nearest(self.primary, self.sources)}")
        return self
