import gzip
import importlib.util
import json
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from boost_trl.data.hh_rlhf import load_hh_rlhf, parse_dialogue, split_pairs, swap_labels
from boost_trl.data.trajectories import validate_trajectories


EXAMPLE = Path(__file__).parents[2] / "examples" / "hh_rlhf.py"
TURNS = "\n\nHuman: is it big ?\n\nAssistant: yes .\n\nHuman: hot ?\n\nAssistant:"


def write(path, pairs):
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(pair) + "\n" for pair in pairs)
    return path


@pytest.fixture
def load(tmp_path):
    return lambda pairs: load_hh_rlhf(write(tmp_path / "pairs.jsonl.gz", pairs))


def numbered(count, prompts=None):
    prompts = range(count) if prompts is None else prompts
    return [
        {"chosen": f"\n\nHuman: {prompt}\n\nAssistant: a {i}", "rejected": f"\n\nHuman: {prompt}\n\nAssistant: b {i}"}
        for i, prompt in enumerate(prompts)
    ]


def test_turns_and_rewards(load):
    rows = load([{"chosen": f"{TURNS} yes .", "rejected": f"{TURNS} no .\n\nmaybe ."}])
    validate_trajectories(rows)
    shared = [
        {"role": "user", "content": "is it big ?"},
        {"role": "assistant", "content": "yes ."},
        {"role": "user", "content": "hot ?"},
    ]
    assert rows[0]["messages"] == [*shared, {"role": "assistant", "content": "yes ."}]
    assert rows[1]["messages"] == [*shared, {"role": "assistant", "content": "no .\n\nmaybe ."}]
    assert rows["rewards"] == [[0.0, 1.0], [0.0, -1.0]]
    assert rows["preferred"] == [True, False] and rows["pair"] == [0, 0]
    assert rows["terminated"] == [True, True] and rows["source"] == ["offline", "offline"]


def test_a_speaker_who_goes_on_is_one_turn():
    text = "\n\nHuman: hi\n\nHuman: there\n\nAssistant:\n\nAssistant: the word Human: is no turn\n\nAssistant: ."
    assert parse_dialogue(text) == [
        {"role": "user", "content": "hi\n\nthere"},
        {"role": "assistant", "content": "the word Human: is no turn\n\n."},
    ]


@pytest.mark.parametrize(
    ("rejected", "message"),
    [
        ("no turns", "row 1, column `rejected`: must begin with"),
        ("hi\n\nHuman: a\n\nAssistant: b", "row 1, column `rejected`: must begin with"),
        ("\n\nHuman: a\n\nAssistant: b\n\nHuman: c", "row 1, column `rejected`: must end with an answer"),
        (None, "row 1, column `rejected`: must be a text"),
    ],
)
def test_a_bad_dialogue_is_named(load, rejected, message):
    good = numbered(1)[0]
    with pytest.raises(ValueError, match=r"pairs\.jsonl\.gz, " + message):
        load([good, good | {"rejected": rejected}])


def test_the_hub_layout_is_read(tmp_path):
    (tmp_path / "harmless-base").mkdir()
    write(tmp_path / "harmless-base" / "train.jsonl.gz", numbered(3))
    write(tmp_path / "harmless-base" / "test.jsonl.gz", numbered(1))
    assert len(load_hh_rlhf(tmp_path)) == 6
    assert len(load_hh_rlhf(tmp_path, split="test")) == 2


def test_sets_are_disjoint_whole_pairs(load):
    rows = load(numbered(30))
    parts = split_pairs(rows, {"train": 12, "validation": 5, "heldout": 13}, seed=0)
    pairs = {name: list(part["pair"]) for name, part in parts.items()}
    assert {name: len(part) for name, part in pairs.items()} == {"train": 24, "validation": 10, "heldout": 26}
    assert sorted(sum(pairs.values(), [])) == sorted([*range(30), *range(30)])
    assert all(part[::2] == part[1::2] for part in pairs.values())
    assert all(part["preferred"] == [True, False] * (len(part) // 2) for part in parts.values())
    assert split_pairs(rows, {"train": 12}, seed=1)["train"]["pair"][:] != pairs["train"]
    with pytest.raises(ValueError, match="20 train . 11 heldout pairs are more than the 30"):
        split_pairs(rows, {"train": 20, "heldout": 11}, seed=0)


def test_a_prompt_stays_in_one_set(load):
    rows = load(numbered(40, prompts=[number // 4 for number in range(40)]))
    for seed in range(5):
        parts = split_pairs(rows, {"train": 16, "heldout": 24}, seed=seed)
        prompts = [{messages[0]["content"] for messages in part["messages"]} for part in parts.values()]
        assert [len(part) for part in prompts] == [4, 6] and not prompts[0] & prompts[1]


def test_swapped_pairs_trade_their_rewards(load):
    rows = load([{"chosen": f"{TURNS} yes {i}", "rejected": f"{TURNS} no {i}"} for i in range(8)])
    swapped = swap_labels(rows, 0.25, seed=0)
    marks = list(swapped["is_noise"])
    assert sum(marks) == 4 and marks[::2] == marks[1::2]
    for row, is_swapped in zip(swapped, marks):
        assert row["rewards"] == [0.0, 1.0 if row["preferred"] != is_swapped else -1.0]
    assert list(swapped["messages"]) == list(rows["messages"])
    assert swap_labels(rows, 0.25, seed=1)["is_noise"][:] != marks
    assert not any(swap_labels(rows, 0.0, seed=0)["is_noise"]) and all(swap_labels(rows, 1.0, seed=0)["is_noise"])
    with pytest.raises(ValueError, match="`share` must lie in .*, got 2"):
        swap_labels(rows, 2, seed=0)


@pytest.mark.skipif("BOOST_TRL_DATA" not in os.environ, reason="needs the folder of real data, BOOST_TRL_DATA")
def test_the_real_file_is_read_whole():
    rows = load_hh_rlhf(Path(os.environ["BOOST_TRL_DATA"]) / "hh_rlhf_harmless_test.jsonl.gz")
    validate_trajectories(rows)
    assert len(rows) == 2 * 2312
    same_prompt = [a[:-1] == b[:-1] for a, b in zip(rows["messages"][::2], rows["messages"][1::2])]
    assert np.mean(same_prompt) > 0.99
    assert rows[0]["messages"][0]["content"] == "what are some pranks with a pen i can do?"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("hh_rlhf_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE.parent))
        spec.loader.exec_module(module)
    return module


def test_ranking_and_weights_in_numbers(example):
    scores = np.array([2.0, 1.0, 0.0, 3.0, 5.0, 5.0])
    assert example.wins(scores).tolist() == [1.0, 0.0, 0.5]
    # Pairs 0 and 1 are right, 2 and 3 swapped. The first answer of each is the truly better one and always weighs more.
    train = {"is_noise": [False] * 4 + [True] * 4}
    statistics = example.weight_statistics([3.0, 1.0, 2.0, 1.0, 3.0, 1.0, 2.0, 1.0], train)
    assert statistics["auc_row"] == 0.5 and statistics["auc_pair"] == 0.5 and statistics["auc_contrast"] == 1.0
    found = example.weight_statistics([2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0], train)
    assert found["auc_row"] == 1.0 and found["auc_pair"] == 1.0 and found["auc_contrast"] is None
    assert example.weight_statistics([1.0] * 8, train)["auc_row"] is None


def test_scores_of_answers(example, load, tiny_tokenizer, make_tiny_model):
    """Against one forward pass per row, with the answer found in the text."""
    from boost_trl.data.chat_templates import with_action_marks
    from boost_trl.models.value_heads import ValueHeads, ValueHeadsConfig

    tokenizer = with_action_marks(tiny_tokenizer)
    model = make_tiny_model("llama").eval()
    heads = ValueHeads(ValueHeadsConfig("ilql", 16, len(tokenizer), num_q_heads=2, return_scale=2.0))
    heads.initialize_random(std=0.5, generator=torch.Generator().manual_seed(0))
    rows = load([{"chosen": f"{TURNS} big red tall .", "rejected": f"{TURNS} no ."}])
    answers = example.last_answers(rows, tokenizer, 128)
    states = example.answer_states(model, answers, tokenizer.pad_token_id, "cpu")
    likelihoods = example.likelihoods(model.get_output_embeddings().weight, states, len(answers))
    q_scores = example.q_scores(heads, states, len(answers))
    for number, answer in enumerate(["big red tall .", "no ."]):
        ids = torch.tensor([tokenizer.apply_chat_template(rows[number]["messages"])["input_ids"]])
        length = len(answer.split()) + 1
        assert tokenizer.decode(ids[0, -length:]).split() == [*answer.split(), tokenizer.eos_token]
        with torch.no_grad():
            output = model(input_ids=ids, output_hidden_states=True)
            q = heads.q_logits(output.hidden_states[-1][0]).gather(1, ids[0].roll(-1)[:, None])[-length - 1 : -1, 0]
        log_probs = output.logits[0].log_softmax(-1).gather(1, ids[0].roll(-1)[:, None])[-length - 1 : -1, 0]
        expected = [log_probs.mean().item(), log_probs.sum().item()]
        np.testing.assert_allclose(likelihoods[number], expected, rtol=1e-5)
        np.testing.assert_allclose(q_scores[number], [2 * q.mean().item(), 2 * q[-1].item()], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train_backbone", [True, False])
def test_the_example_runs(example, tmp_path, monkeypatch, tiny_tokenizer, make_tiny_model, train_backbone):
    rng = random.Random(0)
    words = "big red hot tall small old".split()
    pairs = []
    for _ in range(40):
        prompt = f"\n\nHuman: is it {' '.join(rng.sample(words, 3))} ?\n\nAssistant:"
        pairs.append(
            {"chosen": f"{prompt} {rng.choice(words)} yes .", "rejected": f"{prompt} {rng.choice(words)} no ."}
        )
    write(tmp_path / "hh_rlhf_harmless_test.jsonl.gz", pairs)
    monkeypatch.setenv("BOOST_TRL_DATA", str(tmp_path))
    make_tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    arguments = example.Arguments(
        model_name_or_path=str(tmp_path / "model"),
        methods=["vanilla", "boost", "validated", "oracle"],
        train_pairs=12,
        validation_pairs=8,
        heldout_pairs=10,
        train_backbone=train_backbone,
        lora_layers=1,
        updates=10,
        batch_size=8,
        learning_rate=1e-2,
        cql_weight=1.0,
        score_steps=5,
        output_dir=str(tmp_path / "out"),
    )
    rows = example.main(arguments)
    assert [row["method"] for row in rows[3:]] == arguments.methods
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == rows
    by_method = {row["method"]: row for row in rows}
    assert by_method["vanilla"]["auc_row"] is None and by_method["oracle"]["num_rows"] == 12
    assert 0 <= by_method["boost"]["auc_row"] <= 1 and by_method["boost"]["effective_sample_size"] < 24
    report = (tmp_path / "out" / "report.md").read_text()
    assert all(f"| {row['label']} |" in report for row in rows)
    assert (tmp_path / "out" / "hh_rlhf.png").is_file()
    monkeypatch.setattr(example.HHComparison, "run", lambda *_: pytest.fail("every cell has its result"))
    assert example.main(arguments) == rows


def test_unknown_methods_are_named(example):
    with pytest.raises(ValueError, match=r"unknown `methods` \['best'\]"):
        example.main(example.Arguments(methods=["best"]))
