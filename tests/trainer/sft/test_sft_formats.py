"""What TRL's own tests ask of SFTTrainer, asked of ours: formats of data, labels, evaluation sets, models, callbacks."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDatasetDict
from peft import LoraConfig, PrefixTuningConfig, PromptEncoderConfig
from sft_tiny import (
    CHAT_TEMPLATE,
    logs_without_times,
    make_args,
    make_conversations,
    make_model,
    make_pairs,
    make_rows,
    make_tokenizer,
    sentence,
)
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from trl import BEMACallback, RichProgressCallback, SFTConfig, SFTTrainer

from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


def make_trainer(folder, data, validation=None, model=None, cls=BilevelSFTSelfRefineTrainer, kwargs=None, **overrides):
    kwargs = {"processing_class": make_tokenizer(), **(kwargs or {})}
    if validation is not None:
        kwargs["validation_dataset"] = validation
    config = SFTConfig if cls is SFTTrainer else BilevelSFTSelfRefineConfig
    settings = {"per_device_train_batch_size": 4, "max_steps": -1, "num_train_epochs": 1, **overrides}
    args = make_args(folder, config, **settings)
    return cls(make_model() if model is None else model, args, train_dataset=data, **kwargs)


# Formats


def conversational_pairs(count):
    return Dataset.from_list(
        [
            {"prompt": row["messages"][:1], "completion": row["messages"][1:]}
            for row in make_conversations(count).to_list()
        ]
    )


def from_and_value(count):
    return Dataset.from_list(
        [
            {"conversations": [{"from": m["role"], "value": m["content"]} for m in row["messages"]]}
            for row in make_conversations(count).to_list()
        ]
    )


def with_tools(count, as_text):
    tools = [[{"type": "function", "function": {"name": f"w{i}", "parameters": {}}}] for i in range(count)]
    rows = make_conversations(count).to_list()
    return Dataset.from_list([{**row, "tools": json.dumps(t) if as_text else t} for row, t in zip(rows, tools)])


def with_template_arguments(count):
    rows = make_conversations(count).to_list()
    return Dataset.from_list([{**row, "chat_template_kwargs": {"loud": bool(i % 2)}} for i, row in enumerate(rows)])


def with_masks(count):
    rows = [list(range(5, 8 + i % 3)) for i in range(count)]
    return Dataset.from_dict({"input_ids": rows, "assistant_masks": [[0] * 2 + [1] * (len(row) - 2) for row in rows]})


def with_labels(count):
    rows = with_masks(count)["input_ids"][:]
    return Dataset.from_dict({"input_ids": rows, "labels": [[-100, *row[1:]] for row in rows]})


FORMATS = {
    "conversational_pairs": (conversational_pairs, {}),
    "assistant_and_completion": (conversational_pairs, {"assistant_only_loss": True, "completion_only_loss": True}),
    "from_and_value": (from_and_value, {}),
    "tools": (lambda count: with_tools(count, as_text=False), {}),
    "tools_as_text": (lambda count: with_tools(count, as_text=True), {}),
    "template_arguments": (with_template_arguments, {}),
    "masks": (with_masks, {}),
    "labels": (with_labels, {}),
    "masks_packed": (with_masks, {"packing": True, "max_length": 12}),
}


def tokenizer_that_shows_everything():
    tokenizer = make_tokenizer()
    tools = "{% for tool in tools or [] %}{{ tool['function']['name'] }} {% endfor %}"
    tokenizer.chat_template = "{% if loud %}w39 {% endif %}" + tools + CHAT_TEMPLATE
    return tokenizer


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_prepared_as_trl_does_and_weighted(name, tmp_path):
    make, options = FORMATS[name]
    kwargs = {"processing_class": tokenizer_that_shows_everything()}
    theirs = make_trainer(tmp_path, make(12), cls=SFTTrainer, kwargs=kwargs, **options)
    ours = make_trainer(tmp_path, make(12), make(4), kwargs=kwargs, **options)
    for column in ("input_ids", "labels"):
        assert ours.train_dataset[column][:] == theirs.train_dataset[column][:]
    text = ours._tokenizer.decode(sum(ours.train_dataset["input_ids"][:], []))
    if name.startswith(("tools", "template")):
        assert ("w39 <u>" if name.startswith("template") else "w11 <u>") in text
    ours.train()
    assert ours.selector.share_seen() == 1 and ours.selector.logits().std() > 0


@pytest.mark.parametrize("dropped", [[], [3]], ids=["all rows stay", "an empty row is dropped"])
@pytest.mark.parametrize(
    "layout",
    [{"max_length": None}, {"max_length": 6}, {"max_length": 10, "packing": True}, {"shuffle_dataset": True}],
    ids=str,
)
def test_every_prepared_row_has_the_number_of_its_own(layout, dropped, tmp_path):
    """Of a pool that is a shuffled part of a larger one."""
    rows = [[5 + i, *range(6, 9 + i % 4)] for i in range(16)]
    pool = Dataset.from_dict({"input_ids": rows}).shuffle(seed=0).select(range(12)).to_dict()["input_ids"]
    for place in dropped:
        pool[place] = []
    larger = Dataset.from_dict({"input_ids": [[1], *pool, [1]]})
    dataset = larger.select([*range(12, 0, -1)]).select([*range(11, -1, -1)])
    assert dataset["input_ids"][:] == pool
    theirs = make_trainer(tmp_path, dataset, cls=SFTTrainer, **layout).train_dataset
    trainer = make_trainer(tmp_path, dataset, make_rows(4), **layout)
    for column in ("input_ids", "labels"):
        assert trainer.train_dataset[column][:] == [row for row in theirs[column] if row]
    kept = [place for place in range(12) if place not in dropped]
    found = {}
    for tokens, ids in zip(trainer.train_dataset["input_ids"][:], trainer.train_dataset["_example_id"][:]):
        for token, number in zip(tokens, np.broadcast_to(ids, len(tokens)).tolist()):
            found.setdefault(kept[number], []).append(token)
    assert found == {place: pool[place][: layout.get("max_length")] for place in kept}


def test_rows_that_preparation_drops_keep_their_place_in_the_table(tmp_path):
    """Row 1's answer lies beyond `max_length`: TRL drops it, and every later row moves up by one."""
    rows = [{"input_ids": [5, 6, 7, 8], "assistant_masks": [0, 0, 1, 1]} for _ in range(6)]
    rows[1]["assistant_masks"] = [0, 0, 0, 1]
    rows[4]["input_ids"] = [5, 6, 9, 10]
    trainer = make_trainer(tmp_path, Dataset.from_list(rows), make_rows(3), max_length=3, num_train_epochs=3)
    assert len(trainer.train_dataset) == 5
    trainer.train()
    table = trainer.example_weights()
    scores = np.array(table["score"][:])
    assert table["index"][:] == list(range(6)) and trainer.selector.share_seen() == 1
    assert scores[1] == -np.inf and table["weight"][1] == 0 and scores[4] != scores[0]
    assert np.allclose(scores[[0, 2, 3, 5]], scores[0], atol=0.1) and abs(scores[4] - scores[0]) > 1e-4


def test_a_chat_template_from_a_file_is_used_and_saved(tmp_path):
    (tmp_path / "template.jinja").write_text("w39 " + CHAT_TEMPLATE)
    trainer = make_trainer(
        tmp_path / "out",
        make_conversations(),
        make_conversations(4),
        chat_template_path=str(tmp_path / "template.jinja"),
        save_strategy="steps",
        save_steps=3,
    )
    assert trainer._tokenizer.decode(trainer.train_dataset[0]["input_ids"]).startswith("w39")
    trainer.train()
    trainer.save_model()
    for folder in ("checkpoint-3", "."):
        assert (tmp_path / "out" / folder / "chat_template.jinja").read_text() == "w39 " + CHAT_TEMPLATE


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (make_rows, {"padding_free": True, "max_length": 8}, "`max_length` is not enforced"),
        (with_masks, {"dataset_kwargs": {"skip_prepare_dataset": True}}, "Add a 'labels' column"),
        (lambda count: make_rows(count, {"images": [[None]] * count}), {}, "vision-language model"),
        (make_rows, {"router_aux_loss_coef": 0.5}, "not a Mixture-of-Experts model"),
    ],
)
def test_trls_own_errors_stay(data, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, data(6), make_pairs(3), **options)


# Evaluation sets


def evaluation_sets():
    def stream(rows):
        return rows.to_iterable_dataset()

    return {
        "dataset": make_rows(5),
        "stream": stream(make_rows(5)),
        "dataset_dict": DatasetDict({"one": make_rows(5), "two": make_pairs(3)}),
        "stream_dict": IterableDatasetDict({"one": stream(make_rows(5)), "two": stream(make_pairs(3))}),
        "dict": {"one": make_rows(5), "two": make_pairs(3)},
        "dict_of_streams": {"one": stream(make_rows(5)), "two": stream(make_pairs(3))},
    }


@pytest.mark.parametrize("kind", evaluation_sets())
def test_evaluation_sets_of_every_kind_give_trls_losses(kind, tmp_path):
    results = []
    for cls, validation in ((SFTTrainer, None), (BilevelSFTSelfRefineTrainer, make_rows(3))):
        trainer = make_trainer(
            tmp_path, make_rows(8), validation, cls=cls, kwargs={"eval_dataset": evaluation_sets()[kind]}
        )
        metrics = {**trainer.evaluate(), **trainer.evaluate(evaluation_sets()[kind], metric_key_prefix="later")}
        results.append({name: value for name, value in metrics.items() if name.endswith(("loss", "accuracy"))})
    assert results[0] == results[1] and len(results[0]) >= 2


def test_evaluation_can_stay_unpacked(tmp_path):
    trainer = make_trainer(
        tmp_path,
        make_rows(12),
        make_rows(3),
        kwargs={"eval_dataset": make_rows(4)},
        packing=True,
        eval_packing=False,
        max_length=24,
    )
    assert "seq_lengths" in trainer.train_dataset.column_names
    assert "seq_lengths" not in trainer.eval_dataset.column_names and len(trainer.eval_dataset) == 4


def test_the_best_model_is_loaded_at_the_end(tmp_path):
    trainer = make_trainer(
        tmp_path,
        make_rows(12),
        make_rows(3),
        kwargs={"eval_dataset": make_rows(4)},
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        metric_for_best_model="eval_mean_token_accuracy",
        load_best_model_at_end=True,
    )
    trainer.train()
    history = [entry["eval_mean_token_accuracy"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(history) == 3 and trainer.state.best_metric == max(history)
    assert trainer.evaluate()["eval_mean_token_accuracy"] == pytest.approx(max(history))


def test_predictions_are_logits(tmp_path):
    trainer = make_trainer(tmp_path, make_rows(8), make_rows(3))
    assert trainer.predict(trainer.train_dataset).predictions.shape[-1] == 48


# Models


SIZE = {
    "vocab_size": 48,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
ARCHITECTURES = {
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=48, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1)
    ),
    "qwen3_tied": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SIZE, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True)
    ),
    "gemma3_softcap": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(**SIZE, num_key_value_heads=2, head_dim=8, final_logit_softcapping=5.0)
    ),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name, tmp_path):
    """The losses that the selector sees are those of the model's plain logits."""
    torch.manual_seed(0)
    model = ARCHITECTURES[name]()
    trainer = make_trainer(tmp_path, make_pairs(8), make_pairs(3), model=model, per_device_train_batch_size=8)
    expected = {}
    with torch.no_grad():
        for row, example in enumerate(trainer.train_dataset):
            ids, labels = torch.tensor([example["input_ids"]]), torch.tensor(example["labels"][1:])
            log_probs = model.eval()(input_ids=ids).logits[0, :-1].log_softmax(-1)
            expected[row] = -float(log_probs[labels != -100, labels[labels != -100]].mean())
    for module in model.modules():  # no dropout in the training forward either
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    seen = {}
    trainer.selector.update = lambda ids, losses, gamma: seen.update(zip(ids.tolist(), losses.tolist()))
    trainer.train()
    assert seen == pytest.approx(expected, rel=1e-4)


LORA = LoraConfig(r=2, target_modules=["q_proj"])


@pytest.mark.parametrize(
    ("peft", "options"),
    [
        (LORA, {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}),
        (LORA, {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}),
        (PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), {}),
        (PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, encoder_hidden_size=16), {}),
    ],
    ids=["lora-reentrant", "lora-checkpointing", "prefix", "prompt_encoder"],
)
def test_adapters_learn_and_the_base_model_stays(peft, options, tmp_path):
    trainer = make_trainer(tmp_path, make_rows(12), make_rows(4), kwargs={"peft_config": peft}, **options)
    assert {"sft", "trl", "bilevel-sft-self-refine"} <= set(trainer.model.model_tags)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    assert trainer.selector.share_seen() == 1


def test_adapters_start_from_the_seed(tmp_path):
    adapters = []
    for seed in range(2):
        torch.manual_seed(seed)
        trainer = make_trainer(
            tmp_path, make_rows(4), make_rows(3), model=make_model(), kwargs={"peft_config": LORA}, seed=5
        )
        adapters.append([p.detach() for name, p in trainer.model.named_parameters() if "lora_A" in name])
    assert all(torch.equal(*pair) for pair in zip(*adapters, strict=True)) and adapters[0]


def test_a_model_by_its_path_alone(tmp_path, monkeypatch):
    """Neither tokenizer nor arguments: both are TRL's defaults, which a machine without accelerator cannot take."""
    make_model().save_pretrained(tmp_path / "tiny")
    make_tokenizer().save_pretrained(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    defaults = SFTConfig.__post_init__
    monkeypatch.setattr(SFTConfig, "__post_init__", lambda self: (setattr(self, "use_cpu", True), defaults(self))[0])
    trainer = BilevelSFTSelfRefineTrainer(
        str(tmp_path / "tiny"), train_dataset=make_rows(), validation_dataset=make_rows(5)
    )
    assert isinstance(trainer.args, BilevelSFTSelfRefineConfig) and trainer.args.output_dir == "tiny-SFT"
    assert trainer.processing_class.get_vocab() == make_tokenizer().get_vocab()
    assert trainer.model.dtype == torch.float32


def test_the_models_dtype_and_special_tokens_follow_the_arguments(tmp_path):
    make_model().save_pretrained(tmp_path / "tiny")
    trainer = make_trainer(
        tmp_path,
        make_rows(8),
        make_rows(3),
        model=str(tmp_path / "tiny"),
        model_init_kwargs={"dtype": "bfloat16"},
        eos_token="<a>",
        learning_rate=0.5,
    )
    assert trainer.model.dtype == torch.bfloat16
    end = trainer._tokenizer.convert_tokens_to_ids("<a>")
    assert trainer.model.config.eos_token_id == end and trainer.train_dataset[0]["input_ids"][-1] == end
    trainer.train()
    assert trainer.selector.logits().dtype == torch.float32 and trainer.selector.share_seen() == 1


# Images


def image_rows(count):
    Image = pytest.importorskip("PIL.Image")
    return Dataset.from_list(
        [
            {
                "messages": [
                    {"role": "user", "content": sentence(i, 3)},
                    {"role": "assistant", "content": sentence(i + 3, 2 + i % 5)},
                ],
                "images": [Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8))],
            }
            for i in range(count)
        ]
    )


def make_llava():
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<u>", "<a>", "<image>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<u> ' if m['role'] == 'user' else '<a> ' }}"
        "{% for part in m['content'] %}{{ '<image> ' if part['type'] == 'image' else part['text'] + ' ' }}{% endfor %}"
        "{% endfor %}"
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}),
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
        image_token="<image>",
    )
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**SIZE, image_size=8, patch_size=4, projection_dim=16),
        text_config=LlamaConfig(**{**SIZE, "vocab_size": len(tokenizer)}),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    return LlavaForConditionalGeneration(config), processor


def test_rows_with_images_have_weights(tmp_path):
    pytest.importorskip("PIL")
    model, processor = make_llava()
    trainer = make_trainer(
        tmp_path,
        image_rows(8),
        image_rows(3),
        model=model,
        kwargs={"processing_class": processor},
        max_length=None,
    )
    trainer.train()
    assert trainer.selector.share_seen() == 1 and trainer.selector.logits().std() > 0
    assert "selector/coverage" not in trainer.state.log_history[0]


def image_pairs(count):
    rows = image_rows(count).to_list()
    return Dataset.from_list(
        [{"prompt": r["messages"][:1], "completion": r["messages"][1:], "images": r["images"]} for r in rows],
    ).cast_column("images", image_rows(1).features["images"])


@pytest.mark.parametrize("pairs_train", [True, False])
def test_a_validation_set_with_images_in_the_other_format(pairs_train, tmp_path):
    """Answers alone are learned from pairs, all of the tokens from messages, whatever the training rows are."""
    pytest.importorskip("PIL")
    model, processor = make_llava()
    training, validation = (image_pairs, image_rows) if pairs_train else (image_rows, image_pairs)
    trainer = make_trainer(
        tmp_path, training(4), validation(3), model=model, kwargs={"processing_class": processor}, max_length=None
    )
    labels = trainer._validation.batch([0, 1, 2])["labels"]
    texts = [trainer._tokenizer.decode(row[row != -100]) for row in labels]
    for i, text in enumerate(texts):
        assert sentence(i + 3, 2 + i % 5) in text and (sentence(i, 3) in text) == pairs_train
    trainer.train()


# Without a validation set


def test_a_loss_of_the_users_own_trains_without_weights(tmp_path):
    def own_loss(outputs, labels, num_items_in_batch=None):
        return torch.nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    logs = []
    for cls in (BilevelSFTSelfRefineTrainer, SFTTrainer):
        trainer = make_trainer(tmp_path, make_rows(8), cls=cls, kwargs={"compute_loss_func": own_loss})
        trainer.train()
        logs.append(logs_without_times(trainer))
    assert logs[0] == logs[1]


def test_plain_training_resumes_as_trls_does(tmp_path):
    parameters = []
    for cls in (BilevelSFTSelfRefineTrainer, SFTTrainer):
        options = {"cls": cls, "save_strategy": "steps", "save_steps": 1, "num_train_epochs": 2}
        make_trainer(tmp_path / cls.__name__, make_rows(8), **options).train()
        resumed = make_trainer(tmp_path / cls.__name__, make_rows(8), **options)
        resumed.train(resume_from_checkpoint=str(tmp_path / cls.__name__ / "checkpoint-1"))
        assert resumed.state.global_step == 4
        parameters.append(list(resumed.model.parameters()))
    assert all(torch.equal(*pair) for pair in zip(*parameters, strict=True))


# Callbacks of TRL


def test_callbacks_of_trl(tmp_path):
    """They see the model, and leave the weights as they are."""
    pytest.importorskip("rich")
    weights = []
    for callbacks in ([], [BEMACallback(update_freq=1), RichProgressCallback()]):
        trainer = make_trainer(
            tmp_path / str(len(callbacks)),
            make_rows(12),
            make_rows(4),
            model=make_model(attention_dropout=0.0),  # a copy of the model draws random numbers
            kwargs={"callbacks": callbacks},
        )
        trainer.train()
        weights.append(trainer.selector.logits())
    assert torch.equal(*weights)
    averaged = callbacks[0].running_model.state_dict()
    assert any(not torch.equal(value, averaged[name]) for name, value in trainer.model.state_dict().items())
