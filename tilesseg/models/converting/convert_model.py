"""`tilesseg models convert`: a folder of parameters becomes a `.pt2` file with a spec.

Pickled checkpoints are never opened: their owner gets the lines of code that write the network where its code is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tilesseg.atomic_write import published
from tilesseg.errors import ModelError, cannot
from tilesseg.models.converting.hub_networks import HubNetwork, is_hub_folder, read_hub_folder
from tilesseg.models.exporting.traced_program import write_program
from tilesseg.models.foreign_files import foreign_problem
from tilesseg.models.spec_file import SPEC_FILE, is_foreign, spec_in
from tilesseg.models.trial.new_spec import NewSpec, new_spec

SIDE = 256
"""Side of the patches that a network is exported with."""
FILE = "network.pt2"
PICKLED = (".pth", ".ckpt", ".pt", ".bin", ".pkl")
NETWORKS = (".onnx", ".pt2", ".ts")


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted network in its folder."""

    folder: Path
    spec: NewSpec
    free: tuple[int, ...]
    """Axes of the patches that may have any size."""


def convert_model(path: Path, out: Path | None = None) -> Converted:
    """Convert a folder of segmentation_models_pytorch or of transformers.

    Args:
        path: the folder, or its `config.json` or `model.safetensors`.
        out: folder that does not exist yet, or is empty. Default: the name of the folder with `-tilesseg`, beside it.

    Raises:
        ModelError: it is another kind of file, with what to do; or it cannot be converted.
    """
    folder = path.parent if path.is_file() and path.name in ("config.json", "model.safetensors") else path
    if not (folder.is_dir() and is_hub_folder(folder)) or spec_in(folder).is_file():
        raise ModelError(_advice(path))
    target = out or folder.with_name(f"{folder.resolve().name}-tilesseg")
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise ModelError(f"{target} exists already, and is not replaced; take another --out, or remove it")
    found = read_hub_folder(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with published(target, folder=True, replace=False) as made:
            made.mkdir()
            free = write_program(found.network, made / FILE, bands=found.bands, side=SIDE)
            spec = _spec(found, made / FILE, name=folder.resolve().name)
            (made / SPEC_FILE).write_text(spec.text, encoding="utf-8")
    except OSError as error:
        raise ModelError(cannot(f"write {target}", error, "take another --out")) from None
    return Converted(target, spec, free)


def _spec(found: HubNetwork, file: Path, *, name: str) -> NewSpec:
    spec = new_spec(file, classes=found.classes, facts={"name": name, **found.facts})
    return NewSpec(spec.text, spec.gaps, (*spec.checks, *found.notes))


def _advice(path: Path) -> str:
    """Sentence about a file or folder that is not converted, with what to do."""
    try:
        if not path.exists():
            return f"there is no {path}; give a folder of parameters, or a file"
        if (path.is_dir() and spec_in(path).is_file()) or (path.is_file() and is_foreign(path)):
            return f"{path} is a model as it is; give it as MODEL, and try it: tilesseg models check {path}"
        problem = foreign_problem(path)
    except OSError as error:
        return cannot(f"read {path}", error, "give a folder of parameters, or a file")
    if problem is not None:
        return problem
    if path.suffix.lower() in NETWORKS or path.is_file():
        return f"{path} is no folder of parameters; if it is a network, begin its spec: tilesseg models new {path}"
    return f"{path} holds no config.json with model.safetensors; give a folder that save_pretrained has written"


def is_pickled(path: Path) -> bool:
    """Whether a file is a pickled checkpoint, by its content."""
    return path.is_file() and "never unpickles" in (foreign_problem(path) or "")


def export_lines(path: Path) -> str:
    """Lines of code that write the network of a pickled checkpoint, to be run where its code is."""
    file, stem = json.dumps(path.name), path.stem
    return "\n".join(
        (
            "import torch",
            "",
            "network = ...                                # the network, made as in the code that trained it",
            f'state = torch.load({file}, map_location="cpu", weights_only=True)',
            'state = state.get("state_dict", state)       # as Lightning keeps it; its names may begin with "model."',
            "network.load_state_dict(state)",
            "network.eval()",
            "patches = torch.zeros(2, 3, 256, 256)        # its number of channels, and a side that it takes",
            "",
            "# a program of torch.export",
            "free = torch.export.Dim.AUTO",
            "axes = ({0: free, 2: free, 3: free},)",
            f'torch.export.save(torch.export.export(network, (patches,), dynamic_shapes=axes), "{stem}.pt2")',
            "# or TorchScript",
            f'torch.jit.save(torch.jit.trace(network, patches), "{stem}.ts")',
            "# or ONNX",
            'names = {0: "n", 2: "y", 3: "x"}',
            "program = torch.onnx.export(network, (patches,), dynamo=True, dynamic_shapes=(names,))",
            f'program.save("{stem}.onnx")',
            "# or its parameters alone, for tilesseg's own U-Net or for its library",
            "from safetensors.torch import save_file",
            f'save_file(network.state_dict(), "{stem}.safetensors")',
        )
    )
