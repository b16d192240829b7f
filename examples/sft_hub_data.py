"""The paper's data for `sft_self_refine.py`: a pool and a trusted dataset of the Hub (or of files), and a model by name."""

from dataclasses import dataclass, field
from itertools import islice

from datasets import Dataset
from transformers import TrainingArguments
from trl import ModelConfig, get_peft_config

from boost_trl.comparison.models import load_model, load_tokenizer
from boost_trl.comparison.sft.experiment import SFTExperiment
from boost_trl.scripts.sft_self_refine import load_named_dataset


# Where questions and answers stand in datasets of instructions.
COLUMNS = (
    ("system_prompt", "question", "response"),
    ("instruction", "input", "output"),
    ("prompt", "completion"),
)
SHUFFLE_BUFFER = 10_000


@dataclass
class HubArguments:
    pool_dataset: str = field(
        default="yahma/alpaca-cleaned", metadata={"help": "pool=hub: dataset or file of the large pool."}
    )
    trusted_dataset: str = field(
        default="Open-Orca/OpenOrca", metadata={"help": "pool=hub: dataset or file of trusted rows."}
    )
    num_trusted: int = field(default=9600, metadata={"help": "pool=hub: trusted rows to validate on."})
    num_evaluation: int = field(default=1000, metadata={"help": "pool=hub: rows of each evaluation set."})
    max_question_tokens: int = field(default=2048, metadata={"help": "pool=hub: longer questions are left out."})


def hub_experiment(
    arguments: HubArguments, model_args: ModelConfig, training_args: TrainingArguments, num_rows: int, seed: int
) -> SFTExperiment:
    """
    Model and data by name. Nobody knows which rows of such a pool are good, so there is no AUC and no known-good method.

    Args:
        arguments (`HubArguments`): datasets and sizes.
        model_args ([`~trl.ModelConfig`]): model, adapter and quantisation.
        training_args (`TrainingArguments`): with the device.
        num_rows (`int`): size of the pool.
        seed (`int`): which rows.

    Raises:
        ValueError: if no model is named, or a dataset has too few rows or unknown columns.
    """
    if model_args.model_name_or_path is None:
        raise ValueError("pool='hub' needs `model_name_or_path`.")
    tokenizer = load_tokenizer(model_args)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    held_out = arguments.num_evaluation
    pool = _rows(arguments.pool_dataset, num_rows + held_out, tokenizer, arguments.max_question_tokens, seed)
    trusted = _rows(
        arguments.trusted_dataset, arguments.num_trusted + 2 * held_out, tokenizer, arguments.max_question_tokens, seed
    )
    train = pool.select(range(num_rows)).add_column("is_good", [True] * num_rows)
    return SFTExperiment(
        make_model=lambda: load_model(model_args, training_args),
        tokenizer=tokenizer,
        pool=train.add_column("kind", [arguments.pool_dataset] * num_rows),
        validation=trusted.select(range(arguments.num_trusted)),
        evaluation=trusted.select(range(arguments.num_trusted, arguments.num_trusted + held_out)),
        clean_evaluation=pool.select(range(num_rows, num_rows + held_out)),
        holdout=trusted.select(range(arguments.num_trusted + held_out, arguments.num_trusted + 2 * held_out)),
        make_peft_config=lambda: get_peft_config(model_args),
        model_name=repr(model_args),
    )


def _rows(name: str, count: int, tokenizer, max_question_tokens: int, seed: int) -> Dataset:
    """`count` random rows with a question that is not too long; only what is needed is downloaded."""
    stream = load_named_dataset(name, streaming=True)["train"].shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
    pairs = ((*_question_and_answer(name, row),) for row in stream)
    short = ((q, a) for q, a in pairs if a and len(tokenizer(q)["input_ids"]) < max_question_tokens)
    chosen = list(islice(short, count))
    if len(chosen) < count:
        raise ValueError(f"{name} has {len(chosen)} rows with short enough questions, and {count} are needed.")
    if tokenizer.chat_template is None:
        return Dataset.from_list([{"prompt": f"{q}\n\n", "completion": a} for q, a in chosen])
    return Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": q}], "completion": [{"role": "assistant", "content": a}]}
            for q, a in chosen
        ]
    )


def _question_and_answer(name: str, row: dict) -> tuple[str, str]:
    for columns in COLUMNS:
        if set(columns) <= set(row):
            *question, answer = (row[column] for column in columns)
            return "\n\n".join(part for part in question if part), answer
    raise ValueError(f"{name} has columns {sorted(row)}; one of these sets is needed: {COLUMNS}.")
