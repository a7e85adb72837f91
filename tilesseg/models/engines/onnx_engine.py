"""ONNX networks of a single input and output, computed by onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilesseg.errors import ModelError, cannot, one_line
from tilesseg.models.engines.batches import BatchSlots, compare_input, parts
from tilesseg.models.engines.out_of_memory import refusal
from tilesseg.models.network import Call, Network, activate, plain, refuse_other_shape
from tilesseg.models.shape_advice import type_problem
from tilesseg.models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class OnnxEngine:
    """An inference session of onnxruntime."""

    spec: ModelSpec
    session: Any
    input: str
    batch: int | None
    """Batch size that the file fixes; None if any."""
    device: str
    batch_slots: BatchSlots

    def predict(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores `(n, score, y, x)` of `patches (n, channel, y, x)`, activated, float32.

        Raises:
            ModelError: the network refuses this shape.
        """
        return activate(self._scores(patches), self.spec.activation)

    def network(self, call: Call) -> Network:
        """See `Model.network`. Labels of softmax are decided from raw scores: it keeps their order."""
        kept = call.labels and self.spec.activation == "softmax"
        return plain(self._scores if kept else self.predict, call, self.spec)

    def raw(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Model.raw`."""
        patches = np.ascontiguousarray(patches, np.float32)
        with self.batch_slots:
            scores = [self._run(part) for part in parts(patches, self.batch)]
        raw: NDArray[np.float32] = scores[0] if len(scores) == 1 else np.concatenate(scores)
        return raw[: len(patches)]

    def _scores(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores before activation."""
        raw = self.raw(patches)
        refuse_other_shape(self.spec, patches.shape, raw.shape)
        return raw

    def _run(self, patches: NDArray[np.float32]) -> NDArray[Any]:
        try:
            scores: NDArray[Any] = self.session.run(None, {self.input: patches})[0]
        except Exception as error:  # the classes of onnxruntime's errors are private and have no common base
            raise refusal(error, name=self.spec.name, device=self.device, shape=patches.shape) from error
        return scores


def open_onnx(
    spec: ModelSpec, weights: Path | None, *, device: str, batch_slots: BatchSlots, precision: str
) -> OnnxEngine:
    """Open an ONNX file, and compare the shapes that it fixes with its spec.

    Raises:
        ModelError: onnxruntime is missing, the file is not ONNX, or its input does not fit the spec.
    """
    assert weights is not None  # load_model refuses a bundle without
    session, place = _session(spec, weights, device, batch_slots.threads, precision)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(f"{weights} has {len(inputs)} inputs and {len(outputs)} outputs; export it with one of each")
    if problem := type_problem(weights, inputs[0].type):
        raise ModelError(problem)
    shape = [size if isinstance(size, int) and size > 0 else None for size in inputs[0].shape]
    batch = compare_input(shape, spec, weights)
    return OnnxEngine(spec, session, inputs[0].name, batch, place, batch_slots)


def _session(spec: ModelSpec, weights: Path, device: str, threads: int, precision: str) -> tuple[Any, str]:
    try:
        import onnxruntime
    except ImportError:
        raise ModelError(
            f"model {spec.name} has engine onnx, and onnxruntime is not installed; pip install 'tilesseg[onnx]'"
        ) from None
    providers, place = _providers(onnxruntime.get_available_providers(), device, precision)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised, and said once
    try:
        return onnxruntime.InferenceSession(str(weights), sess_options=options, providers=providers), place
    except Exception as error:  # the classes of onnxruntime's errors are private and have no common base
        remedy = "export it in float32, with model.float()" if "NOT_IMPLEMENTED" in str(error) else "export it again"
        raise ModelError(cannot(f"run {weights} by onnxruntime", one_line(error), remedy)) from None


def _providers(there: list[str], device: str, precision: str) -> tuple[list[Any], str]:
    """Providers in the order in which onnxruntime tries them, and the device. Not run on a GPU yet."""
    kind, _, number = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()):
        raise ModelError(f"device {device!r} is unknown; write auto, cpu, cuda or cuda:1")
    if kind == "cuda" and "CUDAExecutionProvider" not in there:
        raise ModelError(f"device {device} is not in this onnxruntime, which has {', '.join(there)}; write cpu")
    if kind == "cpu" or "CUDAExecutionProvider" not in there:
        return ["CPUExecutionProvider"], "cpu"
    chosen = ("CUDAExecutionProvider", {"device_id": int(number or 0), "use_tf32": 0})
    if precision == "fp16":
        if "TensorrtExecutionProvider" not in there:
            raise ModelError(
                f"onnxruntime computes fp16 by TensorRT, and has {', '.join(there)}; write precision: fp32"
            )
        fast = ("TensorrtExecutionProvider", {"device_id": int(number or 0), "trt_fp16_enable": True})
        return [fast, chosen, "CPUExecutionProvider"], f"cuda:{number or 0}"
    return [chosen, "CPUExecutionProvider"], f"cuda:{number or 0}"
