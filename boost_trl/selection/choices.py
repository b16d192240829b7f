"""Choices and ranges of the selector's settings; without torch, so that configurations can be checked before it is
loaded.
"""

from typing import Any


SELECTORS = ("validated", "rank", "bds", "bmo", "bmo_exact", "mixing", "uniform")
OPTIMIZERS = ("sparse", "adam", "sgd")
WEIGHT_SCALES = ("mean_one", "simplex")
LEVELS = ("sequence", "token", "geometric")
RESPONSE_WEIGHTINGS = ("importance", "softmax", "none")


def check_selector_settings(settings: Any) -> None:
    """Check the numbers among the settings of a selector.

    Args:
        settings: any object with the attributes that are read here, those of [`~boost_trl.selection.Selector`].

    Raises:
        ValueError: naming the setting that is out of its range.
    """
    infinity = float("inf")
    rate, refresh = settings.selector_learning_rate, settings.rank_refresh_steps
    ranges = (
        ("selector_learning_rate", rate is None or 0 < rate < infinity, "must be positive and finite"),
        ("selector_max_step", settings.selector_max_step > 0, "must be positive"),
        ("bmo_tau", 0 < settings.bmo_tau < infinity, "must be positive and finite"),
        ("keep_fraction", 0 < settings.keep_fraction <= 1, "must be in (0, 1]"),
        ("rank_refresh_steps", refresh is None or refresh >= 1, "must be at least 1"),
        (
            "min_effective_sample_size",
            0 <= settings.min_effective_sample_size <= 1,
            "is a share of the rows, in [0, 1]",
        ),
    )
    for name, is_inside, demand in ranges:
        if not is_inside:
            raise ValueError(f"`{name}` {demand}, got {getattr(settings, name)}")
    if settings.selector == "bmo" and rate is not None and rate > 1:
        raise ValueError(
            f'`selector_learning_rate` must be at most 1 with selector="bmo", got {rate}: equation (28) overshoots −τC '
            "above it"
        )
