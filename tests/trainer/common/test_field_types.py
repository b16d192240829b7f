import numpy as np
import pytest

from boost_trl import BilevelDPOConfig, BilevelOfflineRLConfig, BilevelSFTSelfRefineConfig


@pytest.mark.parametrize(
    ("config", "name", "value", "message"),
    [
        (BilevelOfflineRLConfig, "train_backbone", "no", "must be True or False, got 'no'"),
        (BilevelOfflineRLConfig, "beta", None, "must be a finite number, got None"),
        (BilevelOfflineRLConfig, "max_new_tokens", 1.5, "must be a whole number, got 1.5"),
        (BilevelOfflineRLConfig, "value_head_rank", True, "must be a whole number or None, got True"),
        (BilevelOfflineRLConfig, "cache_dir", 3, "must be text or None, got 3"),
        (BilevelOfflineRLConfig, "model_init_kwargs", "bf16", "must be a dict, or one as JSON, got 'bf16'"),
        (BilevelSFTSelfRefineConfig, "source_names", "a", "must be a list of text or None, got 'a'"),
        (BilevelSFTSelfRefineConfig, "source_names", ["a", 3], r"must be a list of text or None, got \['a', 3\]"),
        (BilevelSFTSelfRefineConfig, "selector_max_step", "far", "must be a number, got 'far'"),
        (BilevelSFTSelfRefineConfig, "weight_column", 3, "must be text or None, got 3"),
        (BilevelSFTSelfRefineConfig, "vllm_gpu_memory_utilization", 30, r"must be in \(0, 1\], got 30"),
        (BilevelDPOConfig, "selection_guard", 0, "must be True or False, got 0"),
    ],
)
def test_values_of_another_type_are_refused_by_name(config, name, value, message, tmp_path):
    with pytest.raises(ValueError, match=f"^`{name}` {message}$"):
        config(str(tmp_path), use_cpu=True, bf16=False, **{name: value})


def test_numbers_of_numpy_and_whole_ones_for_real_ones_are_taken(tmp_path):
    config = BilevelOfflineRLConfig(
        str(tmp_path), use_cpu=True, bf16=False, beta=np.float32(2), guard_folds=np.int64(3)
    )
    assert config.beta == 2 and config.guard_folds == 3
    assert BilevelOfflineRLConfig(str(tmp_path), use_cpu=True, bf16=False, cql_weight=10).cql_weight == 10
