"""Facts that an ONNX file states about itself, read from its protobuf without a runtime: metadata, shapes, opset.

Field numbers: onnx.proto. The nodes are read by `crop_safety.onnx_graph`.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tilesseg.errors import ModelError, cannot
from tilesseg.models.crop_safety.onnx_graph import Span, fields, messages, text

_GRAPH, _OPSET, _METADATA = 7, 8, 14  # ModelProto
_DOMAIN, _VERSION = 1, 2  # OperatorSetIdProto
_KEY, _VALUE = 1, 2  # StringStringEntryProto
_NAME, _INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12  # GraphProto, and ValueInfoProto: name
_TENSOR_NAME = 8  # TensorProto
_TYPE, _TENSOR_TYPE, _SHAPE, _DIM, _DIM_VALUE = 2, 1, 2, 1, 1  # ValueInfoProto, TypeProto, Tensor, TensorShapeProto

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class OnnxHeader:
    """Facts of a file, without its nodes and weights."""

    metadata: Mapping[str, str]
    opset: int
    """Version of the operators of ONNX itself; 0 where the file states none."""
    inputs: tuple[Shape, ...]
    """Shapes of the inputs, None for a free axis; inputs that have a default are left out."""
    outputs: tuple[Shape, ...]


def read_header(path: Path) -> OnnxHeader:
    """Read the header of an ONNX file.

    Raises:
        ModelError: the file cannot be read, or is not ONNX.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _header(data)
    except OSError as error:
        raise ModelError(cannot(f"read {path}", error, "give an ONNX file")) from None
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path} is not an ONNX file ({error}); export it again") from None


def _header(data: mmap.mmap) -> OnnxHeader:
    metadata: dict[str, str] = {}
    opset, shapes, held = 0, {_GRAPH_INPUT: {}, _GRAPH_OUTPUT: {}}, set[str]()  # type: ignore[var-annotated]
    for number, span in messages(data, (0, len(data))):
        if number == _METADATA:
            entry = {key: text(data, part) for key, part in messages(data, span)}
            metadata[entry.get(_KEY, "")] = entry.get(_VALUE, "")
        elif number == _OPSET:
            opset = _opset(data, span) or opset
        elif number == _GRAPH:
            for kind, part in messages(data, span):
                if kind in shapes:
                    name, shape = _value(data, part)
                    shapes[kind][name] = shape
                elif kind == _INITIALIZER:
                    held.update(text(data, each) for key, each in messages(data, part) if key == _TENSOR_NAME)
    inputs = tuple(shape for name, shape in shapes[_GRAPH_INPUT].items() if name not in held)
    return OnnxHeader(metadata, opset, inputs, tuple(shapes[_GRAPH_OUTPUT].values()))


def _opset(data: mmap.mmap, span: Span) -> int:
    """Version of an operator set; 0 for one of another domain than ONNX's own."""
    version, domain = 0, ""
    for number, part in fields(data, span):
        if number == _VERSION and isinstance(part, int):
            version = part
        elif number == _DOMAIN and not isinstance(part, int):
            domain = text(data, part)
    return version if domain in ("", "ai.onnx") else 0


def _value(data: mmap.mmap, span: Span) -> tuple[str, Shape]:
    """Name of an input or output, and its shape; empty where the file states none."""
    name, shape = "", []
    for number, part in messages(data, span):
        if number == _NAME:
            name = text(data, part)
        elif number == _TYPE:
            tensors = [each for kind, each in messages(data, part) if kind == _TENSOR_TYPE]
            sizes = [each for tensor in tensors for kind, each in messages(data, tensor) if kind == _SHAPE]
            shape = [_size(data, each) for one in sizes for kind, each in messages(data, one) if kind == _DIM]
    return name, tuple(shape)


def _size(data: mmap.mmap, span: Span) -> int | None:
    values = [part for number, part in fields(data, span) if number == _DIM_VALUE and isinstance(part, int)]
    return values[0] if values and 0 < values[0] < 1 << 63 else None
