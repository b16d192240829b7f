"""Weights on streaming data: by the user's row numbers, by source, or fixed."""

import pytest
import torch
from datasets import IterableDataset
from sft_tiny import make_args, make_model, make_rows, make_tokenizer, sentence
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig
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


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.1] * 4 + [0.2] * 4 + [0.3] * 2),
        ({"gradient_accumulation_steps": 2}, [0.1] * 2 + [0.2] * 2 + [0.3] * 2 + [0.4] * 2 + [0.5] * 2),
        ({"gradient_accumulation_steps": 3, "max_steps": 4}, [0.1, 0.2, 0.3, 0.4]),
        ({"per_device_train_batch_size": 5, "dataloader_drop_last": True, "max_steps": 4}, [0.1, 0.1, 0.1, 0.2]),
        ({"per_device_train_batch_size": 5}, [0.1] * 3 + [0.2] * 3 + [0.3] * 3 + [0.4]),
    ],
)
@pytest.mark.parametrize("by", ["row", "source"])
def test_rho_grows_with_each_pass_over_a_stream_of_known_length(by, settings, expected, tmp_path):
    columns = {"row": list(range(12)), "source": SOURCES}
    named = {"row": {"example_id_column": "row"}, "source": {"source_names": ["books", "chat", "web"]}}[by]
    trainer = make_trainer(tmp_path, columns, num_examples=12, **named, **{"max_steps": 10, **settings})
    passes, callback = [], TrainerCallback()
    callback.on_epoch_begin = lambda args, state, control, **kwargs: passes.append(state.global_step)
    trainer.add_callback(callback)
    trainer.train()
    rhos = [entry["rho"] for entry in trainer.state.log_history if "rho" in entry]
    assert rhos == pytest.approx(expected)
    assert passes == [step for step in range(len(expected)) if step == 0 or expected[step] != expected[step - 1]]


def test_rho_of_a_stream_is_checked_before_it_starts_and_stays_without_a_length(tmp_path):
    rows = {"row": list(range(12)), "source": SOURCES}
    trainer = make_trainer(tmp_path, rows, example_id_column="row", num_examples=12, max_steps=9, rho_increment=0.5)
    with pytest.raises(ValueError, match="in epoch 3"):
        trainer.train()
    assert trainer.state.global_step == 0
    trainer = make_trainer(tmp_path, rows, source_names=["books", "chat", "web"], max_steps=9)
    trainer.train()
    assert {entry["rho"] for entry in trainer.state.log_history if "rho" in entry} == {0.1}


def test_weights_by_source(tmp_path):
    trainer = make_trainer(tmp_path, {"source": SOURCES}, source_names=["books", "chat", "web"])
    seen = []
    update = trainer.selector.update
    trainer.selector.update = lambda ids, losses, gamma: (seen.append(list(ids)), update(ids, losses, gamma))
    trainer.train()
    assert seen[0] == [0, 2]  # web, books, web
    assert trainer.example_weights()["source"][:] == ["books", "chat", "web"]
    assert len(set(trainer.example_weights()["weight"][:])) == 3


@pytest.mark.parametrize("layout", LAYOUTS[:2], ids=["padded", "padding_free"])
@pytest.mark.parametrize("settings", [{}, {"selector": "bmo"}, {"selector_loss_at": "updated"}])
def test_summed_losses_by_source_are_means_over_rows(layout, settings, tmp_path):
    """Five alike rows of one source and one of another have the same C, over two micro-batches."""
    rows = [{"text": sentence(4, 6), "source": "web" if i < 5 else "books"} for i in range(6)]
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(attention_dropout=0.0),
        make_args(
            tmp_path,
            source_names=["books", "web"],
            selection_loss="sum",
            gradient_accumulation_steps=2,
            max_steps=2,
            **settings,
            **layout,
        ),
        train_dataset=IterableDataset.from_generator(lambda: iter(rows)),
        processing_class=make_tokenizer(),
        validation_dataset=make_rows(4),
    )
    seen, update = [], trainer.selector.update
    trainer.selector.update = lambda ids, losses, gamma: (seen.append(losses), update(ids, losses, gamma))
    trainer.train()
    assert len(seen) == 2 and all(len(losses) == 2 and losses[0] > 15 for losses in seen)
    for losses in seen:
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("settings", [{}, {"packing": True, "max_length": 12}], ids=["padded", "packed"])
def test_an_empty_stream(settings, tmp_path):
    with pytest.raises(ValueError, match="streaming `train_dataset` is empty"):
        BilevelSFTSelfRefineTrainer(
            make_model(),
            make_args(tmp_path, example_id_column="row", num_examples=4, **settings),
            train_dataset=IterableDataset.from_generator(lambda: iter(())),
            processing_class=make_tokenizer(),
            validation_dataset=make_rows(4),
        )


def test_without_a_weight_column_no_row_is_read_that_trl_does_not_read(tmp_path):
    read = []

    def rows():
        for i in range(6):
            read.append(i)
            yield {"text": sentence(i, 4)}

    counts = []
    for cls, config, settings in (
        (SFTTrainer, SFTConfig, {}),
        (BilevelSFTSelfRefineTrainer, BilevelSFTSelfRefineConfig, {}),
    ):
        read.clear()
        stream = IterableDataset.from_generator(rows)
        cls(
            make_model(),
            make_args(tmp_path, config, **settings),
            train_dataset=stream,
            processing_class=make_tokenizer(),
        )
        counts.append(len(read))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("layout", LAYOUTS, ids=["padded", "padding_free", "packed"])
def test_fixed_weights(layout, tmp_path):
    weights = {"weight": [0.0, 1.0, 2.5, 0.3] * 3}
    runs = []
    for stream in (True, False):
        trainer = make_trainer(
            tmp_path,
            weights,
            stream,
            validation=False,
            weight_column="weight",
            train_sampling_strategy="sequential",
            max_steps=1,
            **layout,
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
        (
            {"source": SOURCES},
            {"source_names": ["web"], "packing": True, "max_length": 12, "selection_loss": "sum"},
            "`packing` does not keep where rows end",
        ),
        (
            {"weight": [1.0] * 12, "source": ["web"] * 12},
            {"source_names": ["web"], "weight_column": "weight"},
            "cannot have learned weights as well",
        ),
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
        ({"row": [*range(11), 3]}, {"example_id_column": "row", "num_examples": 12}, "row number 3 comes twice"),
        ({"row": [0, 0, *range(2, 12)]}, {"example_id_column": "row", "num_examples": 12}, "row number 0 comes twice"),
        (
            {"row": [*range(11), 3]},
            {"example_id_column": "row", "num_examples": 12, "packing": True, "max_length": 12},
            "row number 3 comes twice",
        ),
        (
            {"row": [12, *range(1, 12)]},
            {"example_id_column": "row", "num_examples": 12},
            "row 0, column 'row': is 12; .* from 0 to 11",
        ),
        (
            {"row": [None, *range(1, 12)]},
            {"example_id_column": "row", "num_examples": 12},
            "row 0, column 'row': is None; .* from 0 to 11",
        ),
        (
            {"source": ["tv", *SOURCES[1:]]},
            {"source_names": ["books", "chat", "web"]},
            "row 0, column 'source': 'tv' is not in",
        ),
    ],
)
def test_wrong_ids_stop_training(columns, settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, columns, **settings).train()
