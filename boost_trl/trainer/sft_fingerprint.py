"""What tells two datasets apart in a checkpoint."""

import hashlib

import numpy as np
from datasets import Dataset

from boost_trl.trainer.sft_example_ids import EXAMPLE_ID


def fingerprint(dataset: Dataset) -> str:
    """
    A hash of all rows in their order, without row numbers of ours.

    It depends on what the rows hold only, not on how they are stored: chunks, files, and `select` or `shuffle` before or
    after they were written. It reads the whole dataset once: about 0.3 s for a million short texts, 2.5 s if they were
    shuffled.
    """
    columns = sorted(set(dataset.column_names) - {EXAMPLE_ID})
    digest = hashlib.sha256(repr([len(dataset), columns]).encode())
    for table in dataset.with_format("arrow", columns=columns).iter(batch_size=1000):
        # Taken, not sliced: what Arrow writes of a slice ends with bytes of its neighbours.
        rows = table.select(columns).take(np.arange(len(table))).combine_chunks()
        digest.update(rows.to_batches()[0].serialize())
    return digest.hexdigest()[:32]
