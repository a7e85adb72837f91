"""`tilesseg models`: the models that have a name; `check` and `export` one model; `new`: a spec for a weights file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tilesseg.cli.options import AsJson, local_path
from tilesseg.errors import ModelError

models = typer.Typer(
    help="List the models known by name: in the package, and in the folders on TILESSEG_MODELS.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
)


@models.callback()
def list_known(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models known by name: in the package, and in the folders on TILESSEG_MODELS."""
    if context.invoked_subcommand is not None:
        return
    from tilesseg.models.bundle import list_models

    rows = [
        {
            "name": row.name,
            "bands": list(row.spec.bands) if row.spec else [],
            "classes": [one.name for one in row.spec.classes] if row.spec else [],
            "licence": row.spec.licence if row.spec else None,
            "problem": row.problem,
            "folder": str(row.folder),
        }
        for row in list_models()
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
    for row in [] if as_json else rows:
        print(f"{row['name']}: {', '.join(row['bands'])} → {', '.join(row['classes'])}; {row['licence']}")  # type: ignore[arg-type]
        if row["problem"]:
            print(f"  not usable: {row['problem']}")


@models.command(epilog="Example: tilesseg models check models/roofs")
def check(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A bundle, a weights file with its spec, or a name.")],
) -> int:
    """Try a model in each runtime here, and say whether it does what its spec says; exit code 1 if none does."""
    from tilesseg.models.trial.model_check import check_model

    found = check_model(model)
    spec, file = found.bundle.spec, found.bundle.weights_path
    print(
        f"model {spec.name} ({found.bundle.sha256[:12]}), engine {spec.engine}, {file.name if file else 'no weights'}"
    )
    print(f"  {', '.join(spec.bands)} → {', '.join(one.name for one in spec.classes)}; licence {spec.licence}")
    print(f"  activation {spec.activation}, decision {spec.decision.kind}; sides of patches: {spec.patch.rule}")
    for runtime, refusal in found.refusals.items():
        print(f"  {runtime}: {f'refused: {refusal}' if refusal else 'does what its spec says'}")
    for note in found.doubts:
        print(f"  note: {note}")
    print(f"  {found.crop}")
    return 0 if found.usable else 1


@models.command(epilog="Example: tilesseg models new roofs.onnx --bands red,green,blue --classes other,roof")
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A TorchScript, .pt2 or ONNX file.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Path of the spec. Default: model.yaml beside the file.")
    ] = None,
    bands: Annotated[str, typer.Option("--bands", help="Names of the bands, in the network's order: red,green.")] = "",
    classes: Annotated[str, typer.Option("--classes", help="Names of the classes, in their order: other,roof.")] = "",
) -> None:
    """Write a model.yaml from what a weights file says: channels, sizes, hash, activation, metadata of Deepness."""
    from tilesseg.models.trial.new_spec import new_spec

    weights = local_path(file)
    target = local_path(out) if out else weights.parent / "model.yaml"
    if target.exists():
        raise ModelError(f"{target} exists already, and is not replaced; take --out {weights.stem}.yaml, or remove it")
    if target.resolve().parent != weights.resolve().parent:
        raise ModelError(
            f"a spec lies beside its weights, in {weights.parent}; take --out in this folder, or move {weights.name}"
        )
    made = new_spec(weights, bands=_names(bands), classes=_names(classes))
    try:
        target.write_text(made.text, encoding="utf-8")
    except OSError as error:
        raise ModelError(f"cannot write {target}: {error.strerror}; take --out") from None
    print(f"{target} is written")
    for key in made.gaps:
        print(f"  to state: {key}")
    for sentence in made.checks:
        print(f"  to check: {sentence}")
    print(f"  then: tilesseg models check {target}")


@models.command(epilog="Example: tilesseg models export landscape --to bioimageio --out landscape.zip")
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A bundle, a weights file with its spec, or a name.")],
    to: Annotated[str, typer.Option("--to", help="bioimageio, mlm (a STAC item) or onnx.")],
    out: Annotated[Path, typer.Option("--out", help="A new folder; of bioimageio also a new .zip.")],
    author: Annotated[
        list[str] | None, typer.Option("--author", help="Name of an author, for bioimageio; may be repeated.")
    ] = None,
) -> None:
    """Write a model for another project, check its network against this one, and print the largest difference."""
    from tilesseg.models.exporting.export_bundle import export_bundle

    made = export_bundle(model, to, local_path(out), authors=tuple(author or ()))
    print(f"{made.target} is written: {', '.join(made.files)}")
    for network in made.networks:
        sides = f"patches of {network.side} px only" if network.side else "patches of all sides that the model takes"
        print(f"  {network.file.name}: {sides}; largest difference of scores {network.difference:.2g}")


@models.command(epilog="Example: tilesseg models convert my-segformer --out models/segformer")
def convert(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="A folder of config.json and model.safetensors, or a file.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="A new folder. Default: FILE with -tilesseg, beside it.")
    ] = None,
) -> None:
    """Convert a folder of segmentation_models_pytorch or transformers to a .pt2 file and its model.yaml.

    A pickled checkpoint is never opened: the lines of code are printed that write its network where its code is.
    """
    from tilesseg.models.converting.convert_model import convert_model, export_lines, is_pickled

    source = local_path(path)
    if is_pickled(source):
        print(export_lines(source))
    made = convert_model(source, local_path(out) if out else None)
    free = (
        "batch and sides are free" if len(made.free) == 3 else f"free axes: {', '.join(map(str, made.free)) or 'none'}"
    )
    print(f"{made.folder} is written: network.pt2 ({free}) and model.yaml")
    for key in made.spec.gaps:
        print(f"  to state: {key}")
    for sentence in made.spec.checks:
        print(f"  to check: {sentence}")
    print(f"  then: tilesseg models check {made.folder}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
