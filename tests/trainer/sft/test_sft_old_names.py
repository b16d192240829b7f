"""Names that the pages published before they were changed: each still works, and warns."""

import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
from sft_tiny import make_args


def test_the_old_module_of_row_losses(monkeypatch):
    sys.modules.pop("boost_trl.trainer.sft_evaluation", None)  # an earlier import would already have warned
    with pytest.warns(FutureWarning, match="boost_trl.trainer.sft.evaluation"):
        old = import_module("boost_trl.trainer.sft_evaluation")
    monkeypatch.setattr(old, "mean_nll_per_row", lambda *given: given)
    args = SimpleNamespace(per_device_eval_batch_size=3)
    trainer = SimpleNamespace(model="model", processing_class=SimpleNamespace(pad_token_id=7), args=args)
    assert old.row_losses(trainer, "rows") == ("model", "rows", 7, 3)


def test_the_old_name_of_the_mask(tmp_path):
    with pytest.warns(FutureWarning, match="`mask` is now `online_mask`"):
        args = make_args(tmp_path, online_ratio=0.5, mask="dynamic")
    assert (args.online_mask, args.mask) == ("dynamic", None)
    with pytest.raises(ValueError, match="they are one setting"), pytest.warns(FutureWarning):
        make_args(tmp_path, online_ratio=0.5, mask="random", online_mask="dynamic")
