"""Datasets from files and back, with messages that name file, line and column."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


_FILE_TYPES = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
_NOT_UTF8 = "is not UTF-8; convert the file, for example by `iconv -f latin1 -t utf-8`"


def load_rows(path: str, config: str | None = None, split: str = "train"):
    """A dataset from a `.jsonl`, `.json`, `.csv` or `.parquet` file, or a split of a Hub dataset.

    Args:
        path (`str`): file or Hub id.
        config (`str`, *optional*): configuration of a Hub dataset.
        split (`str`, *optional*, defaults to `"train"`): of a Hub dataset; a file has that one only.

    Raises:
        OSError: if there is no such file or dataset.
        ValueError: for a file of another type; naming the file and the line of a `.jsonl` file that is no JSON object or has another type than the
            lines before it; as `load_file`.
    """
    from datasets import load_dataset

    from boost_trl.hub_names import check_dataset_name

    check_dataset_name(path)
    file_type = type_of_file(path)
    if split != "train" and file_type is not None:
        raise ValueError(f"{path} is a file, which has no split '{split}': name its file instead")
    if path.endswith(".jsonl"):
        return _load_jsonl(path)
    if file_type is not None:
        return load_file(file_type, path)["train"]
    return load_dataset(path, name=config, split=split)


def type_of_file(name: str) -> str | None:
    """Name of the type of a file of rows for `datasets.load_dataset`, `None` for any other name."""
    return _FILE_TYPES.get(Path(name).suffix.lower())


def load_file(file_type: str, path: str, streaming: bool = False):
    """The splits (one, `"train"`) of one file of rows.

    Raises:
        ValueError: for a file without rows, or one that is not of its type, or in another encoding than UTF-8.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    if file_type != "parquet" and not streaming and Path(path).is_file():
        _check_encoding(path)
    try:
        return load_dataset(file_type, data_files=path, streaming=streaming)
    except (StopIteration, ValueError, DatasetGenerationError) as error:
        # What `datasets` says of an empty file differs from type to type.
        if isinstance(error, StopIteration) or not Path(path).stat().st_size or "corresponds to no data" in str(error):
            raise ValueError(f"{path}: the file has no rows") from error
        raise ValueError(f"{path}: cannot be read: {error.__cause__ or error}") from error


def _check_encoding(path: str) -> None:
    """`datasets` lets bytes pass that fail when a row is read."""
    try:
        with open(path, encoding="utf-8") as file:
            while file.read(1 << 20):
                pass
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {_NOT_UTF8}") from error


def _load_jsonl(path: str):
    rows, places = [], []
    # Bytes, because only b"\n" ends a line of such a file: text may hold other line separators.
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            places.append(f"{path}, line {number}")
            try:
                row = json.loads(line)
            except UnicodeDecodeError as error:
                raise ValueError(f"{places[-1]}: {_NOT_UTF8}") from error
            except ValueError as error:
                raise ValueError(f"{places[-1]}: no JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{places[-1]}: is a {type(row).__name__}; each line must be a JSON object")
            rows.append(row)
    if not rows:
        raise ValueError(f"{path}: the file has no rows")
    return dataset_from_rows(rows, places)


def dataset_from_rows(rows: Sequence[dict[str, Any]], places: Sequence[str]):
    """A dataset with the columns of all rows, `None` where a row has no such column.

    Args:
        rows (list of `dict`): the rows.
        places (list of `str`): what messages call each row.

    Raises:
        ValueError: naming the first row and column whose type differs from those of the rows before it.
    """
    from datasets import Dataset
    from pyarrow import ArrowException

    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    try:
        return Dataset.from_dict(columns)
    except (ArrowException, ValueError, TypeError, OverflowError) as error:
        for name, values in columns.items():
            row = _first_of_another_type(values)
            if row is not None:
                raise ValueError(
                    f"{places[row]}, column `{name}`: has another type than in the rows before it: {error}"
                ) from error
        raise


def _first_of_another_type(values: list) -> int | None:
    """The index of the first value that no column holds together with those before it."""
    from bisect import bisect_left

    from datasets import Dataset
    from pyarrow import ArrowException

    def fails(count: int) -> bool:
        try:
            Dataset.from_dict({"column": values[:count]})
        except (ArrowException, ValueError, TypeError, OverflowError):
            return True
        return False

    count = bisect_left(range(len(values) + 1), True, key=fails)
    return count - 1 if count <= len(values) else None


def save_rows(rows, path: str) -> None:
    """Write a dataset to a `.jsonl` or `.parquet` file, with the folders that it needs."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    rows.to_json(path) if path.endswith(".jsonl") else rows.to_parquet(path)


def check_suffix(path: str, suffixes: tuple[str, ...]) -> None:
    """Refuse a file name before any work is done for it."""
    if not path.endswith(suffixes):
        raise ValueError(f"`output_path` must end with {' or '.join(suffixes)}, got {path!r}")
