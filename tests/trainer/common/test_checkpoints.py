"""A run resumes from the last checkpoint that was written to its end, and from none that was written for another objective."""

import json
import resource
import shutil
from dataclasses import fields

import pytest
import torch
from offline_rl_tiny import logged
from peft import LoraConfig
from sft_tiny import make_args, make_model, make_rows, make_tokenizer
from transformers import TrainingArguments

from boost_trl import BilevelDPOConfig, BilevelOfflineRLConfig, BilevelOfflineRLTrainer, BilevelSFTSelfRefineConfig
from boost_trl.trainer import bilevel_dpo_config, bilevel_offline_rl_config, bilevel_sft_self_refine_config
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.common.checkpoint_error import CheckpointError
from boost_trl.trainer.common.checkpoints import SETTINGS_NAME, begin_checkpoint, run_settings


SAVING = {"save_strategy": "steps", "save_steps": 2, "max_steps": 8}


class Interruption(Exception):
    pass


def interrupted(base, method, step):
    """`base`, killed as it saves the checkpoint of `step`, when it comes to `method`."""

    def interrupt(self, *args, **kwargs):
        if self.state.global_step == step:
            raise Interruption
        return getattr(base, method)(self, *args, **kwargs)

    return type(base.__name__, (base,), {method: interrupt})


@pytest.fixture(scope="module")
def finished_runs():
    """Trainers that have trained to their end and copies of their folders, each made once."""
    return {}


@pytest.fixture(params=["offline_rl", "sft"])
def make(request, tmp_path, tmp_path_factory, make_trainer, make_tiny_model, finished_runs):
    """A function that makes a trainer of either kind, which writes to the same folder each time.

    `make.trained(...)` is one that has trained, with what it wrote in that folder.
    """

    def make_sft(trainer_class=BilevelSFTSelfRefineTrainer, model_seed=0, peft_config=None, **options):
        return trainer_class(
            make_model(model_seed),
            make_args(tmp_path / "out", **{**SAVING, **options}),
            train_dataset=make_rows(20),
            processing_class=make_tokenizer(),
            validation_dataset=make_rows(5),
            peft_config=peft_config,
        )

    def make_offline_rl(trainer_class=BilevelOfflineRLTrainer, model_seed=0, peft_config=None, **options):
        model, arguments = make_tiny_model("llama", model_seed), {"peft_config": peft_config}
        return make_trainer(model, trainer_class=trainer_class, arguments=arguments, **{**SAVING, **options})

    make = {"sft": make_sft, "offline_rl": make_offline_rl}[request.param]

    def trained(**options):
        key = (request.param, repr(options))
        if key not in finished_runs:
            trainer = make(**options)
            trainer.train()
            finished_runs[key] = trainer, shutil.copytree(tmp_path / "out", tmp_path_factory.mktemp("run") / "out")
        else:
            shutil.copytree(finished_runs[key][1], tmp_path / "out")
        return finished_runs[key][0]

    make.trained = trained
    make.trainer_class = {"sft": BilevelSFTSelfRefineTrainer, "offline_rl": BilevelOfflineRLTrainer}[request.param]
    return make


def parameters(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize("method", ["save_model", "_save_optimizer_and_scheduler", "_save_scaler", "_save_rng_state"])
def test_a_half_written_checkpoint_is_passed_over_aloud(make, tmp_path, caplog, method):
    straight = make.trained()
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(Interruption):
        make(interrupted(make.trainer_class, method, 6)).train()
    assert (tmp_path / "out/checkpoint-6").is_dir()
    resumed = make()
    resumed.train(resume_from_checkpoint=True)
    assert "checkpoint-6 has no whole trainer_state.json: it was not written to its end" in caplog.text
    assert logged(resumed, "loss") == logged(straight, "loss")
    assert torch.equal(parameters(resumed), parameters(straight))
    with pytest.raises(ValueError, match="checkpoint-6 has no|checkpoint-6 has a"):
        (tmp_path / "out/checkpoint-6/trainer_state.json").write_text('{"epoch": 1.')
        make().train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-6"))


def test_a_checkpoint_that_is_written_over_another_is_whole_only_at_its_end(make, tmp_path):
    make.trained()
    with pytest.raises(Interruption):
        make(interrupted(make.trainer_class, "_save_optimizer_and_scheduler", 8)).train()
    trainer = make()
    assert trainer.why_incomplete(tmp_path / "out/checkpoint-8") is not None
    assert trainer.why_incomplete(tmp_path / "out/checkpoint-6") is None


def full_from(base, step, size):
    """`base`, on a disk that takes no file of more than `size` bytes from the checkpoint of `step` on."""

    def save(self, *args, **kwargs):
        if self.state.global_step < step:
            return base._save_checkpoint(self, *args, **kwargs)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            return base._save_checkpoint(self, *args, **kwargs)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return type(base.__name__, (base,), {"_save_checkpoint": save})


# Fails in the first file, in the weights, and in one of those of torch.
@pytest.mark.parametrize("size", [100, 9_000, "optimizer.pt"])
def test_a_full_disk_costs_the_checkpoint_that_is_being_written_only(make, tmp_path, size):
    straight = make.trained()
    if size == "optimizer.pt":
        size = (tmp_path / "out/checkpoint-6" / size).stat().st_size - 1
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(
        CheckpointError, match="checkpoint-6 could not be written .*: is the disk full.*make room"
    ) as caught:
        make(full_from(make.trainer_class, 6, size), save_total_limit=1).train()
    assert "\n" not in str(caught.value) and "resume_from_checkpoint=True" in str(caught.value)
    resumed = make()
    assert resumed.why_incomplete(tmp_path / "out/checkpoint-6") is not None
    resumed.train(resume_from_checkpoint=True)
    assert logged(resumed, "loss") == logged(straight, "loss")
    assert torch.equal(parameters(resumed), parameters(straight))


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "bilevel_state.safetensors"])
def test_a_file_that_is_missing_or_cut_is_named(make, tmp_path, caplog, name):
    make.trained(max_steps=4)
    checkpoint = tmp_path / "out/checkpoint-4"
    content = (checkpoint / name).read_bytes()
    (checkpoint / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"checkpoint-4 has a {name} that ends too early"):
        make().train(resume_from_checkpoint=str(checkpoint))
    (checkpoint / name).unlink()
    with pytest.raises(ValueError, match=f"checkpoint-4 has no {name}"):
        make().train(resume_from_checkpoint=str(checkpoint))
    make(max_steps=6).train(resume_from_checkpoint=True)
    assert f"checkpoint-4 has no {name}" in caplog.text
    for weights in checkpoint.glob("**/model.safetensors"):
        weights.unlink()
    (checkpoint / name).write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint-4 has no weights"):
        make().train(resume_from_checkpoint=str(checkpoint))


JSON_FILES = {
    "offline_rl": (
        *("bilevel_state.json", "value_heads_config.json", "value_heads.safetensors", "tokenizer_config.json"),
        *("reweighting_head.safetensors", "reweighting_head_config.json"),
    ),
    "sft": ("selector_config.json", "selector.safetensors", "tokenizer_config.json"),
}


@pytest.mark.parametrize("make", ["offline_rl", "sft"], indirect=True)
def test_every_file_that_resuming_reads_is_looked_at(make, request, tmp_path):
    make.trained(max_steps=4)
    trainer, checkpoint = make(max_steps=4), tmp_path / "out/checkpoint-4"
    assert trainer.why_incomplete(checkpoint) is None
    for name in JSON_FILES[request.node.callspec.params["make"]]:
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).unlink()
        assert trainer.why_incomplete(checkpoint).startswith(f"has no {name}")
        (checkpoint / name).write_bytes(content)
    for path in sorted(checkpoint.rglob("*.json")):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert path.name in trainer.why_incomplete(checkpoint), path
        path.write_bytes(content)
    assert trainer.why_incomplete(checkpoint) is None
    (checkpoint / SETTINGS_NAME).unlink()  # as by a kill before it is written
    assert trainer.why_incomplete(checkpoint).endswith("or was not written to its end")


def test_without_a_whole_checkpoint_nothing_is_resumed(make, tmp_path):
    with pytest.raises(ValueError, match="out has no checkpoint that is whole"):
        make().train(resume_from_checkpoint=True)
    make(save_only_model=True, max_steps=4).train()
    with pytest.raises(ValueError, match="out has no checkpoint that is whole"):
        make().train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    "make, options", [("offline_rl", {"average_last": 0.5}), ("sft", {})], ids=["offline_rl", "sft"], indirect=["make"]
)
def test_a_finished_run_that_is_resumed_stays_as_it_is(make, caplog, options):
    options = {"per_device_train_batch_size": 7, **options}  # update 8 ends no epoch
    finished, resumed = make(**options), make(**options)
    finished.train()
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 8 and torch.equal(parameters(resumed), parameters(finished))
    assert resumed.example_weights().to_dict() == finished.example_weights().to_dict()
    assert "8 of 8 updates are done: nothing is left to train" in caplog.text


def test_how_a_resumed_run_is_optimised_otherwise_is_named(make, tmp_path, caplog):
    make.trained(max_steps=4)  # with a learning rate of 0.01
    resumed = make(learning_rate=0.5, max_grad_norm=0.25)  # for offline RL φ's learning rate follows
    resumed.train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-4"))
    for change in ("learning_rate=0.01`, this run has 0.5", "max_steps=4`, this run has 8", "this run has 0.25"):
        assert change in caplog.text
    assert max(logged(resumed, "learning_rate")) <= 0.01  # as the warning says


def test_a_longer_run_is_told_nothing_of_learning_rates(make, tmp_path, caplog):
    make.trained(max_steps=4)
    make(max_steps=6).train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-4"))
    (said,) = [record.getMessage() for record in caplog.records if "was written with" in record.getMessage()]
    assert said.endswith("`max_steps=4`, this run has 6, which counts from here on")
    assert "optimizer" not in said


OFFLINE_RL = {
    "half_squared_error": True,
    "seed": 7,
    "data_seed": 3,
    "penalty_alpha_ramp": 0.25,
    "reweighting_alpha": 0.5,
    "target_update_rate": 0.1,
    "standardize_embeddings": False,
    "max_length": 40,
    "cql_weight": 3.0,
    "value_head_rank": 3,
    "states_dtype": "bfloat16",
}
SFT = {
    "rho_init": 0.3,
    "rho_increment": 0.02,
    "normalize_penalty": True,
    "selector_max_step": 0.2,
    "weight_scale": "simplex",
    "selector_baseline": "token",
    "seed": 7,
    "max_length": 9,
    "loss_type": "dft",
}


@pytest.mark.parametrize("make", ["offline_rl"], indirect=True)
def test_another_objective_of_offline_rl_is_refused_by_name(make, tmp_path):
    make.trained(max_steps=4)
    refuses_each(make, OFFLINE_RL, tmp_path / "out/checkpoint-4")


@pytest.mark.parametrize("make", ["sft"], indirect=True)
def test_another_objective_of_sft_is_refused_by_name(make, tmp_path):
    make.trained(max_steps=4)
    refuses_each(make, SFT, tmp_path / "out/checkpoint-4")


def refuses_each(make, options, checkpoint):
    for name, value in options.items():
        with pytest.raises(ValueError, match=f"checkpoint-4 was written with .*`{name}=.*this run has {value!r}"):
            make(**{name: value}).train(resume_from_checkpoint=str(checkpoint))


LORA = {"peft_config": LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")}
UNIFORM = {"reweighting": "uniform"}


@pytest.mark.parametrize(
    "make, options, depends",
    [
        ("offline_rl", {}, True),  # by φ's embeddings
        ("offline_rl", {**UNIFORM, "train_backbone": False}, True),
        ("offline_rl", {**UNIFORM, **LORA}, True),
        ("offline_rl", UNIFORM, False),
        ("sft", LORA, True),
        ("sft", {}, False),
    ],
    ids=["weights", "frozen", "adapter", "whole", "SFT adapter", "SFT whole"],
    indirect=["make"],
)
def test_another_base_model_is_refused_where_the_checkpoint_does_not_hold_all_of_it(make, tmp_path, options, depends):
    make.trained(max_steps=4, **options)
    checkpoint = tmp_path / "out/checkpoint-4"
    make(**options).train(resume_from_checkpoint=str(checkpoint))
    other = make(model_seed=1, **options)
    if depends:
        with pytest.raises(CheckpointError, match="checkpoint-4 was written with the base model ''.*this run's ''"):
            other.train(resume_from_checkpoint=str(checkpoint))
        settings = json.loads((checkpoint / "bilevel_settings.json").read_text())
        assert settings.pop("base_model")
        # As checkpoints were written before.
        (checkpoint / "bilevel_settings.json").write_text(json.dumps(settings))
    other.train(resume_from_checkpoint=str(checkpoint))
    assert other.state.global_step == 8


@pytest.mark.parametrize("make", ["offline_rl"], indirect=True)
def test_how_a_policy_is_used_may_change(make, tmp_path, caplog):
    make.trained(max_steps=4)
    resumed = make(max_steps=4, beta=3.0, policy_prior="none", eval_games=3, cache_dir=str(tmp_path / "elsewhere"))
    resumed.train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-4"))
    assert "this run has" not in caplog.text and resumed.policy().beta == 3.0


def test_every_setting_of_ours_belongs_to_the_objective_unless_it_is_listed(tmp_path):
    trainers = {field.name for field in fields(TrainingArguments)}
    for config, module in (
        (BilevelOfflineRLConfig, bilevel_offline_rl_config),
        (BilevelSFTSelfRefineConfig, bilevel_sft_self_refine_config),
        (BilevelDPOConfig, bilevel_dpo_config),
    ):
        own = {field.name for field in fields(config)} - trainers
        assert set(module.FREE_ON_RESUME) <= own  # no name of a field that is gone
        settings = run_settings(config(str(tmp_path), use_cpu=True, bf16=False), module.FREE_ON_RESUME)
        named = {"reweighting_learning_rate", "selector_learning_rate", "per_device_validation_batch_size"}
        assert own - set(module.FREE_ON_RESUME) - named == settings["objective"].keys() & own
        assert own & named == settings["optimization"].keys() & own
        begin_checkpoint(tmp_path / "checkpoint-1", settings)
        assert json.loads((tmp_path / "checkpoint-1/bilevel_settings.json").read_text()) == settings


def test_without_weights_the_sft_trainer_writes_what_trl_does(tmp_path):
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(tmp_path, **SAVING),
        train_dataset=make_rows(20),
        processing_class=make_tokenizer(),
    )
    trainer.train()
    assert not [*tmp_path.glob("checkpoint-*/bilevel*")]
