"""export: a trained policy as ONNX."""

from __future__ import annotations

from pathlib import Path

import click

from cache_schema.command import tells_mistakes


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--onnx",
    "out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder to write the networks to, each with a JSON file that says how to use it.",
)
@tells_mistakes
def export(run: Path, out: Path) -> None:
    """The networks of the finished run RUN as ONNX, for runtimes that have nothing of this program.

    \b
    Example:
      train-policy export runs/liteeval --onnx phone/
    """
    from policy.deploy.export import export_onnx

    for path in export_onnx(run, out):
        click.echo(str(path))
