"""A comparison of methods of supervised fine-tuning on a pool and trusted rows of one's own."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from trl import ModelConfig, get_peft_config

from boost_trl.comparison.cells import Cell
from boost_trl.comparison.models import files_fingerprint, load_model, load_tokenizer
from boost_trl.comparison.own_data.estimate import FORWARD_SHARE, Estimate, Stopwatch
from boost_trl.comparison.own_data.own_data import ALL_TRUSTED, OwnData, num_updates
from boost_trl.comparison.own_data.row_format import LABEL, sft_rows
from boost_trl.comparison.own_data.trusted_split import check_split
from boost_trl.comparison.own_data.verdict import Judgement
from boost_trl.comparison.results import Result
from boost_trl.comparison.sft.comparison import SFTComparison, options_of
from boost_trl.comparison.sft.experiment import SFTExperiment
from boost_trl.comparison.sft.methods import SFT_METHODS
from boost_trl.comparison.sft.training import stage_updates, train_and_evaluate
from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig
from boost_trl.trainer.common.weight_files import EXAMPLE_WEIGHTS_NAME
from boost_trl.trainer.row_weights.scoring_budget import ScoringBudget


# Equal weights: what every selector does in an update.
_TIMED, _TIMED_UPDATES = "mixing_eight", 3
# What methods set, or what would be in their way.
_FIXED = {
    "selector": "methods do",
    "online_ratio": "methods do",
    "weight_column": "weights are what is compared",
    "eval_packing": "rows are judged one by one",
    "push_to_hub": "models that lose are not worth it; upload `model/` when you have read the report",
}


def _content(row: dict[str, Any]) -> str:
    """All that is trained on."""
    return json.dumps({name: value for name, value in row.items() if name != LABEL}, sort_keys=True, default=str)


class SFTOwnData(OwnData):
    """As [`OwnData`].

    Args:
        pool (`Dataset`), trusted (`Dataset`): rows of one format that SFT reads.
        names (`tuple[str, str]`): what messages call them.
        args ([`BilevelSFTSelfRefineConfig`]): what all methods share; `output_dir` gets the results.
        model_args ([`~trl.ModelConfig`]): what they start from.
        judging_share (`float`): of the trusted rows.

    Raises:
        ValueError: for rows that cannot be read or differ in format, or an option that cannot be used here.
    """

    default_methods = ("sft", "two_stage", "trusted_only", "mixing_eight", "finish", "validated")
    plain = "sft"

    def __init__(
        self,
        pool: Dataset,
        trusted: Dataset,
        names: tuple[str, str],
        args: BilevelSFTSelfRefineConfig,
        model_args: ModelConfig,
        judging_share: float,
    ):
        self.take(*sft_rows(pool, trusted, *names, args.dataset_text_field), names, _content)
        self.groups = range(len(self.trusted))
        check_split(self.groups, judging_share, names[1])
        self.args, self.model_args, self.judging_share = args, model_args, judging_share
        self.num_updates = num_updates(args, len(self.pool))
        self.options = options_of(args) | {"max_steps": self.num_updates}
        for name, why in _FIXED.items():
            if name in self.options:
                raise ValueError(f"`{name}` cannot be set here, because {why}; leave it out")
        if args.packing:
            if args.max_steps <= 0:
                raise ValueError("`packing` leaves open how many updates an epoch has; give `max_steps`")
            self.options["eval_packing"] = False
        self.tokenizer, self.model_name = load_tokenizer(model_args), f"{model_args!r} {files_fingerprint(model_args)}"
        self._check_chat_template()
        self.comparison = SFTComparison(
            args.output_dir, self.options, self._experiment, keeps=lambda cell: cell.setting == ALL_TRUSTED
        )

    def _check_chat_template(self) -> None:
        chats = [name for name in self.pool.column_names if not isinstance(self.pool[0][name], str | bool)]
        if chats and self.tokenizer.chat_template is None:
            raise ValueError(
                f"column `{chats[0]}` holds messages, and the tokenizer of {self.model_args.model_name_or_path} has no chat "
                "template; name an instruction-tuned model, or give rows of text"
            )

    def _experiment(self, cell: Cell) -> SFTExperiment:
        validation, evaluation = self.split(cell)
        return SFTExperiment(
            make_model=lambda: load_model(self.model_args, self.args),
            tokenizer=self.tokenizer,
            pool=self.pool,
            validation=validation,
            evaluation=evaluation,
            make_peft_config=lambda: get_peft_config(self.model_args),
            model_name=self.model_name,
        )

    def estimate(self, methods: Sequence[str]) -> Estimate:
        experiment, watch = self.comparison.experiment(Cell(_TIMED, 0)), Stopwatch()
        options = self.options | {"max_steps": 1 + _TIMED_UPDATES, "disable_tqdm": True, "logging_strategy": "no"}
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            train_and_evaluate(
                SFT_METHODS[_TIMED], experiment, self.pool, options, place, 0, keeps_model=False, advance=watch
            )
        beside, update = watch.seconds_beside, watch.seconds_of_an_update
        return Estimate({name: beside + update * self._num_updates(name) for name in methods}, watch.memory)

    def _num_updates(self, name: str) -> float:
        """Updates that take as long as a method's training and scoring."""
        method, args = SFT_METHODS[name], self.args
        if method.stages:
            return self.num_updates * sum(share for share, _ in method.stages)
        rows = args.per_device_train_batch_size
        # Of each process; every one of them adapts to all trusted rows, and reads its part of the pool.
        rows = (rows + (args.per_device_validation_batch_size or rows)) * args.gradient_accumulation_steps
        read = FORWARD_SHARE * len(self.pool) / args.world_size / rows
        if method.lowest_losses is not None:
            return 2 * self.num_updates + read
        if method.options.get("selector") != "validated":
            return self.num_updates
        batch_size = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        budget = ScoringBudget.of(self.num_updates, args.selection_guard, batch_size)
        num_trusted = len(self.trusted) - len(self.judging_rows(0))
        trained, only_read = budget.num_rows(len(self.pool), num_trusted, method.options.get("selection_rounds", 1))
        return self.num_updates + trained / rows + FORWARD_SHARE * only_read / args.world_size / rows

    def why_impossible(self, method: str) -> str | None:
        if SFT_METHODS[method].known_good and LABEL not in self.pool.column_names:
            return f"needs to know which rows are good, a boolean column `{LABEL}`"
        if 0 in stage_updates(SFT_METHODS[method].stages, self.num_updates):
            return f"trains in stages, and {self.num_updates} updates (`max_steps`) are too few for these"
        if SFT_METHODS[method].lowest_losses is not None and self.args.packing:
            return "looks at the losses of single rows, which `packing` joins"
        return None

    def weighted(self, method: str) -> bool:
        return SFT_METHODS[method].learns_weights

    def chooses(self, method: str) -> bool:
        return SFT_METHODS[method].options.get("selector") == "validated"

    def judgement(self, results: Sequence[Result]) -> Judgement:
        values = self.values_by_row(results, lambda result: (self.judging_rows(result.seed), result["eval_losses"]))
        return Judgement(values, *self.weighted_and_equal(results), measure="loss", unit=" nats per token")

    def prepare_kept(self, results: Sequence[Result]) -> None:
        """Nothing: a model of SFT has no β."""

    def judged_on(self, results: Sequence[Result]) -> str:
        seeds = len({result.seed for result in results})
        splits = f", in each of {seeds} splits" if seeds > 1 else ""
        return f"{len(results[0]['eval_losses'])} trusted rows that no method saw{splits}"

    def scores(self, cell: Cell) -> np.ndarray:
        return pd.read_parquet(self.comparison.run_folder(cell) / EXAMPLE_WEIGHTS_NAME)["score"].to_numpy()

    def confidence(self, results: Sequence[Result]) -> str | None:
        agreements = [
            result["selection_report"]["agreement"]["auc"]
            for result in results
            if result["selection_report"] is not None
        ]
        ranks = [result["weight_confidence"] for result in results if result["weight_confidence"] is not None]
        parts = []
        if agreements:
            parts.append(
                f"two halves of the trusted rows agree on its rows with an AUC of {np.mean(agreements):.2f} (chance .50)"
            )
        if ranks:
            parts.append(
                f"a trusted row that had no part in the weights is ahead of {np.mean([rank['auc'] for rank in ranks]):.0%} of the "
                f"pool (chance {0.5:.0%} ± {np.mean([rank['chance_error'] for rank in ranks]):.0%})"
            )
        if not parts:
            return None
        is_chance = sum(rank["is_near_chance"] for rank in ranks) * 2 > len(ranks)
        warning = ": near chance, so do not trust weights and worst rows" if is_chance else ""
        return f"How sure the weights of the pool are: {', and '.join(parts)}{warning}."
