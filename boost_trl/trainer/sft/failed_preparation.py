"""The row on which the preparation of a dataset fails, such as one that the chat template refuses."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars


# An error of these types on the first row may be one of the settings, and says so itself.
_EXPLAINED = (ValueError, RuntimeError, ImportError, OSError)


def prepare_or_name_row(prepare: Callable[[Dataset], Any], dataset, name_of: Callable[[int], str]):
    """`prepare(dataset)`; an error that one row causes names it.

    Args:
        prepare (`Callable`): prepares any rows.
        dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]): the rows; those of a stream are prepared later.
        name_of (`Callable`): `(place) -> str`, the name of a row of `dataset` in messages.

    Raises:
        ValueError: naming the row, from the error that it causes.
    """
    try:
        return prepare(dataset)
    except Exception as error:
        place = _first_failing(prepare, dataset) if isinstance(dataset, Dataset) and len(dataset) else None
        if place is None or (place == 0 and isinstance(error, _EXPLAINED)):
            raise
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{name_of(place)}: cannot be prepared: {problem}; mend it, or leave the row out") from error


def _first_failing(prepare: Callable[[Dataset], Any], dataset: Dataset) -> int | None:
    """The place of the first row with which `prepare` fails: by bisection, at the cost of one more preparation at most."""

    def fails(start: int, stop: int) -> bool:
        try:
            # Preparation takes the first row to say what format the others have.
            prepare(dataset.select([0, *range(max(start, 1), stop)]))
        except Exception:
            return True
        return False

    with _no_progress_bars():
        if fails(0, 1):
            return 0
        start, stop = 1, len(dataset)
        while stop - start > 1:
            middle = (start + stop) // 2
            start, stop = (start, middle) if fails(start, middle) else (middle, stop)
        return start if fails(start, stop) else None


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            enable_progress_bars()
