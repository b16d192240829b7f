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

import dataclasses
import functools
import logging
import os
import subprocess
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
    "hub": "SFT on two datasets",
}


@dataclass
class Arguments:
    pool: str = field(
        default="contradiction",
        metadata={
            "help": "'contradiction' (embedded), 'real_text' and 'smollm2' (GSM8K and hh-rlhf from the folder in "
            "BOOST_TRL_DATA; a small model from scratch, or SmolLM2-135M with LoRA) or 'hub' (the paper's data)."
        },
    )
    methods: list[str] | None = field(default=None, metadata={"help": "Methods to run; all by default."})
    seeds: list[int] = field(default_factory=lambda: [1], metadata={"help": "One run of everything for each."})
    bad_share: float = field(default=0.6, metadata={"help": "Share of bad rows in the contradiction pool."})
    processes: int = field(
        default=1, metadata={"help": "Processes that share out the methods, on a machine with as many cores."}
    )
    share: int | None = field(default=None, metadata={"help": "Which share this process runs; internal."})
    num_rows: int = field(default=2400, metadata={"help": "Rows of the contradiction pool or of the Hub's."})


def make_setting(arguments: Arguments, hub_arguments, model_args, seed: int, folder: Path):
    """Model and data of one seed."""
    if arguments.pool == "hub":
        from sft_hub_data import hub_setting

        return hub_setting(hub_arguments, model_args, arguments.num_rows, seed)
    if arguments.pool == "contradiction":
        from boost_trl.comparison.contradiction_pool import contradiction_pool

        return contradiction_pool(seed, arguments.num_rows, arguments.bad_share)
    from sft_real_text import from_scratch, smollm2

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


def run_shares(argv: list[str], processes: int, folder: Path, total: int) -> None:
    """The same command in several processes, each with its share of the methods; all results end on disk."""
    from tqdm.auto import tqdm

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, __file__, *argv, "--share", str(share)] for share in range(processes)]
    children = [subprocess.Popen(command, env=environment) for command in commands]
    start = time.time()
    with tqdm(total=total, desc="runs", unit="run") as bar:
        while any(child.poll() is None for child in children):
            time.sleep(1)
            done = [path for path in folder.glob("runs/*/result.json") if path.stat().st_mtime > start]
            bar.update(len(done) - bar.n)
    if failed := [child.returncode for child in children if child.returncode]:
        sys.exit(failed[0])


def main(argv: list[str]) -> None:
    import datasets
    import transformers

    from boost_trl.comparison.sft_methods import SFT_METHODS
    from boost_trl.comparison.sft_recipe import report_sft, run_methods

    start = time.perf_counter()
    arguments, hub_arguments, model_args, training_args = parse(argv)
    if arguments.pool not in TITLES:
        raise ValueError(f"`pool` is {arguments.pool!r}; choose one of {', '.join(TITLES)}")
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    folder = Path(training_args.output_dir)
    options = {
        f.name: value
        for f in dataclasses.fields(training_args)
        if f.init and f.name not in ("output_dir", "seed") and (value := getattr(training_args, f.name)) != f.default
    }
    methods = arguments.methods or list(SFT_METHODS)
    run = functools.partial(
        run_methods,
        folder=folder,
        seeds=arguments.seeds,
        make_setting=lambda seed: make_setting(arguments, hub_arguments, model_args, seed, folder),
        options=options,
        methods=methods,
    )
    if arguments.share is not None:
        run(share=arguments.share, num_shares=arguments.processes)
        return
    if arguments.processes > 1:
        if training_args.world_size > 1:
            raise ValueError("`processes` shares out methods, `accelerate launch` batches: use one of them.")
        run_shares(argv, arguments.processes, folder, len(arguments.seeds) * len(methods))
    results = run()
    if training_args.process_index == 0:
        setting = make_setting(arguments, hub_arguments, model_args, arguments.seeds[-1], folder)
        report_sft(results, setting, TITLES[arguments.pool], folder, options)
        print(f"\n{folder}/report.md has the table and the pictures; it took {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    main(sys.argv[1:])
