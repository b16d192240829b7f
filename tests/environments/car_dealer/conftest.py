import pytest

from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.offline_data import offline_trajectories


@pytest.fixture(scope="module")
def pool():
    return offline_trajectories(CarDealer(world="small"), n=120, seed=4)
