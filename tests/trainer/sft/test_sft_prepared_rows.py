"""Rows with nothing to learn or to answer, against their definition row by row."""

import numpy as np
from datasets import Dataset

from boost_trl.trainer.row_weights.prepared_rows import rows_without_prediction, rows_without_question
from boost_trl.trainer.sft.generation import answer_start


def test_against_every_row():
    draw = np.random.default_rng(0)
    labels = [[int(x) for x in draw.choice([-100, 7], draw.integers(0, 5))] for _ in range(2300)]
    labels += [[], [7], [-100, 7], [7, -100], []]
    dataset = Dataset.from_dict({"labels": labels})
    for shown in (dataset, dataset.shuffle(seed=1), dataset.select(range(900, 2200)), dataset.with_format("torch")):
        rows = shown.with_format(None)["labels"][:]
        questions = [place for place, row in enumerate(rows) if answer_start(row) == 0]
        predictions = [place for place, row in enumerate(rows) if all(label == -100 for label in row[1:])]
        assert rows_without_question(shown).tolist() == questions
        assert rows_without_prediction(shown).tolist() == predictions
    assert len(rows_without_question(dataset.select([]))) == 0
