"""Run by `test_hub.py` in a process whose Hub is the test's: trains, pushes and opens again, and writes what came of it to a JSON file.

Usage: push_and_open.py FOLDER TOKEN
"""

import json
import re
import sys
from contextlib import suppress
from pathlib import Path

import torch
from datasets import Dataset, load_dataset
from dpo_tiny import make_dpo_args, make_preferences
from huggingface_hub import DatasetCard, HfApi, ModelCard
from offline_rl_tiny import OPTIONS
from peft import LoraConfig, PeftModel
from sft_tiny import make_args, make_model, make_pairs, make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from boost_trl import (
    BilevelDPOTrainer,
    BilevelOfflineRLConfig,
    BilevelOfflineRLTrainer,
    BilevelSFTSelfRefineTrainer,
    ReweightingHead,
    ValueHeads,
    ValuePolicy,
    cli,
)
from boost_trl.environments.embedded_lm import tiny_gpt2, word_tokenizer
from boost_trl.selection import Selector


folder, token = Path(sys.argv[1]), sys.argv[2]
results = {}


def python_blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def same_state(one, other) -> bool:
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def kept_by_card(name: str) -> list[int]:
    """The rows that the code on a dataset's card keeps."""
    found = {}
    exec(python_blocks(DatasetCard.load(name).text)[0], found)
    return found["weights"].filter(lambda row: row["weight"] >= 0.5)["index"][:], found["kept"].to_list()


def sft():
    make_model().save_pretrained(folder / "base")
    make_tokenizer().save_pretrained(folder / "base")
    pool = make_pairs()
    pool.push_to_hub("me/pool")
    args = make_args(
        folder / "sft",
        hub_model_id="me/selected",
        hub_token=token,
        hub_private_repo=True,
        push_to_hub=True,
        hub_strategy="checkpoint",
        model_init_kwargs={"token": token},
        save_strategy="steps",
        save_steps=6,
        eval_strategy="steps",
        eval_steps=6,
        log_level="info",
        max_steps=12,
        selector_learning_rate=10.0,
        selector_max_step=2.0,
    )
    trainer = BilevelSFTSelfRefineTrainer(
        str(folder / "base"), args, train_dataset=pool, eval_dataset=make_pairs(5), validation_dataset=make_pairs(4)
    )
    trainer.train()
    trainer.save_model()
    trainer.push_to_hub(dataset_name="me/pool")
    trainer.push_weights_to_hub("me/weights", dataset_name="me/pool")
    trainer.selector.push_to_hub("me/selector")

    weights = trainer.example_weights()
    loaded = load_dataset("me/weights", split="train")
    expected = [index for index, weight in enumerate(weights["weight"]) if weight >= 0.5]
    results["sft"] = {
        "model": same_state(AutoModelForCausalLM.from_pretrained("me/selected"), trainer.model),
        "tokenizer": AutoTokenizer.from_pretrained("me/selected").get_vocab() == trainer.processing_class.get_vocab(),
        "selectors": [
            torch.equal(Selector.from_pretrained(name, num_examples=12).logits(), trainer.selector.logits())
            for name in ("me/selected", "me/selector")
        ],
        "weights": loaded.to_dict() == weights.to_dict(),
        "kept": kept_by_card("me/weights") == (expected, pool.select(expected).to_list()),
        "some are kept": 0 < len(expected) < len(pool),
    }
    found = {}
    exec(python_blocks(ModelCard.load("me/selected").text)[1], found)  # the first is TRL's, for a large model
    results["sft"]["card"] = found["weights"]["weight"].tolist() == weights["weight"][:] and torch.equal(
        found["selector"].logits(), trainer.selector.logits()
    )


def dpo():
    trainer = BilevelDPOTrainer(
        make_model(),
        args=make_dpo_args(folder / "dpo", hub_model_id="me/preferred", hub_token=token),
        train_dataset=make_preferences(),
        validation_dataset=make_preferences(4),
        processing_class=make_tokenizer(),
    )
    trainer.train()
    trainer.push_to_hub()
    trainer.push_weights_to_hub("me/pair-weights")
    results["dpo"] = {
        "model": same_state(AutoModelForCausalLM.from_pretrained("me/preferred"), trainer.model),
        "weights": load_dataset("me/pair-weights", split="train").to_dict() == trainer.example_weights().to_dict(),
    }


def dialogues(count: int) -> Dataset:
    def row(number: int) -> dict:
        messages = [
            {"role": "user", "content": "yes ."},
            {"role": "assistant", "content": f"is it {WORDS[number % 4]} ?"},
        ]
        return {"messages": messages, "rewards": [-float(number % 3)], "source": ["offline", "synthetic"][number % 2]}

    return Dataset.from_list([row(number) for number in range(count)])


WORDS = ["big", "red", "hot", "tall"]


def agent_trainer(name: str, **arguments) -> BilevelOfflineRLTrainer:
    """Trained; its repository is `me/name`."""
    tokenizer = word_tokenizer([*WORDS, "user:", "assistant:", "system:", "yes", "is", "it", "?", "."])
    base = str(folder / f"base of {name}")
    tiny_gpt2(tokenizer, hidden_size=16, num_layers=1, num_heads=2).save_pretrained(base)
    options = {**OPTIONS, "output_dir": str(folder / name), "cache_dir": str(folder / "cache")}
    trainer = BilevelOfflineRLTrainer(
        base,
        BilevelOfflineRLConfig(
            **options, hub_model_id=f"me/{name}", hub_token=token, eval_strategy="steps", eval_steps=2
        ),
        train_dataset=dialogues(24),
        eval_dataset=dialogues(6),
        validation_dataset=dialogues(8),
        processing_class=tokenizer,
        **arguments,
    )
    trainer.train()
    return trainer


def log_probs(model, tokenizer):
    with torch.no_grad():
        return model(**tokenizer("yes .", return_tensors="pt")).logits.log_softmax(-1)


def offline_rl():
    trainer = agent_trainer("agent")
    trainer.push_to_hub(dataset_name="me/games")
    trainer.push_weights_to_hub("me/trajectory-weights")
    policy, heads = trainer.policy(beta=2.0), trainer.model.primary
    policy.push_to_hub("me/policy", token=token)
    heads.push_to_hub("me/heads")
    scorer = trainer.reweighting_head
    scorer.push_to_hub("me/scorer")
    HfApi().create_branch("me/scorer", branch="v2")
    other = ReweightingHead(scorer.config.input_size)
    other.push_to_hub("me/scorer", revision="v2", commit_message="Another one")

    def close(one, other):
        return torch.allclose(*(log_probs(each, trainer.processing_class) for each in (one, other)), atol=1e-5)

    results["offline_rl"] = {
        "policy": close(ValuePolicy.from_pretrained("me/agent"), trainer.policy()),
        "policy with its beta": close(ValuePolicy.from_pretrained("me/policy"), policy),
        "without boost_trl": close(AutoModelForCausalLM.from_pretrained("me/agent").eval(), trainer.policy()),
        "heads": all(same_state(ValueHeads.from_pretrained(name), heads) for name in ("me/agent", "me/heads")),
        "scorer": all(same_state(ReweightingHead.from_pretrained(name), scorer) for name in ("me/agent", "me/scorer")),
        "scorer at a revision": same_state(ReweightingHead.from_pretrained("me/scorer", revision="v2"), other),
        "weights": load_dataset("me/trajectory-weights", split="train").to_dict()
        == trainer.example_weights().to_dict(),
    }


def adapter():
    trainer = agent_trainer("adapted", peft_config=LoraConfig(task_type="CAUSAL_LM", r=2, init_lora_weights=False))
    trainer.push_to_hub()
    opened, trained = ValuePolicy.from_pretrained("me/adapted"), trainer.policy()
    one, other = (log_probs(each, trainer.processing_class) for each in (opened, trained))
    results["adapter"] = {
        "it is one": isinstance(opened.causal_lm, PeftModel),
        "policy": torch.allclose(one, other, atol=1e-5),
    }


def refusals():
    """What is said where a token is wrong, or stands where none belongs."""
    wrong = f"{token}WRONG"
    try:
        Selector(3).push_to_hub("me/nothing", token=wrong)
    except Exception as error:
        results["wrong token"] = str(error)
    with suppress(SystemExit):
        cli.main(["sft-self-refine", "--output_dir", str(folder / "cli"), "--hub_tokn", token])
    cli.main(["env"])


for part in (sft, dpo, offline_rl, adapter, refusals):
    part()
(folder / "results.json").write_text(json.dumps(results))
