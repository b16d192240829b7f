"""Learned weights of preference pairs, of which some are flipped, beside what needs none. Resumable cell by cell.

    python examples/dpo_study.py
    python examples/dpo_study.py --report docs/data/dpo_flipped_study.json

The first command trains every method on preference pairs of which a share is flipped (some minutes on one core); the second
writes what there is to one file and prints the tables. Each of 80 words has a worth of its own, drawn anew by each seed; of two
answers of four words, that of greater worth is preferred. A tiny Llama from scratch has to find the words' worth out. All methods
make equally many updates.
"""

import logging
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, set_seed
from trl import DPOConfig, DPOTrainer, TrlParser

from boost_trl import BilevelDPOConfig, BilevelDPOTrainer
from boost_trl.comparison.cells import Cell, Comparison, Method, run_cells, saved_results, write_rows
from boost_trl.comparison.results import Result, standard_error
from boost_trl.comparison.sft.contradiction_pool import WORDS
from boost_trl.environments.embedded_lm import word_tokenizer
from boost_trl.selection.auc import weights_auc
from boost_trl.tables import MISSING, markdown_table, plus_minus


NUM_PAIRS, NUM_TRUSTED, NUM_EVALUATED, LENGTH, BATCH, EPOCHS = 600, 60, 600, 4, 16, 3
STEPS = EPOCHS * -(-NUM_PAIRS // BATCH)
SECOND_STAGE = 0.2  # share of the updates, as of trusted pairs in the loss of the others
FLIPPED = {"40 % flipped": 0.4, "20 % flipped": 0.2}


@dataclass
class StudyArguments:
    folder: str = field(default="outputs/dpo_study", metadata={"help": "Where cells are kept."})
    seeds: list[int] = field(
        default_factory=lambda: [1, 2, 3, 4, 5], metadata={"help": "Seeds; each draws data and a model."}
    )
    settings: list[str] = field(
        default_factory=lambda: [*FLIPPED], metadata={"help": "Which shares of flipped pairs."}
    )
    methods: list[str] | None = field(default=None, metadata={"help": "Methods to run; all by default."})
    report: str | None = field(
        default=None, metadata={"help": "Write all results to this file, print tables, run nothing."}
    )


@dataclass(frozen=True)
class DPOMethod(Method):
    """One row of the study: our trainer with `options`, or TRL's in one or two stages.

    Args:
        stages (`tuple`, *optional*): per stage of TRL's trainer its rows, `"pool"`, `"trusted"` or `"both"`, and its share of
            the updates.
        known_good (`bool`, *optional*): train on the pairs that are not flipped.
    """

    stages: tuple[tuple[str, float], ...] = ()
    known_good: bool = False


METHODS = {
    method.name: method
    for method in (
        DPOMethod("plain", "DPO", stages=(("pool", 1.0),)),
        DPOMethod("both", "DPO, pool and trusted", stages=(("both", 1.0),)),
        DPOMethod("two_stage", "Two-stage", stages=(("pool", 1 - SECOND_STAGE), ("trusted", SECOND_STAGE))),
        DPOMethod("trusted", "Trusted only", stages=(("trusted", 1.0),)),
        DPOMethod("uniform", "Uniform", {"selector": "uniform"}),
        DPOMethod("mixing", "Mixing, ρ = .8", {"selector": "mixing", "rho_init": 1 - SECOND_STAGE}),
        DPOMethod("bds", "BDS", {"selector": "bds"}),
        DPOMethod("bmo", "BMO", {"selector": "bmo"}),
        DPOMethod("rank", "Rank, keeps 30 %", {"selector": "rank"}),
        DPOMethod("rank_60", "Rank, keeps 60 %", {"selector": "rank", "keep_fraction": 0.6}),
        DPOMethod("validated", "Validated, n_eff 10 %", {"selector": "validated"}),
        DPOMethod(
            "validated_40", "Validated, n_eff 40 %", {"selector": "validated", "target_effective_fraction": 0.4}
        ),
        DPOMethod(
            "known_good",
            "Mixing, no flipped pair",
            {"selector": "mixing", "rho_init": 1 - SECOND_STAGE},
            known_good=True,
        ),
    )
}


@dataclass
class Experiment:
    """Pairs that all methods share, of one seed.

    Args:
        pool (`Dataset`): with `is_good`, false where a pair is flipped.
        trusted (`Dataset`), evaluation (`Dataset`): without flipped ones.
    """

    seed: int
    pool: Dataset
    trusted: Dataset
    evaluation: Dataset

    @property
    def tokenizer(self):
        return word_tokenizer(["take", ":", *WORDS])

    def make_model(self) -> LlamaForCausalLM:
        """The model that every method starts from, which is also the reference."""
        set_seed(self.seed)
        config = LlamaConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=32,
            bos_token_id=None,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return LlamaForCausalLM(config)


def experiment_of(cell: Cell) -> Experiment:
    generator = np.random.default_rng([cell.seed, 7])
    worth = dict(zip(WORDS, generator.normal(size=len(WORDS))))

    def pairs(count: int, share: float = 0.0) -> Dataset:
        is_good, rows = np.arange(count) >= round(share * count), []
        for good in generator.permutation(is_good).tolist():
            answers = [generator.choice(WORDS, LENGTH, replace=False).tolist() for _ in range(2)]
            answers.sort(key=lambda words: sum(worth[word] for word in words), reverse=good)
            prompt = f"take : {generator.choice(WORDS)}"
            chosen, rejected = (" " + " ".join(words) for words in answers)
            rows.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "is_good": good})
        return Dataset.from_list(rows)

    return Experiment(cell.seed, pairs(NUM_PAIRS, FLIPPED[cell.setting]), pairs(NUM_TRUSTED), pairs(NUM_EVALUATED))


class DPOStudy(Comparison):
    """Learned weights of preference pairs beside what needs none."""

    methods = METHODS

    def name(self, cell: Cell) -> str:
        return f"{cell.setting.split()[0]}-{cell.method}-{cell.seed}"

    def settings(self, cell: Cell) -> Any:
        return [NUM_PAIRS, NUM_TRUSTED, NUM_EVALUATED, LENGTH, BATCH, EPOCHS, SECOND_STAGE, repr(METHODS[cell.method])]

    def run(self, cell, advance):
        method, experiment, folder = METHODS[cell.method], self.experiment(cell), self.run_folder(cell)
        pool, start = experiment.pool, time.perf_counter()
        trainer = (self._stages if method.stages else self._bilevel)(method, experiment, folder)
        seconds, auc, n_eff = time.perf_counter() - start, None, float(len(pool))
        if not method.stages and not method.known_good:
            weights = np.asarray(trainer.example_weights()["weight"])
            auc, n_eff = weights_auc(weights, np.asarray(pool["is_good"])), trainer.selector.effective_sample_size()
        metrics = trainer.evaluate()
        report = getattr(trainer, "selection_report", None)
        return Result(
            method=method.name,
            label=method.label,
            seed=cell.seed,
            setting=cell.setting,
            effective_sample_size=n_eff,
            num_rows=len(pool),
            weights_auc=auc,
            eval_loss=metrics["eval_loss"],
            seconds=seconds,
            metrics={
                "pair_accuracy": metrics["eval_rewards/accuracies"],
                "guard": None if report is None else report["fraction"],
            },
        )

    def _arguments(self, cls, folder: Path, steps: int, seed: int, **options) -> DPOConfig:
        return cls(
            str(folder),
            max_steps=steps,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=100,
            learning_rate=1e-3,
            max_length=32,
            precompute_ref_log_probs=True,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            seed=seed,
            **options,
        )

    def _stages(self, method: DPOMethod, experiment: Experiment, folder: Path) -> DPOTrainer:
        pool, trusted = experiment.pool, experiment.trusted
        rows = {"pool": pool, "trusted": trusted, "both": concatenate_datasets([pool, trusted])}
        model = experiment.make_model()
        for name, share in method.stages:
            trainer = DPOTrainer(
                model,
                experiment.make_model(),
                self._arguments(DPOConfig, folder, round(share * STEPS), experiment.seed),
                train_dataset=rows[name],
                eval_dataset=experiment.evaluation,
                processing_class=experiment.tokenizer,
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return trainer

    def _bilevel(self, method: DPOMethod, experiment: Experiment, folder: Path) -> BilevelDPOTrainer:
        pool = experiment.pool
        trainer = BilevelDPOTrainer(
            experiment.make_model(),
            experiment.make_model(),
            self._arguments(BilevelDPOConfig, folder, STEPS, experiment.seed, **method.options),
            train_dataset=pool.filter(lambda row: row["is_good"]) if method.known_good else pool,
            eval_dataset=experiment.evaluation,
            processing_class=experiment.tokenizer,
            validation_dataset=experiment.trusted,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return trainer


def table(results: list[Result]) -> str:
    """Mean ± standard error over seeds of every method."""
    rows = [("", "seeds", "loss", "right pairs", "AUC of weights", "n_eff")]
    for name in dict.fromkeys(result.method for result in results):
        group = [result for result in results if result.method == name]

        def shown(metric: str, style: str = ".2f", group: list[Result] = group) -> str:
            values = [result[metric] for result in group if result[metric] is not None]
            return plus_minus(float(np.mean(values)), standard_error(values), style) if values else MISSING

        metrics = (shown("eval_loss", ".3f"), shown("pair_accuracy", ".3f"), shown("weights_auc"))
        rows.append((group[0].label, str(len(group)), *metrics, shown("effective_sample_size", ".0f")))
    return markdown_table(rows)


def main(arguments: StudyArguments) -> None:
    study = DPOStudy(arguments.folder, experiment_of)
    methods = study.choose(arguments.methods)
    cells = [Cell(name, seed, share) for share in arguments.settings for seed in arguments.seeds for name in methods]
    if arguments.report is None:
        run_cells(study, cells)
    results = saved_results(study, cells)
    for setting in dict.fromkeys(result.setting for result in results):
        print(f"\n{setting}\n\n{table([result for result in results if result.setting == setting])}")
    if arguments.report is not None:
        write_rows(arguments.report, [result.to_dict() for result in results])


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    main(TrlParser(StudyArguments).parse_args_and_config()[0])
