"""Texts of the embedded model."""

from boost_trl.data.trajectories import validate_trajectories
from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.offline_data import offline_trajectories
from boost_trl.environments.car_dealer.pretraining import pretraining_episodes, small_vocabulary, wish_lists


def test_small_vocabulary_covers_a_whole_world():

    words = set(small_vocabulary())
    assert len(words) < 130
    env = CarDealer(world="small")
    for row in offline_trajectories(env, n=300, seed=3, slips=0.3):
        for message in row["messages"]:
            assert set(message["content"].split()) <= words, message


def test_pretraining_dialogues_are_not_the_pool(pool):
    texts = pretraining_episodes(150, seed=0)
    words = set(small_vocabulary())
    assert all(set(turn.split()) <= words for turns in texts for turn in turns)
    assert {turns[-1].split()[0] for turns in texts} >= {"deal", "bye"}
    assert all(len(turns) % 2 == 1 for turns in texts)  # the buyer opens and closes
    assert texts == pretraining_episodes(160, seed=0)[:150]
    for want, has in wish_lists(20):
        assert want.split()[1:] == has.split()[1:] and set(want.split() + has.split()) <= words


def test_a_model_plays_both_roles_and_a_live_game(pool):
    from boost_trl.environments.embedded_lm import tiny_gpt2, word_tokenizer
    from boost_trl.environments.rollout import rollout
    from boost_trl.environments.synthetic import generate_synthetic

    env = CarDealer(world="small", max_utterances=6)
    tokenizer = word_tokenizer(small_vocabulary())
    model = tiny_gpt2(tokenizer, hidden_size=16, num_layers=1, num_heads=2, max_length=128)
    few = pool.select(range(4))
    synthetic = generate_synthetic(model, tokenizer, few, env, max_new_tokens=4, progress=False)
    validate_trajectories(synthetic)
    for row, parent in zip(synthetic, few):
        assert row["messages"][:2] == parent["messages"][:2] and row["category"] == parent["category"]
    played = rollout((model, tokenizer), env, env.tasks(["Tesla"])[:3], progress=False)
    assert played["error"] == [None] * 3 and {sum(rewards) for rewards in played["rewards"]} <= {-3.0, -2.0, -1.0}
