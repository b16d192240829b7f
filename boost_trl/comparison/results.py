"""Result of a cell, and means over several seeds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np


@dataclass
class Result:
    """Result of one method in one setting with one seed.

    Args:
        method (`str`), label (`str`): the method's name and how tables call it.
        seed (`int`), setting (`str`): the cell's.
        effective_sample_size (`float`): n_eff = (Σw)²/Σw² of the training rows' weights.
        num_rows (`int`): training rows.
        weights_auc (`float`, *optional*): how well the weights tell good rows from bad ones, where that is known; `None`
            for constant weights.
        eval_loss (`float`, *optional*): on held-out rows, where it is measured.
        seconds (`float`): of training.
        metrics (`dict`): what only this kind of experiment has, as JSON.
    """

    method: str
    label: str
    seed: int
    effective_sample_size: float
    num_rows: int
    weights_auc: float | None
    eval_loss: float | None
    seconds: float
    setting: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        """A field or metric.

        Raises:
            KeyError: if there is none of that name.
        """
        return self.metrics[name] if name in self.metrics else vars(self)[name]

    def to_dict(self) -> dict[str, Any]:
        """Fields and metrics in one flat object."""
        values = asdict(self)
        return values | values.pop("metrics")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Result":
        """The inverse of `to_dict`."""
        common = {entry.name for entry in fields(cls)} - {"metrics"}
        metrics = {name: value for name, value in values.items() if name not in common}
        return cls(**{name: value for name, value in values.items() if name in common}, metrics=metrics)


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean, 0 for one value."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def aggregate(
    results: Sequence[Result],
    means: Iterable[str],
    more: Callable[[Sequence[Result]], dict[str, Any]],
) -> list[dict[str, Any]]:
    """One object per method, in order of appearance: `method`, `label`, the means over its results of the fields and
    metrics `means` (`None` where no result has a value), and what `more` says of them."""
    rows = []
    for name in dict.fromkeys(result.method for result in results):
        group = [result for result in results if result.method == name]
        row: dict[str, Any] = {"method": name, "label": group[0].label}
        for metric in means:
            values = [value for result in group if (value := result[metric]) is not None]
            row[metric] = float(np.mean(values)) if values else None
        rows.append(row | more(group))
    return rows


def paired_difference(
    results: Sequence[Result], method: str, control: str, metric: str, error: str | None = None
) -> tuple[float, float] | None:
    """Mean ± standard error of (`metric` of `method` − that of `control`), paired by setting and seed.

    Args:
        results (`Sequence[Result]`): of all methods.
        method (`str`), control (`str`): names.
        metric (`str`): a field or metric.
        error (`str`, *optional*): the metric's own standard error, which counts when there is one pair only.

    Returns:
        `tuple[float, float]`, or `None` if there is no pair.
    """
    by_cell = {(result.method, result.setting, result.seed): result for result in results}
    pairs = [
        (ours, by_cell[control, setting, seed])
        for (name, setting, seed), ours in by_cell.items()
        if name == method and (control, setting, seed) in by_cell
    ]
    if not pairs:
        return None
    differences = [ours[metric] - theirs[metric] for ours, theirs in pairs]
    if len(pairs) == 1 and error is not None:
        return differences[0], float(np.hypot(pairs[0][0][error], pairs[0][1][error]))
    return float(np.mean(differences)), standard_error(differences)


def mean_over_rows_and_seeds(values: np.ndarray) -> tuple[float, float]:
    """Mean ± standard error of values by seed and row, such as losses of the rows that judge.

    Rows and seeds are both samples, so that the variances of their means are added: the square of the error is SE(means of rows)² +
    SE(means of seeds)². With one seed its own variance is not known and counts as 0.

    Args:
        values (`np.ndarray` of shape `(S, R)`): NaN where a row has no value with a seed.
    """
    of_rows = np.nanmean(values[:, ~np.isnan(values).all(axis=0)], axis=0)
    of_seeds = np.nanmean(values, axis=1)
    return float(of_seeds.mean()), float(np.hypot(standard_error(of_rows), standard_error(of_seeds)))


def mean_over_groups(values: Mapping[Any, float], group: Callable[[Any], Any]) -> tuple[float, float]:
    """Mean ± standard error over groups, such as worlds: the values of one group are averaged first, since they share its
    difficulty.

    Args:
        values (`Mapping`): value by key.
        group (`Callable`): of a key.
    """
    groups: dict[Any, list[float]] = {}
    for key, value in values.items():
        groups.setdefault(group(key), []).append(value)
    means = [float(np.mean(values)) for values in groups.values()]
    return float(np.mean(means)), standard_error(means)
