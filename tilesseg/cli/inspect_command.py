"""`tilesseg inspect`: properties of an image, as text or JSON."""

from __future__ import annotations

import json
from typing import Any

from tilesseg.cli.options import AsJson, Image


def inspect(image: Image, as_json: AsJson = False) -> None:
    """Print the properties of an image, and how it will be read."""
    from tilesseg.formats.open import open_source

    properties = open_source(image).describe()
    print(json.dumps(properties, indent=1) if as_json else property_lines(properties))


def property_lines(properties: dict[str, Any]) -> str:
    """Properties as lines `key: value`; a list of several items has a line for each item."""
    lines = []
    for key, value in properties.items():
        if isinstance(value, list) and value and isinstance(value[0], dict | str) and len(value) > 1:
            lines.append(f"{key}:")
            lines += [f"  {_inline(item)}" for item in value]
        else:
            lines.append(f"{key}: {_inline(value[0] if isinstance(value, list) and len(value) == 1 else value)}")
    return "\n".join(lines)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inline(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_inline, value)) or "none"
    return "none" if value is None else str(value)
