"""What `torch.save` wrote, zip or older, opened without unpickling: numbers are read only for the tensors that are asked for."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from wm.config.errors import UserError
from wm.interop import names
from wm.interop.pickles import Name, PickleReader, Storage

MAX_PICKLE_BYTES = 64 * 2**20  # the structure of a checkpoint takes about one
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
ZIP_MAGIC = b"PK\x03\x04"


def read_torch_file(path: Path) -> Any:
    """The object that `torch.save` wrote, with records for modules and stored tensors for tensors.

    Raises UserError naming the first thing that has no place in a checkpoint, or what is damaged, truncated or absurdly large.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    with path.open("rb") as handle:
        if handle.read(4) == ZIP_MAGIC:
            return _read_zip(path)
        handle.seek(0)
        return _read_legacy(path, handle)


def _read_zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _checked_entries(path, archive)
            pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise UserError(f"{path}: a zip file, but not one of torch.save ({len(pickles)} entries data.pkl)")
            prefix = pickles[0].removesuffix("data.pkl")
            order = archive.read(f"{prefix}byteorder") if f"{prefix}byteorder" in entries else b"little"
            if order != b"little":
                raise UserError(f"{path}: its numbers are {order[:20]!r} endian; only little endian is read")
            if entries[pickles[0]].file_size > MAX_PICKLE_BYTES:
                raise UserError(f"{path}: refused: data.pkl is larger than {MAX_PICKLE_BYTES >> 20} MiB")
            text = archive.read(pickles[0])
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise UserError(f"{path}: truncated or damaged ({error})") from error

    def storage(identity: tuple[Any, ...]) -> Storage:
        dtype_of, key, numel = _checked_identity(path, identity)
        dtype = names.STORAGES[dtype_of]
        entry = entries.get(f"{prefix}data/{key}")
        if entry is None:
            raise UserError(f"{path}: damaged: it has no storage {key!r}")
        if entry.file_size != numel * dtype.itemsize:
            raise UserError(f"{path}: damaged: storage {key!r} has {entry.file_size} bytes for {numel} numbers {dtype}")
        return Storage(dtype, numel, _zip_bytes(path, entry.filename))

    return PickleReader(str(path), storage).read(text)


def _checked_entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """torch.save stores entries as they are, one after another: nothing else can hide more bytes than the file has."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED:
            raise UserError(f"{path}: refused: {entry.filename!r} is compressed, which torch.save never does")
        if entry.flag_bits & 1 or entry.filename in entries:
            raise UserError(f"{path}: refused: {entry.filename!r} is encrypted or there twice")
        entries[entry.filename] = entry
    if sum(entry.file_size for entry in entries.values()) > path.stat().st_size:
        raise UserError(f"{path}: refused: its entries overlap (they claim more bytes than the file has)")
    return entries


def _zip_bytes(path: Path, name: str) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.read(name)
        except zipfile.BadZipFile as error:  # its checksum differs
            raise UserError(f"{path}: damaged ({error})") from error

    return read


def _read_legacy(path: Path, handle: BinaryIO) -> Any:
    """Before torch 1.6: pickles of a magic number, a version, the machine, the object and its storages' names, then numbers."""
    found: dict[str, _LegacyStorage] = {}

    def storage(identity: tuple[Any, ...]) -> Any:
        match identity:
            case ("module", Name() as cls, _, _):  # the class and its source text, which stays text
                return cls
            case ("storage", kind, key, location, numel, None):
                dtype_of, name, count = _checked_identity(path, ("storage", kind, key, location, numel))
                known = found.setdefault(name, _LegacyStorage(path, dtype_of, count))
                return Storage(names.STORAGES[dtype_of], known.numel, known.read)
            case _:
                raise UserError(f"{path}: refused: a storage that is a view of another; save the file again with torch")

    reader = PickleReader(str(path), storage)
    if reader.read(handle) != LEGACY_MAGIC:
        raise UserError(f"{path}: not a file of torch.save (a bare pickle, from which nothing was run)")
    version, machine = reader.read(handle), reader.read(handle)
    if version != LEGACY_PROTOCOL or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise UserError(f"{path}: a torch.save file of an unknown version or byte order")
    value, keys = reader.read(handle), reader.read(handle)
    if not isinstance(keys, list) or set(map(str, keys)) != found.keys() or len(keys) != len(found):
        raise UserError(f"{path}: damaged: its list of storages is not that of its tensors")
    for key in keys:
        found[str(key)].place(handle)
    return value


class _LegacyStorage:
    def __init__(self, path: Path, dtype_of: tuple[str, str], numel: int) -> None:
        self._path = path
        self._bytes = numel * names.STORAGES[dtype_of].itemsize
        self.numel = numel
        self._start = 0

    def place(self, handle: BinaryIO) -> None:
        """Note where the numbers lie and step over them."""
        count = int.from_bytes(handle.read(8), "little")
        self._start = handle.tell()
        if count != self.numel or self._start + self._bytes > self._path.stat().st_size:
            raise UserError(
                f"{self._path}: truncated or damaged (a storage of {count} numbers where {self.numel} are due)"
            )
        handle.seek(self._bytes, 1)

    def read(self) -> bytes:
        with self._path.open("rb") as handle:
            handle.seek(self._start)
            return handle.read(self._bytes)


def _checked_identity(path: Path, identity: tuple[Any, ...]) -> tuple[tuple[str, str], str, int]:
    """(type, key, numel) of ("storage", type, key, location, numel)."""
    match identity:
        case ("storage", Name() as kind, str() as key, str(), int() as numel) if (
            kind.key in names.STORAGES and key.isalnum() and numel >= 0
        ):
            return kind.key, key, numel
        case _:
            raise UserError(f"{path}: refused: a persistent id that names no storage of numbers")
