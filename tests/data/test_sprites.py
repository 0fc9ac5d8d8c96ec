from __future__ import annotations

import itertools

import numpy as np
import pytest

from orthogan.data.sprites import FACTOR_SIZES, render
from orthogan.errors import UserError

AREAS = {  # pixels at scales 0.5 to 1, upright, centre near (31.5, 31.5)
    0: [81, 121, 169, 225, 289, 361],
    1: [75, 103, 141, 187, 239, 293],
    2: [57, 81, 108, 142, 182, 227],
}


def random_classes(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, n) for size in FACTOR_SIZES], axis=1)


def places(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The whole canvas in the coordinates of the shape: u and v (64, 64)."""
    _, scale, orientation, x, y = row.tolist()
    theta, size = 2 * np.pi * orientation / 39, 0.5 + 0.1 * scale
    centre = np.arange(64) + 0.5
    dx, dy = np.meshgrid(centre - (16 + 32 * x / 31), centre - (16 + 32 * y / 31))
    u = (dx * np.cos(theta) - dy * np.sin(theta)) / size
    v = (dx * np.sin(theta) + dy * np.cos(theta)) / size
    return u, v


def heart_by_crossings(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Point in polygon: a ray to the right crosses the outline an odd number of times."""
    t = np.linspace(0, 2 * np.pi, 1001)
    px = 9.6 * np.sin(t) ** 3
    py = -1.44 - 0.6625 * (13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    inside = np.zeros(u.shape, bool)
    for (x0, y0), (x1, y1) in itertools.pairwise(zip(px, py, strict=True)):
        if y0 != y1:
            inside ^= ((y0 > v) != (y1 > v)) & (u < (x1 - x0) * (v - y0) / (y1 - y0) + x0)
    return inside


def test_square_and_ellipse_equal_the_whole_canvas_formula() -> None:
    classes = random_classes(300)
    classes[:, 0] %= 2
    for row, picture in zip(classes, render(classes), strict=True):
        u, v = places(row)
        square, ellipse = np.maximum(abs(u), abs(v)) <= 9.6, (u / 12.8) ** 2 + (v / 7.2) ** 2 <= 1
        np.testing.assert_array_equal(picture, ellipse if row[0] else square)


def test_heart_equals_point_in_polygon_within_the_tolerance_of_the_recipe() -> None:
    """The recipe's radial test and the polygon differ in 6 pixels over 300 hearts."""
    classes = random_classes(100)
    classes[:, 0] = 2
    pictures = render(classes)
    differing = sum(
        int((heart_by_crossings(*places(row)) != picture).sum()) for row, picture in zip(classes, pictures, strict=True)
    )
    assert differing <= 4


def test_largest_square_fits_into_the_window_everywhere() -> None:
    """At 45 degrees it reaches farthest; every place of its centre within a pixel is tried."""
    classes = np.array([[0, 5, o, x, 31 - x] for o in (5, 15) for x in range(32)])
    for row, picture in zip(classes, render(classes), strict=True):
        u, v = places(row)
        np.testing.assert_array_equal(picture, np.maximum(abs(u), abs(v)) <= 9.6)


@pytest.mark.parametrize("shape", [0, 1, 2])
def test_areas(shape: int) -> None:
    pictures = render(np.array([[shape, scale, 0, 15, 15] for scale in range(6)]))
    assert pictures.dtype == np.uint8
    assert pictures.max() == 1
    assert pictures.sum((1, 2)).tolist() == AREAS[shape]


def test_first_and_last_orientation_are_one_picture() -> None:
    first = random_classes(60)
    first[:, 2] = 0
    last = first.copy()
    last[:, 2] = 39
    np.testing.assert_array_equal(render(first), render(last))


def test_distinct_rasters_of_a_turn() -> None:
    """39 for ellipse and heart; the square has 34 at the place (16, 16)."""
    for shape, expected in ((0, 34), (1, 39), (2, 39)):
        pictures = render(np.array([[shape, 5, orientation, 16, 16] for orientation in range(40)]))
        assert len({picture.tobytes() for picture in pictures}) == expected


def test_nothing_reaches_the_border() -> None:
    corners = np.array([(s, 5, o, x, y) for s in range(3) for o in range(40) for x in (0, 31) for y in (0, 31)])
    on = render(corners).any(0)
    rows, columns = np.nonzero(on.any(1))[0], np.nonzero(on.any(0))[0]
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (3, 60, 3, 60)


def test_position_moves_right_and_down() -> None:
    pictures = render(np.array([[1, 0, 0, 0, 0], [1, 0, 0, 31, 0], [1, 0, 0, 0, 31]]))
    centres = [(np.nonzero(p)[1].mean(), np.nonzero(p)[0].mean()) for p in pictures]
    np.testing.assert_allclose(centres, [(15.5, 15.5), (47.5, 15.5), (15.5, 47.5)])


def test_heart_points_down() -> None:
    (picture,) = render(np.array([[2, 5, 0, 15, 15]]))
    widths = picture.sum(1)[picture.any(1)]
    assert widths[-1] <= 2 < widths[0]


def test_no_pictures() -> None:
    assert render(np.empty((0, 5), np.int64)).shape == (0, 64, 64)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([[3, 0, 0, 0, 0]], r"shape \(column 0\) runs from 3 to 3, expected 0 to 2"),
        ([[0, 0, -1, 0, 0]], r"orientation \(column 2\) runs from -1"),
        ([[0, 0, 0, 0]], r"integers \(n, 5\)"),
        ([[0.0, 0, 0, 0, 0]], "float64"),
    ],
)
def test_impossible_classes(classes: list[list[float]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        render(np.array(classes))
