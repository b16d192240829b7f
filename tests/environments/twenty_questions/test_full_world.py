import pytest

from boost_trl.environments.twenty_questions.full_world import full_world


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
