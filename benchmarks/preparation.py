"""From rows to the first step, beside TRL: preparing rows of text and of messages, and the start with a large pool of tokens."""

import tempfile
from collections.abc import Callable
from functools import partial

import datasets
import numpy as np
from side_by_side import Row, Seconds, Times, in_turns, with_peak
from small_models import llama, random_dialogues, random_rows, random_texts, tokenizer, trainer_of
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from boost_trl import (
    BilevelOfflineRLConfig,
    BilevelOfflineRLTrainer,
    BilevelSFTSelfRefineConfig,
    BilevelSFTSelfRefineTrainer,
)


VOCABULARY = 512
TRAINERS = {
    "TRL": (SFTTrainer, SFTConfig),
    "SFT": (BilevelSFTSelfRefineTrainer, BilevelSFTSelfRefineConfig),
    "RL": (BilevelOfflineRLTrainer, BilevelOfflineRLConfig),
}


def on_disk(dataset: datasets.Dataset) -> datasets.Dataset:
    """As `load_dataset` gives it, mapped into memory."""
    folder = tempfile.mkdtemp()
    dataset.save_to_disk(folder)
    return datasets.load_from_disk(folder)


def preparing(num_rows: int = 20_000, rounds: int = 2) -> list[Row]:
    datasets.disable_caching()
    rng = np.random.default_rng(0)
    texts = on_disk(datasets.Dataset.from_dict({"text": random_texts(rng, num_rows, 24, VOCABULARY)}))
    dialogues = on_disk(random_dialogues(num_rows, 2, 6, VOCABULARY))
    trusted = datasets.Dataset.from_dict({"text": random_texts(rng, 64, 24, VOCABULARY)})

    def prepare(name: str, rows: datasets.Dataset, options: dict | None = None, **data) -> None:
        data |= {"train_dataset": rows, "processing_class": tokenizer(VOCABULARY)}
        trainer_of(*TRAINERS[name], llama(VOCABULARY, 16, 1), options=options or {}, **data)

    sft = {"ours": partial(prepare, "SFT", texts, validation_dataset=trusted), "TRL's": partial(prepare, "TRL", texts)}
    rl = {
        "ours": partial(prepare, "RL", dialogues, {"method": "vanilla"}),
        "TRL's": partial(prepare, "TRL", dialogues, {"assistant_only_loss": True}),
    }
    details = {"rows": num_rows, "rounds": rounds}
    return [
        in_turns(ways, rounds, f"{name} preparation", warm_up=False).row(
            f"{name}: preparing {num_rows:,} rows of {kind}", "ours", "TRL's", 1.2, named="`SFTTrainer`", **details
        )
        for name, kind, ways in (("SFT", "text", sft), ("offline RL", "messages", rl))
    ]


def starting(num_rows: int = 1_000_000) -> list[Row]:
    """Until the first step is done, rows being tokens already. `selector="validated"` would score its pool first, which is
    measured as a part of whole runs. Each way in a fresh process, once: it takes minutes."""
    found = {name: with_peak(start, name, num_rows) for name in ("SFT", "TRL")}
    times = Times({name: [seconds] for name, (seconds, _) in found.items()})
    peaks = {name: megabytes for name, (_, megabytes) in found.items()}
    title = f"SFT: start to first step, pool of {num_rows:,} rows"
    return [
        times.row(f"{title}: time", "SFT", "TRL", 1.2, named="`SFTTrainer`", rows=num_rows),
        Row(
            f"{title}: peak memory beyond",
            "`SFTTrainer`",
            peaks["SFT"] - peaks["TRL"],
            100.0,
            "MB",
            details={"megabytes": peaks},
        ),
    ]


class FirstStep(TrainerCallback):
    """When it is done; what follows, at the end of an epoch, is not start."""

    def on_step_end(self, args, state, control, **kwargs):
        self.end = Seconds.now()


def start(name: str, num_rows: int) -> Callable[[], Seconds]:
    datasets.disable_caching()
    pool = on_disk(random_rows(num_rows, 8, VOCABULARY))
    options, data = {"max_steps": 1}, {}
    if name == "SFT":
        options["selector"] = "rank"
        data["validation_dataset"] = random_rows(64, 8, VOCABULARY, seed=1)
    parts = {"train_dataset": pool, "processing_class": tokenizer(VOCABULARY), **data}

    def run() -> Seconds:
        begin, first_step = Seconds.now(), FirstStep()
        trainer_of(*TRAINERS[name], llama(VOCABULARY, 16, 1), [first_step], options=options, **parts).train()
        return first_step.end - begin

    return run
