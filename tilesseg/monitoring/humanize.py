"""Quantities as text for people: durations, counts, pixels, areas, shares."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """Duration as `0.4 s`, `42 s`, `7:05 min`, `3:20 h` or `2 d 4 h`."""
    if seconds is None:
        return "unknown"
    if 0 < seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60}:{minutes % 60:02d} h"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def span(seconds: float | None) -> str:
    """Duration as on a clock: `7:05` or `3:20:00`; a dash where it is unknown."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def counted(count: int, word: str) -> str:
    """Count of things as `1 tile` or `1,200 tiles`."""
    return f"{count:,} {word}" + "s" * (count != 1)


def pixels(count: float) -> str:
    """Number of pixels as `512 px`, `4.19 Mpx`, `1.2 Gpx` or `3.4 Tpx`."""
    for size, unit in ((1e12, "Tpx"), (1e9, "Gpx"), (1e6, "Mpx"), (1e4, "kpx")):
        if count >= size:
            return f"{count / (1e3 if unit == 'kpx' else size):,.3g} {unit}"
    return f"{count:,.0f} px"


def area(hectares: float, *, largest: float | None = None) -> str:
    """Area as `35 m²`, `12.5 ha` or `123.4 km²`, in the unit that suits `largest`, so that a column has one unit."""
    like = hectares if largest is None else largest
    if like < 1:
        return f"{hectares * 1e4:,.0f} m²"
    if like < 10_000:
        return f"{hectares:,.1f} ha"
    return f"{hectares / 100:,.{1 if like < 1e6 else 0}f} km²"


def share(part: float, whole: float) -> str:
    """Share as `12.3 %`; a part that rounds to nothing is `< 0.1 %`."""
    if not whole or not part:
        return "0 %"
    value = 100 * part / whole
    return "< 0.1 %" if value < 0.05 else "100 %" if part == whole else f"{min(value, 99.9):.1f} %"
