"""The common part of all pictures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def figure(path: Path, *subplots: int, **options: Any) -> Iterator[tuple[Any, Any]]:
    """`(figure, axes)` of `plt.subplots`, saved to `path` when the block ends; no screen is needed.

    Args:
        path (`Path`): of the picture.
        subplots (`int`, *optional*), options (*optional*): of `plt.subplots`.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    drawn, axes = plt.subplots(*subplots, layout="constrained", **options)
    try:
        yield drawn, axes
        drawn.savefig(path, dpi=130)
    finally:
        plt.close(drawn)
