"""Malformed datasets and configurations, drawn by hypothesis: each is refused in one line that names dataset, row and field."""

import copy

import pytest
from datasets import Dataset
from dpo_tiny import make_dpo_args, make_preferences
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from malformed_input import CELLS, wrong_settings
from offline_rl_tiny import OPTIONS
from sft_tiny import make_args, make_conversations, make_model, make_pairs, make_rows, make_tokenizer

from boost_trl import (
    BilevelDPOConfig,
    BilevelDPOTrainer,
    BilevelOfflineRLConfig,
    BilevelOfflineRLTrainer,
    BilevelSFTSelfRefineConfig,
    BilevelSFTSelfRefineTrainer,
)
from boost_trl.trainer.dpo.settings import DPOSettings
from boost_trl.trainer.offline_rl.settings import OfflineRLSettings
from boost_trl.trainer.sft.settings import SFTSelfRefineSettings


DIALOGUE = {
    "messages": [{"role": "user", "content": "yes ."}, {"role": "assistant", "content": "is it big ?"}],
    **{"rewards": [-1.0], "terminated": True, "category": "things", "source": "offline"},
}
TURN = {"prompt": "yes .", "completion": "is it big ?", "reward": 1.0}
# (trainer, rows, how many malformed ones are drawn); 500 in all with the configurations below.
KINDS = {
    "trajectories": ("offline_rl", [DIALOGUE] * 6, 110),
    "turns": ("offline_rl", [TURN] * 6, 50),
    "text": ("sft", make_rows(6, {"weight": [1.0] * 6}).to_list(), 45),
    "pairs": ("sft", make_pairs(6).to_list(), 40),
    "conversations": ("sft", make_conversations(6).to_list(), 50),
    "tokens": ("sft", [{"input_ids": [4, 5, 6], "labels": [-100, 5, 6]}] * 6, 45),
    "preferences": ("dpo", make_preferences(6).to_list(), 40),
}
CONFIGURATIONS = {
    "offline_rl": (BilevelOfflineRLConfig, OfflineRLSettings, (), 50),
    "sft": (BilevelSFTSelfRefineConfig, SFTSelfRefineSettings, ("validation_loss",), 50),
    "dpo": (BilevelDPOConfig, DPOSettings, (), 20),
}


def drawn(count):
    """As many examples, the same in each run."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def refusal(run) -> str:
    """The one line with which `run` is refused."""
    with pytest.raises((ValueError, TypeError)) as caught:
        run()
    message = str(caught.value)
    assert message and "\n" not in message, message
    assert any("boost_trl" in str(entry.path) for entry in caught.traceback[-1:]), f"from below: {message}"
    return message


@pytest.fixture
def make(tmp_path, make_tiny_model, tiny_tokenizer):
    """A function of the trainer's name that makes it, with models that are made once."""
    tiny, llama, tokenizer = make_tiny_model(), make_model(), make_tokenizer()
    reference = make_model()

    def offline_rl(**datasets):
        options = {**OPTIONS, "output_dir": str(tmp_path), "cache_dir": str(tmp_path / "cache")}
        return BilevelOfflineRLTrainer(
            copy.deepcopy(tiny), BilevelOfflineRLConfig(**options), processing_class=tiny_tokenizer, **datasets
        )

    def sft(**datasets):
        weighted = "weight" in datasets["train_dataset"].column_names
        args = make_args(tmp_path, **({"weight_column": "weight"} if weighted else {}))
        return BilevelSFTSelfRefineTrainer(llama, args, processing_class=tokenizer, **datasets)

    def dpo(**datasets):
        args = make_dpo_args(tmp_path)
        return BilevelDPOTrainer(llama, ref_model=reference, args=args, processing_class=tokenizer, **datasets)

    return {"offline_rl": offline_rl, "sft": sft, "dpo": dpo}


def dataset_with(rows, row, column, cell):
    """A dataset in which that cell is what is given, where tables of rows hold it so."""
    rows = [{**good, column: cell} if index == row else good for index, good in enumerate(rows)]
    try:
        dataset = Dataset.from_list(rows, on_mixed_types="use_json")
    except Exception:  # pyarrow holds no such column: there is no dataset to refuse
        assume(False)
    assume(repr(dataset[row][column]) == repr(cell))
    return dataset


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_rows(kind, make):
    trainer, good, count = KINDS[kind]
    refused = []

    @drawn(count)
    @given(data=st.data())
    def check(data):
        place = data.draw(st.sampled_from(["train_dataset", "validation_dataset"]))
        column = data.draw(st.sampled_from([*CELLS[kind]]))
        assume(column != "weight" or place == "train_dataset")
        row, cell = data.draw(st.integers(0, len(good) - 1)), data.draw(CELLS[kind][column])
        datasets = {name: Dataset.from_list(good) for name in ("train_dataset", "validation_dataset")}
        datasets[place] = dataset_with(good, row, column, cell)
        message = refusal(lambda: make[trainer](**datasets))
        assert place in message and f"row {row}" in message and column in message, message
        refused.append(message)

    check()
    assert len(refused) >= count and len(set(refused)) > count / 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_configurations(kind, tmp_path):
    config, own, free, count = CONFIGURATIONS[kind]
    refused = []

    @drawn(count)
    @given(wrong=wrong_settings(own, free))
    def check(wrong):
        name, value = wrong
        message = refusal(lambda: config(str(tmp_path), use_cpu=True, bf16=False, **{name: value}))
        assert message.startswith(f"`{name}` must be") and repr(value) in message, message
        refused.append(message)

    check()
    assert len(refused) >= count and len(set(refused)) > count / 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_good_rows_are_taken(kind, make):
    trainer, good, _ = KINDS[kind]
    make[trainer](train_dataset=Dataset.from_list(good), validation_dataset=Dataset.from_list(good))
