"""Small language models trained from zero, so that examples and tests need no download.

A word-level tokenizer built from a list of words, a tiny GPT-2, a plain training loop on texts, and a cache on disk.
"""

import hashlib
import json
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tqdm.auto import tqdm
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, get_scheduler

from boost_trl.cache_folder import cache_folder
from boost_trl.files import whole_folder, write_whole
from boost_trl.models.deepspeed_device import tell_deepspeed_the_device


logger = logging.getLogger(__name__)

END, PAD, UNKNOWN = "<|end|>", "<|pad|>", "<|unknown|>"

# Every turn ends with the same mark, so either role's turn is "generate until the end-of-sequence token".
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- generation %}{{- message['content'] + eos_token }}{%- endgeneration %}"
    "{%- else %}{{- message['content'] + eos_token }}{%- endif %}"
    "{%- endfor %}"
)


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word, words being what white space separates.

    Text of known words that single spaces separate survives encoding and decoding unchanged.

    Args:
        words (`Sequence[str]`): the vocabulary; repeated words count once, order gives the ids.

    Raises:
        ValueError: if a word is empty or holds white space.
    """
    for word in words:
        if word.split() != [word]:
            raise ValueError(f"{word!r} is not one word: it is empty or holds white space")
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys([PAD, END, UNKNOWN, *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # A "##" word would be glued to the one before; without such words this decoder only joins with spaces.
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def tiny_gpt2(
    tokenizer: PreTrainedTokenizerFast,
    *,
    hidden_size: int = 64,
    num_layers: int = 2,
    num_heads: int = 4,
    max_length: int = 128,
    initializer_range: float = 0.02,
    seed: int = 0,
) -> GPT2LMHeadModel:
    """An untrained GPT-2 for `tokenizer`, without dropout; the same `seed` gives the same parameters.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): gives vocabulary and special tokens.
        hidden_size, num_layers, num_heads (`int`, *optional*): the model's size.
        max_length (`int`, *optional*, defaults to 128): positions.
        initializer_range (`float`, *optional*, defaults to 0.02): standard deviation of the initial parameters. At this
            width 0.1 lets the model learn to copy what it reads within a hundred updates instead of a thousand.
        seed (`int`, *optional*, defaults to `0`): of the initial parameters.
    """
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=max_length,
        initializer_range=initializer_range,
        n_embd=hidden_size,
        n_layer=num_layers,
        n_head=num_heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def render(episodes: Iterable[Sequence[str]]) -> list[str]:
    """Turns of each episode -> one text, as the chat template writes them: every turn ends with the same mark."""
    return ["".join(turn + END for turn in turns) for turns in episodes]


def _batches(rows: list[list[int]], batch_size: int, seed: int) -> Iterator[list[list[int]]]:
    """Endless batches of rows of similar length, in random order."""
    rng = random.Random(seed)
    while True:
        order = rng.sample(range(len(rows)), k=len(rows))
        for start in range(0, len(order), 20 * batch_size):
            block = sorted(order[start : start + 20 * batch_size], key=lambda row: len(rows[row]))
            pieces = [block[i : i + batch_size] for i in range(0, len(block), batch_size)]
            for piece in rng.sample(pieces, k=len(pieces)):
                yield [rows[row] for row in piece]


def train_on_texts(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    steps: int,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    seed: int = 0,
    desc: str = "Pretraining the embedded model",
) -> float:
    """Train `model` in place on next tokens, with AdamW and a cosine schedule.

    Args:
        model (`GPT2LMHeadModel`): the model.
        tokenizer (`PreTrainedTokenizerFast`): its tokenizer.
        texts (`Sequence[str]`): rendered texts, end marks included.
        steps (`int`): updates.
        batch_size (`int`, *optional*, defaults to 64): texts per update.
        learning_rate (`float`, *optional*, defaults to 3e-3): its peak.
        seed (`int`, *optional*, defaults to `0`): of the order of rows.
        desc (`str`, *optional*): what the progress bar says.

    Returns:
        `float`: mean loss over the last tenth of the updates, in nats per token.
    """
    rows = [ids[: model.config.n_positions] for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
    batches = _batches(rows, batch_size, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=steps // 20, num_training_steps=steps)
    # transformers finds it by the name of the class, which GPT-2's is no example of.
    model.loss_type = "ForCausalLM"
    model.train()
    losses = []
    bar = tqdm(range(steps), desc=desc, unit="step", mininterval=1.0)
    for step in bar:
        batch = next(batches)
        # Each text starts at the first position, as a game does. What follows a text is never seen; models warn of pad
        # tokens that no mask hides.
        ids = torch.full((len(batch), max(map(len, batch))), tokenizer.eos_token_id)
        labels = torch.full_like(ids, -100)
        for index, row in enumerate(batch):
            ids[index, : len(row)] = labels[index, : len(row)] = torch.tensor(row)
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        if step % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()
    return torch.stack(losses[-max(1, steps // 10) :]).mean().item() if losses else float("nan")


def source_hash(module_file: str | Path) -> str:
    """Changes with the code of a module's folder and of the folder above: for `made_with` of [`build_from_texts`]."""
    folder = Path(module_file).parent
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.py"), *folder.parent.glob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


Stages = Sequence[tuple[Sequence[str], int]]


def build_from_texts(
    name: str,
    words: Sequence[str],
    stages: Stages | Callable[[], Stages],
    *,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    made_with: Sequence[Any] | None = None,
    **model_sizes: Any,
) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """Tokenizer and tiny model trained on texts, or the same pair read from disk if it was built before.

    Args:
        name (`str`): what it is for; part of the folder's name.
        words (`Sequence[str]`): the vocabulary.
        stages (`Sequence[tuple[Sequence[str], int]]` or `Callable`): texts and the number of updates on them, one stage
            after the other; or a function that makes them.
        seed (`int`, *optional*, defaults to `0`): of parameters and order.
        cache_dir (`str` or `Path`, *optional*): where models are kept; `$BOOST_TRL_CACHE/embedded_lm` or the Hugging Face
            assets cache unless given.
        made_with (`Sequence`, *optional*): what `stages` follow from, code ([`source_hash`]) and arguments. A model that was
            built with the same is read without making its texts; other code that makes the same texts builds nothing new.
        model_sizes (*optional*): sizes passed to [`tiny_gpt2`].

    Returns:
        `tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]`: in evaluation mode.
    """

    def fingerprint(training: Any) -> str:
        everything = [list(words), training, seed, model_sizes, CHAT_TEMPLATE, torch.__version__]
        return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]

    parent = Path(cache_dir) if cache_dir is not None else cache_folder("embedded_lm")
    known = None if made_with is None else parent / f"{name}-{fingerprint(list(made_with))}.folder"
    if known is not None and known.is_file():
        folder = parent / known.read_text(encoding="utf-8")
        if (folder / "config.json").is_file():
            return _load(folder)
    stages = stages() if callable(stages) else stages
    folder = parent / f"{name}-{fingerprint([[list(texts), steps] for texts, steps in stages])}"
    if not (folder / "config.json").is_file():
        tell_deepspeed_the_device()
        tokenizer = word_tokenizer(words)
        model = tiny_gpt2(tokenizer, seed=seed, **model_sizes)
        for number, (texts, steps) in enumerate(stages, start=1):
            desc = f"Pretraining the embedded model, stage {number} of {len(stages)}"
            loss = train_on_texts(model, tokenizer, texts, steps=steps, seed=seed, desc=desc)
        logger.info("%s: %.3f nats per token at the end, kept in %s", name, loss, folder)
        with whole_folder(folder) as draft:
            model.save_pretrained(draft)
            tokenizer.save_pretrained(draft)
    if known is not None:
        write_whole(known, folder.name)
    return _load(folder)


def _load(folder: Path) -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    return GPT2LMHeadModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
