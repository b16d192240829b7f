"""The order of phases within an outer iteration, and the penalty strength over training."""

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


logger = logging.getLogger(__name__)


class Phase(StrEnum):
    """Object of a policy update: the auxiliary policy, the primary one, or the only one."""

    AUXILIARY = "auxiliary"
    PRIMARY = "primary"
    VANILLA = "vanilla"


@dataclass(frozen=True)
class BilevelSchedule:
    """An outer iteration is `auxiliary_steps` updates of ψ (phase 1), θ ← ψ (phase 2), `primary_steps` updates of θ
    (phase 3), then the updates of φ (phase 4). Steps count policy updates, from 0.

    Args:
        auxiliary_steps (`int`): K_ψ; 0 together with `bilevel=False`.
        primary_steps (`int`): K_θ.
        max_steps (`int`): policy updates in all.
        alpha_init, alpha_final (`float`): α moves linearly between them ...
        alpha_ramp (`float`): ... over this share of training.
    """

    auxiliary_steps: int
    primary_steps: int
    max_steps: int
    alpha_init: float = 1.0
    alpha_final: float = 1.0
    alpha_ramp: float = 0.5
    bilevel: bool = True

    @classmethod
    def of(cls, settings: Any, max_steps: int) -> "BilevelSchedule":
        """As a configuration, or any object with its fields, has it for `max_steps` policy updates."""
        return cls(
            auxiliary_steps=settings.auxiliary_steps if settings.is_bilevel else 0,
            primary_steps=settings.primary_steps,
            max_steps=max_steps,
            alpha_init=settings.penalty_alpha_init,
            alpha_final=settings.penalty_alpha_final,
            alpha_ramp=settings.penalty_alpha_ramp,
            bilevel=settings.is_bilevel,
        )

    @property
    def cycle(self) -> int:
        return self.auxiliary_steps + self.primary_steps

    def phase(self, step: int) -> Phase:
        """The phase of policy update `step`."""
        if not self.bilevel:
            return Phase.VANILLA
        return Phase.AUXILIARY if step % self.cycle < self.auxiliary_steps else Phase.PRIMARY

    def synchronizes_after(self, step: int) -> bool:
        """Whether phase 2 follows policy update `step`."""
        return self.bilevel and step % self.cycle == self.auxiliary_steps - 1

    def reweights_after(self, step: int) -> bool:
        """Whether phase 4 follows policy update `step`."""
        return self.bilevel and step % self.cycle == self.cycle - 1

    def averages_after(self, step: int, share: float) -> bool:
        """Whether the parameters after policy update `step` enter the average over the last `share` of training.

        The bilevel methods average θ at the ends of phase 3 only; the last of them always counts.
        """
        if share == 0:
            return False
        start = self.max_steps - share * self.max_steps
        if not self.bilevel:
            return step + 1 > start
        last_end = self.max_steps - self.max_steps % self.cycle
        return self.reweights_after(step) and (step + 1 > start or step + 1 == last_end)

    def averaged_before(self, step: int, share: float) -> int:
        """Number of policy updates before `step` that enter that average."""
        return sum(self.averages_after(earlier, share) for earlier in range(step))

    def alpha(self, step: int) -> float:
        """α at policy update `step`."""
        ramp = self.alpha_ramp * self.max_steps
        progress = min(1.0, step / ramp) if ramp > 0 else 1.0
        return self.alpha_init + (self.alpha_final - self.alpha_init) * progress


def why_too_short(max_steps: int, auxiliary_steps: int, primary_steps: int) -> str | None:
    """The end of a sentence that begins with a method; `None` if training lasts for one outer iteration."""
    if max_steps >= auxiliary_steps + primary_steps:
        return None
    return (
        f"needs {auxiliary_steps} + {primary_steps} policy updates for its first outer iteration (`auxiliary_steps` + "
        f"`primary_steps`), and training has {max_steps}: raise `max_steps` (or `num_train_epochs`), or lower these"
    )


def check_max_steps(max_steps: int, auxiliary_steps: int, primary_steps: int) -> None:
    """Raises:
    ValueError: if training ends before the first outer iteration does.
    """
    why = why_too_short(max_steps, auxiliary_steps, primary_steps)
    if why is not None:
        raise ValueError(f"method='boost' {why}")


def check_iterations(max_steps: int, auxiliary_steps: int, primary_steps: int) -> None:
    """[`check_max_steps`], and a warning where training ends within an outer iteration."""
    check_max_steps(max_steps, auxiliary_steps, primary_steps)
    cycle = auxiliary_steps + primary_steps
    if max_steps % cycle:
        logger.warning(
            f"{max_steps} policy updates are not a multiple of an outer iteration ({cycle}): the last "
            f"{max_steps % cycle} are an unfinished one"
        )
