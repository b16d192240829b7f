"""Memory that a training takes in its second half beyond that of its first: a leak would add some with each step."""

import gc

from side_by_side import Row, in_new_process, resident_megabytes
from small_models import llama, random_dialogues, random_rows, tokenizer, trainer_of
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from boost_trl import (
    BilevelOfflineRLConfig,
    BilevelOfflineRLTrainer,
    BilevelSFTSelfRefineConfig,
    BilevelSFTSelfRefineTrainer,
)


FIRST, STEPS, VOCABULARY = 500, 1000, 64


class Resident(TrainerCallback):
    """Memory in use after half of the steps and after all."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step in (FIRST, STEPS):
            gc.collect()
            self.grown = resident_megabytes() - getattr(self, "first", 0.0)
            self.first = resident_megabytes()


def growth(way: str) -> float:
    """Megabytes between half of a training and its end, in this process."""
    resident = Resident()
    # Few rows, so that there are many epochs.
    options = {"max_steps": STEPS, "per_device_train_batch_size": 4, "logging_steps": 50, "learning_rate": 1e-4}
    data = {"processing_class": tokenizer(VOCABULARY)}
    if way == "offline RL":
        data |= {
            "train_dataset": random_dialogues(64, 2, 4, VOCABULARY),
            "validation_dataset": random_dialogues(16, 2, 4, VOCABULARY, seed=1),
        }
        classes, options = (BilevelOfflineRLTrainer, BilevelOfflineRLConfig), {**options, "algorithm": "ilql"}
    else:
        data["train_dataset"] = random_rows(64, 16, VOCABULARY)
        classes = (SFTTrainer, SFTConfig)
        if way != "SFTTrainer":
            classes = (BilevelSFTSelfRefineTrainer, BilevelSFTSelfRefineConfig)
            data["validation_dataset"] = random_rows(16, 16, VOCABULARY, seed=1)
            options |= {"selector": way, "rho_increment": 0.0}
    trainer_of(*classes, llama(VOCABULARY, 16, 1), [resident], options=options, **data).train()
    return resident.grown


def measure() -> list[Row]:
    ways = ("SFTTrainer", "rank", "validated", "offline RL")
    found = {way: in_new_process(growth, way) for way in ways}
    details = {"steps": [FIRST, STEPS], "megabytes": found}
    sft = max(found["rank"], found["validated"]) - found["SFTTrainer"]
    name = f"steps {FIRST:,} to {STEPS:,}: growth of memory"
    return [
        Row(f"SFT, {name}", "`SFTTrainer`'s", sft, 1.0, "MB", details=details),
        Row(f"offline RL, {name}", "`SFTTrainer`'s", found["offline RL"] - found["SFTTrainer"], 1.0, "MB"),
    ]
