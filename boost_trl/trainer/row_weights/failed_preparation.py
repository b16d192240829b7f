"""The row on which the preparation of a dataset fails, such as one that the chat template refuses."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from accelerate import PartialState
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
        ValueError: naming the row, from the error that it causes; on the main process. The others raise what they met.
    """
    try:
        return prepare(dataset)
    except Exception as error:
        found = _first_failing(prepare, dataset) if isinstance(dataset, Dataset) and len(dataset) else None
        # Once the main process has found the row and ended, the search of the others, which waits for it, finds anything.
        if found is None or not PartialState().is_main_process:
            raise
        place, of_row = found
        if place == 0 and isinstance(of_row, _EXPLAINED):
            raise
        problem = " ".join(f"{type(of_row).__name__}: {of_row}".split())
        raise ValueError(f"{name_of(place)}: cannot be prepared: {problem}; mend it, or leave the row out") from error


def _first_failing(prepare: Callable[[Dataset], Any], dataset: Dataset) -> tuple[int, Exception] | None:
    """The place of the first row with which `prepare` fails, and its error: by bisection, at the cost of one more preparation
    at most."""

    def failure(start: int, stop: int) -> Exception | None:
        try:
            # Preparation takes the first row to say what format the others have.
            prepare(dataset.select([0, *range(max(start, 1), stop)]))
        except Exception as error:
            return error
        return None

    with _no_progress_bars():
        start, stop = 0, 1
        if failure(start, stop) is None:
            start, stop = 1, len(dataset)
        while stop - start > 1:
            middle = (start + stop) // 2
            start, stop = (middle, stop) if failure(start, middle) is None else (start, middle)
        error = failure(start, stop)
    return None if error is None else (start, error)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    were_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            enable_progress_bars()
