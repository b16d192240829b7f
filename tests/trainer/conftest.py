import pytest
from offline_rl_tiny import OPTIONS

from boost_trl import BilevelOfflineRLConfig, BilevelOfflineRLTrainer


@pytest.fixture
def make_trainer(tmp_path, make_tiny_model, make_dialogues, tiny_tokenizer):
    def make(
        model=None, train=None, validation=None, trainer_class=BilevelOfflineRLTrainer, arguments=None, **options
    ):
        options = {"output_dir": str(tmp_path / "out"), "cache_dir": str(tmp_path / "cache"), **OPTIONS, **options}
        args = BilevelOfflineRLConfig(**options)
        if validation is None and args.method != "vanilla":
            validation = make_dialogues(12, seed=2)
        defaults = {
            "train_dataset": make_dialogues(32, seed=1) if train is None else train,
            "processing_class": tiny_tokenizer,
            "validation_dataset": validation,
        }
        return trainer_class(make_tiny_model() if model is None else model, args, **{**defaults, **(arguments or {})})

    return make
