"""Networks computed by OpenVINO on the CPU: our U-Net, TorchScript and ONNX, compiled for each shape of a batch."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from tilesseg.errors import ModelError
from tilesseg.models.engines.batches import BatchSlots, compare_input, parts
from tilesseg.models.engines.openvino_graphs import Graphs, read_graphs
from tilesseg.models.engines.openvino_io import taken, with_ends
from tilesseg.models.engines.out_of_memory import refusal
from tilesseg.models.network import Call, Network, refuse_other_shape
from tilesseg.models.normalisation import Normalisation
from tilesseg.models.shape_advice import type_problem
from tilesseg.models.spec import ModelSpec

HINTS = {"fp32": "f32", "bf16": "bf16"}
COMPILED = 4
"""Number of shapes and calls that an engine keeps compiled; a scene has a single shape and call."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A graph compiled for a call and a shape of patches."""

    network: openvino.CompiledModel
    shape: tuple[int, ...]
    """Shape of its output."""
    idle: list[openvino.InferRequest] = field(default_factory=list)
    """Requests that are not in use; each has memory of its own."""


@dataclass(frozen=True, slots=True)
class OpenVinoEngine:
    """A network as graphs of OpenVINO, with the compiled graphs."""

    spec: ModelSpec
    graphs: Graphs
    batch: int | None
    """Batch size that the file fixes; None if any."""
    batch_slots: BatchSlots
    precision: str
    device: str = "cpu"
    kept: OrderedDict[tuple[Call, tuple[int, ...]], _Compiled] = field(default_factory=OrderedDict)
    """Compiled graphs, the last used at the end."""
    compiling: Lock = field(default_factory=Lock)

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores `(n, score, y, x)` of `patches (n, channel, y, x)`, activated, float32.

        Raises:
            OutOfDeviceMemory: there is no memory for such a batch.
            ModelError: the network refuses this shape.
        """
        bands = len(self.spec.bands)
        call = Call(np.dtype(np.float32), Normalisation((0.0,) * bands, (1.0,) * bands), labels=False)
        scores, _ = self._run(call, patches)
        return scores

    def raw(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Model.raw`. Compiles the graph alone, without the steps of a call."""
        graph, _ = self.graphs(0)
        try:
            answers = []
            for part in parts(np.ascontiguousarray(patches, np.float32), self.batch):
                graph.reshape(list(part.shape))
                compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": HINTS["fp32"]})
                answers.append(compiled([part])[0])
        except (RuntimeError, MemoryError) as error:
            raise refusal(error, name=self.spec.name, device=self.device, shape=patches.shape) from error
        return np.concatenate(answers)[: len(patches)]

    def network(self, call: Call) -> Network:
        """See `Model.network`. OpenVINO computes normalisation, activation and decision, too."""

        def network(patches: NDArray[Any]) -> NDArray[Any]:
            result, finite = self._run(call, patches)
            if not finite:
                raise ValueError("the model gave scores that are not finite")
            return result

        return network

    def _run(self, call: Call, patches: NDArray[Any]) -> tuple[NDArray[Any], bool]:
        """Labels or scores, in new memory, and whether all scores are finite."""
        patches = np.ascontiguousarray(patches, taken(call.dtype))
        with self.batch_slots:
            try:
                answers = [self._infer(call, part) for part in parts(patches, self.batch)]
            except (RuntimeError, MemoryError) as error:
                raise refusal(error, name=self.spec.name, device=self.device, shape=patches.shape) from error
        result = answers[0][0] if len(answers) == 1 else np.concatenate([part for part, _ in answers])
        return result[: len(patches)], all(finite for _, finite in answers)

    def _infer(self, call: Call, patches: NDArray[Any]) -> tuple[NDArray[Any], bool]:
        compiled, request = self._request(call, patches.shape)
        result = np.empty(compiled.shape, np.uint8 if call.labels else np.float32)
        request.set_input_tensor(openvino.Tensor(patches, shared_memory=True))
        request.set_output_tensor(0, openvino.Tensor(result, shared_memory=True))
        request.infer()
        finite = bool(request.get_output_tensor(1).data.all())
        compiled.idle.append(request)  # a request that has failed is dropped with its memory
        return result, finite

    def _request(self, call: Call, shape: tuple[int, ...]) -> tuple[_Compiled, openvino.InferRequest]:
        """Request for a call and a shape of patches, for the caller alone until it is put back into `idle`."""
        key = call, shape
        with self.compiling:
            if key not in self.kept:
                self.kept[key] = self._compile(call, shape)
                while len(self.kept) > COMPILED:
                    self.kept.popitem(last=False)
            self.kept.move_to_end(key)
            compiled = self.kept[key]
            return compiled, compiled.idle.pop() if compiled.idle else compiled.network.create_infer_request()

    def _compile(self, call: Call, shape: tuple[int, ...]) -> _Compiled:
        graph, edge = self.graphs(call.margin)
        n, channels, height, width = shape
        graph.reshape([n, channels, height - 2 * edge, width - 2 * edge])
        refuse_other_shape(self.spec, shape, tuple(graph.output(0).shape), margin=call.margin)
        options = {
            "INFERENCE_PRECISION_HINT": HINTS[self.precision],
            "INFERENCE_NUM_THREADS": self.batch_slots.parallel_batches * self.batch_slots.threads,
            "NUM_STREAMS": self.batch_slots.parallel_batches,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # several workers would pin themselves to the same cores
        }
        compiled = openvino.Core().compile_model(with_ends(graph, call, self.spec, edge=edge), "CPU", options)
        return _Compiled(compiled, tuple(compiled.output(0).shape))


def open_openvino(
    spec: ModelSpec, weights: Path | None, *, device: str, batch_slots: BatchSlots, precision: str
) -> OpenVinoEngine:
    """Open a safetensors, TorchScript or ONNX file, and compare the shapes that it fixes with its spec.

    Raises:
        ModelError: the file does not fit its spec, or OpenVINO cannot convert it.
    """
    assert weights is not None  # load_model refuses a bundle without
    graphs = read_graphs(spec, weights)
    batch = None if spec.engine == "unet" else _batch(graphs(0).model, spec, weights)
    return OpenVinoEngine(spec, graphs, batch, batch_slots, precision)


def _batch(graph: openvino.Model, spec: ModelSpec, weights: Path) -> int | None:
    """Batch size that a foreign network fixes; None if any.

    Raises:
        ModelError: the network does not fit its spec.
    """
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ModelError(
            f"{weights} has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; export it with one of each"
        )
    source = graph.input(0)
    if problem := type_problem(weights, source.get_element_type().get_type_name()):
        raise ModelError(problem)
    sizes = source.get_partial_shape()
    if sizes.rank.is_dynamic:
        raise ModelError(f"{weights} does not say how many axes its input has; export it with (n, channel, y, x)")
    return compare_input([size.get_length() if size.is_static else None for size in sizes], spec, weights)
