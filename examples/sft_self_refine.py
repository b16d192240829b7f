"""Learned example weights and self-refined answers for supervised fine-tuning, all methods side by side.

A tiny model learns from a pool in which most answers contradict a small trusted set. Every method takes the same number
of steps; what counts is the loss on trusted rows that nothing trained on. Results go to `output_dir`.

    python examples/sft_self_refine.py
    python examples/sft_self_refine.py --methods uniform rank_token known_good --seeds 0 1 2 3 4
    python examples/sft_self_refine.py --config examples/configs/sft_real_text.yaml --seeds 0 1 2

and in the paper's setting (datasets and models of the Hub, a GPU):

    accelerate launch examples/sft_self_refine.py --config examples/configs/sft_pythia_1b.yaml

Flags override the file. All fields of `BilevelSFTSelfRefineConfig` and of TRL's `ModelConfig` are flags too.
"""

import logging
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from trl import TrlParser


PRESET = Path(__file__).parent / "configs" / "sft_contradiction.yaml"
TITLES = {
    "contradiction": "SFT on contradicting answers",
    "real_text": "SFT from scratch on real text",
    "smollm2": "SFT of SmolLM2 on real text",
    "other_store": "SFT of SmolLM2 on another store's answers",
    "hub": "SFT on two datasets",
}


@dataclass
class Arguments:
    pool: str = field(
        default="contradiction",
        metadata={
            "help": "'contradiction' (embedded), 'real_text' and 'smollm2' (GSM8K and hh-rlhf from the folder in "
            "BOOST_TRL_DATA; a small model from scratch, or SmolLM2-135M with LoRA), 'other_store' (SmolLM2-135M with LoRA, where "
            "most answers are another store's) or 'hub' (the paper's data)."
        },
    )
    methods: list[str] | None = field(default=None, metadata={"help": "Methods to run; all by default."})
    seeds: list[int] = field(default_factory=lambda: [1], metadata={"help": "One run of everything for each."})
    bad_share: float = field(default=0.6, metadata={"help": "Share of bad rows in the contradiction pool."})
    pretraining_epochs: int = field(
        default=0,
        metadata={
            "help": "Epochs that the contradiction pool's model is pretrained for, on other rows in equal parts of all kinds, so that "
            "fine-tuning only selects one."
        },
    )
    processes: int = field(
        default=1, metadata={"help": "Processes that share out the methods, on a machine with as many cores."}
    )
    shard: str | None = field(default=None, metadata={"help": "Run the i-th of n shards only, as i/n; no report."})
    num_rows: int = field(default=2400, metadata={"help": "Rows of the contradiction pool or of the Hub's."})


def make_experiment(arguments: Arguments, hub_arguments, model_args, training_args, seed: int):
    """Model and data of one seed."""
    if arguments.pool == "hub":
        from sft_hub_data import hub_experiment

        return hub_experiment(hub_arguments, model_args, training_args, arguments.num_rows, seed)
    if arguments.pool == "contradiction":
        from boost_trl.comparison.sft.contradiction_pool import contradiction_pool

        return contradiction_pool(
            seed, arguments.num_rows, arguments.bad_share, pretraining_epochs=arguments.pretraining_epochs
        )
    if arguments.pool == "other_store":
        from sft_other_store import other_store

        return other_store(seed)
    from sft_real_text import from_scratch, smollm2

    folder = Path(training_args.output_dir)
    return {"real_text": from_scratch, "smollm2": smollm2}[arguments.pool](seed, folder / "cache")


def parse(argv: list[str]):
    """The example's arguments, the Hub's data, the model's and the training's settings, from a YAML file and flags."""
    from sft_hub_data import HubArguments
    from trl import ModelConfig

    from boost_trl import BilevelSFTSelfRefineConfig

    # Defaults in the help are TRL's; what a file says comes before them, and a flag before both.
    epilog = f"Without --config, {PRESET.relative_to(Path(__file__).parents[1])} is read."
    types = (Arguments, HubArguments, ModelConfig, BilevelSFTSelfRefineConfig)
    parser = TrlParser(types, description=__doc__.splitlines()[0], epilog=epilog)
    if "--config" not in argv and not {"-h", "--help"} & set(argv):
        argv = ["--config", str(PRESET), *argv]
    return parser.parse_args_and_config(argv)


def main(argv: list[str]) -> None:
    import datasets
    import transformers

    from boost_trl.comparison.cells import Cell, run_cells, run_shards, shard
    from boost_trl.comparison.sft.comparison import SFTComparison, options_of

    start = time.perf_counter()
    arguments, hub_arguments, model_args, training_args = parse(argv)
    if arguments.pool not in TITLES:
        raise ValueError(f"`pool` is {arguments.pool!r}; choose one of {', '.join(TITLES)}")
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    folder = Path(training_args.output_dir)
    comparison = SFTComparison(
        folder,
        options_of(training_args),
        lambda cell: make_experiment(arguments, hub_arguments, model_args, training_args, cell.seed),
    )
    methods = comparison.choose(arguments.methods)
    cells = [Cell(method, seed) for seed in arguments.seeds for method in methods]
    if arguments.shard is not None:
        run_cells(comparison, shard(comparison, cells, arguments.shard, lambda cell: cell.method), progress=False)
        return
    if arguments.processes > 1:
        if training_args.world_size > 1:
            raise ValueError("`processes` shares out methods, `accelerate launch` batches: use one of them.")
        run_shards([__file__, *argv], arguments.processes, folder, len(cells))
    results = run_cells(comparison, cells)
    if training_args.process_index == 0:
        report = comparison.report(TITLES[arguments.pool], results)
        report.print()
        report.write(folder)
        print(f"\n{folder}/report.html has the table and the pictures; it took {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    main(sys.argv[1:])
