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
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    metavar="STREAM[=WEIGHTS]",
    help="The backbone of this stream, too; of one that was extracted with a file, give that. May be repeated.",
)
@tells_mistakes
def export(run: Path, out: Path, backbones: tuple[str, ...]) -> None:
    """The networks of the finished run RUN as ONNX, for runtimes that have nothing of this program.

    \b
    Example:
      train-policy export runs/liteeval --onnx phone/ --backbone mobilenetv2_112
    """
    from policy.deploy.export import export_onnx

    chosen = {stream: weights or None for stream, _, weights in (text.partition("=") for text in backbones)}
    for path in export_onnx(run, out, backbones=chosen):
        click.echo(str(path))
