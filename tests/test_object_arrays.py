"""NumPy's object arrays, read without executing what their pickles ask for."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cache_schema import UserError
from cache_schema.object_arrays import read_object_array


def npy_of(program: bytes, shape: tuple[int, ...] = (1,)) -> bytes:
    file = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + program


def write(path: Path, program: bytes, shape: tuple[int, ...] = (1,)) -> Path:
    path.write_bytes(npy_of(program, shape))
    return path


def objects(*elements: object) -> npt.NDArray[Any]:
    array = np.empty(len(elements), object)
    for k, element in enumerate(elements):
        array[k] = element
    return array


def alike(one: object, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        if one.dtype.hasobject:
            return one.shape == other.shape and all(map(alike, one.flat, other.flat))
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(alike, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
ARRAYS = npst.arrays(
    npst.boolean_dtypes()
    | npst.integer_dtypes(endianness="?")
    | npst.floating_dtypes(endianness="?", sizes=(16, 32, 64))
    | npst.unicode_string_dtypes(endianness="?", max_len=4)
    | npst.byte_string_dtypes(max_len=4, min_len=1),
    npst.array_shapes(min_dims=0, min_side=0, max_side=4),
) | npst.arrays(np.float64, npst.array_shapes(min_dims=2, max_dims=3)).map(np.asfortranarray)
VALUES = st.recursive(
    SCALARS | ARRAYS | st.floats(allow_nan=False).map(np.float64) | st.integers(0, 9).map(np.int64),
    lambda inner: st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple),
    max_leaves=8,
)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(elements=st.lists(VALUES, max_size=4), protocol=st.sampled_from((2, 3, 4)))
def test_reads_what_was_saved(tmp_path: Path, elements: list[object], protocol: int) -> None:
    array = objects(*elements)
    program = pickle.dumps(array, protocol=protocol)
    assert alike(read_object_array(write(tmp_path / "a.npy", program, array.shape)), array)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_of_numpy_1_and_large_ones(tmp_path: Path, protocol: int) -> None:
    """The same array twice is one; of protocol 3 and up its numbers take no memory."""
    features = np.arange(300_000, dtype=np.float32).reshape(1000, 300)
    array = objects(features, features, "x" * 9000, b"y" * 9000, np.asfortranarray(features)).reshape(5, 1)
    program = pickle.dumps(array, protocol=protocol)
    program = program.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    program = program.replace(b"\x8c\x16numpy.core", b"\x8c\x15numpy.core")  # with its length before it
    path = write(tmp_path / "a.npy", program, array.shape)
    tracemalloc.start()
    read = read_object_array(path)
    retained, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert alike(read[0, 0], features) and alike(read[4, 0], array[4, 0]) and read[0, 0] is read[1, 0]
    assert read[2, 0] == "x" * 9000 and bytes(read[3, 0]) == b"y" * 9000
    assert protocol == 2 or retained < features.nbytes / 4


def test_files_of_python_2(tmp_path: Path) -> None:
    """As numpy wrote them there: text and numbers' bytes are both strings."""
    content = np.array([[1.5, -2.0]], ">f8").tobytes()
    program = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03"
        b"(K\x01K\x02\x85cnumpy\ndtype\nq\x04U\x02O8K\x00K\x01\x87Rq\x05"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89"
        b"]q\x06(]q\x07(U\x05Div\xe9\x20U\x00eh\x01h\x02K\x00\x85U\x01b\x87R"
        b"(K\x01K\x01K\x02\x86h\x04U\x02f8K\x00K\x01\x87R(K\x03U\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(content)]) + content + b"tbetb."
    )
    names, numbers = read_object_array(write(tmp_path / "a.npy", program, (2,)))
    assert names == ["Div\xe9 ", ""]
    assert numbers.tolist() == [[1.5, -2.0]]


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3), np.array([b"a", b"bc"]), np.zeros((0, 3))])
def test_plain_arrays(tmp_path: Path, array: npt.NDArray[Any]) -> None:
    np.save(tmp_path / "a.npy", array)
    assert alike(read_object_array(tmp_path / "a.npy"), array)


class Calls:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


CANARY = "canary"
MAKES_CANARY = f"open({CANARY!r}, 'w')"
TOUCH = f"touch {CANARY}"


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("element", "named"),
    [
        (Calls(os.system, TOUCH), r"\.system"),
        (Calls(eval, MAKES_CANARY), r"\.eval"),
        (Calls(exec, MAKES_CANARY), r"\.exec"),
        (Calls(np.load, CANARY), "numpy.load"),
        (Calls(np.testing.assert_equal, 1, 2), "numpy.testing.*assert_equal"),
        (Calls(np.fromfile, CANARY), r"fromfile"),
        (Calls(getattr, "np", "load"), r"\.getattr"),
        (Calls(open, CANARY, "w"), r"\.open"),
        (Calls(Path, "/"), r"Path"),
        (np.ma.masked_array([1]), r"numpy.ma"),
        ({"a": 1}, "EMPTY_DICT"),
        ({1, 2}, r"set|EMPTY_SET"),
        (1j, "complex"),
    ],
)
def test_calls_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, element: object, named: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    for nested in (element, [element], (1, [element]), objects(element)):
        write(tmp_path / "a.npy", pickle.dumps(objects(nested), protocol=protocol))
        with pytest.raises(UserError, match=rf"a\.npy: refused, .*executed: .*({named})"):
            read_object_array(tmp_path / "a.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


NDARRAY = b"cnumpy\nndarray\n"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n" + NDARRAY + b"K\x00\x85U\x01b\x87R"
DTYPE_STATE = b"(K\x03U\x01<NNNK\x00K\x00K\x00tb"


def dtype_of(code: str, state: bytes = DTYPE_STATE) -> bytes:
    return b"cnumpy\ndtype\nX" + struct.pack("<I", len(code)) + code.encode() + b"\x85R" + state


def array_of(shape: bytes, dtype: bytes, content: bytes) -> bytes:
    return RECONSTRUCT + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb."


OBJECT = dtype_of("O8")
ONE = b"K\x01\x85"
HUGE = b"\x8a\x06" + (1 << 40).to_bytes(6, "little") + b"\x85"


def test_programs_by_hand_are_sound() -> None:
    """The pieces of the hostile ones below."""
    assert alike(pickle.loads(array_of(ONE, dtype_of("f8"), b"U\x08" + bytes(8))), np.zeros(1))
    assert alike(pickle.loads(array_of(ONE, OBJECT, b"]Na")), objects(None))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"c__builtin__\neval\nU\x01x\x85R.", "call '__builtin__.eval'"),
        (b"\x8c\x08builtins\x8c\x04eval\x93.", "call 'builtins.eval'"),
        (b"\x8c\x05numpy\x8c\x0edtype.__init__\x93.", "call 'numpy.dtype.__init__'"),
        (b"cnumpy\nndarray.tofile\n.", "call 'numpy.ndarray.tofile'"),
        (b"cnumpy.core.multiarray \n_reconstruct\n.", "call 'numpy.core.multiarray.._reconstruct'"),
        (b"(U\x02idios\nsystem\n.", "call 'os.system'"),
        (b"(cos\nsystem\nU\x02ido.", "call 'os.system'"),
        (b"(cnumpy\ndtype\nU\x02f8o.", "pickle's OBJ"),
        (NDARRAY + b")\x81.", "pickle's NEWOBJ"),
        (NDARRAY + b")}\x92.", "pickle's EMPTY_DICT"),
        (b"Pos.system\n.", "pickle's PERSID"),
        (b"U\x02idQ.", "pickle's BINPERSID"),
        (b"\x82\x01.", "pickle's EXT1"),
        (b"\x97.", "pickle's NEXT_BUFFER"),
        (NDARRAY + b"K\x01\x85R.", "call 'ndarray'"),
        (dtype_of("f8") + b")R.", "calls what is no function"),
        (RECONSTRUCT + b")R.", "before it has content"),
        (b"U\x09os.system)R.", "calls what is no function"),
        (NDARRAY + b")b.", "state of what is no array"),
        (b"cnumpy\ndtype\n" + DTYPE_STATE + b".", "state of what is no array"),
        (dtype_of("f8") + DTYPE_STATE + b".", "state of what is no array"),
        (dtype_of("f8", b"(K\x03U\x01<NU\x01a\x85U\x01aK\x09\x86\x85K\x08K\x01K\x00tb") + b".", "with parts"),
        (dtype_of("f8", b"(K\x03U\x01<K\x01NNK\x08K\x01K\x00tb") + b".", "with parts"),
        (dtype_of("V8") + b".", "dtype 'V8'"),
        (dtype_of("(9999999,9999999)f8") + b".", "dtype '.9999999,9999999.f8'"),
        (dtype_of("O8,f8") + b".", "dtype 'O8,f8'"),
        (dtype_of("f3") + b".", "f3"),
        (array_of(HUGE, dtype_of("f8"), b"U\x08" + bytes(8)), "has 8 bytes, not 8796093022208"),
        (array_of(HUGE, OBJECT, b"]Na"), "should have 1099511627776 elements"),
        (array_of(b"J\xff\xff\xff\xff\x85", dtype_of("f8"), b"U\x00"), "no shape"),
        (array_of(ONE, dtype_of("f8"), b"]"), "no content"),
        (array_of(ONE, dtype_of("f8"), b"U\x07" + bytes(7)), "has 7 bytes, not 8"),
        (array_of(ONE, b"N", b"U\x00"), "no dtype"),
        (array_of(ONE, dtype_of("f8"), b"U\x08" + bytes(8)), "another array"),
        (array_of(b"K\x02\x85", OBJECT, b"](NNe"), "another array"),
        (b"]Na.", "another array"),
        (b"\x8e" + b"\xff" * 7 + b"\x3f" + b"x.", "remain"),
        (b"T\xff\xff\xff\x7fx.", "remain"),
        (b"\x95" + b"\xff" * 7 + b"\x7f.", "value that is not there"),
        (b"h\x07.", "7"),
        (b"t.", ""),
        (b"Na.", ""),
        (b"(R.", "value that is not there"),
        (b"", "STOP"),
        (b"N", "STOP"),
        (b"\xff.", "unknown"),
        (b"cos\x1b[2J\nx\n.", r"call 'os.x1b.2J.x'"),
    ],
)
def test_hostile_programs(tmp_path: Path, program: bytes, message: str) -> None:
    tracemalloc.start()
    with pytest.raises(UserError, match=rf"^[^\n]*a\.npy: .*({message})[^\n]*$"):
        read_object_array(write(tmp_path / "a.npy", b"\x80\x04" + program))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20  # bytes, whatever sizes it claims


@pytest.mark.parametrize("index", [1 << 20, (1 << 31) - 1])
def test_places_of_the_memo_cost_what_they_hold(tmp_path: Path, index: int) -> None:
    """Python's unpickler makes a table up to the largest, of many gigabytes."""
    program = array_of(ONE, OBJECT, b"]Na")[:-1] + b"r" + struct.pack("<I", index) + b"."
    tracemalloc.start()
    read = read_object_array(write(tmp_path / "a.npy", program))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert alike(read, objects(None)) and peak < 1 << 20


@pytest.mark.slow
def test_lists_that_are_deep_or_hold_themselves(tmp_path: Path) -> None:
    deep = array_of(ONE, OBJECT, b"]" * 100_000 + b"a" * 99_999)
    (element,) = read_object_array(write(tmp_path / "a.npy", deep))
    assert element == [] or len(element) == 1
    circular = array_of(ONE, OBJECT, b"]]q\x01h\x01aa")
    (element,) = read_object_array(write(tmp_path / "a.npy", circular))
    assert element[0] is element


PROGRAM = pickle.dumps(objects([["a", 1.5]], np.arange(3.0), np.array(["x", "yz"])), protocol=4)


@pytest.mark.parametrize("protocol", [2, 4])
def test_cut_anywhere(tmp_path: Path, protocol: int) -> None:
    whole = npy_of(pickle.dumps(objects([["a", 1.5]], np.arange(3.0)), protocol=protocol), (2,))
    for left in (0, 5, 8, 10, 60, *range(127, len(whole))):
        (tmp_path / "a.npy").write_bytes(whole[:left])
        with pytest.raises(UserError, match=r"a\.npy: not a readable npy file"):
            read_object_array(tmp_path / "a.npy")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(PROGRAM) - 1), byte=st.integers(0, 255), more=st.binary(max_size=8))
def test_changed_anywhere(tmp_path: Path, place: int, byte: int, more: bytes) -> None:
    """Another array or one line, never another error."""
    program = PROGRAM[:place] + bytes([byte]) + more + PROGRAM[place + 1 :]
    try:
        assert read_object_array(write(tmp_path / "a.npy", program, (3,))).shape == (3,)
    except UserError as error:
        assert "a.npy: " in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        pickle.dumps([1]),
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n",
        b"\x93NUMPY\x01\x00\x10\x00[[[[[[[[[[[[[[[[",
        npy_of(b"")[:8] + b"\xff\xff{",
    ],
)
def test_what_is_no_npy_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.npy: not a readable npy file"):
        read_object_array(tmp_path / "a.npy")
    with pytest.raises(UserError, match=r"b\.npy: cannot be read: No such file"):
        read_object_array(tmp_path / "b.npy")
