"""How the dot of the Wall world moves: the original's collision rule, as a pure function of numbers.

Everything is in pixels of the 65 x 65 plane, x right and y down; the dot is a point.

Source: github.com/gaoyuezhou/dino_wm 0a9492f, re-implemented from a description of its behaviour. Wherever the
original is known to give a number this gives the same one, oddities included: a bounce also adds +0.5 along the
wall, a move through the door is not checked against what lies beyond it, and a move with dx = 0 is not stopped by
the door's upper and lower edges. Where the original gives NaN or a state that nothing can go on from, the choices
are:

* dx = 0 into the lower or upper border is a plain vertical hit: (x + 0.5, border pushed back by 0.5).
* A move along a line (the dot is on it, and stays on it) does not hit it; so a zero action never moves the dot.
* A dot exactly on a line that moves off it, to either side, hits it where it stands (touching counts), and is pushed
  to the walkable side.
* A move never takes the dot farther out of the plane than it was. The original lets long moves through the door fly
  past the opposite border, off the picture; here they end just inside it.
"""

from __future__ import annotations

IMAGE_SIZE = 65  # pixels; coordinates are pixel centres 0..64
BORDER_LOW = 4.0  # the dot lives in [BORDER_LOW, BORDER_HIGH]^2
BORDER_HIGH = 60.0
WALL_HALF_THICKNESS = 3.0
DOOR_HALF_HEIGHT = 4.0
PIXELS_PER_ACTION = 2.0  # actions are in half pixels
PUSH_BACK = 0.5  # away from a hit line, toward where the dot came from
BOUNCE_DRIFT = 0.5  # along a hit line, always toward larger coordinates
LIMIT_INSET = 0.3  # how far inside a dot is put that ends on a limit


def next_position(x: float, y: float, dx: float, dy: float, wall_x: float, door_y: float) -> tuple[float, float]:
    """Where one action takes the dot.

    Args:
        x, y: position, pixels.
        dx, dy: action, half pixels; finite also when doubled.
        wall_x: centre of the vertical wall, pixels.
        door_y: centre of its door, pixels.
    """
    end_x, end_y = x + PIXELS_PER_ACTION * dx, y + PIXELS_PER_ACTION * dy
    face_left, face_right = wall_x - WALL_HALF_THICKNESS, wall_x + WALL_HALF_THICKNESS

    edge_hit = _door_edge_hit(x, y, end_x, end_y, (face_left, face_right), door_y)
    if edge_hit is not None:
        return edge_hit

    wall_is_right = wall_x > x
    limit_left = BORDER_LOW if wall_is_right else face_right
    limit_right = face_left if wall_is_right else BORDER_HIGH

    def blocks(line: float, has_door: bool) -> bool:
        if not _touches(x, end_x, line):
            return False
        crossing_y = y + _fraction(x, end_x, line) * (end_y - y)
        return not (has_door and abs(crossing_y - door_y) <= DOOR_HALF_HEIGHT)

    vertical: tuple[float, float] | None = None  # the line hit, and the direction of the walkable side
    if blocks(limit_left, has_door=not wall_is_right):
        vertical = (limit_left, 1.0)
    elif blocks(limit_right, has_door=wall_is_right):
        vertical = (limit_right, -1.0)

    horizontal: tuple[float, float] | None = None
    if _touches(y, end_y, BORDER_LOW):
        horizontal = (BORDER_LOW, 1.0)
    elif _touches(y, end_y, BORDER_HIGH):
        horizontal = (BORDER_HIGH, -1.0)

    if vertical is None and horizontal is None:
        return _kept_in_plane(x, end_x), _kept_in_plane(y, end_y)

    fraction_x = _fraction(x, end_x, vertical[0]) if vertical else float("inf")
    fraction_y = _fraction(y, end_y, horizontal[0]) if horizontal else float("inf")
    if vertical is not None and fraction_x < fraction_y:
        line, walkable = vertical
        hit_x = line + _push_back(x, line, walkable)
        hit_y = y + fraction_x * (end_y - y) + BOUNCE_DRIFT
    else:
        assert horizontal is not None
        line, walkable = horizontal
        hit_x = x + fraction_y * (end_x - x) + BOUNCE_DRIFT
        hit_y = line + _push_back(y, line, walkable)
    return _inside(hit_x, limit_left, limit_right), _inside(hit_y, BORDER_LOW, BORDER_HIGH)


def _door_edge_hit(
    x: float, y: float, end_x: float, end_y: float, faces: tuple[float, float], door_y: float
) -> tuple[float, float] | None:
    """Where the dot lands that runs, inside the doorway, into an end of the door; None if it does not."""
    if end_x == x:
        return None  # the original misses these, and the dot enters the wall
    edge_high, edge_low = door_y + DOOR_HALF_HEIGHT, door_y - DOOR_HALF_HEIGHT
    if y < edge_high < end_y:
        edge, back = edge_high, -PUSH_BACK
    elif end_y < edge_low < y:
        edge, back = edge_low, PUSH_BACK
    else:
        return None
    crossing_x = x + _fraction(y, end_y, edge) * (end_x - x)
    if not faces[0] <= crossing_x <= faces[1]:
        return None
    return crossing_x + BOUNCE_DRIFT, edge + back


def _touches(start: float, end: float, line: float) -> bool:
    """Whether a move reaches a line; a move along it does not count."""
    return start != end and min(start, end) <= line <= max(start, end)


def _fraction(start: float, end: float, line: float) -> float:
    """The part of the move, 0..1, after which it is on the line."""
    return (line - start) / (end - start)


def _push_back(start: float, line: float, walkable: float) -> float:
    direction = walkable if start == line else (1.0 if start > line else -1.0)
    return PUSH_BACK * direction


def _inside(value: float, low: float, high: float) -> float:
    """Clamp; what ends on a limit is moved inside."""
    if value <= low:
        return low + LIMIT_INSET
    if value >= high:
        return high - LIMIT_INSET
    return value


def _kept_in_plane(start: float, end: float) -> float:
    """`end`, unless it is farther out of the plane than `start`."""
    if BORDER_LOW <= end <= BORDER_HIGH:
        return end
    return min(max(end, min(start, BORDER_LOW + LIMIT_INSET)), max(start, BORDER_HIGH - LIMIT_INSET))
