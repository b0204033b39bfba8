"""A trained policy as ONNX, for phones and servers that have nothing of ours."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache_schema import UserError
from cache_schema.extras import how_to_install
from cache_schema.run_folder import write_atomically, write_json
from policy.deploy.backbone_graph import backbone_graph
from policy.deploy.network import Backbones
from policy.deploy.session import open_session
from policy.deploy.sharing import SharedSession
from policy.runs import read_config
from policy.session import Graph, Session


def export_onnx(
    folder: Path | str, out: Path | str, *, backbones: Mapping[str, Path | str | None] | None = None
) -> list[Path]:
    """Write the networks of a finished run, NAME.onnx, each with a NAME.json of what one must know to use it.

    docs/online.md says what they are for each method, and has the loop that runs them.

    Args:
        folder: run folder.
        out: folder to write to, made where missing. Files of the same names are replaced.
        backbones: streams whose backbones are written as well, each with its weights as batch-extract takes them;
            None: those of the extraction.

    Returns:
        The paths of the networks.

    Raises:
        UserError: the folder holds no finished run, or that of a method that is not exported; a backbone is of no
            stream of the run, or cannot be built; packages are missing; or the files cannot be written.
    """
    folder, out = Path(folder), Path(out)
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise UserError(f"export needs {' and '.join(missing)}: {how_to_install('onnx')}")
    session, chosen = open_session(folder), backbones or {}
    if isinstance(session, SharedSession):
        raise UserError(
            f"{folder}: its videos share a budget, which is not exported: export the run that it is of"
        )
    graphs = [*session.graphs(), *_backbone_graphs(session, chosen)]
    if not graphs:
        raise UserError(
            f"{folder}: a run of {read_config(folder).method}, which is not exported (docs/online.md)"
        )
    exported = [(graph, _onnx(graph), _described(graph)) for graph in graphs]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be made: {error.strerror or error}") from error
    paths = []
    for graph, content, described in exported:
        path = out / f"{graph.name}.onnx"
        write_atomically(path, content)
        write_json(path.with_suffix(".json"), {**described, "classes": list(session.classes)})
        paths.append(path)
    return paths


def _backbone_graphs(session: Session, chosen: Mapping[str, Path | str | None]) -> Iterator[Graph]:
    if unknown := chosen.keys() - session.streams.keys():
        raise UserError(f"backbone {min(unknown)!r} is of none of the streams: {', '.join(session.streams)}")
    streams = {name: session.streams[name] for name in chosen}
    weights = {name: given for name, given in chosen.items() if given is not None}
    backbones = Backbones(streams, weights=weights, device=torch.device("cpu"))
    for name, spec in streams.items():
        yield backbone_graph(backbones, name, spec)


def _onnx(graph: Graph) -> bytes:
    rows = torch.export.Dim("rows", min=1)
    shapes: dict[str, Any] | None = {name: {0: rows} for name in graph.inputs} if graph.rows else None
    with warnings.catch_warnings(), _quiet("onnxscript"):  # of their own internals
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.module.eval(),
            (),
            # A tensor that is two inputs would become one.
            kwargs={name: value.clone() for name, value in graph.inputs.items()},
            output_names=list(graph.outputs),
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # with dynamo
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Without warnings of a package's logger."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@torch.no_grad()
def _described(graph: Graph) -> dict[str, object]:
    outputs = dict(zip(graph.outputs, graph.module(**graph.inputs), strict=True))
    inputs = {name: _shape(value, rows=graph.rows) for name, value in graph.inputs.items()}
    return {
        "inputs": inputs,
        "outputs": {name: _shape(value, rows=graph.row_outputs) for name, value in outputs.items()},
        **graph.facts,
    }


def _shape(value: Tensor, *, rows: bool = False) -> list[int | str]:
    shape: list[int | str] = list(value.shape)
    return ["rows", *shape[1:]] if rows else shape
