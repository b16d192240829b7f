"""Run by `test_trackers.py`, in a process of its own because trackers start services: trains with one tracker."""

import os

from datasets import Dataset
from offline_rl_tiny import OPTIONS
from sft_tiny import make_args, make_model, make_pairs, make_tokenizer

from boost_trl import BilevelOfflineRLConfig, BilevelOfflineRLTrainer, BilevelSFTSelfRefineTrainer, Environment, Task
from boost_trl.environments.embedded_lm import tiny_gpt2, word_tokenizer


WORDS = ["big", "red", "hot", "tall"]


class GuessAWord(Environment):
    """Two turns, whatever is said."""

    system_prompt = ""

    def tasks(self):
        return [Task(id=str(number), category="words") for number in range(4)]

    def reset(self, seed=None, task=None):
        self.turn = 0
        return "yes .", {}

    def step(self, action):
        self.turn += 1
        done = self.turn == 2
        return "no .", -1.0, done, False, {"score": -2.0, "success": False} if done else {}


def dialogue(number: int) -> dict:
    action = f"is it {WORDS[number % 4]} ?"
    messages = [{"role": "user", "content": "yes ."}, {"role": "assistant", "content": action}]
    return {"messages": messages, "rewards": [-float(number % 3)], "source": ["offline", "synthetic"][number % 2]}


def offline_rl(folder, tracker, token):
    tokenizer = word_tokenizer(["user:", "assistant:", "system:", "yes", "no", "is", "it", "?", ".", *WORDS])
    options = {**OPTIONS, "output_dir": str(folder / "rl"), "cache_dir": str(folder / "cache"), "report_to": tracker}
    args = BilevelOfflineRLConfig(
        **options,
        run_name="rl",
        hub_token=token,
        reweighting_learning_rate=0.1,
        eval_strategy="steps",
        eval_steps=4,
        eval_games=3,
        max_new_tokens=3,
        log_completions=True,
        log_weights=True,
    )
    BilevelOfflineRLTrainer(
        tiny_gpt2(tokenizer, hidden_size=16, num_layers=1, num_heads=2),
        args,
        train_dataset=Dataset.from_list([dialogue(number) for number in range(24)]),
        validation_dataset=Dataset.from_list([dialogue(number) for number in range(8)]),
        processing_class=tokenizer,
        environment=GuessAWord,
    ).train()


def sft(folder, tracker, token):
    args = make_args(
        folder / "sft",
        report_to=tracker,
        run_name="sft",
        hub_token=token,
        max_steps=8,
        selector_learning_rate=10.0,
        online_ratio=0.5,
        generation_interval=4,
        max_generation_length=4,
        log_completions=True,
        log_weights=True,
    )
    BilevelSFTSelfRefineTrainer(
        make_model(),
        args,
        train_dataset=make_pairs(12).add_column("source", ["web", "book"] * 6),
        validation_dataset=make_pairs(4),
        processing_class=make_tokenizer(),
    ).train()


def main(folder, tracker):
    """With a token in `HF_TOKEN`."""
    os.chdir(folder)
    for train in (offline_rl, sft):
        train(folder, tracker, os.environ["HF_TOKEN"])
        if tracker == "wandb":
            import wandb

            wandb.finish()
