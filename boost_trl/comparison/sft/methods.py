"""The rows of a comparison of supervised fine-tuning: choices of rows and of a few settings."""

from dataclasses import dataclass

from boost_trl.comparison.cells import Method
from boost_trl.trainer.row_weights.results import DEFAULT_WEIGHT_COLUMN


@dataclass(frozen=True)
class SFTMethod(Method):
    """One row of a comparison; `options` are fields of [`BilevelSFTSelfRefineConfig`], and of `needs` it takes the final
    weights and holds them fixed.

    Args:
        known_good (`bool`, *optional*): train on the pool's good rows only: the bar to approach.
        plain (`bool`, *optional*): TRL's `SFTTrainer` on pool and validation rows together.
        stages (`tuple`, *optional*): TRL's `SFTTrainer` on batches that are planned: per stage its share of the updates, and
            the share of trusted rows in its batches. The updates that are left are not made.
        lowest_losses (`float`, *optional*): train on this share of the pool's rows only, those that have the lowest losses
            after TRL's `SFTTrainer` has trained on the pool: a filter that sees no trusted row.
    """

    known_good: bool = False
    plain: bool = False
    stages: tuple[tuple[float, float], ...] = ()
    lowest_losses: float | None = None

    @property
    def is_trl(self) -> bool:
        """Whether [`~trl.SFTTrainer`] trains it, without weights."""
        return self.plain or bool(self.stages)

    @property
    def learns_weights(self) -> bool:
        """Whether rows' weights are learned from the validation set, or such weights taken."""
        is_equal = self.options.get("selector", "rank") in ("uniform", "mixing") and self.needs is None
        return not (self.is_trl or is_equal)


RANK_TOKEN = {"selector": "rank", "selector_baseline": "token", "keep_fraction": 0.3}
VALIDATED = {"selector": "validated", "selection_rounds": 3}
RAW = {"selector_baseline": None}
BDS = {"selector": "bds", **RAW}

_EVEN = "all rows of the pool weigh the same"
_KNOWN = "if one knew which rows are good: a bar to reach, not a method"

SFT_METHODS = {
    method.name: method
    for method in (
        SFTMethod(
            "sft", "Plain SFT, all rows", plain=True, about="plain training: pool and trusted rows together, all alike"
        ),
        SFTMethod(
            "trusted_only",
            "Trusted rows only, a third of the updates",
            stages=((1 / 3, 1.0),),
            about="no row of the pool, and a third of the updates, since few rows are soon known by heart",
        ),
        SFTMethod(
            "two_stage",
            "Two-stage: pool, then trusted rows",
            stages=((0.5, 0.0), (0.5, 1.0)),
            about="the first half of the updates on the pool, the second on the trusted rows",
        ),
        SFTMethod(
            "finish",
            "20 % trusted rows, at last only these",
            stages=((0.7, 0.2), (0.3, 1.0)),
            about="a fifth of every batch are trusted rows, and the last 30 % of the updates have no others",
        ),
        SFTMethod(
            "low_loss",
            "Low-loss filter, 40 %",
            {"selector": "mixing", "rho_init": 0.8},
            lowest_losses=0.4,
            about="only the rows of the pool that a model trained on it finds likeliest",
        ),
        SFTMethod(
            "mixing_eight",
            "Equal weights, ρ=.8",
            {"selector": "mixing", "rho_init": 0.8},
            about=f"{_EVEN}, and trusted rows have a fifth of the loss",
        ),
        SFTMethod(
            "validation_only", "Validation only", {"selector": "mixing", "rho_init": 0.0}, about="trusted rows alone"
        ),
        SFTMethod(
            "mixing_half",
            "Mixing ρ=.5",
            {"selector": "mixing", "rho_init": 0.5},
            about=f"{_EVEN}, and trusted rows have half of the loss",
        ),
        SFTMethod(
            "mixing_one",
            "Mixing ρ=1",
            {"selector": "mixing", "rho_init": 1.0},
            about=f"{_EVEN}, no trusted row is used",
        ),
        SFTMethod(
            "uniform",
            "Uniform, same ρ",
            {"selector": "uniform"},
            about=f"{_EVEN}, on the schedule of BDS, BMO and Rank: trusted rows first, then more and more of the pool",
        ),
        SFTMethod(
            "validated",
            "Validated",
            VALIDATED,
            about="rows of the pool weigh more the more they agree with what the trusted rows teach, trusted rows have a fifth of the "
            "loss",
        ),
        SFTMethod(
            "validated_once",
            "Validated, scored once",
            {**VALIDATED, "selection_rounds": 1},
            about="the same, scored before training only",
        ),
        SFTMethod(
            "bds",
            "BDS",
            BDS,
            about="bilevel data selection, the paper's: rows of low loss gain weight while training goes on",
        ),
        SFTMethod(
            "bds_adam", "BDS, the paper's Adam", {**BDS, "selector_optimizer": "adam"}, about="with dense Adam steps"
        ),
        SFTMethod(
            "bds_token",
            "BDS + token baseline",
            {**BDS, "selector_baseline": "token"},
            about="with losses compared token by token, so that long answers are not at a disadvantage",
        ),
        SFTMethod(
            "bmo",
            "BMO",
            {"selector": "bmo", **RAW},
            about="bilevel multi-objective, the paper's: weights in closed form of the loss",
        ),
        SFTMethod(
            "bmo_exact", "BMO, exact", {"selector": "bmo_exact", **RAW}, about="with the losses of all rows every time"
        ),
        SFTMethod(
            "rank",
            "Rank",
            {"selector": "rank", "keep_fraction": 0.3, **RAW},
            about="the 30 % of rows of the lowest losses count, softly",
        ),
        SFTMethod("rank_token", "Rank + token baseline", RANK_TOKEN, about="with losses compared token by token"),
        SFTMethod(
            "second_pass",
            "Its weights, second pass",
            {"selector": "uniform", "weight_column": DEFAULT_WEIGHT_COLUMN},
            needs="rank_token",
            about="a new model trained with the final weights of Rank + token baseline",
        ),
        SFTMethod(
            "online_5",
            "Online 5 %",
            {**BDS, "online_ratio": 0.05},
            about="BDS, and the model answers so many of the questions anew (self-refining)",
        ),
        SFTMethod("online_10", "Online 10 %", {**BDS, "online_ratio": 0.1}),
        SFTMethod("online_10_g2", "Online 10 %, G=2", {**BDS, "online_ratio": 0.1, "num_generations": 2}),
        SFTMethod("online_10_g5", "Online 10 %, G=5", {**BDS, "online_ratio": 0.1, "num_generations": 5}),
        SFTMethod("online_dynamic", "Online 10 %, dynamic", {**BDS, "online_ratio": 0.1, "online_mask": "dynamic"}),
        SFTMethod(
            "known_good_mixed",
            "Known-good rows, ρ=.8",
            {"selector": "mixing", "rho_init": 0.8},
            known_good=True,
            about=f"equal weights, {_KNOWN}",
        ),
        SFTMethod(
            "known_good", "Known-good rows", {"selector": "uniform"}, known_good=True, about=f"Uniform, {_KNOWN}"
        ),
    )
}
