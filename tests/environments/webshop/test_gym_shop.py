"""The original's gym environment."""

import copy
import re
from types import SimpleNamespace

import pytest

from boost_trl.environments.webshop import WebShopGym

from .original_webshop import OriginalGym


def test_games_of_the_gym_share_its_server_and_nothing_else(odd_catalogue):
    one = WebShopGym(OriginalGym(odd_catalogue))
    one.reset(task="fixed_0")
    other = copy.deepcopy(one)
    assert other.env.server is one.env.server
    with pytest.raises(RuntimeError, match="call reset"):
        other.step("search[hat]")
    other.reset(task="fixed_0")
    first = one.step("search[easy clean soap]")[0]
    product = one.step(f"click[{re.search(r'B0[A-Z0-9]{8}', first).group()}]")[0]
    other.step("search[soap]")
    assert one.page.kind == "item" and one.visited and not other.visited
    back = one.step("click[features]") and one.step("click[< prev]")[0]
    assert back == product


def test_another_gym_environment_is_refused():
    with pytest.raises(ValueError, match="object is not the original's WebAgentTextEnv"):
        WebShopGym(object())


def test_wrappers_are_taken_off(odd_catalogue):
    env = OriginalGym(odd_catalogue)
    assert WebShopGym(SimpleNamespace(unwrapped=env, server=env.server)).env is env
