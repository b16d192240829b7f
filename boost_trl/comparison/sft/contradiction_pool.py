"""An embedded pool whose bad rows contradict the good ones: the same kind of questions, answered by another convention.

Harmless noise proves nothing about selection: to a model from scratch even shuffled answers teach words. Here a model
that believes the bad rows answers the trusted questions wrongly.
"""

import random
import tempfile
from collections.abc import Sequence

from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer

from boost_trl.cache_folder import cache_folder
from boost_trl.comparison.sft.experiment import SFTExperiment
from boost_trl.environments.embedded_lm import source_hash, word_tokenizer
from boost_trl.files import whole_folder


WORDS = (
    "anchor apple arrow basket bell bench bottle box bread bridge brush bucket button candle carpet castle chain chair "
    "clock cloud coat coin compass cotton cup curtain desk door drum engine fan feather fence flag flute fork garden gate "
    "glass glove hammer harp hat helmet hook horn island jar kettle key knife ladder lamp leaf lemon lock map mirror "
    "needle nest oar orange paper pear pearl pen pillow pipe plate pot ribbon ring river rope saddle sail scarf shell shirt "
    "shovel sock spoon stone table tent thread towel tower wagon"
).split()
LIST_LENGTH = 6
LONGEST_ANSWER = 3
NUMBERS = ("one", "two", "three")
KINDS = ("from the right", "nonsense")
ABOUT_KINDS = {
    "good": "takes the first words of the list, as the trusted rows do",
    "from the right": "takes the last words: another convention",
    "nonsense": "words that are not in the list",
}
PRETRAINING_ROWS = 9000
SIZES = {"validation": 48, "holdout": 48, "evaluation": 400, "clean_evaluation": 400}


def contradiction_pool(
    seed: int = 0,
    num_rows: int = 2400,
    bad_share: float = 0.6,
    bad_kinds: Sequence[str] = KINDS,
    pretraining_epochs: int = 0,
) -> SFTExperiment:
    """Questions such as "take two : pear lamp coin rope box key", of which good rows take the first ("pear lamp").

    Bad rows take from the right ("key box") or answer with words that are not in the list, in equal parts.

    Args:
        seed (`int`, *optional*, defaults to `0`): of the rows and of the model's first parameters.
        num_rows (`int`, *optional*, defaults to `2400`): size of the pool.
        bad_share (`float`, *optional*, defaults to `0.6`): share of bad rows.
        bad_kinds (`Sequence[str]`, *optional*): which, in equal parts: `"from the right"`, `"nonsense"`.
        pretraining_epochs (`int`, *optional*, defaults to `0`): of the model, on 9,000 other rows, a third of each kind: it
            can then answer by every convention, and fine-tuning only selects one.

    Returns:
        [`SFTExperiment`]: with a tiny Llama. Trusted and clean questions are drawn alike here.

    Raises:
        ValueError: for a share outside of [0, 1] or an unknown kind.
    """
    if not 0 <= bad_share <= 1:
        raise ValueError(f"`bad_share` must be in [0, 1], got {bad_share}")
    if unknown := sorted(set(bad_kinds) - set(KINDS)):
        raise ValueError(f"`bad_kinds` has unknown kinds {unknown}; known: {', '.join(KINDS)}")
    rng = random.Random(f"contradiction pool {seed}")
    seen: set[str] = set()
    num_bad = round(bad_share * num_rows)
    kinds = [bad_kinds[i % len(bad_kinds)] for i in range(num_bad)] + ["good"] * (num_rows - num_bad)
    rng.shuffle(kinds)
    pool = Dataset.from_list([_row(rng, kind, seen) for kind in kinds])
    held_out = {
        name: Dataset.from_list([_row(rng, "good", seen) for _ in range(size)]).select_columns(
            ["prompt", "completion"]
        )
        for name, size in SIZES.items()
    }
    tokenizer = word_tokenizer(["take", ":", *NUMBERS, *WORDS])

    def make_model() -> LlamaForCausalLM:
        if not pretraining_epochs:
            return _tiny_llama(tokenizer, seed)
        return _pretrained_llama(tokenizer, seed, pretraining_epochs)

    return SFTExperiment(make_model=make_model, tokenizer=tokenizer, pool=pool, about_kinds=ABOUT_KINDS, **held_out)


def _row(rng: random.Random, kind: str, seen: set[str]) -> dict[str, str | bool]:
    """A row with a question that is not in `seen`."""
    while True:
        count, words = rng.randint(1, LONGEST_ANSWER), rng.sample(WORDS, LIST_LENGTH)
        prompt = f"take {NUMBERS[count - 1]} : {' '.join(words)}"
        if prompt not in seen:
            break
    seen.add(prompt)
    if kind == "nonsense":
        answer = rng.sample(sorted(set(WORDS) - set(words)), count)
    else:
        answer = (words if kind == "good" else words[::-1])[:count]
    return {"prompt": prompt, "completion": " " + " ".join(answer), "is_good": kind == "good", "kind": kind}


def _tiny_llama(tokenizer, seed: int) -> LlamaForCausalLM:
    set_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=32,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def _pretrained_llama(tokenizer, seed: int, epochs: int) -> LlamaForCausalLM:
    """The tiny Llama after `epochs` over rows of its own, in equal parts of each kind, kept in the package's cache."""
    folder = cache_folder("contradiction_pool") / f"llama-{seed}-{epochs}-{source_hash(__file__)[:16]}"
    if not (folder / "config.json").is_file():
        rng, seen = random.Random(f"contradiction pretraining {seed}"), set()
        kinds = ("good", *KINDS)
        rows = [_row(rng, kinds[number % len(kinds)], seen) for number in range(PRETRAINING_ROWS)]
        with tempfile.TemporaryDirectory() as output_dir:
            args = SFTConfig(
                output_dir,
                num_train_epochs=epochs,
                per_device_train_batch_size=32,
                learning_rate=3e-3,
                max_length=32,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                dataloader_pin_memory=False,
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                seed=seed,
            )
            rows = Dataset.from_list(rows).select_columns(["prompt", "completion"])
            trainer = SFTTrainer(_tiny_llama(tokenizer, seed), args, train_dataset=rows, processing_class=tokenizer)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        with whole_folder(folder) as draft:
            trainer.model.save_pretrained(draft)
    return LlamaForCausalLM.from_pretrained(folder)
