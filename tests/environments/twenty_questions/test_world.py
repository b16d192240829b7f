import numpy as np
import pytest

from boost_trl.environments.twenty_questions.full_world import full_world
from boost_trl.environments.twenty_questions.small_world import small_world
from boost_trl.environments.twenty_questions.world import normalise


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("Is it a Tennis-Racket?", "tennis racket"),
        ("Can it fly?", "can fly"),
        ("Can the object fly?", "can fly"),
        ("Does this have a handle?", "does have handle"),
        ("Are they some scissors?", "scissors"),
        ("heavy?", "heavy"),
        ("Is it very heavy?", "heavy"),
    ],
)
def test_what_a_question_asks(text, asks):
    assert normalise(text) == asks


@pytest.fixture(scope="module", params=["small", "full"])
def world(request):
    return small_world(3) if request.param == "small" else full_world()


def test_every_item_has_answers_of_its_own(world):
    by_category = [[i for i, item in enumerate(world.items) if item.category == c] for c in world.categories]
    groups = by_category if world.announces_category else [range(len(world.items))]
    for group in groups:
        assert len({world.table[i].tobytes() for i in group}) == len(group)
    share = world.table.mean(axis=0)
    assert (share > 0).all() and (share < 1).all()


def test_every_guess_names_its_item_and_no_other(world):
    for index, item in enumerate(world.items):
        for text in (item.guess, *item.names):
            question, named = world.read(text)
            rivals = [i for i in named if i != index and world.items[i].category == item.category]
            assert question is None and index in named and not rivals, text
            assert world.announces_category or named == {index}


def test_every_wording_asks_its_question(world):
    for index, question in enumerate(world.questions):
        for text in (question.text, *question.paraphrases):
            assert world.read(text) == (index, frozenset()), text


def test_changed_facts_give_every_item_another_ones_attributes(world):
    changed = world.with_changed_facts(5)
    assert (changed.table != world.table).any(axis=1).all()
    for category in world.categories:
        rows = [i for i, item in enumerate(world.items) if item.category == category]
        assert sorted(r.tobytes() for r in changed.table[rows]) == sorted(r.tobytes() for r in world.table[rows])
    if world.name == "small":
        codebook = changed.table.reshape(12, 16, 8)
        assert (codebook == codebook[:1]).all()
    assert (changed.table == world.with_changed_facts(5).table).all()
    assert not np.array_equal(changed.table, world.with_changed_facts(6).table)
