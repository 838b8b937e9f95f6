"""Times in words: "1 min 15 s", "about 3 to 6 min"."""

from __future__ import annotations

from iekd.language import _, ngettext


def duration(seconds: float | None) -> str:
    """75 -> '1 min 15 s'."""
    if seconds is None:
        return ""
    total = max(0, round(seconds))
    if total < 60:
        return _("{seconds} s", seconds=total)
    if total < 3600:
        return _("{minutes} min {seconds} s", minutes=total // 60, seconds=f"{total % 60:02d}")
    if total < 48 * 3600:
        return _("{hours} h {minutes} min", hours=total // 3600, minutes=f"{total % 3600 // 60:02d}")
    return ngettext("{number} day", "{number} days", total // 86400)


def time_range(low: float, high: float) -> str:
    """A time that lies in that range: 'about 3 to 6 min', or 'about 4 min' where both ends say the same."""
    low = max(low, 1.0)
    if high < 10:
        return _("a few seconds")
    units = (86400, _("days"), 1), (3600, _("h"), 1), (60, _("min"), 1), (1, _("s"), 10)
    size, unit, step = next(found for found in units if high >= 2 * found[0])
    middle = (low * high) ** 0.5
    first, last = (low, high) if high > 1.35 * low else (middle, middle)
    first, last = (max(step, step * round(seconds / size / step)) for seconds in (first, last))
    if first == last:
        return _("about {time} {unit}", time=f"{first:,}", unit=unit)
    return _("about {first} to {last} {unit}", first=f"{first:,}", last=f"{last:,}", unit=unit)
