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

SFT_METHODS = {
    method.name: method
    for method in (
        SFTMethod("sft", "Plain SFT, all rows", plain=True),
        SFTMethod("trusted_only", "Trusted rows only, a third of the updates", stages=((1 / 3, 1.0),)),
        SFTMethod("two_stage", "Two-stage: pool, then trusted rows", stages=((0.5, 0.0), (0.5, 1.0))),
        SFTMethod("finish", "20 % trusted rows, at last only these", stages=((0.7, 0.2), (0.3, 1.0))),
        SFTMethod("low_loss", "Low-loss filter, 40 %", {"selector": "mixing", "rho_init": 0.8}, lowest_losses=0.4),
        SFTMethod("mixing_eight", "Equal weights, ρ=.8", {"selector": "mixing", "rho_init": 0.8}),
        SFTMethod("validation_only", "Validation only", {"selector": "mixing", "rho_init": 0.0}),
        SFTMethod("mixing_half", "Mixing ρ=.5", {"selector": "mixing", "rho_init": 0.5}),
        SFTMethod("mixing_one", "Mixing ρ=1", {"selector": "mixing", "rho_init": 1.0}),
        SFTMethod("uniform", "Uniform, same ρ", {"selector": "uniform"}),
        SFTMethod("validated", "Validated", VALIDATED),
        SFTMethod("validated_once", "Validated, scored once", {**VALIDATED, "selection_rounds": 1}),
        SFTMethod("bds", "BDS", BDS),
        SFTMethod("bds_adam", "BDS, the paper's Adam", {**BDS, "selector_optimizer": "adam"}),
        SFTMethod("bds_token", "BDS + token baseline", {**BDS, "selector_baseline": "token"}),
        SFTMethod("bmo", "BMO", {"selector": "bmo", **RAW}),
        SFTMethod("bmo_exact", "BMO, exact", {"selector": "bmo_exact", **RAW}),
        SFTMethod("rank", "Rank", {"selector": "rank", "keep_fraction": 0.3, **RAW}),
        SFTMethod("rank_token", "Rank + token baseline", RANK_TOKEN),
        SFTMethod(
            "second_pass",
            "Its weights, second pass",
            {"selector": "uniform", "weight_column": DEFAULT_WEIGHT_COLUMN},
            needs="rank_token",
        ),
        SFTMethod("online_5", "Online 5 %", {**BDS, "online_ratio": 0.05}),
        SFTMethod("online_10", "Online 10 %", {**BDS, "online_ratio": 0.1}),
        SFTMethod("online_10_g2", "Online 10 %, G=2", {**BDS, "online_ratio": 0.1, "num_generations": 2}),
        SFTMethod("online_10_g5", "Online 10 %, G=5", {**BDS, "online_ratio": 0.1, "num_generations": 5}),
        SFTMethod("online_dynamic", "Online 10 %, dynamic", {**BDS, "online_ratio": 0.1, "online_mask": "dynamic"}),
        SFTMethod(
            "known_good_mixed", "Known-good rows, ρ=.8", {"selector": "mixing", "rho_init": 0.8}, known_good=True
        ),
        SFTMethod("known_good", "Known-good rows", {"selector": "uniform"}, known_good=True),
    )
}
