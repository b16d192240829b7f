"""Weights on streaming data: by the user's row numbers, by source, or fixed."""

import pytest
import torch
from sft_tiny import make_args, make_model, make_rows, make_tokenizer

from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


SOURCES = ["web", "books", "web", "chat"] * 3
LAYOUTS = [{}, {"padding_free": True, "max_length": None}, {"packing": True, "max_length": 12}]


def make_trainer(folder, columns, stream=True, validation=True, **overrides):
    dataset = make_rows(12, columns)
    return BilevelSFTSelfRefineTrainer(
        make_model(attention_dropout=0.0),
        make_args(folder, **{"max_steps": 4, "shuffle_dataset": False, **overrides}),
        train_dataset=dataset.to_iterable_dataset() if stream else dataset,
        processing_class=make_tokenizer(),
        validation_dataset=make_rows(4) if validation else None,
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=["padded", "padding_free", "packed"])
def test_row_numbers_of_the_user_give_the_weights_of_a_plain_dataset(layout, tmp_path):
    numbers = {"row": list(range(12))}
    streamed = make_trainer(tmp_path, numbers, example_id_column="row", num_examples=12, **layout)
    plain = make_trainer(tmp_path, numbers, stream=False, train_sampling_strategy="sequential", **layout)
    for trainer in (streamed, plain):
        trainer.args.logging_strategy = "no"
        trainer.train()
    if "packing" not in layout:  # a stream is packed in other groups
        assert torch.equal(streamed.selector.logits(), plain.selector.logits())
    assert streamed.selector.logits().std() > 0
    assert streamed.example_weights()["index"][:] == list(range(12))


def test_weights_by_source(tmp_path):
    trainer = make_trainer(tmp_path, {"source": SOURCES}, source_names=["books", "chat", "web"])
    seen = []
    update = trainer.selector.update
    trainer.selector.update = lambda ids, losses, gamma: (seen.append(list(ids)), update(ids, losses, gamma))
    trainer.train()
    assert seen[0] == [0, 2]  # web, books, web
    assert trainer.example_weights()["source"][:] == ["books", "chat", "web"]
    assert len(set(trainer.example_weights()["weight"][:])) == 3


@pytest.mark.parametrize("layout", LAYOUTS, ids=["padded", "padding_free", "packed"])
def test_fixed_weights(layout, tmp_path):
    weights = {"weight": [0.0, 1.0, 2.5, 0.3] * 3}
    runs = []
    for stream in (True, False):
        trainer = make_trainer(
            tmp_path, weights, stream, validation=False, train_sampling_strategy="sequential", max_steps=1, **layout
        )
        trainer.train()
        runs.append(trainer.state.log_history[0]["loss"])
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({}, {}, "cannot be told apart"),
        ({"row": [0] * 12}, {"example_id_column": "row"}, "needs `num_examples`"),
        ({}, {"example_id_column": "row", "num_examples": 12}, "no column 'row'"),
        ({}, {"source_names": ["web"]}, "no column 'source'"),
        ({"source": SOURCES}, {"source_names": ["web", "web"]}, "duplicates"),
        ({"weight": [1.0] * 12}, {"source_names": ["web"]}, "cannot have learned weights as well"),
        ({"row": range(12)}, {"example_id_column": "row", "num_examples": 12, "selector": "bmo_exact"}, "bmo_exact"),
        ({"row": range(12)}, {"example_id_column": "row", "num_examples": 12, "label_column": "good"}, "label_column"),
    ],
)
def test_streams_that_cannot_be_weighted(columns, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, columns, **settings)


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"row": [*range(11), 3]}, {"example_id_column": "row", "num_examples": 12}, "Row number 3 comes twice"),
        ({"row": [0, 0, *range(2, 12)]}, {"example_id_column": "row", "num_examples": 12}, "Row number 0 comes twice"),
        ({"row": [12, *range(1, 12)]}, {"example_id_column": "row", "num_examples": 12}, "from 0 to 11, got 12"),
        ({"row": [None, *range(1, 12)]}, {"example_id_column": "row", "num_examples": 12}, "from 0 to 11, got None"),
        ({"source": ["tv", *SOURCES[1:]]}, {"source_names": ["books", "chat", "web"]}, "'tv' of a streamed row"),
    ],
)
def test_wrong_ids_stop_training(columns, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, columns, **settings).train()
