"""Names that the pages published before they were changed: each still works, and warns."""

import sys
from importlib import import_module

import pytest

from boost_trl.trainer.sft import evaluation


def test_the_old_module_of_row_losses():
    sys.modules.pop("boost_trl.trainer.sft_evaluation", None)  # an earlier import would already have warned
    with pytest.warns(FutureWarning, match="boost_trl.trainer.sft.evaluation"):
        assert import_module("boost_trl.trainer.sft_evaluation").row_losses is evaluation.row_losses
