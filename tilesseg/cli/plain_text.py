"""What the command line prints: results as a few lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilesseg.reporting.results import Report


MANY = 20
"""Scenes above which those that are complete are only counted."""


def summary(report: Report) -> str:
    """A few lines for each scene: state, area per class, what failed; of many, for those that are not complete."""
    scenes = report.scenes
    if len(scenes) > MANY:
        scenes = tuple(scene for scene in scenes if scene.state != "complete")
    shown, lines = scenes[: 2 * MANY], []
    for scene in shown:
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
    if len(scenes) > len(shown):
        lines.append(f"and {len(scenes) - len(shown)} more scenes that are not complete")
    if len(report.scenes) > MANY:
        complete = len(report.scenes) - len(scenes)
        lines.append(f"{complete} of {len(report.scenes)} scenes complete; each has its line in summary.csv")
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
