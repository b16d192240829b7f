from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.scripted_policies import ScriptedPolicy
from boost_trl.environments.rollout import rollout


def test_scripted_sellers_play_in_rollout():
    env = CarDealer(world="small")
    rows = rollout(ScriptedPolicy(env), env, env.tasks(["Porsche"])[:4], progress=False)
    assert all(row["success"] and row["error"] is None for row in rows)
