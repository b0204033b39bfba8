"""What the networks computed in is a part of what a stream is, in shards from before it was written there too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cache_schema import CacheError, FeatureCache, StreamSpec, write_shard
from cache_schema.tools.merge import merge
from extract.devices import choose_precision
from extract.planning import make_plan
from tests.cache_commands import run
from tests.caches import make_record, make_spec

SPEC = make_spec(classes=2)
TOOLS = {"thriftvid": "test", "device": "cpu"}


def write(cache: Path, *ids: str, precision: str = "fp32") -> Path:
    spec = replace(SPEC, precision=precision)
    return write_shard(cache / SPEC.name, spec, [make_record(v, 2, classes=2) for v in ids], tools=TOOLS)


def write_old(cache: Path, *ids: str, tools: dict[str, str]) -> Path:
    """A shard as it was when the specification said nothing of it."""
    spec = replace(SPEC, precision="")
    assert "precision" not in json.loads(spec.to_json())
    records = [make_record(v, 2, classes=2) for v in ids]
    return write_shard(cache / SPEC.name, spec, records, tools={**TOOLS, **tools})


def test_a_specification_is_read_as_it_was_written() -> None:
    for precision in ("fp32", "bf16", ""):
        spec = replace(SPEC, precision=precision)
        assert StreamSpec.from_json(spec.to_json()) == spec
        assert StreamSpec.from_json(spec.to_json(), precision="bf16").precision == precision or "bf16"


@pytest.mark.parametrize("precision", ["fp32", "bf16", ""])
def test_old_shards_mean_what_their_tools_say(precision: str, tmp_path: Path) -> None:
    write_old(tmp_path / "cache", "a", tools={"precision": precision} if precision else {})
    stream = FeatureCache(tmp_path / "cache")[SPEC.name]
    assert stream.spec == replace(SPEC, precision=precision)
    assert run("verify", tmp_path / "cache")[0] == 0
    code, out, _ = run("info", tmp_path / "cache")
    assert code == 0 and (f"{precision}, on cpu" in out) == bool(precision)
    assert json.loads(run("info", tmp_path / "cache", "--json")[1])[SPEC.name]["precision"] == precision


def test_old_and_new_rows_are_one_stream(tmp_path: Path) -> None:
    """Runs of policies that were trained on the old ones know them by their digest."""
    cache, old, new = tmp_path / "cache", tmp_path / "old", tmp_path / "new"
    for folder in (cache, old):
        write_old(folder, "a", "b", tools={"precision": "fp32"})
    digest = FeatureCache(cache)[SPEC.name].digest()
    for folder in (cache, new):
        write(folder, "c")
    make_plan([], {SPEC.name: SPEC}, cache, retry_failed=False)  # batch-extract may go on
    stream = FeatureCache(cache)[SPEC.name]
    assert list(stream) == ["a", "b", "c"] and stream.spec == SPEC
    assert stream.digest(["a", "b"]) == digest == digest_of_the_first_schema(cache, ["a", "b"])
    merge([old, new], tmp_path / "all")
    assert FeatureCache(tmp_path / "all")[SPEC.name].digest() == stream.digest()
    # What is left of an old shard says it as new ones do.
    assert run("drop", cache, "--stream", SPEC.name, "--video", "a", "--yes")[0] == 0
    assert FeatureCache(cache)[SPEC.name].spec == SPEC
    assert "mixed" not in run("info", cache)[1]


def digest_of_the_first_schema(cache: Path, ids: list[str]) -> str:
    import hashlib

    stream = FeatureCache(cache)[SPEC.name]
    fields = json.loads(SPEC.to_json())
    del fields["precision"]
    text = json.dumps(fields, sort_keys=True, ensure_ascii=False)
    lines = "".join(f"\n{stream.checksum(video):08x} {video}" for video in ids)
    return hashlib.sha256((text + lines).encode()).hexdigest()


@pytest.mark.parametrize("old", [False, True])
def test_rows_of_another_precision_are_refused(old: bool, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    if old:
        write_old(one, "a", tools={"precision": "bf16"})
    else:
        write(one, "a", precision="bf16")
    write(two, "b")
    with pytest.raises(CacheError) as refused:
        make_plan([], {SPEC.name: SPEC}, one, retry_failed=False)
    assert str(refused.value) == (
        f"{one}: stream {SPEC.name} was computed in bf16, this run would add rows in fp32; "
        "use --precision bf16, or another --cache"
    )
    with pytest.raises(CacheError, match=r"precision fp32 is not bf16.*nothing was merged"):
        merge([one, two], tmp_path / "all")
    # Where more is otherwise, another --precision alone would not do.
    with pytest.raises(CacheError, match=r"made otherwise \(weights random:0 is not file, precision bf16"):
        make_plan([], {SPEC.name: replace(SPEC, weights="file")}, one, retry_failed=False)


def test_a_stream_of_unknown_precision_takes_no_rows(tmp_path: Path) -> None:
    write_old(tmp_path, "a", tools={})
    with pytest.raises(
        CacheError, match=r"made otherwise \(precision unknown is not fp32\); `feature-cache drop"
    ):
        make_plan([], {SPEC.name: SPEC}, tmp_path, retry_failed=False)


# ------------------------------------------------------------------------------------------------- what is chosen

PROCESSORS = {
    "flags : fpu avx512f avx512_bf16 avx512_fp16": True,
    "flags : fpu amx_bf16 amx_tile": True,
    "Features : fp asimd bf16 i8mm": True,
    "flags : fpu avx2 avx512f avx512_vnni": False,
    "Features : fp asimd": False,
}


@pytest.mark.parametrize(("flags", "native"), PROCESSORS.items())
def test_who_asks_for_bf16_is_told_where_it_is_emulated(
    flags: str, native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor : 0\nmodel name : bf 16\n{flags}\n")
    monkeypatch.setattr("extract.devices._CPUINFO", cpuinfo)
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    said: list[str] = []
    assert [choose_precision("auto", device, said.append) for device in (cpu, gpu)] == ["fp32", "bf16"]
    assert choose_precision("fp32", cpu, said.append) == "fp32"
    assert choose_precision("bf16", gpu, said.append) == "bf16"
    assert not said
    assert choose_precision("bf16", cpu, said.append) == "bf16"
    assert len(said) == (not native) and all("--precision fp32 is quicker" in line for line in said)


def test_where_the_processor_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extract.devices._CPUINFO", tmp_path / "none")
    assert choose_precision("bf16", torch.device("cpu"), pytest.fail) == "bf16"
