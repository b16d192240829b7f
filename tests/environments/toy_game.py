"""A game, a tokenizer and tiny models that several tests share."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from boost_trl.environments.base import Task


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Ends a turn by text that is no token of its own, and opens it with a space.
COLON = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '##' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def byte_tokenizer(template):
    """One token per byte, so that a model can be told what to write letter by letter."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = template
    return tokenizer


def tiny_model(tokenizer, cls=GPT2LMHeadModel, positions=256):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=positions, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return cls(config)


class GuessNumber:
    """Hidden number, answers higher or lower; five guesses in the game's own limit. Score: guesses remaining."""

    name = "guess_number"
    max_steps = 5

    def __init__(self, system_prompt="Guess a number from 0 to 9.", broken=(), truncates=False):
        self.system_prompt, self.broken, self.truncates = system_prompt, broken, truncates
        self.task = None

    def tasks(self, categories=None):
        tasks = [Task(str(n), "even" if n % 2 == 0 else "odd", data={"secret": n}) for n in range(10)]
        return [task for task in tasks if categories is None or task.category in categories]

    def reset(self, *, seed=None, task=None):
        self.task = next(t for t in self.tasks() if t.id == (task if isinstance(task, str) else task.id))
        if self.task.id in self.broken:
            raise OSError("no such number")
        self.count, self.over = 0, False
        return f"It is {self.task.category}.", self._info(True)

    def step(self, action):
        if self.over:
            raise RuntimeError("the game is over")
        if action == "crash":
            raise ZeroDivisionError("crashed")
        self.count += 1
        secret, valid = self.task.data["secret"], action.isdigit()
        success = valid and int(action) == secret
        out = self.count == self.max_steps and not success
        self.over = success or out
        info = self._info(valid)
        if self.over:
            info |= {"success": success, "score": float(self.max_steps - self.count) if success else 0.0, "luck": 7}
        answer = "Right." if success else "Higher." if valid and int(action) < secret else "Lower."
        truncated = out and self.truncates
        return answer, 0.0 if success else -1.0, self.over and not truncated, truncated, info

    def admissible_actions(self):
        return [str(n) for n in range(10)]

    def close(self):
        pass

    def _info(self, valid):
        return {"valid": valid, "task_id": self.task.id, "category": self.task.category, "step": self.count}
