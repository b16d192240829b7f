"""What weighing costs: `BilevelSFTSelfRefineTrainer` beside TRL's `SFTTrainer` and beside itself with equal weights.

All rows are equally long. The larger the model, the nearer are ratios per step to 1: here it is small.
"""

import os
import tempfile
from functools import partial

import numpy as np
from datasets import Dataset, concatenate_datasets
from side_by_side import Row, Seconds, in_turns
from small_models import Clock, llama, random_rows, random_texts, tokenizer, trainer_of
from trl import SFTConfig, SFTTrainer

from boost_trl import BilevelSFTSelfRefineConfig, BilevelSFTSelfRefineTrainer


# Scores are kept on disk: the user's must not be found here, nor these there.
os.environ["BOOST_TRL_CACHE"] = tempfile.mkdtemp()


def per_token(rounds: int = 2, steps: int = 4, batch: int = 4, length: int = 64) -> list[Row]:
    """Steps of a 25M-parameter model: a batch of the pool and one of validation rows, beside two batches of `SFTTrainer`'s."""
    vocabulary = 16384
    rows, trusted = random_rows(8 * batch, length, vocabulary), random_rows(8, length, vocabulary, seed=1)

    def step(trainer_class: type, config_class: type, options: dict, **data) -> Seconds:
        clock = Clock()
        options |= {"max_steps": clock.warm_up + steps, "per_device_train_batch_size": batch}
        data |= {"train_dataset": rows, "processing_class": tokenizer(100)}
        trainer_of(trainer_class, config_class, llama(vocabulary, 384, 10), [clock], options=options, **data).train()
        return clock.per_step

    # The guard's short trainings come before training; they are a part of `whole_run`.
    ours = (BilevelSFTSelfRefineTrainer, BilevelSFTSelfRefineConfig, {"selection_guard": False})
    ways = {
        "ours": partial(step, *ours, validation_dataset=trusted),
        "TRL's": partial(step, SFTTrainer, SFTConfig, {"gradient_accumulation_steps": 2}),
    }
    times = in_turns(ways, rounds, "SFT per token", warm_up=False)
    details = {
        "parameters": llama(vocabulary, 384, 10).num_parameters(),
        "tokens_per_step": 2 * batch * length,
        "rounds": rounds,
    }
    name = "SFT with the default selector, per training token"
    return [times.row(name, "ours", "TRL's", 1.02, named="`SFTTrainer`", **details)]


def online(rounds: int = 1, steps: int = 40, length: int = 16) -> list[Row]:
    """Whole runs in which a tenth of the answers are the model's own."""
    vocabulary, batch = 2048, 8

    def rows(count, seed):
        texts = random_texts(np.random.default_rng(seed), 2 * count, length, vocabulary)
        return Dataset.from_dict({"prompt": [f"{text} " for text in texts[:count]], "completion": texts[count:]})

    def train(**options) -> Seconds:
        trainer = trainer_of(
            BilevelSFTSelfRefineTrainer,
            BilevelSFTSelfRefineConfig,
            llama(vocabulary, 256, 6),
            options={
                "selector": "bds",
                "max_steps": steps,
                "per_device_train_batch_size": batch,
                "max_generation_length": length,
                "rho_increment": 0.0,
                **options,
            },
            train_dataset=rows(steps * batch, seed=0),
            validation_dataset=rows(64, seed=1),
            processing_class=tokenizer(vocabulary),
        )
        start = Seconds.now()
        trainer.train()
        return Seconds.now() - start

    ways = {"offline": train, **{f"G {g}": partial(train, online_ratio=0.1, num_generations=g) for g in (1, 5)}}
    times = in_turns(ways, rounds, "SFT online", warm_up=False)
    details = {"steps": steps, "rows": steps * batch, "answer_tokens": length, "rounds": rounds}
    return [
        times.row(f"SFT, online, R 10 %, {way}", way, "offline", aim, named="the same run offline", **details)
        for way, aim in (("G 1", 1.08), ("G 5", 1.30))
    ]


def whole_run(rounds: int = 1, num_rows: int = 2000, batch: int = 16, length: int = 32) -> list[Row]:
    """Three epochs of validated selection, scoring included, beside the same with equal weights. Half of the pool has other tokens
    than the trusted rows, so that weights are used and the pool is scored in every epoch."""
    half = random_rows(num_rows // 2, length, 512)
    pool = concatenate_datasets(
        [half, half.map(lambda row: {"input_ids": [511 + token for token in row["input_ids"]]})]
    )

    def train(selector: str) -> Seconds:
        trainer = trainer_of(
            BilevelSFTSelfRefineTrainer,
            BilevelSFTSelfRefineConfig,
            llama(1024, 128, 4),
            options={
                "selector": selector,
                "num_train_epochs": 3,
                "per_device_train_batch_size": batch,
                "rho_init": 0.8,
                "learning_rate": 1e-3,
            },
            train_dataset=pool,
            validation_dataset=random_rows(64, length, 512, seed=1),
            processing_class=tokenizer(100),
        )
        start = Seconds.now()
        trainer.train()
        reports.append(trainer.selection_report)
        return Seconds.now() - start

    reports: list = []
    ways = {"validated": partial(train, "validated"), "equal": partial(train, "mixing")}
    times = in_turns(ways, rounds, "SFT whole run", warm_up=False)
    guard = next(report for report in reports if report is not None)["guard_steps"]
    details = {"rows": num_rows, "length": length, "batch": batch, "guard_steps": guard, "rounds": rounds}
    name = f"SFT, validated selection, whole run of 3 epochs, {num_rows:,} rows"
    return [times.row(name, "validated", "equal", 1.25, named="the same run with equal weights", **details)]
