"""Names that README, pages or examples published before they were changed: each still works, and warns."""

from importlib import import_module

import pytest

from boost_trl import make_env
from boost_trl.environments.webshop import WebShop, generate_small_catalogue, offline_trajectories


def old_names(module):
    # An earlier import of it in this process would already have warned.
    import sys

    sys.modules.pop(f"boost_trl.environments.{module}", None)
    with pytest.warns(FutureWarning, match=module.rsplit(".", 1)[1]):
        return import_module(f"boost_trl.environments.{module}")


def test_the_old_module_of_twenty_questions_dialogues_and_players():
    from boost_trl.environments.twenty_questions.offline_data import offline_trajectories as new

    old, env = old_names("twenty_questions.players"), make_env("twenty_questions")
    assert old.offline_dialogues(env, 5).to_list() == new(env, 5).to_list()
    conversation = [{"role": "user", "content": env.reset(seed=0)[0]}]
    assert env.world.read(old.ScriptedPolicy(env.world, "expert")([conversation])[0])[0] is not None


def test_the_old_name_of_the_answerer():
    old = old_names("twenty_questions.oracle")
    with pytest.warns(FutureWarning, match="`answerer`"):
        env = make_env("twenty_questions", world="full", oracle=old.ChatOracle(lambda conversations: ["Yes."]))
    env.reset(task="Animals/cat")
    assert env.step("Is it a stone?")[0] == "Yes."


def test_the_old_modules_of_car_dealers_dialogues_and_sellers():
    from boost_trl.environments.car_dealer.offline_data import offline_trajectories as new
    from boost_trl.environments.car_dealer.scripted_policies import ScriptedPolicy

    env = make_env("car_dealer", world="small")
    assert old_names("car_dealer.data").offline_dialogues(env, 5).to_list() == new(env, 5).to_list()
    seller = old_names("car_dealer.sellers").ScriptedSeller("expert", "small", 3, 0.5, market_shift=1)
    policy = ScriptedPolicy(env.with_changed_market(1), "expert", 3, 0.5)
    conversations = [[{"role": "user", "content": env.reset(task=task)[0]}] for task in env.tasks()[::50]]
    assert seller(conversations) == policy(conversations)
    assert seller(conversations) != ScriptedPolicy(env, "expert", 3, 0.5)(conversations)


def test_webshops_old_name_of_the_policy_that_knows_the_goal():
    shop = WebShop(generate_small_catalogue(0, 4), observation="compact", results_per_page=3, max_steps=8)
    with pytest.warns(FutureWarning, match="`privileged_expert`"):
        old = offline_trajectories(shop, 6, mix={"oracle": 0.5, "hasty": 0.5})
    assert old.to_list() == offline_trajectories(shop, 6, mix={"privileged_expert": 0.5, "hasty": 0.5}).to_list()
    assert set(old["policy"]) == {"privileged_expert", "hasty"}
