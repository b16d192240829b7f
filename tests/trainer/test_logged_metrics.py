"""Every number that a run logs is explained on its trainer's page."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from dpo_tiny import make_dpo_args, make_preferences
from offline_rl_tiny import OPTIONS
from sft_tiny import make_args, make_model, make_pairs, make_tokenizer

from boost_trl import (
    BilevelDPOTrainer,
    BilevelOfflineRLConfig,
    BilevelOfflineRLTrainer,
    BilevelSFTSelfRefineTrainer,
    make_env,
)
from boost_trl.environments.twenty_questions.offline_data import offline_trajectories
from boost_trl.environments.twenty_questions.pretraining import small_vocabulary


DOCS = Path(__file__).parents[2] / "docs"


def documented(page):
    """Names in the first column of the page's tables; `…` stands for anything."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`[^|]+) \|", text, flags=re.MULTILINE)
    return {name.replace("…", "*") for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def unexplained(trainer, page):
    logged = {name for entry in trainer.state.log_history for name in entry} - {"step"}
    return ", ".join(name for name in sorted(logged) if not any(fnmatch(name, known) for known in documented(page)))


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "boost", "algorithm": "ilql"},
        {"method": "validated", "score_steps": 8},
        {"method": "vanilla", "weight_level": "turn"},
    ],
    ids=lambda changes: changes["method"],
)
def test_those_of_offline_rl(changes, tmp_path):
    from boost_trl.environments.embedded_lm import tiny_gpt2, word_tokenizer

    tokenizer = word_tokenizer(["user:", "assistant:", "system:", *small_vocabulary()])
    env = make_env("twenty_questions")
    rows = offline_trajectories(env, 24, seed=0)
    own = {"eval_strategy": "steps", "eval_steps": 4, "eval_games": 2, "max_new_tokens": 4, "max_grad_norm": 1.0}
    trainer = BilevelOfflineRLTrainer(
        tiny_gpt2(tokenizer, hidden_size=16, num_layers=1, num_heads=2, max_length=128),
        BilevelOfflineRLConfig(str(tmp_path), **{**OPTIONS, **own, **changes}),
        train_dataset=rows.map(lambda row, i: {"source": ["offline", "synthetic"][i % 2]}, with_indices=True),
        validation_dataset=None if changes["method"] == "vanilla" else rows.select(range(12)),
        eval_dataset=rows.select(range(4)),
        environment=env,
        processing_class=tokenizer,
    )
    trainer.train()
    assert unexplained(trainer, "bilevel_offline_rl_trainer") == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"online_ratio": 0.3, "generation_interval": 1, "max_generation_length": 4, "label_column": "is_good"},
        {"selector": "rank", "eval_strategy": "steps", "eval_steps": 3},
        {"selector": "validated"},
    ],
    ids=["online", "rank", "validated"],
)
def test_those_of_sft(changes, tmp_path):
    pool = make_pairs(12).add_column("is_good", [i % 2 == 0 for i in range(12)])
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(tmp_path, **{"max_steps": 8, **changes}),
        train_dataset=pool,
        validation_dataset=make_pairs(24),
        eval_dataset=make_pairs(4),
        processing_class=make_tokenizer(),
    )
    trainer.train()
    assert unexplained(trainer, "bilevel_sft_self_refine_trainer") == ""


def test_those_of_dpo(tmp_path):
    trainer = BilevelDPOTrainer(
        make_model(),
        args=make_dpo_args(tmp_path, eval_strategy="steps", eval_steps=3),
        train_dataset=make_preferences(12),
        validation_dataset=make_preferences(8),
        eval_dataset=make_preferences(4),
        processing_class=make_tokenizer(),
    )
    trainer.train()
    assert unexplained(trainer, "bilevel_dpo_trainer") == ""
