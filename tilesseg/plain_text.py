"""What the command line prints: results as a few lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilesseg.report import Report


def summary(report: Report) -> str:
    """A few lines for each scene: state, area per class, what failed."""
    lines = []
    for scene in report.scenes:
        lines.append(f"{scene.scene}: {scene.state}, {scene.done} of {scene.tiles} tiles done")
        if scene.refused:
            lines.append(f"  {scene.refused}")
        total = sum(scene.pixels.values())
        for name, pixels in scene.pixels.items():
            area = f", {scene.hectares[name]:,.2f} ha" if name in scene.hectares else ""
            lines.append(f"  {name}: {pixels:,} px ({pixels / total:.1%}){area}")
        if scene.outside:
            lines.append(f"  not looked at: {scene.outside:,} px ({scene.outside / total:.1%})")
        if scene.problem:
            lines.append(f"  products: {scene.problem}")
        lines += [f"  {tile} failed: {why}" for tile, why in scene.failed.items()]
    return "\n".join(lines)


def lines(facts: dict[str, Any]) -> str:
    """Facts as `key: value` lines, lists one item a line."""
    found = []
    for key, value in facts.items():
        if isinstance(value, list) and value and isinstance(value[0], dict | str) and len(value) > 1:
            found.append(f"{key}:")
            found += [f"  {_inline(item)}" for item in value]
        else:
            found.append(f"{key}: {_inline(value[0] if isinstance(value, list) and len(value) == 1 else value)}")
    return "\n".join(found)


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_inline(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_inline, value)) or "none"
    return "none" if value is None else str(value)
