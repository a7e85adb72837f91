"""Source traces in exported networks: each operation names the file and line that made it, on the exporting machine.

They are for debugging, nobody needs them to compute, and they tell strangers the paths of a machine. So exported files
go out without them. It is a file of its own because both TorchScript and programs of `torch.export` come through here,
from `models export` and from `models convert`, and because the first needs torch's private reader of archives.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from tilesseg.atomic_write import scratch_folder

TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")
"""Metadata of a node that say where it comes from."""
_OWN = ("version", "byteorder", ".data/serialization_id")
"""Records that the writer of an archive adds by itself."""


def stripped(program: Any) -> Any:
    """The program of `torch.export` without source traces; changes the program and returns it."""
    for node in program.graph.nodes:
        for key in TRACES:
            node.meta.pop(key, None)
    return program


def strip_script(file: Path) -> None:
    """Write a TorchScript archive anew, without its records of source lines (`.debug_pkl`)."""
    reader = torch._C.PyTorchFileReader(os.fspath(file))
    with scratch_folder(file) as folder:
        temporary = folder / file.name  # the archive's own folder is named by its file
        writer = torch._C.PyTorchFileWriter(os.fspath(temporary))
        for name in reader.get_all_records():
            if name not in _OWN and not name.endswith(".debug_pkl"):
                record = reader.get_record(name)
                writer.write_record(name, record, len(record))
        writer.write_end_of_file()
        temporary.replace(file)
