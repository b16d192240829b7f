"""Each message on the troubleshooting page is what a user gets today: the mistake is made, and the page quotes it word for word."""

import json
import logging
import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from boost_trl import BilevelSFTSelfRefineConfig, BilevelSFTSelfRefineTrainer, ValuePolicy, cli


PAGE = (Path(__file__).parents[1] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTES = dict(re.findall(r"^### ([^\n]+)\n\n```text\n(.*?)```", PAGE, flags=re.DOTALL | re.MULTILINE))
EPISODE = {
    "messages": [
        {"role": "user", "content": "yes ."},
        {"role": "assistant", "content": "is it big ?"},
        {"role": "user", "content": "no ."},
        {"role": "assistant", "content": "is it old ?"},
    ],
    "rewards": [-1.0, 0.0],
}
OFFLINE_RL = "offline-rl --model_name_or_path model --dataset_name dialogues.jsonl --validation_dataset_name trusted.jsonl".split()
SFT = "sft-self-refine --model_name_or_path model --dataset_name answers.jsonl --validation_dataset_name trusted.jsonl".split()
CPU = "--use_cpu true --bf16 false --report_to none --disable_tqdm true --save_strategy no --max_length 64".split()


LONG = [{"role": "user", "content": "yes . " * 20}, {"role": "assistant", "content": "is it big ?"}]


def write_rows(name, rows):
    Path(name).write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def episode(**changes):
    return {**EPISODE, **changes}


def turns(*roles):
    return [{"role": role, "content": "is it big ?"} for role in roles]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory, tiny_tokenizer):
    from boost_trl.environments.embedded_lm import tiny_gpt2

    folder = tmp_path_factory.mktemp("models")
    tiny_gpt2(tiny_tokenizer, hidden_size=16, num_layers=1, num_heads=2).save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture
def folder(tmp_path, monkeypatch, model_folder):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path / "cache"))
    Path("model").symlink_to(model_folder)
    write_rows("dialogues.jsonl", [EPISODE] * 8)
    write_rows("trusted.jsonl", [EPISODE] * 8)
    write_rows("answers.jsonl", answers(24))
    return tmp_path


def dialogues(*rows):
    return lambda: write_rows("dialogues.jsonl", [*[EPISODE] * 2, *rows])


def command(*words, before=None):
    """A mistake on the command line."""

    def run():
        if before is not None:
            before()
        try:
            assert cli.main(list(words)) in (0, 2)
        except SystemExit as stopped:
            assert stopped.code == 2

    return run


def answers(count, word=None):
    words = ["big", "old", "red", "hot", "tall", "small"]
    return [
        {"prompt": "yes .", "completion": f"is it {word or words[i % 6]} {words[i // 6 % 6]} ?"} for i in range(count)
    ]


def sft(*options, trusted=8):
    """A short training, of which a warning is quoted."""
    return command(*SFT, *CPU, *options, before=lambda: write_rows("trusted.jsonl", answers(trusted)))


def resume_with_other_rows():
    first = [*OFFLINE_RL[:5], *CPU, "--method", "vanilla", "--train_task_frac", "1", "--output_dir", "agent"]
    first[first.index("no")] = "steps"
    assert cli.main([*first, "--max_steps", "1", "--save_steps", "1"]) == 0
    write_rows("dialogues.jsonl", [EPISODE] * 9)
    assert cli.main([*first, "--max_steps", "2", "--resume_from_checkpoint"]) == 2


def open_a_language_model_as_a_policy():
    try:
        ValuePolicy.from_pretrained("model")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)


def configure_as_for_a_gpu():
    try:
        BilevelSFTSelfRefineConfig("out")
    except ValueError as error:
        print(error, file=sys.stderr)


def export_before_training():
    args = BilevelSFTSelfRefineConfig(
        "out", selector="uniform", use_cpu=True, bf16=False, report_to="none", max_length=64
    )
    pool, trusted = Dataset.from_list(answers(8)), Dataset.from_list(answers(4))
    trainer = BilevelSFTSelfRefineTrainer("model", args, train_dataset=pool, validation_dataset=trusted)
    try:
        trainer.export_selected(pool, top_fraction=0.5)
    except ValueError as error:
        print(error, file=sys.stderr)


VANILLA = [*OFFLINE_RL[:5], *CPU, "--method", "vanilla", "--train_task_frac", "1"]
PLAY = "rollout --model_name_or_path model --environment".split()
MISTAKES = {
    # Files and rows
    "The file is not there": command(*OFFLINE_RL[:4], "dialogs.jsonl"),
    "A line is no JSON": command(*OFFLINE_RL, before=dialogues("{'messages': []}")),
    "A column changes its type": command(*OFFLINE_RL, before=dialogues(episode(rewards=0.0))),
    "Not one reward per assistant turn": command(*OFFLINE_RL, *CPU, before=dialogues(episode(rewards=[0.0]))),
    "A reward that is no finite number": command(
        *OFFLINE_RL, *CPU, before=dialogues(episode(rewards=[float("nan"), 0.0]))
    ),
    "A dialogue ends with an observation": command(
        *OFFLINE_RL, *CPU, before=dialogues(episode(messages=turns("assistant", "user"), rewards=[0.0]))
    ),
    "Two assistant turns in a row": command(
        *OFFLINE_RL, *CPU, before=dialogues(episode(messages=turns("assistant", "assistant")))
    ),
    "Rows without rewards": command(
        *OFFLINE_RL, *CPU, before=lambda: write_rows("dialogues.jsonl", [{"prompt": "yes .", "completion": "no ."}])
    ),
    "Rows are longer than `max_length`": command(
        *VANILLA, "--max_length", "8", "--max_steps", "1", before=dialogues(episode(messages=LONG, rewards=[0.0]))
    ),
    # Trusted rows
    "No trusted rows": command(*OFFLINE_RL[:5], *CPU),
    "Too few trusted rows to learn from": sft("--max_steps", "1", trusted=2),
    "Too few trusted rows to compare": command(
        *"compare --dataset_name answers.jsonl --validation_dataset_name trusted.jsonl --model model".split(),
        before=lambda: write_rows("trusted.jsonl", answers(5)),
    ),
    # Options and models
    "An option is misspelt": command(*OFFLINE_RL, "--max_step", "100"),
    "A choice that does not exist": command(*OFFLINE_RL, "--algorithm", "dqn"),
    "bfloat16 on a machine without a GPU": configure_as_for_a_gpu,
    "The model is neither here nor on the Hub": command(*OFFLINE_RL[:2], "gpt3", *OFFLINE_RL[3:], *CPU),
    "A folder that is no agent": open_a_language_model_as_a_policy,
    "Ten epochs and more": sft("--selector", "rank", "--num_train_epochs", "12"),
    # Training and its weights
    "Weights that do nothing": sft("--selector", "bds", "--num_train_epochs", "1"),
    "Weights have collapsed": sft(
        *"--selector bds --selector_learning_rate 1e6 --selector_max_step 50 --num_train_epochs 4".split()
    ),
    "Weights that say nothing": sft(
        *"--selector rank --num_train_epochs 2 --per_device_train_batch_size 6".split(), trusted=30
    ),
    "No best half to export": export_before_training,
    "A checkpoint of other rows": resume_with_other_rows,
    # Environments
    "An environment that is not known": command(*PLAY, "twenty_question"),
    "A file without the environment's class": command(
        *PLAY, "my_game.py:MyGame", before=lambda: Path("my_game.py").write_text("class Game: pass\n")
    ),
    "Dialogues of another game": command(
        *"synthesize --model_name_or_path model --dataset_name dialogues.jsonl --environment twenty_questions".split(),
        *("--output_path", "synthetic.jsonl"),
    ),
}


@pytest.mark.parametrize("title", MISTAKES)
def test_its_message_is_the_one_that_a_user_gets(title, folder, capsys, caplog):
    if "GPU" in title and torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        MISTAKES[title]()
    said = "\n".join([capsys.readouterr().err, *caplog.messages, *(str(warning.message) for warning in warned)])
    quote = " ".join(QUOTES[title].split())
    pattern = ".*?".join(re.escape(part).replace(r"\ ", r"\s+") for part in quote.split("…"))
    assert re.search(pattern, said, flags=re.DOTALL), (title, said[-2000:])


def test_the_page_has_these_mistakes_and_no_others():
    assert list(QUOTES) == list(MISTAKES) and len(QUOTES) >= 20
