"""The public data sets that `wm data fetch` brings: what they are, how large, under which licence, and where they go.

Sizes and checksums with all their digits are those that public repositories which downloaded the files record alike; the others
are about right. None was read off OSF or the hub from here: what is fetched is held against what they say. Sources:
github.com/gaoyuezhou/dino_wm and osf.io/bmw48 (the archives), robomimic.github.io, and the pages named below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

_OSF = "bmw48"
_OSF_VIEW = "view_only=a56a296ce3b24cceaf408383a175ce28"  # the public link of DINO-WM's own README, no secret
_HUB = "https://huggingface.co/datasets"


@dataclass(frozen=True)
class RemoteFile:
    """One file of a server.

    Args:
        name: of the file on this machine and on a mirror.
        url: where its bytes are.
        size: bytes; None where nobody has said.
        sha256: hexadecimal; None where nobody has said.
        about: an address of the OSF API that tells both; None where there is none.
    """

    name: str
    url: str
    size: int | None = None
    sha256: str | None = None
    about: str | None = None


@dataclass(frozen=True)
class Archive:
    """A zip file; several files are the parts of one that was split, the .zip last.

    Args:
        num_bytes: about; of all files.
        num_unpacked: about; bytes.
        folders: data sets below the folder; none when it is one itself.
    """

    files: tuple[RemoteFile, ...]
    num_bytes: int
    num_unpacked: int
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class HubFiles:
    """Single files of a repository of the Hugging Face hub; `--part` chooses one.

    Args:
        revision: a commit, so that it stays what it is.
        parts: part -> path in the repository; the first is taken unless another is asked for.
        num_bytes: about; of the first.
    """

    repository: str
    revision: str
    parts: Mapping[str, str]
    num_bytes: int


@dataclass(frozen=True)
class HubEpisodes:
    """A LeRobot data set of the hub, of which some episodes of one camera are brought.

    Args:
        episodes: of them, unless told otherwise.
        camera: unless told otherwise; None where the data set decides.
        num_bytes: about, of all of it; None where nobody has said.
        is_gated: whether its terms must be accepted first.
    """

    repository: str
    episodes: int
    camera: str | None = None
    num_bytes: int | None = None
    is_gated: bool = False


@dataclass(frozen=True)
class PublicSet:
    """One row of the table.

    Args:
        name: as in `wm data fetch NAME`.
        what: in a few words.
        licence: of the data, as its page says.
        layout: of wm/data/sources.
        page: where a person reads about it.
        origin: where it comes from, and how.
        source: config of a source that reads it, without `path`.
        drawn: a folder that `wm data convert` makes of it, where it holds simulator states and no pictures.
        spec: a shipped spec that uses it.
    """

    name: str
    what: str
    licence: str
    layout: str
    page: str
    origin: Archive | HubFiles | HubEpisodes
    source: Mapping[str, object] = field(default_factory=dict[str, object])
    drawn: str | None = None
    spec: str | None = None

    @property
    def folder(self) -> str:
        """Below `storage.root/data`; a hub id is its own, so that `path: lerobot/droid_1.0.1` reads what was brought."""
        return self.origin.repository if isinstance(self.origin, HubEpisodes) else self.name


def bringing(path: str) -> str | None:
    """The command that brings what a source's relative `path` names; None where no public set lies there."""
    first = PurePosixPath(path).parts[:1]
    for known in PUBLIC_SETS.values():
        if isinstance(known.origin, HubEpisodes):
            continue  # a source with a hub id brings what it needs itself
        if first == (known.folder,):
            return f"`wm data fetch {known.name}` brings it"
        if known.drawn is not None and first == (known.drawn,):
            return f"`wm data fetch {known.name}` brings its states and says how to draw them"
    return None


def _osf(name: str, number: str, size: int | None = None, sha256: str | None = None) -> RemoteFile:
    return RemoteFile(
        name,
        f"https://files.osf.io/v1/resources/{_OSF}/providers/osfstorage/{number}?{_OSF_VIEW}",
        size,
        sha256,
        about=f"https://api.osf.io/v2/files/{number}/?{_OSF_VIEW}",
    )


def _dino_wm(name: str, what: str, origin: Archive, spec: str, layout: str | None = None) -> PublicSet:
    layout = layout or name
    return PublicSet(
        name,
        what,
        licence="not stated on OSF (their code: MIT)",
        layout=f"dino_wm {layout}",
        page=f"https://osf.io/{_OSF}/?{_OSF_VIEW}",
        origin=origin,
        source={"kind": "dino_wm", "layout": layout},
        spec=spec,
    )


def _robomimic(task: str, kind: str, demos: str, num_bytes: int) -> PublicSet:
    return PublicSet(
        f"robomimic_{task}_{kind}",
        f"robosuite {task}, {demos}: simulator states, no pictures",
        licence="MIT",
        layout="robomimic HDF5",
        page=f"{_HUB}/robomimic/robomimic_datasets",
        origin=HubFiles(
            "robomimic/robomimic_datasets",
            "74fa018461f479cd9fd15b924a16103012096203",
            {part: f"v1.5/{task}/{kind}/{part}_v15.hdf5" for part in ("low_dim", "demo")},
            num_bytes,
        ),
        source={"kind": "robomimic", "camera": "agentview"},
        drawn=f"robomimic_{task}_{kind}_84",
        spec="robomimic_can" if (task, kind) == ("can", "ph") else None,
    )


def _table() -> dict[str, PublicSet]:
    wall = _osf(
        "wall_single.zip",
        "678ac8fff57516fd9edd6046",
        1_668_205_895,
        "2b4ae4ed0ad03b337efac637f17752e7e7e27f864fec39dc25b51fef490c980d",
    )
    pusht = _osf(
        "pusht_noise.zip",
        "678ac7164c237c16bedd6129",
        2_785_304_515,
        "442f5dee246edf670964ed7bdecd248683cd6d00580fa0e4d458abb53f92da08",
    )
    maze = _osf(
        "point_maze.zip",
        "678ac918567274d368282c6d",
        sha256="6c48ccf22c90b9af8dcf0e2cd70849aec8dd8e214ac5f1f09552bf8bc9494acc",
    )
    parts = (
        _osf("deformable.z01", "6793d46b1b745202d8b537d2"),
        _osf("deformable.z02", "6793d44f2db8ab2633a49349"),
        _osf("deformable.z03", "6793d3c89015e736d3df3b98"),
        _osf("deformable.zip", "678ad9d568ad6a43dfdd6006"),
    )
    ph, mh = "200 demonstrations by one skilled person", "300 by six people"
    sets = [
        _dino_wm("wall_single", "a dot, a wall, a door", Archive((wall,), 1_668_205_895, 59 * 10**9), "wall_single"),
        _dino_wm("pusht_noise", "Push-T, noisy demos", Archive((pusht,), 2_785_304_515, 7_500_000_000), "pusht_noise"),
        _dino_wm("point_maze", "a ball in a U maze", Archive((maze,), 718 * 10**6, 30 * 10**9), "point_maze"),
        _dino_wm(
            "deformable",
            "rope and granular, whole pushes",
            Archive(parts, 15 * 10**9, 25 * 10**9, ("rope", "granular")),
            "deformable_rope",
        ),
        _robomimic("lift", "ph", ph, 21_084_088),
        _robomimic("lift", "mh", mh, 68 * 10**6),
        _robomimic("can", "ph", ph, 46_889_752),
        _robomimic("can", "mh", mh, 131 * 10**6),
        _robomimic("square", "ph", ph, 51_145_256),
        _robomimic("square", "mh", mh, 137 * 10**6),
        PublicSet(
            "droid",
            "a Franka in 564 scenes, 95,600 episodes",
            licence="Apache-2.0 as LeRobot data; DROID itself CC-BY 4.0",
            layout="lerobot v3.0",
            page=f"{_HUB}/lerobot/droid_1.0.1",
            origin=HubEpisodes("lerobot/droid_1.0.1", 100, "exterior_1_left", 400 * 10**9),
            source={"kind": "lerobot", "camera": "exterior_1_left", "episodes": 100, "labels": "none"},
            spec="droid_mixed",
        ),
        PublicSet(
            "airoa_moma",
            "Toyota HSR at mobile manipulation, 25,469 episodes",
            licence="gated: the terms on its page",
            layout="lerobot v2.1",
            page=f"{_HUB}/airoa-org/airoa-moma",
            origin=HubEpisodes("airoa-org/airoa-moma", 100, is_gated=True),
            source={"kind": "lerobot", "episodes": 100, "labels": "none"},
        ),
        PublicSet(
            "agibot_alpha",
            "AgiBot World Alpha, a two-armed robot",
            licence="CC BY-NC-SA 4.0, as AgiBot World",
            layout="lerobot v3.0",
            page=f"{_HUB}/cadene/agibot_alpha_v30",
            origin=HubEpisodes("cadene/agibot_alpha_v30", 100, "top_head"),
            source={"kind": "lerobot", "camera": "top_head", "episodes": 100, "labels": "none"},
        ),
    ]
    return {each.name: each for each in sets}


PUBLIC_SETS: Mapping[str, PublicSet] = _table()
