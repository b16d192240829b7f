"""Findings of an offline RL comparison, and its table."""

from collections.abc import Sequence
from typing import Any

from boost_trl.comparison.offline_rl.methods import METHODS
from boost_trl.comparison.results import Result, aggregate, paired_difference, standard_error
from boost_trl.tables import number, plus_minus


HEADROOMS = (("oracle", "uniform"), ("oracle_mix", "uniform_mix"))
CONTROLS = {
    "boost": ("vanilla_validation", "two_stage", "uniform"),
    **dict.fromkeys(
        ("validated", "by_games"),
        ("vanilla_validation", "two_stage", "uniform", "uniform_mix", "return_filter", "loss_filter"),
    ),
}
_MEANS = (
    *("score_mean", "success_rate", "mean_turns", "effective_sample_size", "num_rows", "weights_auc", "seconds"),
    *("num_tokens", "eval_loss"),
)
COLUMNS = {
    "method": lambda row: row["label"],
    "score": lambda row: plus_minus(row["score_mean"], row["score_se"]),
    "success": lambda row: f"{row['success_rate']:.0%}",
    "turns": lambda row: f"{row['mean_turns']:.1f}",
    "n_eff / rows": lambda row: f"{row['effective_sample_size']:.0f} / {row['num_rows']:.0f}",
    "AUC": lambda row: number(row["weights_auc"]),
    "β": lambda row: f"{row['beta']:g}",
    "held-out loss": lambda row: f"{row['eval_loss']:.2f}",
    "M tokens": lambda row: f"{row['num_tokens'] / 1e6:.2f}",
    "seconds": lambda row: f"{row['seconds']:.1f}",
}
NOTES = (
    "`score` is the environment's (mean ± standard error: over worlds, or over games for one world). n_eff = "
    "1/Σw̃² over the training rows. AUC: how well the weights tell good offline rows from planted noise; – for "
    "constant weights. `held-out loss`: the training's loss ℓ on dialogues of categories that are not in the pool; it says little about play. "
    "`M tokens`: millions of tokens that training read. `seconds`: of training with its preparation. β was chosen by games on validation tasks. All rows had the same number of policy updates."
)


def summarize(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One object per method: means over worlds; `score_se` over worlds, or over games when there is one world.

    `beta` is the most frequent one, the smaller at a tie.
    """

    def over_worlds(group: Sequence[Result]) -> dict[str, Any]:
        betas = sorted(result["beta"] for result in group)
        scores = [result["score_mean"] for result in group]
        return {
            "worlds": len(group),
            "score_se": standard_error(scores) if len(group) > 1 else group[0]["score_se"],
            "beta": max(betas, key=betas.count),
        }

    return aggregate(results, _MEANS, over_worlds)


def difference(results: Sequence[Result], method: str, control: str) -> tuple[float, float] | None:
    """Mean ± SE of (score of `method` − score of `control`), paired by world; for one world the SE is over games."""
    return paired_difference(results, method, control, "score_mean", error="score_se")


def findings(results: Sequence[Result]) -> list[str]:
    """Findings that the numbers allow, losses included."""
    lines = []
    for oracle, control in HEADROOMS:
        headroom = difference(results, oracle, control)
        if headroom is not None:
            mean, error = headroom
            verdict = "weights have something to gain here" if mean > 2 * error else "no clear room for weights here"
            labels = f"{METHODS[oracle].label} − {METHODS[control].label}"
            lines.append(f"Headroom ({labels}): {plus_minus(mean, error, '+.2f')}: {verdict}.")
    for method, controls in CONTROLS.items():
        differences = {control: difference(results, method, control) for control in controls}
        parts = [
            f"{METHODS[control].label} {plus_minus(*found, '+.2f')}"
            for control, found in differences.items()
            if found is not None
        ]
        if parts:
            lines.append(f"{METHODS[method].label} minus {', '.join(parts)}.")
    shared, tasks = ({result[name] for result in results} for name in ("num_shared_tasks", "num_tasks"))
    lines.append(
        f"Games are drawn from {_range(tasks)} tasks of held-out categories; {_range(shared)} of them have a validation row, "
        "which every method but Vanilla and Vanilla+Syn trains on."
    )
    best = [result["best_beta_score"] for result in results if result["best_beta_score"] is not None]
    if best:
        lines.append(
            f"Uniform mix at the β that is best on the evaluation games themselves: {sum(best) / len(best):.2f}."
        )
    for result in results:
        if result.metrics.get("choice"):
            lines.append(f"{result.label}, world {result.seed}: {_why_chosen(result)}.")
    for result in results:
        if result["report"] is not None and "reason" in result["report"]:
            lines.append(f"Validated reweighting's cross-validation: {result['report']['reason']}.")
    if lines and sum(result.method == results[0].method for result in results) == 1:
        lines.append(
            "One world only: the errors are over games and say nothing about other worlds; try `--seeds 0 1 2`."
        )
    return lines


def _why_chosen(result: Result) -> str:
    said = (result["report"] or {}).get("confidence")
    if said is None or result["choice"] != METHODS[result.method].where_near_chance:
        return f"games on validation tasks chose {result['choice']}"
    return (
        f"{METHODS[result['choice']].label} took its place, because held-out validation rows rank above {said['auc']:.0%} of the pool "
        f"only (chance: 50 ± {said['chance_error']:.0%})"
    )


def _range(values: set[int]) -> str:
    return f"{min(values)} to {max(values)}" if len(values) > 1 else str(min(values))
