import pytest

from boost_trl import validate_trajectories
from boost_trl.environments.planted_noise import NOISE_KINDS
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.noise import add_noise
from boost_trl.environments.twenty_questions.offline_data import offline_trajectories


ENV = TwentyQuestions()


CLEAN = offline_trajectories(ENV, 200, seed=0, categories=ENV.world.categories[:6])


def turns(row):
    """(question, answer) pairs; the last question's answer is not part of a row."""
    contents = [message["content"] for message in row["messages"][1:]]
    return list(zip(contents[::2], [*contents[1::2], None]))


def noisy(kind, **arguments):
    return [row for row in add_noise(CLEAN, ENV, kind=kind, **arguments) if row["is_noise"]]


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_exactly_a_share_of_the_rows_is_replaced(kind):
    dataset = add_noise(CLEAN, ENV, kind=kind, share=0.6, seed=3)
    validate_trajectories(dataset)
    assert len(dataset) == 200 and sum(dataset["is_noise"]) == 120
    for row, clean in zip(dataset, CLEAN):
        if row["is_noise"]:
            assert row["noise_kind"] and row["task"] == clean["task"] and row["category"] == clean["category"]
            assert row["messages"][0] == clean["messages"][0]
        else:
            assert row == clean
    assert add_noise(CLEAN, ENV, kind=kind, share=0.6, seed=3).to_list() == dataset.to_list()
    assert add_noise(CLEAN, ENV, kind=kind, share=0.6, seed=4).to_list() != dataset.to_list()
    assert add_noise(CLEAN, ENV, kind=kind, share=0.0).to_list() == CLEAN.to_list()


def test_stale_logs_agree_with_each_other_and_not_with_the_world():
    told, disagreeing = {}, 0
    for row in noisy("stale"):
        number = row["task"]["id"].split("/")[1]
        for question, answer in turns(row)[:-1]:
            if question.startswith("very"):
                assert told.setdefault((number, question), answer) == answer
    for (number, question), answer in told.items():
        item = ENV.world.items[ENV.world.index_of[f"metals/{number}"]]
        disagreeing += ENV.world.answer(question, item) != answer
    assert len(told) > 60 and disagreeing > 0.3 * len(told)


def test_the_bot_repeats_a_guess_and_claims_success():
    for row in noisy("bot"):
        questions = [question for question, _ in turns(row)]
        assert 2 <= len(questions) <= 4 and len(set(questions)) == 1 and questions[0].startswith("number")
        assert row["success"] and row["rewards"] == [-1.0] * (len(questions) - 1) + [0.0]
        assert row["score"] == 12 - len(questions)


def test_weak_logs_are_true_and_worse_than_the_pools():
    rows = noisy("weak", share=1.0)
    for row in rows:
        item = ENV.world.items[ENV.world.index_of[row["task"]["id"]]]
        assert all(answer == ENV.world.answer(question, item) for question, answer in turns(row)[:-1])
        assert row["success"] == (turns(row)[-1][0] == item.guess)
    assert sum(row["score"] for row in rows) < 0.8 * sum(row["score"] for row in CLEAN)


def test_diverse_noise_is_of_four_kinds():
    rows = noisy("diverse", share=1.0)
    kinds = {kind: [row for row in rows if row["noise_kind"] == kind] for kind in {row["noise_kind"] for row in rows}}
    assert set(kinds) == {"garbage", "wrong_world", "faked_success", "hot_self_play"}
    assert all(len(of_kind) > 25 for of_kind in kinds.values())
    assert any(
        ENV.world.read(question) == (None, frozenset()) for row in kinds["garbage"] for question, _ in turns(row)
    )
    assert all(row["success"] and len(row["rewards"]) == 3 for row in kinds["faked_success"])
    # Guesses that were right only by their own account.
    guessed = [
        turns(row)[-1][0].rstrip("?").split()[1] == row["task"]["id"].split("/")[1] for row in kinds["faked_success"]
    ]
    assert sum(guessed) < len(guessed) / 3


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_noise_in_the_full_world_and_in_scores(kind):
    env = TwentyQuestions(world="full", reward="score")
    dataset = add_noise(offline_trajectories(env, 20, seed=0), env, kind=kind)
    validate_trajectories(dataset)
    assert sum(dataset["is_noise"]) == 12
    assert all(sum(row["rewards"]) == row["score"] for row in dataset)


def test_bad_arguments():
    with pytest.raises(ValueError, match="'salt'"):
        add_noise(CLEAN, ENV, kind="salt")
    with pytest.raises(ValueError, match="1.5"):
        add_noise(CLEAN, ENV, share=1.5)
