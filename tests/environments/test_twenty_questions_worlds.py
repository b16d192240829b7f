import numpy as np
import pytest

from boost_trl.environments.twenty_questions.full_world import full_world
from boost_trl.environments.twenty_questions.small_world import small_world


TABLE_3 = """Sports Basketball, Football, Baseball, Tennis racket, Helmet
Animals Cat, Dog, Horse, Lion, Elephant
Fruits Apple, Banana, Strawberry, Watermelon, Mango
Vehicles Car, Motorcycle, Airplane, Helicopter, Ship
Clothes Shirt, Jacket, Dress, Boots, Scarf
Electronics Smartphone, Television, Camera, Refrigerator, Blender
Musical Instruments Piano, Guitar, Violin, Trumpet, Harp
Furniture Chair, Bed, Couch, Bookcase, Nightstand
Office Supplies Pen, Stapler, Calculator, Scissors, Diary
Vegetables Carrot, Broccoli, Tomato, Spinach, Cucumber
Art Painting, Paintbrush, Canvas, Sculpture, Marker
Kitchen Tools Knife, Fork, Bowl, Frying pan, Whisk
Nature Rock, Tree, Mountain, Ocean, Cactus
Toys Lego, Doll, Kite, Puzzle, Stuffed animal
Jewelry Earrings, Necklace, Ring, Watch, Pendant
Garden Supplies Shovel, Rake, Watering can, Lawn mower, Gloves
Tools Hammer, Screwdriver, Wrench, Saw, Drill"""


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


def test_small_worlds():
    world, same, other = small_world(0), small_world(0), small_world(1)
    assert len(world.categories) == 12 and len(world.items) == 192 and len(world.questions) == 8
    codebook = world.table.reshape(12, 16, 8)
    assert (codebook == codebook[:1]).all() and (codebook[0].sum(axis=0) == 8).all()
    assert (world.table == same.table).all() and (world.table != other.table).any()
    assert world.max_questions == 12 and small_world(0, max_questions=7).max_questions == 7


def test_the_full_world_holds_table_3():
    world = full_world()
    categories = {}
    for line in TABLE_3.splitlines():
        category = next(c for c in world.categories if line.startswith(f"{c} "))
        categories[category] = line.removeprefix(category).strip().split(", ")
    assert list(categories) == list(world.categories) and sum(map(len, categories.values())) == 85
    for category, names in categories.items():
        own = {name.lower() for item in world.items if item.category == category for name in item.names}
        assert {name.lower() for name in names} <= own
        assert 10 <= sum(item.category == category for item in world.items) <= 14


@pytest.mark.parametrize(
    ("question", "yes", "no"),
    [
        ("Is it alive?", ["cat", "tree", "snake"], ["rock", "apple", "stuffed animal"]),
        ("Can you eat it?", ["apple", "carrot", "chicken"], ["fork", "cat", "paint"]),
        ("Can it fly?", ["airplane", "kite", "duck", "balloon"], ["car", "chicken", "horse"]),
        ("Does it use electricity?", ["drill", "toaster", "smartphone"], ["hammer", "guitar", "lawn mower"]),
        ("Does it have strings?", ["violin", "harp", "tennis racket"], ["flute", "drum", "hammer"]),
        ("Can you wear it?", ["boots", "watch", "helmet", "gardening gloves"], ["stapler", "apple"]),
        ("Is it bigger than a house?", ["mountain", "ocean", "ship"], ["car", "cat", "bed"]),
        ("Is it used to cut?", ["knife", "saw", "scissors"], ["fork", "hammer"]),
        ("Is it an animal?", ["lion", "fish"], ["stuffed animal", "cactus"]),
        ("Is it a fruit?", ["lemon", "cherry"], ["tomato", "carrot"]),
    ],
)
def test_facts(question, yes, no):
    world = full_world()
    items = {item.names[0]: item for item in world.items}
    assert [world.answer(question, items[name]) for name in yes] == ["Yes."] * len(yes)
    assert [world.answer(question, items[name]) for name in no] == ["No."] * len(no)


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
