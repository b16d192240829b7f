"""Small files in the form of the original's."""

ITEMS = [
    {
        "asin": "B00000000A",
        "name": "Soft Hat",
        "category": "fashion",
        "query": " Hats ",
        "product_category": "Clothing › Men › Hats",
        "full_description": "warm",
        "small_description": ["one", "two"],
        "pricing": "$10.00$20.00",
        "customization_options": {
            "Color": [{"value": " Red/Blue ", "image": None}, {"value": "Green"}],
            "Size": None,
            "Style": [{"value": "Plain"}],
        },
        "images": ["x"],
    },
    {"asin": "B00000000A", "name": "Duplicate"},
    {"asin": "nan", "name": "None"},
    {"asin": "B00000000TOOLONG", "name": "Long"},
    {
        "asin": "B00000000B",
        "name": "Steel Kettle",
        "category": "garden",
        "query": "kettles",
        "product_category": "Home › Kitchen",
        "full_description": None,
        "small_description": "single",
        "pricing": None,
        "customization_options": None,
        "images": ["x"],
    },
    {
        "asin": "B00000000C",
        "name": "Wool Scarf",
        "category": "fashion",
        "query": "scarfs",
        "product_category": "Clothing › Women › Scarfs",
        "full_description": "",
        "small_description": [],
        "pricing": "$57.10",
        "customization_options": {},
        "images": ["x"],
    },
]


ATTRIBUTES = {
    "B00000000A": {
        "attributes": ["soft"],
        "instruction": "Find me soft hats",
        "instruction_attributes": ["soft"],
    },
    "B00000000C": {"attributes": ["wool", "warm"], "instruction": "Find me wool", "instruction_attributes": ["wool"]},
}


BY_PEOPLE = {
    "B00000000A": [
        {"instruction": "i want a hat.", "instruction_attributes": ["soft"], "instruction_options": ["green"]},
        {"instruction": "skipped", "instruction_attributes": [], "instruction_options": []},
    ],
    "B00000000B": [{"instruction": "a kettle", "instruction_attributes": ["steel"], "instruction_options": []}],
}
