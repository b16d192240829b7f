"""What tells two datasets apart in a checkpoint."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from boost_trl.trainer.sft_example_ids import EXAMPLE_ID


def fingerprint(dataset: Dataset) -> str:
    """
    A hash of all rows in their order, without row numbers of ours.

    It depends on what the rows hold only, not on how they were read or stored: CSV, JSON, Parquet or pandas, whose types of
    text and numbers differ, chunks, files, and `select` or `shuffle` before or after they were written. It reads the
    whole dataset once: about 0.1 s for a million short texts, 3 s if they were shuffled.
    """
    columns = sorted(set(dataset.column_names) - {EXAMPLE_ID})
    digest = hashlib.sha256(repr([len(dataset), columns]).encode())
    for table in dataset.with_format("arrow", columns=columns).iter(batch_size=1000):
        for column in columns:
            _add(digest, table[column].combine_chunks())
    return digest.hexdigest()[:32]


def _add(digest, array: pa.Array) -> None:
    """Take in which values are missing, then the others, as text, numbers or booleans, or as what they consist of."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _add(digest, array.storage)
    if pa.types.is_dictionary(kind):
        return _add(digest, array.dictionary_decode())
    is_missing = np.asarray(array.is_null())
    digest.update(np.packbits(is_missing))
    if is_missing.all():
        return None  # of any type
    array = array.drop_null()
    if pa.types.is_struct(kind):
        for field in sorted(kind, key=lambda field: field.name):
            values = pc.struct_field(array, field.name)
            if values.null_count < len(values):  # one that no row has is none
                digest.update(repr(field.name).encode())
                _add(digest, values)
    elif pa.types.is_nested(kind) and not pa.types.is_map(kind) and not pa.types.is_union(kind):
        digest.update(b"list" + pc.list_value_length(array).to_numpy().astype(np.int64).tobytes())
        _add(digest, array.flatten())
    elif pa.types.is_boolean(kind):
        digest.update(b"bool" + np.packbits(np.asarray(array)).tobytes())
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        digest.update(b"number" + _numbers(array).tobytes())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        _add_bytes(digest, b"text", array)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        _add_bytes(digest, b"bytes", array)
    else:
        digest.update(repr(array.to_pylist()).encode())
    return None


def _add_bytes(digest, kind: bytes, array: pa.Array) -> None:
    array = pc.cast(array, pa.large_binary())
    _, offsets, values = array.buffers()
    bounds = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    digest.update(kind + np.diff(bounds).tobytes())
    digest.update(memoryview(values)[bounds[0] : bounds[-1]])


def _numbers(array: pa.Array) -> np.ndarray:
    """float64, as readers make whole numbers where some are missing; int64 or uint64 where that would round them."""
    if not pa.types.is_integer(array.type):
        return np.asarray(array).astype(np.float64)
    try:
        return np.asarray(pc.cast(array, pa.float64()))
    except pa.ArrowInvalid:
        return np.asarray(array)
