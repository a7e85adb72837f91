"""Networks to be trained: our U-Net, with initial parameters or those of a bundle, or a network of a library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tilesseg.errors import JobError
from tilesseg.models.bundle import Bundle, find_bundle, verify_weights
from tilesseg.models.spec import ModelSpec, PatchSizes, UNetShape
from tilesseg.models.unet.architecture import UNet
from tilesseg.models.unet.unet_shapes import margin_of, patch_rule, shrink_of, stride_multiple
from tilesseg.models.unet.unet_weights import read_tensors
from tilesseg.training.library_networks import build_library_network, shape_library_network
from tilesseg.training.train_spec import NetworkOptions, TrainSpec


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """Facts of a network that are known before it is trained, as its `model.yaml` states them."""

    engine: str
    """Engine that serves it: `unet`, or `exported` for a network of a library."""
    unet: UNetShape | None
    patch: PatchSizes
    margin: int | None


def shape_network(options: NetworkOptions, *, bands: int, scores: int) -> NetworkShape:
    """Shape of the network that a spec asks for: of our U-Net, of a bundle's, or that of a library, found by trial.

    Args:
        options: section `network`.
        bands: channels of its input.
        scores: channels of its output.

    Raises:
        JobError: the bundle that is started from is no U-Net of ours; the network of a library cannot be built, or
            gives no scores.
        ModelError: there is no such bundle.
    """
    if options.library:
        with torch.random.fork_rng(devices=[]):
            network = build_library_network(options, bands=bands, scores=scores)
        patch, margin = shape_library_network(network, name=str(options.class_name), bands=bands, scores=scores)
        return NetworkShape("exported", None, patch, margin)
    return unet_facts(_unet(start_bundle(options).spec) if options.start else _own_shape(options))


def unet_facts(shape: UNetShape) -> NetworkShape:
    """Patch sizes and margin of our U-Net."""
    offset, multiple = patch_rule(shape)
    sizes = PatchSizes(
        offset=offset, multiple=multiple, stride_multiple=stride_multiple(shape), shrink=shrink_of(shape)
    )
    return NetworkShape("unet", shape, sizes, margin_of(shape))


def start_bundle(options: NetworkOptions) -> Bundle:
    """Bundle whose parameters training starts from, its weights verified.

    Raises:
        JobError: its engine is another one than `unet`.
        ModelError: there is no such bundle, or its weights are damaged.
    """
    assert options.start is not None  # the caller asks for no other
    bundle = find_bundle(options.start)
    if bundle.spec.engine != "unet":
        raise JobError(
            f"network.start {options.start} has engine {bundle.spec.engine}, and training continues engine unet alone; "
            "start from a bundle of tilesseg"
        )
    verify_weights(bundle)
    return bundle


def check_start(spec: TrainSpec, started: ModelSpec, *, bands: Sequence[str]) -> None:
    """Compare what a bundle was trained for with what the training is for.

    Args:
        spec: training spec.
        started: spec of the bundle that training starts from.
        bands: names of the bands that the images give to the network.

    Raises:
        JobError: bands, classes or the decision differ.
    """
    pairs = (
        ("bands", tuple(started.bands), tuple(bands), "read the same bands in the same order"),
        ("classes", tuple(each.name for each in started.classes), tuple(each.name for each in spec.classes),
         "name the same classes in the same order"),
        ("decision", (started.decision.kind,), (spec.decision,), f"write decision: {started.decision.kind}"),
    )  # fmt: skip
    for name, theirs, ours, remedy in pairs:
        if theirs != ours:
            raise JobError(
                f"network.start {spec.network.start} has {name} {', '.join(theirs)}, the training {', '.join(ours)}; "
                f"{remedy}, or train without start"
            )


def build_network(spec: ModelSpec, options: NetworkOptions, seed: int) -> nn.Module:
    """Network of a spec with the parameters that training starts from, on the CPU, in training mode.

    The seed decides the initial parameters; torch's own random numbers are left as they are.

    Raises:
        JobError: the network of a library cannot be built.
        ModelError: the bundle that is started from does not fit the spec.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if options.library:
            return build_library_network(options, bands=len(spec.bands), scores=spec.score_channels).train()
        network = UNet(len(spec.bands), spec.score_channels, _unet(spec), dropout=options.dropout)
    if options.start:
        bundle = start_bundle(options)
        assert bundle.weights_path is not None  # its spec refuses anything else
        tensors = read_tensors(bundle.spec, bundle.weights_path)
        network.load_state_dict({name: torch.from_numpy(values) for name, values in tensors.items()})
    return network.train()


def _unet(spec: ModelSpec) -> UNetShape:
    assert spec.unet is not None  # engine unet has a shape
    return spec.unet


def _own_shape(options: NetworkOptions) -> UNetShape:
    return UNetShape.model_validate(options.model_dump(include=set(UNetShape.model_fields)))
