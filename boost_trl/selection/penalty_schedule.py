"""Schedule of the pool's weight against validation, epoch by epoch."""

import math
from dataclasses import dataclass


_SLACK = 1e-6  # an epoch that a trainer counts as 0.9999999 is over; 0.1 + 9·0.1 is 1


@dataclass(frozen=True)
class PenaltySchedule:
    r"""ρ_k = `rho_init` + `rho_increment`·⌊epoch⌋, and the penalty γ_k = ρ_k/(1 − ρ_k): equation (21).

    Args:
        num_epochs (`float`): How long training lasts; may be fractional. The whole schedule is checked before it
            starts.
        rho_init (`float`, *optional*, defaults to `0.1`): ρ in the first epoch, in [0, 1).
        rho_increment (`float`, *optional*, defaults to `0.1`): Added at each new epoch.
        mixing (`bool`, *optional*, defaults to `False`): Direct mixing: (1 − ρ) L₀ + ρ L_SFT with ρ = `rho_init` in
            [0, 1] throughout.
        normalize (`bool`, *optional*, defaults to `False`): Divide both terms by 1 + γ, so that they sum to one
            (`normalize_penalty`).

    Raises:
        ValueError: if ρ leaves its range at any epoch.
    """

    num_epochs: float
    rho_init: float = 0.1
    rho_increment: float = 0.1
    mixing: bool = False
    normalize: bool = False

    def __post_init__(self):
        if not (math.isfinite(self.num_epochs) and self.num_epochs > 0):
            raise ValueError(f"`num_epochs` must be positive and finite, got {self.num_epochs}")
        if not math.isfinite(self.rho_increment):
            raise ValueError(f"`rho_increment` must be finite, got {self.rho_increment}")
        if self.mixing:
            if not 0 <= self.rho_init <= 1:
                raise ValueError(
                    f"`rho_init` must be in [0, 1] for direct mixing and validated selection, got {self.rho_init}"
                )
            return
        if not 0 <= self.rho_init < 1:
            raise ValueError(
                f'`rho_init` must be in [0, 1), got {self.rho_init}: γ = ρ/(1 − ρ) is infinite at 1. selector="mixing" '
                "takes ρ = 1"
            )
        last = max(0, math.ceil(self.num_epochs - _SLACK) - 1)
        final = self.rho_init + self.rho_increment * last
        if final > 1 - _SLACK:
            raise ValueError(
                f"`rho_init` {self.rho_init} plus `rho_increment` {self.rho_increment} per epoch reaches "
                f"ρ = {final:.4g} in epoch {last + 1} of {self.num_epochs:g}, where γ = ρ/(1 − ρ) is infinite; "
                "lower `rho_increment` or train for fewer epochs"
            )
        if final < 0:
            raise ValueError(
                f"`rho_increment` {self.rho_increment} makes ρ negative ({final:.4g}) in epoch {last + 1}"
            )

    def rho(self, epoch: float) -> float:
        """ρ at `epoch`, counted from 0 and fractional within an epoch. At the end of training it stays the last
        one."""
        if self.mixing:
            return self.rho_init
        last = max(0, math.ceil(self.num_epochs - _SLACK) - 1)
        return self.rho_init + self.rho_increment * min(math.floor(epoch + _SLACK), last)

    def gamma(self, epoch: float) -> float:
        """γ at `epoch`; infinite for direct mixing at ρ = 1, whose terms `coefficients` gives."""
        rho = self.rho(epoch)
        return math.inf if rho == 1 else rho / (1 - rho)

    def coefficients(self, epoch: float) -> tuple[float, float]:
        """Factors of L₀ and of the weighted pool loss: (1, γ), or (1 − ρ, ρ) where they sum to one."""
        if self.mixing or self.normalize:
            rho = self.rho(epoch)
            return 1 - rho, rho
        return 1.0, self.gamma(epoch)
