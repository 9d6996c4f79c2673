"""What planning at once means, counted: seconds depend on who else uses the machine (`benchmarks/plan_time.py` measures them)."""

import pytest

from hagane.plan import cluster_shape, search

MOST_LAYOUTS, MOST_SHAPES = 12_000, 400  # a second of an ordinary core


@pytest.fixture
def planned_at_once(monkeypatch):
    """Counts the layouts whose time is estimated and the shapes that are ranked, and fails where they are many."""
    counts = {"layouts": 0, "shapes": 0}

    def counted(module, name, which):
        function = getattr(module, name)

        def call(*arguments, **named):
            counts[which] += 1
            return function(*arguments, **named)

        monkeypatch.setattr(module, name, call)

    counted(search, "estimate", "layouts")
    counted(cluster_shape, "_rung", "shapes")
    yield counts
    assert counts["layouts"] <= MOST_LAYOUTS and counts["shapes"] <= MOST_SHAPES, counts
