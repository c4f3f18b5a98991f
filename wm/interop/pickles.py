"""A pickle read as data: its opcodes are followed, and nothing it names is imported or called.

What the file calls a class becomes a `Record` that holds state; what it calls a tensor becomes a `StoredTensor` that knows where
its numbers lie. Every name must be in `wm.interop.names`; any other is refused by name, wherever in the file it stands.
"""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any, BinaryIO, NoReturn, cast

import torch
from torch import Tensor

from wm.config.errors import UserError
from wm.interop import names

_MALFORMED = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
_ABSENT = object()


@dataclass(frozen=True)
class Name:
    """A name from the file that may stand in a checkpoint; not the thing itself."""

    module: str
    name: str

    @property
    def key(self) -> tuple[str, str]:
        """As in the tables of `wm.interop.names`."""
        return self.module, self.name

    def __str__(self) -> str:
        joined = f"{self.module}.{self.name}"
        return joined if joined.isprintable() and len(joined) < 200 else ascii(joined)[:200]


@dataclass(eq=False)
class Record:
    """An object of the file: the name of its class, what it was made with, and its attributes. It does nothing."""

    name: Name
    arguments: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Storage:
    """Numbers of one type that lie somewhere in the file; `read` fetches their bytes."""

    dtype: torch.dtype
    numel: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage, not read yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def load(self) -> Tensor:
        """The tensor itself, on the CPU, contiguous."""
        if not prod(self.size):
            return torch.empty(self.size, dtype=self.storage.dtype)
        flat = torch.frombuffer(bytearray(self.storage.read()), dtype=self.storage.dtype)
        return flat.as_strided(self.size, self.stride, self.offset).clone(memory_format=torch.contiguous_format)


class PickleReader:
    """Follows one pickle after another of a file.

    Args:
        where: the file, for errors.
        storage: what a persistent id stands for. Raises UserError when the file has no such storage.
    """

    def __init__(self, where: str, storage: Callable[[tuple[Any, ...]], Any]) -> None:
        self._where = where
        self._storage = storage

    def read(self, source: bytes | BinaryIO) -> Any:
        """The object of the next pickle. Raises UserError for a name that has no place in a checkpoint, or a damaged file."""
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._protocol = 0
        try:
            for opcode, argument, _ in pickletools.genops(source):
                if opcode.name == "STOP":
                    (value,) = self._stack
                    return value
                self._follow(opcode.name, argument)
        except _MALFORMED as error:
            raise UserError(f"{self._where}: not a whole pickle ({_short(error)})") from error
        raise UserError(f"{self._where}: not a whole pickle (it does not end)")

    def refuse(self, what: object) -> NoReturn:
        """One line that names what has no place in a checkpoint."""
        raise UserError(f"{self._where}: refused: {what} is not part of a checkpoint; nothing in the file was run")

    def _follow(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        match opcode:
            case "PROTO":
                self._protocol = argument
            case "FRAME":
                pass
            case "MARK":
                self._marks.append(stack)
                self._stack = []
            case "NONE":
                stack.append(None)
            case "NEWTRUE":
                stack.append(True)
            case "NEWFALSE":
                stack.append(False)
            case name if name in _LITERALS:
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_SET":
                stack.append(set())
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode[-1])
                stack.append(tuple(self._pop() for _ in range(count))[::-1])
            case "TUPLE" | "LIST" | "DICT" | "FROZENSET":
                items = self._marked()
                self._stack.append(_CONTAINERS[opcode](items))
            case "APPEND" | "APPENDS":
                items = [self._pop()] if opcode == "APPEND" else self._marked()
                self._top(list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = [self._pop(), self._pop()][::-1] if opcode == "SETITEM" else self._marked()
                self._top(dict).update(_pairs(items))
            case "ADDITEMS":
                items = self._marked()
                self._top(set).update(items)
            case "POP":
                self._pop()
            case "POP_MARK":
                self._marked()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                module, _, name = argument.partition(" ")
                stack.append(self._named(module, name))
            case "STACK_GLOBAL":
                name, module = self._pop(), self._pop()
                stack.append(self._named(module, name))
            case "INST":
                module, _, name = argument.partition(" ")
                self.refuse(f"{self._named(module, name)} made by an old opcode")
            case "REDUCE":
                arguments, function = self._pop(), self._pop()
                stack.append(self._call(function, arguments))
            case "NEWOBJ" | "NEWOBJ_EX":
                if opcode == "NEWOBJ_EX" and self._pop():
                    self.refuse("an object made with keywords")
                arguments, cls = self._pop(), self._pop()
                if not isinstance(cls, Name) or cls.key not in names.CLASSES:
                    self.refuse(f"an object made of {_described(cls)}")
                stack.append(Record(cls, tuple(arguments)))
            case "BUILD":
                state = self._pop()
                self._build(stack[-1], state)
            case "BINPERSID":
                stack.append(self._persistent(self._pop()))
            case _:
                self.refuse(f"the pickle opcode {opcode}")

    def _named(self, module: Any, name: Any) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            self.refuse("a name that is no text")
        if self._protocol < 3:  # Python 2's names stand for Python 3's, as pickle itself reads them
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        found = Name(module, name)
        if found.key not in names.ALLOWED:
            self.refuse(found)
        return found

    def _call(self, function: Any, arguments: Any) -> Any:
        """What a call in the file amounts to. Only what stands here has a meaning; nothing is called."""
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            self.refuse(f"a call of {_described(function)}")
        match function.key, cast(tuple[Any, ...], arguments):
            case ("collections", "OrderedDict") | ("builtins", "dict"), ():
                return {}
            case ("collections", "OrderedDict"), (list() as items,):
                return {key: value for key, value in cast(list[Any], items)}
            case ("collections", "defaultdict"), (Name(),) | ():
                return {}
            case ("builtins", "set"), (list() as items,):
                return set(cast(list[Any], items))
            case ("torch", "Size"), (tuple() as sizes,):
                return sizes
            case ("torch._utils", "_rebuild_tensor_v2"), (storage, offset, size, stride, *_):
                return self._tensor(storage, offset, size, stride)
            case ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"), (StoredTensor() as data, *_):
                return data
            case key, values if key in names.VALUES:
                return Record(function, values)
        self.refuse(f"this call of {function}")

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> StoredTensor:
        shapes_are_ints = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
        if not isinstance(storage, Storage) or not shapes_are_ints:
            self.refuse("a tensor without a storage and a shape")
        numbers = [offset, *size, *stride]
        if any(not isinstance(number, int) or isinstance(number, bool) or number < 0 for number in numbers):
            self.refuse("a tensor with a negative or broken shape")
        last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
        if prod(size) and (last >= storage.numel or prod(size) > storage.numel):
            self.refuse(f"a tensor {size} larger than its storage of {storage.numel}")
        return StoredTensor(storage, offset, size, stride)

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(state, tuple) and len(cast(tuple[Any, ...], state)) == 2:  # attributes and slots
            plain, slots = cast(tuple[Any, Any], state)
            state = {**(plain or {}), **(slots or {})}
        if not isinstance(state, dict):
            self.refuse(f"the state {_described(state)} of {_described(target)}")
        if isinstance(target, Record):
            target.state.update(cast(dict[str, Any], state))
        elif not isinstance(target, dict):  # an OrderedDict's own attributes (`_metadata`) are left out
            self.refuse(f"changing {_described(target)}")

    def _persistent(self, identity: Any) -> Any:
        if not isinstance(identity, tuple):
            self.refuse(f"a storage named by {_described(identity)}")
        return self._storage(cast(tuple[Any, ...], identity))

    def _pop(self) -> Any:
        return self._stack.pop()

    def _marked(self) -> list[Any]:
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def _top(self, kind: type) -> Any:
        if not isinstance(self._stack[-1], kind):
            self.refuse(f"filling {_described(self._stack[-1])} as a {kind.__name__}")
        return self._stack[-1]


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


_CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "TUPLE": tuple,
    "LIST": list,
    "DICT": _pairs,
    "FROZENSET": frozenset,
}
_LITERALS = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    ]
)


def _described(value: Any) -> str:
    if isinstance(value, Name):
        return str(value)
    return str(value.name) if isinstance(value, Record) else f"a {type(value).__name__}"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
