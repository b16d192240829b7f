import pytest

from boost_trl import BilevelOfflineRLConfig, BilevelSFTSelfRefineConfig
from boost_trl.trainer.offline_rl.settings import OfflineRLSettings


@pytest.mark.parametrize("config", [BilevelOfflineRLConfig, BilevelSFTSelfRefineConfig])
@pytest.mark.parametrize(
    "name, value",
    [
        *(("per_device_train_batch_size", 0), ("per_device_eval_batch_size", -1), ("gradient_accumulation_steps", 0)),
        *(("learning_rate", -1.0), ("learning_rate", float("nan")), ("learning_rate", True), ("weight_decay", -0.1)),
        *(("max_steps", 1.5), ("max_steps", None)),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(config, name, value, tmp_path):
    with pytest.raises(ValueError, match=f"`{name}` must be .*, got {value}"):
        config(str(tmp_path), use_cpu=True, bf16=False, **{name: value})


def test_the_settings_that_are_parsed_early_refuse_a_learning_rate():
    with pytest.raises(ValueError, match="`learning_rate` must be"):
        OfflineRLSettings(learning_rate=-1.0)
