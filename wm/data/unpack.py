"""Zip archives onto the disk: nothing outside the folder, nothing half written, and on from where a killed call stopped."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from wm.config.errors import UserError
from wm.data.download import full_disk_said

PARTIAL = ".unpacking.partial"  # short, since names may be as long as the system takes them
JUNK = ("__MACOSX", ".DS_Store")
MOST_BYTES = 255  # of a file's name
SYMLINK = stat.S_IFLNK


class Members:
    """The files of an archive, below its one outer folder where it has one. Raises UserError for an archive that is none, or unsafe.

    Args:
        num_bytes: of all of them, unpacked.
    """

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        with _readable(archive), zipfile.ZipFile(archive) as file:
            found = [info for info in file.infolist() if not info.is_dir() and not _is_junk(info.filename)]
        paths = [self._safe(info) for info in found]
        tops = {path.parts[0] for path in paths}
        if len(tops) == 1 and all(len(path.parts) > 1 for path in paths):
            paths = [PurePosixPath(*path.parts[1:]) for path in paths]
        if len(set(paths)) < len(paths) or not paths:
            raise UserError(f"{archive}: {'holds a file twice' if paths else 'holds no files'}")
        self._files = dict(zip(paths, found, strict=True))
        self.num_bytes = sum(info.file_size for info in found)

    def unpack(self, folder: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Write every file that is not there yet; each is whole or absent. Raises UserError for a damaged one and for a full disk.

        Args:
            progress: hears bytes of all.
        """
        done = 0
        with full_disk_said(folder), _readable(self.archive), zipfile.ZipFile(self.archive) as file:
            for path, info in self._files.items():
                target = folder / path
                if not (target.is_file() and target.stat().st_size == info.file_size):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    partial = target.with_name(PARTIAL)
                    with file.open(info) as source, partial.open("wb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)  # its checksum is checked at its end
                        sink.flush()
                        os.fsync(sink.fileno())
                    partial.replace(target)
                done += info.file_size
                progress(done, self.num_bytes)

    def _safe(self, info: zipfile.ZipInfo) -> PurePosixPath:
        name, path = info.filename, PurePosixPath(info.filename)
        leads_out = not path.parts or path.is_absolute() or ".." in path.parts or "\\" in info.orig_filename
        if leads_out or stat.S_IFMT(info.external_attr >> 16) == SYMLINK:
            what = "leads out of the folder" if leads_out else "is a link"
            raise UserError(f"{self.archive}: '{name}' {what}: nothing of this archive is unpacked")
        if any(len(os.fsencode(part)) > MOST_BYTES for part in path.parts):
            raise UserError(
                f"{self.archive}: '{name[:40]}...' has a name of more than {MOST_BYTES} bytes: nothing of this archive is unpacked"
            )
        if info.flag_bits & 1:
            raise UserError(f"{self.archive}: '{name}' is encrypted")
        return path


def need_joiner() -> None:
    """Raises UserError where a split archive could not be joined: to know before 15 GB have come."""
    if shutil.which("zip") is None:
        raise UserError("this archive is split, and Info-ZIP's `zip` joins it: install it (apt install zip)")


def join_parts(parts: Sequence[Path], joined: Path) -> None:
    """One archive of the parts of a split one, by Info-ZIP. Raises UserError for parts that do not fit together.

    zip 3.0 silently drops what lies in the middle of a file that is longer than a part: its CRC-32 then fails at unpacking.

    Args:
        parts: NAME.z01, NAME.z02, ..., NAME.zip, in one folder.
    """
    if joined.is_file():
        return
    need_joiner()
    absent = next((part for part in parts if not part.is_file()), None)
    if absent is not None:
        raise UserError(f"{absent}: missing")
    with tempfile.TemporaryDirectory(
        prefix="joining-", dir=joined.parent
    ) as folder:  # zip leaves a file of its own where it fails
        partial = Path(folder).absolute() / joined.name
        command = ["zip", "-q", "-s", "0", parts[-1].name, "--out", str(partial)]
        # It asks a person where a part is, again and again at the end of its input: q quits.
        done = subprocess.run(
            command, cwd=parts[-1].parent, input="q\n" * 9, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-200:]
            if "No space left" in done.stderr + done.stdout:
                raise UserError(
                    f"{joined}: the disk is full; the parts are kept: free some space and run the same command"
                )
            raise UserError(
                f"{parts[-1]}: its {len(parts)} parts cannot be joined (zip says: {said}); remove them, and the same command "
                "downloads them again"
            )
        partial.replace(joined)


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        text = " ".join(str(error).split())[:160]
        raise UserError(
            f"{archive}: no zip archive, or a damaged one ({text}); remove it and run the command again"
        ) from error
    except (NotADirectoryError, FileExistsError, IsADirectoryError) as error:
        raise UserError(f"{archive}: holds a file and a folder of one name ({error.filename})") from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise UserError(
            f"{archive}: a path in it is too long below this folder ({str(error.filename)[-60:]})"
        ) from error


def _is_junk(name: str) -> bool:
    return any(part in JUNK for part in PurePosixPath(name).parts)
