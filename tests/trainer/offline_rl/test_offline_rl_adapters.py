import copy

import pytest
import torch
from offline_rl_tiny import OPTIONS, Recording, logged, moved, naive_trajectory_losses
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import BitsAndBytesConfig

from boost_trl import BilevelOfflineRLConfig, ValuePolicy
from boost_trl.models.hidden_states import adapters_disabled
from boost_trl.trainer.common.engines import innermost_optimizer


def lora(**options):
    options = {"r": 2, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    return {"peft_config": LoraConfig(**options)}


IDS = torch.tensor([[3, 4, 5, 6, 7]])


def trainable(module):
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


@pytest.fixture
def saved_llama(tmp_path, make_tiny_model, tiny_tokenizer):
    """The name of a tiny Llama with its tokenizer."""
    folder = tmp_path / "tiny-llama"
    make_tiny_model("llama", hidden_size=64).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


def test_embeddings_and_reference_are_those_of_the_unmodified_model(make_trainer, make_tiny_model, tiny_tokenizer):
    model = make_tiny_model()
    original = copy.deepcopy(model)
    # Without its usual zero start the adapter would show in the embeddings.
    trainer = make_trainer(model=model, arguments=lora(init_lora_weights=False))
    for row in (0, 5):
        messages = trainer.data.train_dataset[row]["messages"]
        ids = tiny_tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)["input_ids"]
        hidden = original(ids, output_hidden_states=True).hidden_states[-1][0, -1]
        torch.testing.assert_close(trainer.reweighter.embeddings[row], hidden, rtol=1e-4, atol=1e-5)
    trainer.train()
    policy = trainer.policy(beta=2.0, prior="lm").eval()
    with torch.no_grad():
        hidden = trainer.model.backbone(IDS, output_hidden_states=True).hidden_states[-1]
        q = hidden @ trainer.model.primary.q_weight[0].T + trainer.model.primary.q_bias[0]
        expected = original(IDS).logits.log_softmax(-1) + 2.0 * q
        torch.testing.assert_close(policy(IDS).logits.log_softmax(-1), expected.log_softmax(-1), rtol=1e-4, atol=1e-4)


def test_only_the_adapter_and_the_heads_train(make_trainer, make_tiny_model):
    trainer = make_trainer(trainer_class=Recording, arguments=lora(init_lora_weights=False))
    names = trainable(trainer.model.backbone)
    assert names and all("lora_" in name for name in names)
    trainer.train()
    changed = moved(trainer.history[0]["before"], trainer.history[-1]["after"], "model", "backbone.")
    assert changed == {f"backbone.{name}" for name in names}
    assert trainable(trainer.model.backbone) == names


def test_what_trains_survives_switching_adapters_off_and_over(make_tiny_model):
    model = get_peft_model(make_tiny_model(), lora()["peft_config"])
    model.add_adapter("other", lora()["peft_config"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("other" in name)
    before = trainable(model)
    with adapters_disabled(model):
        pass
    assert trainable(model) == before


# An adapter for the auxiliary policy as well


@pytest.mark.parametrize("checkpointing", [False, True])
def test_each_phase_moves_the_adapter_of_its_own_policy_and_nothing_else(make_trainer, checkpointing):
    trainer = make_trainer(
        trainer_class=Recording,
        auxiliary_policy="adapter",
        algorithm="ilql",
        weight_decay=0.1,
        max_steps=8,
        gradient_checkpointing=checkpointing,
        arguments=lora(init_lora_weights=False),
    )
    adapters = {
        role: {f"backbone.{n}" for n in trainable(trainer.model.backbone) if f".{name}." in n}
        for role, name in (("primary", "default"), ("auxiliary", "auxiliary"))
    }
    assert len(adapters["primary"]) == len(adapters["auxiliary"]) > 0
    state = trainer.model.state_dict()
    assert all(torch.equal(state[n], state[n.replace("auxiliary", "default")]) for n in adapters["auxiliary"])
    trainer.train()
    assert {group["role"] for group in innermost_optimizer(trainer.optimizer).param_groups} == set(adapters)
    for step, record in enumerate(trainer.history):
        before, updated, after = record["before"], record["updated"], record["after"]
        active, resting = ("auxiliary", "primary") if step % 4 < 2 else ("primary", "auxiliary")
        assert moved(before, updated, "model", "backbone.") == adapters[active]
        assert not moved(before, updated, "model", f"{resting}.")
        assert not moved(before, updated, "moments", f"{resting}.")
        if step % 4 == 1:  # phase 2
            assert moved(updated, after, "model", "backbone.") == adapters["primary"]
            for name in adapters["auxiliary"]:
                theirs = name.replace(".auxiliary.", ".default.")
                assert torch.equal(after["model"][name], after["model"][theirs]), name
            moments = {role: {} for role in adapters}
            for name, value in after["moments"].items():
                role, _, rest = name.split(".", 2)
                moments[role][rest] = value
            assert moments["primary"].keys() == moments["auxiliary"].keys()
            assert all(torch.equal(moments["primary"][n], moments["auxiliary"][n]) for n in moments["primary"])
        elif step % 4 == 3:  # phase 4
            assert not moved(updated, after, "model", "backbone.") and not moved(updated, after, "moments")
            assert moved(updated, after, "phi", "layers.")


def test_phase_4_reads_every_policy_through_its_own_adapter(make_trainer, make_dialogues):
    train = make_dialogues(6, seed=5)
    trainer = make_trainer(
        train=train, auxiliary_policy="adapter", per_device_train_batch_size=4, arguments=lora(init_lora_weights=False)
    )
    with torch.no_grad():
        for parameter in trainer.model.auxiliary_adapter().values():
            parameter.add_(0.3)
        losses = trainer._unit_losses(torch.arange(6).numpy(), ("primary", "auxiliary"), trainer.data.store, 4)
        expected = []
        for role, adapter in (("primary", "default"), ("auxiliary", "auxiliary")):
            trainer.model.backbone.set_adapter(adapter)
            expected.append(naive_trajectory_losses(trainer, role, range(6), train))
    torch.testing.assert_close(torch.from_numpy(losses).float(), torch.stack(expected), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected[0], expected[1])


@pytest.mark.parametrize("auxiliary_policy", ["heads", "adapter"])
def test_resuming_continues_both_adapters(make_trainer, tmp_path, auxiliary_policy):
    def make(folder):
        return make_trainer(
            output_dir=str(tmp_path / folder),
            max_steps=8,
            average_last=0.7,
            save_strategy="steps",
            save_steps=3,
            auxiliary_policy=auxiliary_policy,
            arguments=lora(),
        )

    straight, resumed = make("run"), make("other")
    straight.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-3"))
    assert logged(resumed, "loss") == logged(straight, "loss")
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert trainable(resumed.model) == trainable(straight.model)


# Models by name


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_model_by_name_brings_its_tokenizer_and_takes_model_init_kwargs(make_trainer, saved_llama, dtype):
    kwargs = {"attn_implementation": "eager"} | ({} if dtype is None else {"dtype": dtype})
    trainer = make_trainer(model=saved_llama, model_init_kwargs=kwargs, arguments={"processing_class": None})
    backbone = trainer.model.backbone
    assert backbone.config._attn_implementation == "eager"
    assert {p.dtype for p in backbone.parameters()} == {torch.float32 if dtype is None else torch.bfloat16}
    assert len(trainer.processing_class) == backbone.config.vocab_size
    trainer.train()
    assert {p.dtype for p in trainer.model.primary.parameters()} == {torch.float32}
    assert all(map(torch.isfinite, map(torch.tensor, logged(trainer, "loss"))))


@pytest.mark.filterwarnings("error:.*an autograd kernel was not registered")
def test_an_adapter_trains_on_a_quantised_model(make_trainer, saved_llama, tmp_path):
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    trainer = make_trainer(
        model=saved_llama, arguments={**lora(), "processing_class": None, "quantization_config": quantization}
    )
    packed = {name: p.clone() for name, p in trainer.model.named_parameters() if p.dtype == torch.uint8}
    assert packed
    before = copy.deepcopy({n: p for n, p in trainer.model.named_parameters() if "lora_B" in n})
    trainer.train()
    trainer.save_model()
    state = dict(trainer.model.named_parameters())
    assert all(torch.equal(value, state[name]) for name, value in packed.items())
    assert not any(torch.equal(value, state[name]) for name, value in before.items())
    loaded = ValuePolicy.from_pretrained(tmp_path / "out", quantization_config=quantization, dtype="float32")
    for module in loaded.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes computes in bfloat16 otherwise, for speed.
            module.support_avx512bf16_for_cpu = False
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, trainer.policy().eval()(IDS).logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="quantised weights cannot be trained"):
        make_trainer(model=saved_llama, arguments={"quantization_config": quantization})


# Bad input


def test_adapters_that_do_not_fit_are_refused(make_trainer, make_tiny_model, tmp_path):
    peft_model = get_peft_model(make_tiny_model(), lora()["peft_config"])
    named = get_peft_model(make_tiny_model(), lora()["peft_config"], adapter_name="mine")
    prompt = get_peft_model(make_tiny_model(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    for arguments, complaint in [
        ({"auxiliary_policy": "adapter"}, "needs an adapter: pass `peft_config="),
        ({"model": peft_model, "arguments": lora()}, "has an adapter already"),
        ({"model": peft_model, "train_backbone": False}, "`train_backbone` is false"),
        ({"model": named}, "active adapter is called 'mine'"),
        ({"model": prompt}, "PROMPT_TUNING put learned prompts"),
        ({"model_init_kwargs": {"dtype": "float32"}}, "apply to a model given by name"),
        ({"arguments": {"processing_class": None}}, "`processing_class` is required"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            make_trainer(**arguments)
    with pytest.raises(ValueError, match="no auxiliary policy to give an adapter"):
        BilevelOfflineRLConfig(str(tmp_path), method="vanilla", auxiliary_policy="adapter", **{**OPTIONS})
