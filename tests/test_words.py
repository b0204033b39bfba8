"""Numbers in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_schema import Sampling
from cache_schema.command import count
from cache_schema.costs import gflops_digits
from cache_schema.names import did_you_mean, some


@pytest.mark.parametrize(
    ("number", "things", "words"),
    [
        (0, "videos", "0 videos"),
        (1, "videos", "1 video"),
        (2, "videos", "2 videos"),
        (12345, "frames", "12,345 frames"),
        (1, "classes", "1 class"),
        (3, "classes", "3 classes"),
        (1, "entries", "1 entry"),
        (1, "true segments", "1 true segment"),
        (1, "more classes", "1 more class"),
    ],
)
def test_one_thing_is_in_the_singular(number: int, things: str, words: str) -> None:
    assert count(number, things) == words


@pytest.mark.parametrize(
    ("sampling", "word"),
    [
        (Sampling(), "frame"),
        (Sampling("snippets", 30, 8, 64, rows_per_s=1), "snippet"),
        (Sampling("clips", 30, 16, 80, clips=10), "clip"),
        (Sampling("clips", 0, 0, 0, clips=1), "row"),  # imported: of the whole video, for all that is known
        (Sampling("dense", 25, 16, 16), "clip"),
        (Sampling("dense", 0, 0, 1), "frame"),  # imported: every frame, at each video's own rate
    ],
)
def test_what_a_row_is_of(sampling: Sampling, word: str) -> None:
    assert sampling.row == word


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("litevall", "; did you mean liteeval or liteeval-rl?"),
        ("LSTM_cf", "; did you mean lstm-cf or lstm?"),
        ("resnet_101", "; did you mean resnet101_224?"),
        ("resnet101_224", "; did you mean resnet101_224?"),
        ("quantum", ""),
        ("", ""),
    ],
)
def test_a_misspelt_name_is_like_some_that_are_known(name: str, meant: str) -> None:
    assert did_you_mean(name, ("liteeval", "liteeval-rl", "lstm", "lstm-cf", "resnet101_224")) == meant
    assert did_you_mean(name, ()) == ""


def test_the_first_of_many_names() -> None:
    assert some([]) == ""
    assert some(iter("abc")) == "'a', 'b', 'c'"
    assert some("abcd") == "'a', 'b', 'c', …"
    assert some(["a b", "c"], str) == "a b, c"


@given(st.floats(1e-12, 1e12), st.integers(1, 6))
def test_gflops_are_never_written_with_an_exponent(gflops: float, digits: int) -> None:
    text = gflops_digits(gflops, digits)
    assert "e" not in text and float(text) == pytest.approx(gflops, rel=0.51 * 10 ** (1 - digits), abs=0)
    assert len(text.replace(".", "").strip("0")) <= digits


def test_small_and_large_gflops() -> None:
    assert gflops_digits(1.2e-8, 2) == "0.000000012" and gflops_digits(27_790, 3) == "27800"
    assert gflops_digits(4.7324) == "4.732" and gflops_digits(12) == "12" and gflops_digits(0) == "0"
