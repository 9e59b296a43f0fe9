"""The front of a picture with two figures, of both of which less is better."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]


def front(points: Sequence[Point]) -> list[int]:
    """Places of the points that no other beats in both figures, by the first figure.

    Of equal points the earliest counts. It tells nothing of noise: `harness.advise` does.
    """
    kept: list[int] = []
    for place in sorted(range(len(points)), key=lambda one: (*points[one], one)):
        if not kept or points[place][1] < points[kept[-1]][1]:
            kept.append(place)
    return kept
