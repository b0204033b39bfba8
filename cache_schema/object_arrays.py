"""NumPy's files of object arrays, whose content is a pickle: read as data, so that nothing in it is executed.

A pickle is a program for a small stack machine (described in `pickletools`), which may call any function by its
name. An array needs few of them, which are not called here either: what they would do is done with checked values.
All others are refused. Files of Python 2 and of NumPy 1 and 2 are read. Plain numbers stay on disk, as views of
the mapped file, which may be larger than memory.
"""

from __future__ import annotations

import math
import mmap
import pickletools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from cache_schema.errors import UserError

_HEADERS: Mapping[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype[Any]]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_LONG = 4096  # bytes; longer values are views of the file
_SHOWN = 80  # characters of a name in a message

_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")  # of NumPy 1 and 2
_KNOWN: Mapping[str, str] = {
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    **{f"{module} {name}": name for module in _MULTIARRAY for name in ("_reconstruct", "scalar")},
    # How Python 3 puts bytes into a pickle that Python 2 can read.
    "_codecs encode": "encode",
    "__builtin__ bytes": "bytes",
}
_DTYPE = re.compile(r"[biufc]\d{1,2}|[SU]\d{1,6}|O\d?")

_RAW = frozenset({"BINSTRING", "BINBYTES", "BINBYTES8"})
_ARGUMENTS = _RAW | {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "SHORT_BINSTRING", "SHORT_BINBYTES",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_CONSTANTS: Mapping[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES: Mapping[str, int] = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CALLS_BY_NAME = frozenset({"GLOBAL", "INST"})


def read_object_array(path: Path) -> npt.NDArray[Any]:
    """The array of an npy file, whether of objects or of plain values.

    Of an array of objects the elements are arrays, lists, tuples, strings (those of Python 2 are taken for
    Latin-1), bytes, numbers or None; bytes of more than 4 KB are memoryviews.

    Raises:
        UserError: the file cannot be read, is cut or damaged, or would call anything but what makes up an array,
            which the message names.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            # Of version 3, which is for names of fields in Unicode, numpy reads what has no objects.
            shape, _, dtype = _HEADERS[version](file) if version in _HEADERS else ((), False, None)
            if dtype is None or dtype.kind != "O":
                return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
            start = file.tell()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        mapped.seek(start)
        array = _Machine(mapped).run()
        if not isinstance(array, np.ndarray) or array.dtype.kind != "O" or array.shape != shape:
            raise ValueError("its header describes another array than it holds")
        return array
    except _RefusedError as error:
        raise UserError(
            f"{path}: refused, and nothing in it was executed: {error}, which no array needs"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # what is damaged raises many kinds, NumPy's headers alone five
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable npy file, cut or damaged: {reason}") from error


class _RefusedError(Exception):
    """What a pickle wanted."""


@dataclass
class _Called:
    """What a call gives before its state has been set, and where the memo has it."""

    function: str
    arguments: tuple[object, ...]
    places: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Global:
    """A name that is known; it stands for no object."""

    name: str


class _Machine:
    """The stack machine of pickle without its calls."""

    def __init__(self, program: mmap.mmap) -> None:
        self._program = program
        self._bytes = memoryview(program)
        self._stack: list[object] = []
        self._marks: list[int] = []
        self._memo: dict[int, object] = {}
        self._steps: Mapping[str, Callable[[], None]] = {
            "MARK": lambda: self._marks.append(len(self._stack)),
            "EMPTY_LIST": lambda: self._stack.append([]),
            "APPEND": lambda: self._extend(self._popped(1)),
            "APPENDS": lambda: self._extend(self._popped_to_mark()),
            "TUPLE": lambda: self._stack.append(self._popped_to_mark()),
            "STACK_GLOBAL": lambda: self._push_global(" ".join(map(_text, self._popped(2)))),
            "REDUCE": self._call,
            "BUILD": self._set_state,
            "MEMOIZE": lambda: self._remember(len(self._memo)),
        }

    def run(self) -> object:
        """What the program leaves behind. Raises _RefusedError, and what malformed values raise."""
        operations: Iterable[tuple[Any, Any, Any]] = pickletools.genops(cast("IO[bytes]", self._program))
        for opcode, argument, _ in operations:
            name: str = opcode.name
            if name == "STOP":
                (result,) = self._popped(1)
                return result
            if name in _ARGUMENTS:
                long = name in _RAW and len(argument) > _LONG
                self._stack.append(self._view(len(argument)) if long else argument)
            elif name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name])
            elif name in _TUPLES:
                self._stack.append(self._popped(_TUPLES[name]))
            elif name in {"BINPUT", "LONG_BINPUT"}:
                self._remember(argument)
            elif name in {"BINGET", "LONG_BINGET"}:
                self._stack.append(self._memo[argument])
            elif name in self._steps:
                self._steps[name]()
            elif name in _CALLS_BY_NAME:
                self._push_global(argument)
            elif name not in {"PROTO", "FRAME"}:
                raise _RefusedError(f"it uses pickle's {name}")
        raise ValueError("it has no end")

    def _view(self, size: int) -> memoryview:
        """The argument that was just read, in the file."""
        stop = self._program.tell()
        return self._bytes[stop - size : stop]

    def _popped(self, count: int) -> tuple[object, ...]:
        """The last values; all of them are complete."""
        floor = self._marks[-1] if self._marks else 0
        if len(self._stack) - count < floor:
            raise ValueError("it takes a value that is not there")
        values = tuple(self._stack[len(self._stack) - count :])
        del self._stack[len(self._stack) - count :]
        if any(isinstance(value, _Called) for value in values):
            raise ValueError("it uses an array before it has content")
        return values

    def _popped_to_mark(self) -> tuple[object, ...]:
        values = self._popped(len(self._stack) - self._marks[-1])
        self._marks.pop()
        return values

    def _extend(self, values: tuple[object, ...]) -> None:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise TypeError("it appends to what is no list")
        target.extend(values)

    def _remember(self, place: int) -> None:
        value = self._memo[place] = self._stack[-1]
        if isinstance(value, _Called):
            value.places.append(place)

    def _push_global(self, name: str) -> None:
        if name not in _KNOWN:
            raise _RefusedError(f"it wants to call {name.replace(' ', '.')[:_SHOWN]!r}")
        self._stack.append(_Global(_KNOWN[name]))

    def _call(self) -> None:
        function, arguments = self._popped(2)
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise TypeError("it calls what is no function")
        if function.name in {"_reconstruct", "dtype"}:
            self._stack.append(_Called(function.name, arguments))
        elif function.name == "scalar":
            dtype, content = arguments
            self._stack.append(_array((1,), dtype, False, content)[0])
        elif function.name == "encode":
            text, encoding = arguments
            if encoding != "latin1":
                raise ValueError(f"it encodes text as {_text(encoding)!r}")
            self._stack.append(_raw(text))
        elif (function.name, arguments) == ("bytes", ()):
            self._stack.append(b"")
        else:
            raise _RefusedError(f"it wants to call {function.name!r}")

    def _set_state(self) -> None:
        (state,) = self._popped(1)
        called = self._stack[-1]
        if not isinstance(called, _Called) or not isinstance(state, tuple):
            raise TypeError("it sets the state of what is no array")
        value: object
        if called.function == "dtype":
            value = _dtype(called.arguments, state)
        else:
            _, shape, dtype, fortran, content = state
            value = _array(shape, dtype, fortran, content)
        self._stack[-1] = value
        for place in called.places:
            self._memo[place] = value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a name in it is no text")
    return value


def _dtype(arguments: tuple[object, ...], state: tuple[object, ...]) -> np.dtype[Any]:
    """Of plain values or objects. Fields, which could lie outside an element, are refused."""
    code = _text(arguments[0])
    _, order, subarray, names, fields, *_ = state
    if not _DTYPE.fullmatch(code) or (subarray, names, fields) != (None, None, None):
        raise _RefusedError(f"it wants an array of dtype {code[:_SHOWN]!r} with parts")
    if order not in {"<", ">", "|", "="}:
        raise ValueError("it has an unknown byte order")
    return np.dtype("O" if code[0] == "O" else f"{order}{code}")


def _array(shape: object, dtype: object, fortran: object, content: object) -> npt.NDArray[Any]:
    if not (
        isinstance(shape, tuple)
        and all(type(size) is int and 0 <= size < 1 << 62 for size in shape)
        and isinstance(dtype, np.dtype)
    ):
        raise TypeError("an array in it has no shape or no dtype")
    count = math.prod(shape)
    if dtype.hasobject:
        if not isinstance(content, list) or len(content) != count:
            raise ValueError(f"an array in it should have {count} elements")
        array = np.empty(count, object)
        for position, element in enumerate(content):  # a slice would take arrays of one length apart
            array[position] = element
        return array.reshape(shape)
    raw = _raw(content)
    if len(raw) != count * dtype.itemsize:
        raise ValueError(f"an array in it has {len(raw)} bytes, not {count * dtype.itemsize}")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _raw(content: object) -> bytes | memoryview:
    """The bytes of a value; those of Python 2 are its strings."""
    if isinstance(content, str):
        return content.encode("latin1")
    if isinstance(content, (bytes, memoryview)):
        return content
    raise TypeError("an array in it has no content")
