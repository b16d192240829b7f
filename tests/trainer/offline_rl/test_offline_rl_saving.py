import copy
import math
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from huggingface_hub import HfApi, ModelCard, RepoUrl
from huggingface_hub.utils import filter_repo_objects
from offline_rl_two_processes import GuessAWord
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessor,
    PreTrainedTokenizerFast,
    TrainingArguments,
    pipeline,
)

from boost_trl import BilevelOfflineRLConfig, ValuePolicy
from boost_trl.trainer.common.weight_files import ROWS_NAME


IDS = torch.tensor([[3, 4, 5, 6, 7], [5, 5, 9, 8, 3]])
LORA = {"peft_config": LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")}


@pytest.fixture
def saved_model(tmp_path, make_tiny_model, tiny_tokenizer):
    """A function of the architecture that saves a tiny model with its tokenizer and returns its name."""

    def save(architecture):
        folder = tmp_path / f"tiny-{architecture}"
        make_tiny_model(architecture).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        return str(folder)

    return save


def log_probabilities(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits.log_softmax(-1)


def generated(model):
    return model.eval().generate(input_ids=IDS, do_sample=False, max_new_tokens=5).tolist()


# Save, load, generate


@pytest.mark.parametrize(
    "architecture, options",
    [
        ("gpt2", {}),
        ("llama", {"value_head_rank": 4, "beta": 2.0}),
        ("llama", {"arguments": LORA}),
        ("gpt2", {"arguments": LORA, "auxiliary_policy": "adapter"}),
        ("llama", {"train_backbone": False}),
        ("gpt2", {"train_backbone": False, "policy_prior": "lm"}),
    ],
    ids=["full", "full llama", "lora", "two adapters", "frozen", "frozen × prior"],
)
def test_what_was_trained_is_what_loads_and_speaks(make_trainer, saved_model, tmp_path, architecture, options):
    beta, prior = options.get("beta", 1.0), options.get("policy_prior", "none")
    trainer = make_trainer(model=saved_model(architecture), **options)
    trainer.train()
    trainer.save_model()
    expected, reply = log_probabilities(trainer.policy()), generated(trainer.policy())
    out = tmp_path / "out"

    loaded = ValuePolicy.from_pretrained(out, beta=beta, prior=prior)
    torch.testing.assert_close(log_probabilities(loaded), expected, rtol=0, atol=1e-5)
    assert generated(loaded) == reply

    plain = AutoModelForCausalLM.from_pretrained(out)
    assert type(plain).__name__ == {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}[architecture]
    torch.testing.assert_close(log_probabilities(plain), expected, rtol=0, atol=1e-5)
    assert generated(plain) == reply
    assert AutoTokenizer.from_pretrained(out).chat_template == trainer.processing_class.chat_template

    # Saving the policy leaves the backbone what the card says it is: one with an untouched output head.
    if "arguments" not in options:
        backbone = AutoModelForCausalLM.from_pretrained(out / "backbone")
        torch.testing.assert_close(log_probabilities(backbone), log_probabilities(trainer.model.backbone))
        assert not torch.allclose(log_probabilities(backbone), expected, atol=1e-3)


def test_the_prior_is_the_language_model_before_training(make_trainer, saved_model, tmp_path):
    name = saved_model("gpt2")
    original = AutoModelForCausalLM.from_pretrained(name)
    trainer = make_trainer(model=name, policy_prior="lm", reference_model_name_or_path=name, beta=0.5)
    trainer.train()
    trainer.save_model()
    with torch.no_grad():
        hidden = trainer.model.backbone.eval()(IDS, output_hidden_states=True).hidden_states[-1]
        q = hidden @ trainer.model.primary.q_weight[0].T + trainer.model.primary.q_bias[0]
        expected = (log_probabilities(original) + 0.5 * q).log_softmax(-1)
    torch.testing.assert_close(log_probabilities(trainer.policy()), expected, rtol=0, atol=1e-5)
    for reference in ({}, {"reference_model_name_or_path": name}):
        loaded = ValuePolicy.from_pretrained(tmp_path / "out", **reference)
        torch.testing.assert_close(log_probabilities(loaded), expected, rtol=0, atol=1e-5)
    card = (tmp_path / "out/README.md").read_text()
    assert "folds only where the reference" in card


# What opens first


def opened_by_pipeline(folder):
    """Model and token ids."""
    opened = pipeline("text-generation", str(folder), device="cpu")
    return opened.model, opened.tokenizer("yes .")["input_ids"]


@pytest.mark.parametrize("options", [{}, {"arguments": LORA}], ids=["full", "lora"])
def test_a_pipeline_opens_the_trained_policy(make_trainer, saved_model, tmp_path, options):
    trainer = make_trainer(model=saved_model("llama"), **options)
    trainer.train()
    trainer.save_model()
    model, ids = opened_by_pipeline(tmp_path / "out")
    assert type(model).__name__ == "LlamaForCausalLM" and ids == trainer.processing_class("yes .")["input_ids"]
    torch.testing.assert_close(log_probabilities(model), log_probabilities(trainer.policy()), rtol=0, atol=1e-5)
    assert not torch.allclose(log_probabilities(model), log_probabilities(trainer.model.backbone), atol=1e-3)
    card = ModelCard.load(tmp_path / "out/README.md")
    assert (card.data.pipeline_tag, card.data.library_name) == ("text-generation", "transformers")


OPEN_WITHOUT_BOOST_TRL = """
import sys
from transformers import AutoTokenizer, pipeline
for folder in sys.argv[1:]:
    print(AutoTokenizer.from_pretrained(folder)("yes .")["input_ids"])
    try:
        pipeline("text-generation", folder, device="cpu")
    except ValueError as error:
        print("model type `boost_trl_value_policy`" in str(error))
from boost_trl import ValuePolicy
for folder in sys.argv[1:]:
    print(isinstance(pipeline("text-generation", folder, device="cpu").model, ValuePolicy))
"""


def test_a_policy_that_does_not_fold_is_no_plain_model_and_says_so(make_trainer, saved_model, tmp_path, caplog):
    name, folders = saved_model("llama"), []
    for out, options in ((tmp_path / "full", {}), (tmp_path / "lora", {"arguments": LORA})):
        caplog.clear()
        trainer = make_trainer(
            model=name, algorithm="ilql", output_dir=str(out), save_strategy="steps", save_steps=4, **options
        )
        trainer.train()
        trainer.save_model()
        trainer.save_model()
        assert caplog.text.count("minimum of several Q heads is not linear") == 1  # however often it is saved
        assert "minimum of several Q heads is not linear" in (out / "README.md").read_text()
        ids = trainer.processing_class("yes .")["input_ids"]
        for folder in (out, out / "checkpoint-4"):
            card = ModelCard.load(folder / "README.md")
            assert card.data.pipeline_tag is None and card.data.library_name == "boost_trl"
            assert "once `from boost_trl import ValuePolicy` has run" in card.text
            # Here boost_trl is imported.
            model, read = opened_by_pipeline(folder)
            assert isinstance(model, ValuePolicy) and read == ids
            expected = log_probabilities(trainer.policy())
            torch.testing.assert_close(log_probabilities(model), expected, rtol=0, atol=1e-5)
            folders.append(folder)
    command = [sys.executable, "-c", OPEN_WITHOUT_BOOST_TRL, *folders]
    opened = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert opened.splitlines() == [str(ids), "True"] * 4 + ["True"] * 4  # as the card says


def code_of_card(folder):
    """The example, with the path that a reader completes."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert f'"path/to/{folder.name}"' in code
    return code.replace(f"path/to/{folder.name}", str(folder))


@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
def test_the_cards_example_opens_the_policy_and_speaks(make_trainer, saved_model, tmp_path, algorithm):
    trainer = make_trainer(model=saved_model("llama"), algorithm=algorithm, beta=2.0, max_new_tokens=5)
    trainer.train()
    trainer.save_model()
    code = code_of_card(tmp_path / "out")
    names = {}
    exec(code, names)
    torch.testing.assert_close(
        log_probabilities(names["policy"]), log_probabilities(trainer.policy()), rtol=0, atol=1e-5
    )
    assert 1 <= names["reply"].shape[1] - names["inputs"]["input_ids"].shape[1] <= 5


def test_games_and_the_cards_example_pass_the_template_what_training_rows_do(
    make_trainer, make_dialogues, tmp_path, monkeypatch, tiny_tokenizer
):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = (
        "{%- if think is defined and think %}{{- 'maybe ' }}{%- endif %}" + tokenizer.chat_template
    )
    rows = make_dialogues(16).map(lambda row: {"chat_template_kwargs": {"think": True}})
    arguments = {"processing_class": tokenizer, "environment": GuessAWord()}
    trainer = make_trainer(method="vanilla", train=rows, arguments=arguments, eval_games=2, max_new_tokens=2)
    seen = []
    generate = ValuePolicy.generate

    def note(self, input_ids, **kwargs):
        seen.extend(tokenizer.batch_decode(input_ids, skip_special_tokens=True))
        return generate(self, input_ids, **kwargs)

    monkeypatch.setattr(ValuePolicy, "generate", note)
    trainer.evaluate()
    assert seen and all(prompt.startswith("maybe") for prompt in seen)
    trainer.save_model()
    names = {}
    exec(code_of_card(tmp_path / "out"), names)
    assert tokenizer.decode(names["inputs"]["input_ids"][0]).startswith("maybe")


# Where a turn ends


CHATML = (
    "{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['role'] == 'assistant' %}{%- generation %}{{- message['content'] + MARK }}{%- endgeneration %}"
    "{%- else %}{{- message['content'] + MARK }}{%- endif %}{{- '\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


class Say(LogitsProcessor):
    """Makes a model say these tokens, one after the other."""

    def __init__(self, tokens):
        self.tokens = iter(tokens)

    def __call__(self, input_ids, scores):
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([next(self.tokens)]), 0.0)


@pytest.fixture
def make_chatml_trainer(make_trainer, make_tiny_model, tmp_path):
    """A function that makes a trainer whose template ends turns by `mark`, which is not the end-of-sequence token."""
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(BPE(letters, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", pad_token="<|pad|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})

    def make(mark, **options):
        tokenizer.chat_template = CHATML.replace("MARK", repr(mark))
        model = make_tiny_model("llama")
        model.resize_token_embeddings(len(tokenizer))
        model.save_pretrained(tmp_path / "base")
        tokenizer.save_pretrained(tmp_path / "base")
        arguments = {"processing_class": tokenizer, **options.pop("arguments", {})}
        return make_trainer(model=str(tmp_path / "base"), arguments=arguments, **options)

    return make


@pytest.mark.parametrize(
    "options",
    [{}, {"arguments": LORA}, {"algorithm": "ilql"}, {"train_backbone": False}],
    ids=["full", "lora", "ilql", "frozen"],
)
def test_every_form_of_the_policy_stops_at_the_templates_mark(make_chatml_trainer, tmp_path, options):
    trainer = make_chatml_trainer("<|im_end|>", save_strategy="steps", save_steps=4, **options)
    trainer.train()
    trainer.save_model()
    word, end = trainer.processing_class.convert_tokens_to_ids(["b", "<|im_end|>"])
    assert end != trainer.processing_class.eos_token_id
    out = tmp_path / "out"
    policies = [trainer.policy(), ValuePolicy.from_pretrained(out), ValuePolicy.from_pretrained(out / "checkpoint-4")]
    if options.get("algorithm") != "ilql":
        policies += [AutoModelForCausalLM.from_pretrained(out), trainer.policy().to_causal_lm()]
    for policy in policies:
        spoken = policy.generate(IDS[:1], logits_processor=[Say([word, end, word, word])], max_new_tokens=4)
        assert spoken[0, IDS.shape[1] :].tolist() == [word, end]
        # The distribution that was trained, not a part of it.
        config = policy.generation_config
        assert (config.do_sample, config.top_k, config.top_p, config.temperature) == (True, 0, 1.0, 1.0)


def test_the_cards_example_names_a_mark_that_is_no_token(make_chatml_trainer, tmp_path):
    trainer = make_chatml_trainer("### end")
    trainer.train()
    trainer.save_model()
    code = code_of_card(tmp_path / "out")
    assert "stop_strings=['### end'], tokenizer=tokenizer" in code
    letters = trainer.processing_class("red### endred")["input_ids"]
    code = code.replace("max_new_tokens", "logits_processor=[Say(letters)], max_new_tokens")
    names = {"Say": Say, "letters": letters}
    exec(code, names)
    assert names["reply"][0, names["inputs"]["input_ids"].shape[1] :].tolist() == letters[:10]


# The model card


def test_the_card_says_what_is_where_and_how_it_was_made(make_trainer, make_dialogues, saved_model, tmp_path):
    name = saved_model("gpt2")
    trainer = make_trainer(
        model=name,
        reweighting_learning_rate=0.1,
        max_steps=8,
        arguments={"eval_dataset": make_dialogues(5, seed=4), "environment": GuessAWord()},
        eval_games=6,
    )
    trainer.train()
    metrics = trainer.evaluate()
    trainer.save_model()
    card = ModelCard.load(tmp_path / "out/README.md")
    assert {"boost_trl", "offline-rl", "bilevel"} <= set(card.data.tags)
    assert card.data.library_name == "transformers" and card.data.base_model is None  # a local folder is no Hub id
    n_eff = trainer.weight_statistics()["effective_sample_size"]
    assert n_eff < 31.9
    for line in (
        "# out",
        f"| effective sample size (1/Σw²) | {n_eff:.1f} |",
        "| method | boost, learned weights |",
        "| policy updates | 8 |",
        f"| loss | {metrics['eval_loss']:.4g} |",
        f"| success_rate | {metrics['eval_success_rate']:.4g} |",
        "  eprint        = {2605.24743},",
    ):
        assert line in card.content.splitlines(), line
    assert "| this folder | **The trained policy**" in card.text and "`backbone/`" in card.text
    trainer.create_model_card(model_name="My agent", dataset_name="me/games", tags="games")
    card = ModelCard.load(tmp_path / "out/README.md")
    assert card.data.datasets == ["me/games"] and "games" in card.data.tags and "# My agent" in card.text
    assert 'from_pretrained("path/to/out")' in card.text  # what it is called opens nothing


def test_the_card_of_validated_reweighting_names_the_winner(make_trainer, tmp_path):
    trainer = make_trainer(method="validated", score_steps=4)
    trainer.train()
    trainer.save_model()
    report = trainer.validated_report
    assert f"| weights chosen | {report['winner']}: {report['reason']} |" in (tmp_path / "out/README.md").read_text()


# The Hub


@pytest.fixture
def hub(monkeypatch):
    """Uploads as (repo, path in repo, names of files), in order; nothing leaves this machine."""
    uploads = []

    def create_repo(self, repo_id, **kwargs):
        return RepoUrl(f"https://huggingface.co/me/{repo_id.split('/')[-1]}")

    def upload_folder(self, *, repo_id, folder_path, path_in_repo=None, ignore_patterns=None, **kwargs):
        paths = [str(p.relative_to(folder_path)) for p in sorted(Path(folder_path).rglob("*")) if p.is_file()]
        kept = filter_repo_objects(paths, ignore_patterns=[*(ignore_patterns or []), ".cache/*"])
        uploads.append((repo_id, path_in_repo, set(kept)))
        future = Future()
        future.set_result(None)
        return future if kwargs.get("run_as_future") else None

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return uploads


EXPECTED = {
    *("README.md", "config.json", "tokenizer.json", "example_weights.parquet", "generation_config.json"),
    *("backbone/config.json", "backbone/model.safetensors"),
    *("value_heads.safetensors", "value_heads_config.json"),
    *("reweighting_head.safetensors", "reweighting_head_config.json"),
}


def test_push_to_hub_uploads_everything_but_checkpoints_and_pickles(make_trainer, hub, tmp_path):
    trainer = make_trainer(save_strategy="steps", save_steps=2, hub_model_id="me/agent")
    trainer.train()
    (tmp_path / "out/training_args.bin").write_bytes(b"from an earlier run")
    trainer.push_to_hub(dataset_name="me/games")
    assert (tmp_path / "out/training_args.bin").read_bytes() == b"from an earlier run"
    ((repo, path, files),) = hub
    assert (repo, path) == ("me/agent", None)
    assert EXPECTED | {"model.safetensors"} <= files
    assert not [name for name in files if name.startswith("checkpoint-") or name.endswith((".bin", ".pt", ".pth"))]
    # Whole rows of the training data stay here.
    assert (tmp_path / "out" / ROWS_NAME).is_file() and ROWS_NAME not in files
    card = ModelCard.load(tmp_path / "out/README.md")
    assert 'from_pretrained("me/agent"' in card.text and card.data.datasets == ["me/games"]
    assert not (tmp_path / "out/checkpoint-2/model.safetensors").exists()


@pytest.mark.parametrize("strategy, folders", [("every_save", [None]), ("checkpoint", [None, "last-checkpoint"])])
def test_pushes_while_training_leave_pickles_out_of_the_root(make_trainer, hub, strategy, folders):
    trainer = make_trainer(save_strategy="steps", save_steps=2, push_to_hub=True, hub_strategy=strategy)
    trainer.train()
    assert [path for _, path, _ in hub] == folders * 2
    for _, path, files in hub:
        assert EXPECTED <= files
        if path is None:
            assert not [name for name in files if name.endswith((".bin", ".pt", ".pth"))]
        else:
            assert {"optimizer.pt", "bilevel_state.safetensors"} <= files


def test_pushes_while_training_an_adapter_carry_our_card(make_trainer, saved_model, hub, tmp_path, monkeypatch):
    cards = []
    upload = HfApi.upload_folder

    def keep_card(self, *, folder_path, **kwargs):
        cards.append(ModelCard.load(Path(folder_path, "README.md")))
        return upload(self, folder_path=folder_path, **kwargs)

    monkeypatch.setattr(HfApi, "upload_folder", keep_card)
    trainer = make_trainer(
        model=saved_model("llama"), arguments=LORA, save_strategy="steps", save_steps=2, push_to_hub=True
    )
    trainer.train()
    assert len(cards) == len(hub) == 2
    for card, (_, _, files) in zip(cards, hub):
        assert 'ValuePolicy.from_pretrained("me/out")' in card.text and "arXiv" in card.text
        assert "More Information Needed" not in card.text and card.data.pipeline_tag is None
        assert {"config.json", "backbone/adapter_config.json", "backbone/adapter_model.safetensors"} <= files
        assert "backbone/README.md" not in files and "adapter_config.json" not in files


# Evaluation by games alone, other arguments


def test_games_need_no_eval_dataset(make_trainer):
    trainer = make_trainer(
        eval_strategy="steps", eval_steps=2, eval_games=3, arguments={"environment": GuessAWord}, max_new_tokens=3
    )
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "eval_score_mean" in entry]
    assert len(entries) == 2 and all(entry["eval_num_games"] == 3 for entry in entries)
    with pytest.raises(ValueError, match="`eval_dataset` has no 'other'"):
        trainer.evaluate("other")


def test_plain_training_arguments_become_a_config(
    make_trainer, make_tiny_model, make_dialogues, tiny_tokenizer, tmp_path
):
    from boost_trl import BilevelOfflineRLTrainer

    trainer = BilevelOfflineRLTrainer(
        make_tiny_model(),
        TrainingArguments(
            str(tmp_path / "plain"), use_cpu=True, num_train_epochs=40, learning_rate=0.3, hub_token="secret"
        ),
        train_dataset=make_dialogues(6),
        processing_class=tiny_tokenizer,
        validation_dataset=make_dialogues(4),
    )
    assert isinstance(trainer.args, BilevelOfflineRLConfig)
    assert (trainer.args.learning_rate, trainer.args.hub_token) == (0.3, "secret")


# Bad input: everything is refused before training


BAD_ROWS = {
    "rewards: has 1 entries for 2 assistant turns": lambda row: row | {"rewards": [1.0]},
    "rewards: entry 0 is 1e\\+20": lambda row: row | {"rewards": [1e20, 0.0]},
    "rewards: entry 1 is nan": lambda row: row | {"rewards": [0.0, math.nan]},
    "messages: has no assistant turn": lambda row: row | {"messages": row["messages"][:1], "rewards": []},
}
GOOD_ROW = {
    "messages": [
        {"role": role, "content": "yes ."} for role in ("user", "assistant", "user", "assistant")
    ],
    "rewards": [0.0, 1.0],
}  # fmt: skip


@pytest.mark.parametrize("complaint", BAD_ROWS)
@pytest.mark.parametrize("name", ["train_dataset", "validation_dataset", "eval_dataset"])
def test_a_bad_row_is_named(make_trainer, complaint, name):
    dataset = Dataset.from_list([GOOD_ROW, BAD_ROWS[complaint](GOOD_ROW)])
    column, problem = complaint.split(": ")
    with pytest.raises(ValueError, match=rf"{name}, row 1, column `{column}`: {problem}"):
        make_trainer(arguments={name: dataset})


def test_bad_arguments_are_named(make_trainer, make_tiny_model, make_dialogues, saved_model, tmp_path):
    wide = make_tiny_model("llama")
    wide.resize_token_embeddings(wide.config.vocab_size + 3)
    wide.save_pretrained(tmp_path / "wide")
    for options, complaint in [
        ({"policy_prior": "lm"}, "name the LM in `reference_model_name_or_path`"),
        ({"policy_prior": "lm", "reference_model_name_or_path": "no/where"}, "is 'no/where', which does not open"),
        ({"reference_model_name_or_path": str(tmp_path / "wide")}, "tokens, but the model has"),
        ({"train": make_dialogues(4).to_list()}, "`train_dataset` is a list; it must be a `datasets.Dataset`"),
        ({"train": make_dialogues(4).to_iterable_dataset()}, "`train_dataset` is a IterableDataset"),
        ({"arguments": {"eval_dataset": {"new": [1]}}}, r"`eval_dataset\['new'\]` is a list"),
        ({"validation": make_dialogues(4).select([])}, "validation_dataset is empty"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            make_trainer(**options)


def test_checkpoints_that_do_not_fit_are_refused(make_trainer, make_tiny_model, make_dialogues, tmp_path):
    rows = make_dialogues(32, seed=1)
    make_trainer(train=rows, save_strategy="steps", save_steps=4).train()
    checkpoint = tmp_path / "out/checkpoint-4"
    rewarded = rows.map(lambda row: {"rewards": [3 * reward - 1 for reward in row["rewards"]]})
    for options, complaint in [
        ({"algorithm": "ilql"}, "checkpoint-4 was written with `algorithm='mc'`"),
        (
            {"auxiliary_policy": "adapter", "arguments": LORA},
            "checkpoint-4 was written with `auxiliary_policy='heads'`",
        ),
        ({"value_head_rank": 3}, "checkpoint-4 was written with `value_head_rank=None`"),
        ({"model": make_tiny_model(hidden_size=8)}, "checkpoint-4/value_heads_config.json has `hidden_size` 16"),
        ({"train": rewarded}, "checkpoint-4 was written with other training or validation data"),
        ({"reweighting_head_depth": 3}, "checkpoint-4 was written with `reweighting_head_depth=2`"),
    ]:
        trainer = make_trainer(**{"train": rows, **options})
        with pytest.raises(ValueError, match=complaint):
            trainer.train(resume_from_checkpoint=str(checkpoint))
    with pytest.raises(ValueError, match="has no bilevel_settings.json: it is no checkpoint of"):
        make_trainer(train=rows).train(resume_from_checkpoint=str(tmp_path))
