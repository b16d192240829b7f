"""
What weighing costs: `BilevelSFTSelfRefineTrainer` beside TRL's `SFTTrainer` on the same tokens, in one run.

    OMP_NUM_THREADS=1 python benchmarks/sft.py

Every round trains all of them for some steps, in an order that changes from round to round; a ratio is that of two
runs of one round, and the table has medians over rounds. With a validation set the reference trains on batches of pool
and validation rows together, so that the ratio is the price of weighing and not of more data. All rows are equally long. Times
are CPU seconds of a small Llama: the larger the model, the nearer to 1. The second table sets the selector's update with ten
million rows beside these steps.
"""

import argparse
import tempfile
import time
import warnings

import numpy as np
from datasets import Dataset
from datasets import disable_progress_bars as disable_dataset_bars
from selector import selector_seconds
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from boost_trl import BilevelSFTSelfRefineConfig, BilevelSFTSelfRefineTrainer


WARMUP_STEPS = 5
RANK_TOKEN = {"selector": "rank", "selector_baseline": "token"}
# Ours -> its reference.
PAIRS = {
    "no validation set": "SFTTrainer, pool rows",
    "`weight` column": "SFTTrainer, pool rows",
    "bds": "SFTTrainer, pool and validation rows",
    "rank, token baseline": "SFTTrainer, pool and validation rows",
}


class Clock(TrainerCallback):
    """CPU seconds per step after the first few."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == WARMUP_STEPS:
            self.start = time.process_time()
        elif state.global_step == state.max_steps:
            self.seconds = (time.process_time() - self.start) / (state.max_steps - WARMUP_STEPS)


def make_rows(count: int, args: argparse.Namespace, seed: int) -> Dataset:
    """Random tokens, all of which the model learns."""
    tokens = np.random.default_rng(seed).integers(2, args.vocab_size, (count, args.length)).tolist()
    return Dataset.from_dict({"input_ids": tokens})


def make_model(args: argparse.Namespace) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=args.vocab_size,
        hidden_size=args.hidden_size,
        intermediate_size=3 * args.hidden_size,
        num_hidden_layers=args.layers,
        num_attention_heads=4,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config)


def step_seconds(name: str, args: argparse.Namespace, folder: str) -> float:
    """CPU seconds per step of one training run."""
    tokenizer = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    rows, batch_size, kwargs, options = make_rows(args.rows, args, seed=0), args.batch_size, {}, {}
    validation = make_rows(64, args, seed=1)
    if name.startswith("SFTTrainer"):
        trainer_class, config_class = SFTTrainer, SFTConfig
        if "validation" in name:
            batch_size += args.validation_batch_size
    else:
        trainer_class, config_class = BilevelSFTSelfRefineTrainer, BilevelSFTSelfRefineConfig
        if "weight" in name:
            rows = rows.add_column("weight", np.random.default_rng(2).uniform(0.5, 1.5, len(rows)))
            options = {"weight_column": "weight"}
        elif name != "no validation set":
            kwargs = {"validation_dataset": validation}
            options = {"per_device_validation_batch_size": args.validation_batch_size}
            options |= RANK_TOKEN if "rank" in name else {"selector": name}
    clock = Clock()
    trainer = trainer_class(
        make_model(args),
        config_class(
            output_dir=folder,
            max_steps=WARMUP_STEPS + args.steps,
            per_device_train_batch_size=batch_size,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **options,
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[clock],
        **kwargs,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.seconds


def main(args: argparse.Namespace) -> None:
    disable_dataset_bars()
    warnings.simplefilter("ignore", FutureWarning)
    names = [*dict.fromkeys(PAIRS.values()), *PAIRS]
    seconds = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.repeats):
            for name in np.roll(names, turn):
                seconds[name].append(step_seconds(name, args, folder))
    parameters = make_model(args).num_parameters() / 1e6
    print(
        f"\n{parameters:.2f}M parameters, {args.batch_size} pool rows and {args.validation_batch_size} validation rows of "
        f"{args.length} tokens, {args.steps} steps × {args.repeats} rounds\n"
    )
    print("| ours | ms per step | its reference | ms per step | ratio | smallest to largest |")
    print("|---|---|---|---|---|---|")
    for name, reference in PAIRS.items():
        ratios = np.array(seconds[name]) / seconds[reference]
        ours, theirs = (1e3 * np.median(seconds[key]) for key in (name, reference))
        print(
            f"| {name} | {ours:.1f} | {reference} | {theirs:.1f} | {np.median(ratios):.2f} | "
            f"{ratios.min():.2f} to {ratios.max():.2f} |"
        )
    print(f"\n| selector of {args.selector_rows:,} rows | ms per step | share of its training step |")
    print("|---|---|---|")
    for kind, name in (("bds, sparse", "bds"), ("rank", "rank, token baseline")):
        _, update, _ = selector_seconds(kind, args.selector_rows, args.batch_size, 200)
        share = update / np.median(seconds[name])
        print(f"| {kind}, refreshes spread | {1e3 * update:.3f} | {share:.2%} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocab-size", type=int, default=2048)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--validation-batch-size", type=int, default=2)
    parser.add_argument("--rows", type=int, default=800, help="of the pool that is trained on")
    parser.add_argument("--selector-rows", type=int, default=10_000_000, help="of the selector that is timed apart")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each run")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    main(parser.parse_args())
