"""The part of a comparison on one's own rows that depends on their kind, SFT or offline RL."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import TrainingArguments

from boost_trl.comparison.cells import Cell, Comparison
from boost_trl.comparison.own_data.estimate import Estimate
from boost_trl.comparison.own_data.trusted_split import split_trusted
from boost_trl.comparison.own_data.verdict import Judgement
from boost_trl.comparison.results import Result
from boost_trl.trainer.common.training_length import planned_updates


# The setting of the last cell: the chosen method with all trusted rows, whose model is kept.
ALL_TRUSTED = "all-trusted"


# Share of all rows above which an effective sample size is that of equal weights, but for rounding.
_EVEN = 0.9999


def num_updates(args: TrainingArguments, num_rows: int) -> int:
    """Optimizer steps of a training on `num_rows` rows.

    Raises:
        ValueError: for none.
    """
    if args.max_steps <= 0 and not 0 < args.num_train_epochs < math.inf:
        raise ValueError(f"`num_train_epochs` must be positive and finite, got {args.num_train_epochs}")
    return planned_updates(args, num_rows)


@dataclass(frozen=True)
class Games:
    """Games that judge trajectories' policies.

    Args:
        environment (`str`): its name.
        environment_kwargs (`dict`, *optional*): its options.
        num_games (`int`, *optional*, defaults to `64`): games behind every score, and behind every β that is tried.
    """

    environment: str
    environment_kwargs: dict[str, Any] = field(default_factory=dict)
    num_games: int = 64


class OwnData(ABC):
    """Pool, trusted rows and the methods that can be compared on them.

    Attributes:
        comparison (`Comparison`): what runs cells; those of the setting `ALL_TRUSTED` keep their model.
        pool (`Dataset`): of N rows, none of which is a trusted one.
        pool_rows (`np.ndarray` of shape `(N,)`): their numbers as they were given.
        trusted (`Dataset`): all trusted rows, each once.
        left_out (`tuple[int, int]`): rows of the pool that are trusted rows too, and trusted rows that are there already.
        groups (`Sequence`): of the trusted rows; those of one group are on the same side of a split.
        judging_share (`float`): of the trusted rows.
        num_updates (`int`): of every method.
        default_methods (`tuple[str, ...]`): those that run unless others are named.
        plain (`str`): the method that does nothing about bad rows.
        options (`dict`): what all methods share.
    """

    comparison: Comparison
    pool: Dataset
    pool_rows: np.ndarray
    trusted: Dataset
    left_out: tuple[int, int]
    groups: Sequence[Hashable]
    judging_share: float
    num_updates: int
    default_methods: tuple[str, ...]
    plain: str
    options: dict[str, Any]

    def take(
        self, pool: Dataset, trusted: Dataset, names: tuple[str, str], content: Callable[[dict[str, Any]], Hashable]
    ) -> None:
        """Keep each trusted row once, and of the pool what is no trusted row, so that no method sees one that judges.

        Args:
            pool (`Dataset`), trusted (`Dataset`): rows as given.
            names (`tuple[str, str]`): what messages call them.
            content (`Callable`): of a row, what makes it equal to another.

        Raises:
            ValueError: if nothing of the pool is left.
        """
        first: dict[Hashable, int] = {}
        for place, row in enumerate(trusted):
            first.setdefault(content(row), place)
        kept = [place for place, row in enumerate(pool) if content(row) not in first]
        if not kept:
            raise ValueError(f"every row of {names[0]} is in {names[1]} too; give a pool that has others")
        self.pool, self.pool_rows = pool.select(kept), np.array(kept)
        self.trusted = trusted.select(list(first.values()))
        self.left_out = len(pool) - len(kept), len(trusted) - len(first)

    def remarks(self) -> list[str]:
        """Sentences that readers of the verdict must know."""
        of_pool, of_trusted = self.left_out
        said = []
        if of_pool:
            said.append(f"{of_pool} of the pool that are trusted rows too")
        if of_trusted:
            said.append(f"{of_trusted} trusted ones that are copies of others")
        return [f"Rows left out: {' and '.join(said)}."] if said else []

    def choose(self, names: Sequence[str] | str | None) -> list[str]:
        """The methods of these names, by default `default_methods`; `"all"`: all that these rows allow.

        Raises:
            ValueError: for no method, an unknown one, or one that rows or options do not allow.
        """
        names = [names] if isinstance(names, str) else names
        if names is not None and len(names) == 0:
            raise ValueError("`methods` is empty: name one at least, or leave it out")
        methods = self.comparison.methods
        impossible = {name: why for name in methods if (why := self.why_impossible(name)) is not None}
        if names is not None and "all" in names:
            chosen = [name for name in methods if name not in impossible]
            self._check_options(chosen)
            return chosen
        chosen = list(dict.fromkeys(self.comparison.choose(self.default_methods if names is None else names)))
        for name in chosen:
            if name in impossible:
                raise ValueError(f"method {name!r} {impossible[name]}; leave it out")
            if methods[name].needs not in (None, *chosen[: chosen.index(name)]):
                raise ValueError(
                    f"method {name!r} takes the weights of {methods[name].needs!r}: name that one before it"
                )
        self._check_options(chosen)
        return chosen

    def _check_options(self, methods: Sequence[str]) -> None:
        """Raises:
        ValueError: for an option that a method sets itself, so that only the others would get what is given.
        """
        for method in methods:
            for name, value in self.fixed_options(method).items():
                if self.options.get(name, value) != value:
                    raise ValueError(
                        f"`{name}` would not be shared by all methods, since it is {value!r} in {method!r}; leave the option out, or "
                        "name other `methods`"
                    )

    def fixed_options(self, method: str) -> dict[str, Any]:
        """Options that a method sets, whatever all share."""
        return self.comparison.methods[method].options

    def judging_rows(self, seed: int) -> np.ndarray:
        """Numbers of the trusted rows that judge with this seed."""
        return split_trusted(self.groups, self.judging_share, seed)[1]

    def split(self, cell: Cell) -> tuple[Dataset, Dataset | None]:
        """The trusted rows that a cell's method may use and those that judge it; all and `None` in the setting `ALL_TRUSTED`."""
        if cell.setting == ALL_TRUSTED:
            return self.trusted, None
        used, judging = split_trusted(self.groups, self.judging_share, cell.seed)
        return self.trusted.select(used), self.trusted.select(judging)

    def weighted_and_equal(self, results: Sequence[Result]) -> tuple[list[str], list[str]]:
        """Methods that learn weights, in two lists: the second has those that could choose, and chose equal ones with every
        seed."""
        learners = [name for name in dict.fromkeys(result.method for result in results) if self.weighted(name)]
        uneven = {result.method for result in results if result.effective_sample_size < _EVEN * result.num_rows}
        equal = [name for name in learners if name not in uneven and self.chooses(name)]
        return [name for name in learners if name not in equal], equal

    def values_by_row(
        self, results: Sequence[Result], judged: Callable[[Result], tuple[np.ndarray, Sequence[float] | np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """By method, values by seed and trusted row, (S, T), NaN where a row does not judge.

        Args:
            results (`Sequence[Result]`): of every method and seed.
            judged (`Callable`): numbers of the trusted rows that judge a result, and its values on them.
        """
        seeds = list(dict.fromkeys(result.seed for result in results))
        values = {result.method: np.full((len(seeds), len(self.trusted)), np.nan) for result in results}
        for result in results:
            rows, of_rows = judged(result)
            values[result.method][seeds.index(result.seed), rows] = of_rows
        return values

    @abstractmethod
    def why_impossible(self, method: str) -> str | None:
        """The reason why a method cannot run on these rows, `None` if it can."""

    @abstractmethod
    def estimate(self, methods: Sequence[str]) -> Estimate:
        """Costs of one run of each method, from a few updates that are timed."""

    @abstractmethod
    def weighted(self, method: str) -> bool:
        """Whether a method learns weights."""

    @abstractmethod
    def chooses(self, method: str) -> bool:
        """Whether a method that learns weights decides between them and equal ones."""

    @abstractmethod
    def judgement(self, results: Sequence[Result]) -> Judgement:
        """The losses or scores by which the results' methods are judged."""

    @abstractmethod
    def prepare_kept(self, results: Sequence[Result]) -> None:
        """Take from the results of the chosen method what its last run needs to know."""

    def chosen(self, results: Sequence[Result]) -> dict[str, str]:
        """By method that is trained in several ways: which of them were chosen, in words."""
        return {}

    @abstractmethod
    def judged_on(self, results: Sequence[Result]) -> str:
        """The rows or games that judged, in words."""

    @abstractmethod
    def scores(self, cell: Cell) -> np.ndarray:
        """Logits of the pool's weights at the end of a cell's run, (N,)."""

    @abstractmethod
    def confidence(self, results: Sequence[Result]) -> str | None:
        """A sentence that says how far the weights of these results, of one method, can be trusted, where that was measured."""
