"""Networks of a library, MONAI: built by the name of their class, and what their spec has to state, found by trial.

The trial runs a copy without normalisation layers, which change numbers and no geometry, in double precision. A patch
that begins elsewhere must give the same scores moved: the smallest such step is the stride multiple. The margin is
measured as for every network (`models.crop_safety`). The trained network is served as a program of `torch.export`, so
whoever serves it needs no MONAI; whether it can be exported is tried before the first step.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tilesseg.errors import JobError, ModelError, joined_lines
from tilesseg.models.crop_safety.patch_dependence import tiling_hazards
from tilesseg.models.crop_safety.receptive_field import receptive_margin
from tilesseg.models.exported.export_archive import read_program
from tilesseg.models.exporting.source_traces import stripped
from tilesseg.models.spec import PatchSizes
from tilesseg.training.train_spec import NetworkOptions

SIDES = tuple(16 * k for k in (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 20, 24, 32))
"""Sides of patches that are tried."""
STRIDES = (1, 2, 4, 8, 16, 32, 64)
"""Stride multiples that are tried."""
TOLERANCE = 1e-9
"""Change of a score in double precision that counts as none, as a share of the spread of the scores."""
_NORMS = (
    nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm,
)  # fmt: skip


class LibraryShape(NamedTuple):
    """Facts that a trial of a network shows."""

    patch: PatchSizes
    margin: int | None
    """Margin of `crop`; None where a layer sees the whole patch, or it could not be measured."""


def build_library_network(options: NetworkOptions, *, bands: int, scores: int) -> nn.Module:
    """Network of a library's class, with initial parameters of torch's global generator.

    Raises:
        JobError: the library is not installed, has no such class, or the arguments do not fit the class.
    """
    name = f"network.class {options.class_name}"
    try:
        from monai.networks import nets
    except ImportError as error:
        raise JobError(
            f"network.library is monai, which is not installed ({joined_lines(error)}); pip install 'tilesseg[monai]'"
        ) from None
    found = getattr(nets, options.class_name or "", None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise JobError(f"{name} is no network of monai.networks.nets; write BasicUNet, UNet, SegResNet or another")
    known = {"spatial_dims": 2, "in_channels": bands, "out_channels": scores}
    given = known.keys() & options.arguments.keys()
    if given:
        raise JobError(
            f"network.arguments has {', '.join(sorted(given))}, which follow from bands and classes; leave out"
        )
    try:
        network: nn.Module = found(**known, **options.arguments)
    except ImportError as error:  # monai tells of a package that it needs for this class by one of its own
        raise JobError(f"{name} needs a package that is not installed: {_first_line(error)}; install it") from None
    except Exception as error:  # of any class: the library checks its arguments in many ways
        raise JobError(f"{name} cannot be built: {_first_line(error)}; correct network.arguments") from None
    return network


def shape_library_network(network: nn.Module, *, name: str, bands: int, scores: int) -> LibraryShape:
    """Patch sizes and margin of a network, by trial.

    Args:
        network: network for `(n, bands, y, x)`; not changed.
        name: class of the network, for refusals.
        bands: channels of its input.
        scores: channels that its output must have.

    Raises:
        JobError: it gives no scores of the size of the patch, or it cannot be exported.
    """
    sides = _sides_taken(network, name, bands, scores)
    sizes = PatchSizes(fixed=sides[0])
    margin = None
    if len(sides) > 1:
        bare = _geometry(network)
        stride = _stride_multiple(bare, bands)
        legal = [side for side in sides if side % stride == 0] or [stride * -(-sides[0] // stride)]
        offset = legal[0] if legal[0] > stride else 0
        sizes = PatchSizes(offset=offset, multiple=stride, stride_multiple=stride)
        margin = None if tiling_hazards(copy.deepcopy(network).eval()) else _margin(bare, bands, sizes)
    _, sizes = export_network(network, bands=bands, sizes=sizes)
    return LibraryShape(sizes, None if sizes.fixed else margin)


def export_network(network: nn.Module, *, bands: int, sizes: PatchSizes) -> tuple[bytes, PatchSizes]:
    """Program of a network in evaluation mode: for batches and sides of any size where it can be, else for one size.

    Args:
        network: network on any device, in any mode; not changed.
        bands: channels of its input.
        sizes: sides that it takes.

    Returns:
        Content of a `.pt2` file, and the sides that the program takes.

    Raises:
        JobError: torch cannot export it, or our reader does not read what it exports.
    """
    served = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    first = sizes.at_least(64)
    second = sizes.at_least(first + 1)
    problem = "the axes of its input cannot be free"
    for height, width, free in _ways(first, second):
        try:
            content = _program(served, torch.zeros(2, bands, height, width), free)
        except Exception as error:  # of any class: each part of the exporter has its own
            problem = _first_line(error)
            continue
        if content is not None:
            return content, sizes if 2 in free else PatchSizes(fixed=height)
    raise JobError(
        f"network.class {type(network).__name__} cannot be exported by torch.export: {problem}; choose another class"
    )


def _ways(first: int, second: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Height, width and free axes of each way to export, the most general first."""
    if second != first:  # of different sides, so that no equality is recorded
        yield first, second, (0, 2, 3)
    yield first, first, (0,)
    yield first, first, ()


def _program(network: nn.Module, patches: Tensor, free: tuple[int, ...]) -> bytes | None:
    """Content of a `.pt2` file that our reader reads; None where an axis that was to be free is fixed.

    Raises:
        Exception: it cannot be exported so.
    """
    axes = dict.fromkeys(free, torch.export.Dim.AUTO)
    with warnings.catch_warnings(), TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # torch's own of its own deprecations
        program = torch.export.export(network, (patches,), dynamic_shapes=(axes,) if axes else None)
        file = io.BytesIO()
        torch.export.save(stripped(program), file)
        path = Path(folder) / "network.pt2"
        path.write_bytes(file.getvalue())
        shape = read_program(path).shape
    return None if any(shape[axis].fixed is not None for axis in free) else file.getvalue()


def _sides_taken(network: nn.Module, name: str, bands: int, scores: int) -> list[int]:
    """Sides of `SIDES` for which the network gives scores of the size of the patch, learning and serving alike.

    Raises:
        JobError: there are none.
    """
    taken, problem = [], ""
    for side in SIDES:
        try:
            shapes = {_shape(network, torch.zeros(2, bands, side, side), learning) for learning in (True, False)}
        except Exception as error:  # of any class: the library checks its input in many ways
            problem = problem or _first_line(error)
            continue
        if shapes != {(2, scores, side, side)}:
            given = " and ".join(map(str, sorted(shapes, key=str)))
            raise JobError(
                f"network.class {name} gives {given} for patches {(2, bands, side, side)}, and training needs "
                f"{(2, scores, side, side)}; correct network.arguments"
            )
        taken.append(side)
        if len(taken) == 4:
            break
    if not taken:
        raise JobError(
            f"network.class {name} takes no patch of {SIDES[0]} to {SIDES[-1]} px: {problem}; correct network.arguments"
        )
    return taken


def _shape(network: nn.Module, patches: Tensor, learning: bool) -> tuple[int, ...] | str:
    tried = copy.deepcopy(network).train(learning)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        found = tried(patches)
    return tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__


def _geometry(network: nn.Module) -> nn.Module:
    """Copy in double precision without normalisation: each pixel goes to the same place, by the same way."""
    bare = copy.deepcopy(network).double().eval().requires_grad_(False)
    for module in list(bare.modules()):
        for name, child in module.named_children():
            if isinstance(child, _NORMS):
                setattr(module, name, nn.Identity())
    return bare


def _stride_multiple(bare: nn.Module, bands: int) -> int:
    """Smallest number of `STRIDES` by which a shift of the patch shifts its scores; the largest where none does."""
    largest = STRIDES[-1]
    side, middle, rows = 8 * largest, 4 * largest, largest
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, bands, side + largest, largest, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        first = bare(image[..., :side, :])
        nearly = TOLERANCE * float(first.std())
        for stride in STRIDES:
            second = bare(image[..., stride : stride + side, :])
            here = first[..., middle : middle + rows, :]
            there = second[..., middle - stride : middle - stride + rows, :]
            if float((here - there).abs().max()) <= nearly:
                return stride
    return largest


def _margin(bare: nn.Module, bands: int, sizes: PatchSizes) -> int | None:
    try:
        return receptive_margin(bare, bands, sizes.stride_multiple, offset=0)
    except (ModelError, RuntimeError):  # a strip that it does not take, or a layer without a gradient
        return None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
