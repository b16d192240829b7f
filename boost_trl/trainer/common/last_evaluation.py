"""Results of a training for its model card."""

from collections.abc import Mapping, Sequence
from typing import Any


def last_evaluation(
    log_history: Sequence[Mapping[str, Any]], not_results: tuple[str, ...]
) -> tuple[dict[str, Any], int]:
    """The last value of every evaluation metric, and after how many updates; `{}` and 0 if there was no evaluation.

    Args:
        log_history (`list[dict]`): Trainer's.
        not_results (`tuple[str]`): ends of the names that are left out.
    """
    last, step = {}, 0
    for entry in log_history:
        values = {
            name: value for name, value in entry.items() if name.startswith("eval_") and not name.endswith(not_results)
        }
        if values:
            last, step = last | values, entry["step"]
    return last, step
