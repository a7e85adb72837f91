"""A module of PyTorch as a program of torch.export that tilesseg reads: with as many free sizes as it allows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tilesseg.errors import ModelError, one_line
from tilesseg.models.exported.export_archive import read_program
from tilesseg.models.exporting.source_traces import stripped

WAYS: tuple[tuple[int, ...], ...] = ((0, 2, 3), (0,), (2, 3), ())
"""Axes that are left free, the most general first: batch and sides, batch alone, sides alone, none."""
ROUNDING = 1e-3
"""Largest difference of scores that counts as rounding, as a share of the largest score."""


def write_program(network: nn.Module, file: Path, *, bands: int, side: int) -> tuple[int, ...]:
    """Write a network of `(n, bands, y, x)` float32 to one tensor, and compare the written one with it.

    Args:
        network: the network; it is put into evaluation mode.
        file: path of the `.pt2` file.
        bands: number of channels.
        side: side of the patches that it is exported and compared with; another side is tried where sides are free.

    Returns:
        Axes that are free.

    Raises:
        ModelError: torch cannot export it, our reader does not read what it exports, or their scores differ.
    """
    network = network.eval()
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(2, bands, side, side, generator=generator)
    problems = []
    for free in WAYS:
        try:
            _export(network, patches, file, free)
            others = [patches] + ([patches[:1, :, : side // 2, : side // 2]] if 2 in free and 0 in free else [])
            _compare(network, file, others)
            return free
        except Exception as error:  # of any class: each part of the exporter has its own
            problems.append(one_line(error))
    file.unlink(missing_ok=True)
    name = type(network).__name__
    raise ModelError(
        f"torch.export cannot write {name} ({problems[-1]}); take ONNX: torch.onnx.export(…, dynamo=False)"
    )


def _export(network: nn.Module, patches: Tensor, file: Path, free: Sequence[int]) -> None:
    axes = dict.fromkeys(free, torch.export.Dim.AUTO)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for authors of exporters
        program = torch.export.export(network, (patches,), dynamic_shapes=(axes,) if axes else None)
        torch.export.save(stripped(program), file)


def _compare(network: nn.Module, file: Path, batches: Sequence[Tensor]) -> None:
    """Compare the network with the written one.

    Raises:
        ModelError: the scores differ by more than rounding, or have another shape.
    """
    program = read_program(file)
    for patches in batches:
        with torch.inference_mode():
            expected, got = network(patches), program(patches.clone())
        same = isinstance(expected, Tensor) and expected.shape == got.shape
        if not same or float((expected - got).abs().max()) > ROUNDING * max(1.0, float(expected.abs().max())):
            raise ModelError(
                f"the written network differs from {type(network).__name__}; export it where it comes from"
            )
