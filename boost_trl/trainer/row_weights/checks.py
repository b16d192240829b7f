"""Engines that cannot carry example weights, settings without effect, and a training that weights cannot help."""

from collections.abc import Sequence
from dataclasses import fields

from accelerate import ParallelismConfig
from accelerate.logging import get_logger
from transformers import TrainingArguments

from boost_trl.selection import Selector
from boost_trl.trainer.row_weights.config import RowWeightsConfig
from boost_trl.trainer.row_weights.results import DEFAULT_WEIGHT_COLUMN


logger = get_logger(__name__)

_READ_BY_SELECTOR = {
    "validated": ("target_effective_fraction", "selection_guard", "selection_rounds", "adaptation_learning_rate"),
    "rank": ("keep_fraction", "rank_refresh_steps", "rho_increment"),
    "bds": ("selector_optimizer", "selector_learning_rate", "selector_max_step", "rho_increment"),
    "bmo": ("selector_learning_rate", "bmo_tau", "rho_increment"),
    "bmo_exact": ("bmo_tau", "bmo_refresh_steps", "rho_increment"),
    "mixing": (),
    "uniform": ("rho_increment",),
}
_SAMPLING = "train_sampling_strategy"  # older versions of transformers have none


def check_parallelism(parallelism: ParallelismConfig | None, tp_size: int, padding_free: bool, learned: bool) -> None:
    """Raises:
    ValueError: for a parallelism that splits rows in a way that weights do not follow.
    """
    if parallelism is not None and parallelism.sp_enabled:
        raise ValueError(
            "sequence parallelism (Ulysses/ALST) reduces the model's own loss across processes, so examples cannot be "
            "weighted in it; use `sp_size=1`"
        )
    if parallelism is not None and parallelism.cp_enabled:
        if learned:
            raise ValueError(
                "learned example weights need whole sequences for the validation batch; context parallelism splits them; "
                "use `cp_size=1`. (A fixed weight column works with it.)"
            )
        if padding_free:
            raise ValueError(
                "context parallelism carries one weight per row of the batch only, and `padding_free` puts several "
                "examples into one; use `padding_free=False` or `cp_size=1`"
            )
    if learned and tp_size > 1:
        raise ValueError(
            "learned example weights are not supported with tensor parallelism, where several processes hold the same "
            "batch; use `tp_size=1`"
        )


def changed_settings(args: RowWeightsConfig) -> list[str]:
    """Our own settings that differ from their defaults: fields of the class of settings that a configuration is made of."""
    ours = next(kind for kind in type(args).__mro__ if not issubclass(kind, TrainingArguments))
    return [f.name for f in fields(ours) if getattr(args, f.name) != f.default]


def ignored_settings_warning(args: RowWeightsConfig, has_weight_column: bool, plain: str) -> str | None:
    """Warning for training without a validation set, which is `plain` then; `None` if all settings have their effect."""
    names = [name for name in changed_settings(args) if name != "weight_column"]
    if not names:
        return None
    what = "no weights are learned" if has_weight_column else f"this is plain {plain}"
    return f"No `validation_dataset` is given, so {what}. Without effect: {listed(names)}."


def unread_settings_warning(args: RowWeightsConfig) -> str | None:
    """Warning for settings of other selectors; `None` if all have their effect."""
    others = set().union(*_READ_BY_SELECTOR.values()) - set(_READ_BY_SELECTOR[args.selector])
    names = [name for name in changed_settings(args) if name in others]
    # Rows are drawn by weight unless they are packed.
    if args.selector == "validated" and not args.packing and getattr(args, _SAMPLING, "random") != "random":
        names.append(_SAMPLING)
    return f"Without effect with selector='{args.selector}': {listed(names)}." if names else None


def unused_weight_column_warning(dataset, args: RowWeightsConfig) -> str | None:
    """Warning for a column named `weight` that nothing reads; a stream of unknown columns is not asked."""
    if args.weight_column is not None or DEFAULT_WEIGHT_COLUMN not in (getattr(dataset, "column_names", None) or ()):
        return None
    return (
        f"`train_dataset` has a column '{DEFAULT_WEIGHT_COLUMN}' that is not used. If it holds example weights, set "
        f"`weight_column='{DEFAULT_WEIGHT_COLUMN}'`."
    )


def warn_of_what_is_not_used(dataset, args: RowWeightsConfig, learned: bool, weighted: bool, plain: str) -> None:
    """Say in the log which of our settings and columns have no effect; without weights training is `plain`."""
    unread = unread_settings_warning(args) if learned else ignored_settings_warning(args, weighted, plain)
    warnings = [unused_weight_column_warning(dataset, args), unread]
    for warning in warnings:
        if warning is not None:
            logger.warning(warning)


def warn_of_single_visit(selector: Selector, num_epochs: float) -> None:
    """Say in the log that weights have no effect where training visits no row twice."""
    if selector.needs_second_visit and num_epochs <= 1 + 1e-6:
        logger.warning(
            f"selector='{selector.selector}' needs a second visit to weigh a row more or less than others, and training has "
            f"{num_epochs:.3g} epochs: all rows count the same in it, and only the weights that it ends with differ. Raise "
            "`num_train_epochs` (or `max_steps`), or use selector='bmo', which weighs a batch by its own losses."
        )


def explain_objective(objective: float, pool_loss: float, step: int, causes: str) -> str:
    """Message for an objective that is not finite, after `step` optimizer steps."""
    return (
        f"the loss is {objective} at step {step + 1} (mean weighted loss of the pool: {pool_loss}); the model cannot learn "
        f"from it: look for {causes}"
    )


def listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
