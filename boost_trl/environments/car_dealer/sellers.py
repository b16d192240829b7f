"""Old path of [`~boost_trl.environments.car_dealer.scripted_policies`]."""

import warnings

from .environment import CarDealer
from .scripted_policies import ScriptedPolicy


__all__ = ["ScriptedSeller"]
warnings.warn(
    "`boost_trl.environments.car_dealer.sellers.ScriptedSeller(name)` is now `scripted_policies.ScriptedPolicy(env, name)`",
    FutureWarning,
    stacklevel=2,
)


def ScriptedSeller(
    name: str, world: str = "full", seed: int = 0, slips: float = 0.0, market_shift: int = 0
) -> ScriptedPolicy:
    """[`ScriptedPolicy`] by its old name and arguments."""
    env = CarDealer(world=world).with_changed_market(market_shift)
    return ScriptedPolicy(env, name, seed, slips)
