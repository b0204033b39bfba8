"""What surrounds the code: metadata, extras, completion in the shell, Dockerfile, citation, changelog."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from pkgutil import resolve_name

import click
import pytest
import yaml
from click.shell_completion import BashComplete

ROOT = Path(__file__).parents[1]
TEXTS = [
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "cache_schema/**/*.py",
        "extract/**/*.py",
        "policy/**/*.py",
        "benchmarks/**/*.py",
    )
    for path in ROOT.glob(pattern)
]


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def scripts() -> dict[str, str]:
    """Places of the commands by their names."""
    lines = setup_cfg()["options.entry_points"]["console_scripts"].strip().splitlines()
    return dict(re.split(r"\s*=\s*", line.strip()) for line in lines)


def listed(section: str, option: str) -> list[str]:
    return setup_cfg()[section][option].strip().splitlines()


# --- metadata ---


def test_the_description_needs_no_repository() -> None:
    """An index shows it where no file of the repository is."""
    text = (ROOT / setup_cfg()["metadata"]["long_description"].removeprefix("file: ")).read_text()
    targets = re.findall(r"\]\(([^)]*)\)|(?:src|href)=\"([^\"]*)\"|^\[[^]]+\]:\s*(\S+)", text, re.MULTILINE)
    assert all("".join(target).startswith("https://") for target in targets)
    assert sorted(re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)) == sorted(scripts())


def test_extras_are_named_as_they_install() -> None:
    extras = set(setup_cfg()["options.extras_require"])
    named = {
        extra
        for path in TEXTS
        for names in re.findall(r"'\.\[([a-z,]+)\]'", path.read_text(encoding="utf-8"))
        for extra in names.split(",")
    }
    assert {"tensorboard", "wandb", "dask", "onnx", "tune"} <= named <= extras
    assert not [path for path in TEXTS if "thriftvid[" in path.read_text(encoding="utf-8")]
    in_table = set(
        re.findall(
            r"`([a-z]+)`",
            "".join(re.findall(r"^\|(.*?)\|", (ROOT / "docs/installing.md").read_text(), re.MULTILINE)),
        )
    )
    assert in_table == extras


def test_each_error_about_an_extra_names_one_that_there_is() -> None:
    extras = set(setup_cfg()["options.extras_require"])
    calls = [
        name
        for path in TEXTS
        if path.suffix == ".py"
        for name in re.findall(
            r"(?:needs_extra|how_to_install)\([\"']([a-z]+)[\"']", path.read_text(encoding="utf-8")
        )
    ]
    assert len(calls) >= 5 and set(calls) <= extras


# --- completion in the shell ---


@pytest.mark.parametrize(
    ("name", "words", "typed", "expected"),
    [
        ("batch-extract", [], "--str", "--stream"),
        ("feature-cache", [], "ver", "verify"),
        ("finetune-backbone", [], "--ep", "--epochs"),
        ("paper-tables", ["liteeval-1"], "--see", "--seeds"),
        ("run-policy", [], "--tra", "--trace"),
        ("train-policy", ["liteeval", "--cell"], "g", "gru"),
        ("train-policy", ["tune"], "wta", "wtalc"),
    ],
)
def test_commands_complete(name: str, words: list[str], typed: str, expected: str) -> None:
    command = resolve_name(scripts()[name])
    assert isinstance(command, click.Command)
    completed = BashComplete(command, {}, name, "_X_COMPLETE").get_completions(words, typed)
    assert expected in [item.value for item in completed]


@pytest.mark.slow
def test_completion_as_the_docs_set_it_up(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    for name, place in scripts().items():
        module, _, attribute = place.partition(":")
        call = f"from {module} import {attribute} as command; command(prog_name={name!r})"
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {sys.executable} -c "{call}"\n')
        (tmp_path / name).chmod(0o755)
    (block,) = re.findall(r"```bash\n(.*?)```", (ROOT / "docs/installing.md").read_text(), re.DOTALL)
    setting = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    subprocess.run([bash, "-ec", block], check=True, env=setting)
    shown = f". ~/.bashrc; for command in {' '.join(scripts())}; do complete -p $command; done"
    listing = subprocess.run([bash, "-ec", shown], check=True, env=setting, capture_output=True, text=True)
    assert [line.split()[-1] for line in listing.stdout.splitlines()] == list(scripts())


# --- Dockerfile, citation, changelog ---


def test_the_dockerfile() -> None:
    """What it copies is there and not ignored; it does not run as root."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    words = [line.split() for line in lines if line.startswith("COPY") and "--from" not in line]
    copied = {source for line in words for source in line[1:-1]}
    assert all((ROOT / source).exists() for source in copied)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == kept
    assert setup_cfg()["metadata"]["long_description"].removeprefix("file: ") in copied
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users and users[-1] not in ("root", "0")


def test_hadolint() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    subprocess.run([hadolint, str(ROOT / "Dockerfile")], check=True)


def test_the_citation() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    metadata = setup_cfg()["metadata"]
    assert (citation["title"], citation["version"]) == (metadata["name"], metadata["version"])
    assert citation["license"] == metadata["license"] and citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": metadata["author"]}]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for paper in citation["references"]:
        assert paper["title"] in readme
        names = ", ".join(author["family-names"] for author in paper["authors"])
        assert f"({names}: *{paper['title']}*" in readme


def test_the_changelog() -> None:
    """Its headings are those of Keep a Changelog, the latest first."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds
    assert setup_cfg()["metadata"]["version"] in text
