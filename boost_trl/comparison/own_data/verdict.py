"""Choice of a method: the one to use, whether weights pay at all, and how sure that is."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from boost_trl.comparison.results import mean_over_rows_and_seeds
from boost_trl.comparison.verdict import CLEAR
from boost_trl.tables import plus_minus


@dataclass
class Judgement:
    """Values that methods are judged by, and paired differences of them: the same rows judge all methods.

    Args:
        values (`dict[str, np.ndarray]`): by method, of shape `(S, R)`: seeds and judging rows (or games), NaN where a row did not
            judge with a seed.
        weighted (`Iterable[str]`): methods that learn weights, without those in `equal`.
        equal (`Iterable[str]`): methods that learn weights, and chose equal ones with every seed.
        measure (`str`): what the values are, such as `"loss"`.
        unit (`str`, *optional*): of the values.
        lower_is_better (`bool`, *optional*, defaults to `True`): or higher.
        errors (`dict[str, np.ndarray]`, *optional*): standard errors, (S, R), of values that are means themselves, as of games.
    """

    values: Mapping[str, np.ndarray]
    weighted: Iterable[str]
    equal: Iterable[str]
    measure: str
    unit: str = ""
    lower_is_better: bool = True
    errors: Mapping[str, np.ndarray] | None = None
    style: str = field(default=".3f", repr=False)

    @property
    def diverged(self) -> list[str]:
        """Methods with an infinite value, or without one where another method has one, or with a seed that has none at all."""
        judged = ~np.isnan(list(self.values.values())).all(axis=0)
        bad = {
            name: np.isinf(values) | (np.isnan(values) & judged) | np.isnan(values).all(axis=1, keepdims=True)
            for name, values in self.values.items()
        }
        return [name for name in bad if bad[name].any()]

    def level(self, method: str) -> tuple[float, float]:
        """Mean ± standard error, NaN for one that has diverged."""
        return self._with_own_errors(self.values[method], method)

    def gain(self, method: str, other: str) -> tuple[float, float]:
        """By how much `method` is better than `other`, mean ± standard error of the paired differences; NaN where one has
        diverged."""
        mean, error = self._with_own_errors(self.values[other] - self.values[method], method, other)
        return (mean if self.lower_is_better else -mean), error

    def _with_own_errors(self, values: np.ndarray, *methods: str) -> tuple[float, float]:
        """Mean ± standard error; the variances of values that are means themselves are added."""
        if set(methods).intersection(self.diverged):
            return math.nan, math.nan
        mean, error = mean_over_rows_and_seeds(values)
        if self.errors is None:
            return mean, error
        own = np.sqrt(sum((self.errors[name] ** 2).sum() for name in methods)) / values.size
        return mean, float(np.hypot(error, own))

    def best(self, methods: Iterable[str]) -> str | None:
        """The one of best mean, the first at a tie; `None` of none."""
        sign = 1 if self.lower_is_better else -1
        return min(methods, key=lambda name: sign * self.level(name)[0], default=None)

    @property
    def num_seeds(self) -> int:
        return len(next(iter(self.values.values())))


@dataclass(frozen=True)
class Decision:
    """The method to use, and whether weights pay.

    Args:
        method (`str`): to use. One that learns weights only where they pay.
        weighted (`str`, *optional*): the best of those that learn weights.
        control (`str`, *optional*): the best of the others.
        gain (`float`, *optional*), error (`float`, *optional*): of `weighted` over `control`, with the standard error.
        equal (`tuple[str]`, *optional*): methods that could weigh rows and chose equal weights; they count among the others.
        diverged (`tuple[str]`, *optional*): methods whose values are no numbers with some seed; they are never chosen.
    """

    method: str
    weighted: str | None
    control: str | None
    gain: float | None = None
    error: float | None = None
    equal: tuple[str, ...] = ()
    diverged: tuple[str, ...] = ()

    @property
    def weights_pay(self) -> bool | None:
        """True if the gain is larger than two standard errors, `None` if there is nothing to compare and no method chose."""
        if self.gain is None or self.error is None:
            return False if self.weighted is None and self.equal else None
        return self.gain > CLEAR * self.error


def decide(judgement: Judgement) -> Decision:
    """The best method that learns weights if it is clearly better than the best of the others, else that.

    Raises:
        ValueError: if all have diverged.
    """
    diverged = tuple(judgement.diverged)
    left = [name for name in judgement.values if name not in diverged]
    if not left:
        raise ValueError(
            f"every method diverged: with some seed the {judgement.measure} of each is no number; lower `learning_rate`"
        )
    weighted = judgement.best(name for name in left if name in judgement.weighted)
    control = judgement.best(name for name in left if name not in judgement.weighted)
    equal = tuple(name for name in judgement.equal if name in left)
    if weighted is None or control is None:
        method = weighted or control
        assert method is not None, "one of `left`"
        return Decision(method, weighted, control, equal=equal, diverged=diverged)
    gain, error = judgement.gain(weighted, control)
    method = weighted if gain > CLEAR * error else control
    return Decision(method, weighted, control, gain, error, equal, diverged)


def explain(judgement: Judgement, decision: Decision, judged_on: str, plain: str) -> dict[str, str]:
    """Answers to `"Which way?"`, with its gain over plain training, `"Do weights pay?"` and, where there is something to say,
    `"How sure?"`.

    Args:
        judgement (`Judgement`), decision (`Decision`): what came out.
        judged_on (`str`): what judged, such as `"16 trusted rows per split that no method saw (3 splits)"`.
        plain (`str`): name of plain training.
    """
    level = plus_minus(*judgement.level(decision.method), judgement.style)
    way = f"Use `{decision.method}`: on {judged_on}, its {judgement.measure} is {level}{judgement.unit}."
    is_said = decision.gain is not None and decision.control == plain
    if plain in judgement.values and plain not in (decision.method, *decision.diverged) and not is_said:
        gain = plus_minus(*judgement.gain(decision.method, plain), judgement.style)
        way = f"{way} Over `{plain}` it gains {gain}."
    if decision.diverged:
        way = (
            f"{way} Diverged, and out of the running: {_listed(decision.diverged)}; a lower `learning_rate` may help."
        )
    sure = []
    if decision.gain is not None and decision.error is not None and decision.error > 0:
        times = abs(decision.gain) / decision.error
        sure.append(
            f"The difference that weights make is {f'{times:.1f}' if times < 10 else 'more than 10'} times its standard error; more "
            f"than {CLEAR:g} count as clear."
        )
    if judgement.num_seeds == 1:
        sure.append("One split only, so that the errors leave out what another split or seed would change.")
    answers = {"Which way?": way, "Do weights pay?": _of_weights(judgement, decision), "How sure?": " ".join(sure)}
    return {question: answer for question, answer in answers.items() if answer}


def _of_weights(judgement: Judgement, decision: Decision) -> str:
    if decision.weighted is None and decision.equal:
        return f"Weights do not pay: {_listed(decision.equal)} chose equal ones in every split."
    if decision.gain is None or decision.error is None:
        missing = "learns weights" if decision.weighted is None else "does without weights"
        return f"Whether weights pay is open: no method that {_left(decision)} {missing}."
    gain = plus_minus(abs(decision.gain), decision.error, judgement.style)
    control = f"`{decision.control}`, the best without weights"
    compared = f"`{decision.weighted}` gains {gain} over {control}"
    if decision.gain < 0:
        compared = f"`{decision.weighted}` is worse by {gain} than {control}"
    if decision.weights_pay:
        return f"Weights pay: {compared}."
    if decision.gain > 0:
        return f"Weights may pay, but that is not clear: {compared}, less than two standard errors; more trusted rows or seeds would tell."
    if decision.gain < -CLEAR * decision.error:
        return f"Weights do not pay: {compared}."
    return f"Weights bring nothing that could be seen: {compared}."


def _left(decision: Decision) -> str:
    return "did not diverge" if decision.diverged else "was compared"


def _listed(names: Iterable[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)
