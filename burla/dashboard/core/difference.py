"""What has changed on a page since it was last sent."""

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from .cells import Cell

Point = tuple[float, float, int]


class Shown(Struct, frozen=True):
    """A page at one moment."""

    parts: Mapping[str, str]  # HTML by name
    cells: Sequence[Cell] = ()  # of the grid of nodes
    points: Sequence[Point] = ()  # of the chart, all that are known
    stale: bool = False  # the rest of the page is as it was before: something went wrong


class Change(Struct, frozen=True, omit_defaults=True):
    """What a page that shows `before` needs to show what is now."""

    parts: dict[str, str] = field(default_factory=dict)
    cells: list[tuple[int, str, str]] = field(default_factory=list)  # place, classes, title
    points: list[Point] = field(default_factory=list)
    first: bool = False  # the points are all, not those that come after
    stale: bool = False

    def is_nothing(self) -> bool:
        """Return whether there is nothing to send."""
        return not (self.parts or self.cells or self.points or self.first)


def merged(before: Shown | None, now: Shown) -> Shown:
    """Return what a page shows that has `before` and is sent what is now."""
    if before is None:
        return now
    parts = {**before.parts, **now.parts}
    if now.stale:
        return Shown(parts, before.cells, before.points, stale=True)
    return Shown(parts, now.cells, now.points)


def are_same_nodes(before: Shown | None, cells: Sequence[Cell]) -> bool:
    """Return whether the grid has the same nodes as before: then only some cells change."""
    if before is None or len(before.cells) != len(cells):
        return False
    return all(old.name == new.name for old, new in zip(before.cells, cells, strict=True))


def difference(before: Shown | None, now: Shown) -> Change:
    """Return what to send. Other nodes come as the part that has the whole grid."""
    if before is None:
        return Change(dict(now.parts), [], list(now.points), first=True, stale=now.stale)
    parts = {name: html for name, html in now.parts.items() if before.parts.get(name) != html}
    cells = []
    if "grid" not in parts:
        cells = [
            (number, cell.classes, cell.title)
            for number, (cell, old) in enumerate(zip(now.cells, before.cells, strict=False))
            if cell != old
        ]
    last_s = before.points[-1][0] if before.points else 0.0
    is_first = bool(now.points) and (not before.points or now.points[0][0] > last_s)
    points = list(now.points) if is_first else [p for p in now.points if p[0] > last_s]
    return Change(parts, cells, points, first=is_first, stale=now.stale)
