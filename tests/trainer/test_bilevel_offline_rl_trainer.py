import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from datasets import Dataset
from offline_rl_tiny import Recording, logged, moved, naive_trajectory_losses
from peft import LoraConfig
from torch import nn
from transformers import TrainerCallback

from boost_trl import BilevelOfflineRLConfig, BilevelOfflineRLTrainer
from boost_trl.data.trajectories import REWARD_LIMIT
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.losses import q_statistics
from boost_trl.trainer.offline_rl.schedule import Phase


# What moves and what must not


@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
def test_each_phase_moves_what_it_should_and_nothing_else(make_trainer, algorithm):
    trainer = make_trainer(
        trainer_class=Recording, algorithm=algorithm, weight_decay=0.1, max_steps=8, reweighting_learning_rate=1e-2
    )
    trainer.train()
    for step, record in enumerate(trainer.history):
        before, updated, after = record["before"], record["updated"], record["after"]
        active, resting = ("auxiliary", "primary") if step % 4 < 2 else ("primary", "auxiliary")
        # Every trained parameter of the active role moves; the other role, its targets and moments and φ stay.
        active_parameters = {f"{active}.{name}" for name, _ in getattr(trainer.model, active).named_parameters()}
        assert active_parameters <= moved(before, updated, "model", active)
        assert moved(before, updated, "model", "backbone.")
        assert not moved(before, updated, "model", f"{resting}.")
        assert not moved(before, updated, "moments", f"{resting}.")
        assert not moved(before, updated, "phi")
        if step >= 4:
            # Moments are warm: a zero gradient instead of none would have moved the resting heads.
            assert any(name.endswith("exp_avg") for name in before["moments"] if name.startswith(resting))
        if algorithm == "ilql":
            assert f"{active}.target_q_weight" in moved(updated, after, "model", active)
            assert step % 4 == 1 or not moved(updated, after, "model", f"{resting}.")

        if step % 4 == 1:  # phase 2
            for name in trainer.model.auxiliary.state_dict():
                assert torch.equal(after["model"][f"primary.{name}"], after["model"][f"auxiliary.{name}"]), name
            primary = {n.split(".", 1)[1].split(".", 1)[1]: v for n, v in after["moments"].items() if n[0] == "p"}
            auxiliary = {n.split(".", 1)[1].split(".", 1)[1]: v for n, v in after["moments"].items() if n[0] == "a"}
            assert primary.keys() == auxiliary.keys() and all(torch.equal(primary[n], auxiliary[n]) for n in primary)
            assert not moved(updated, after, "model", "backbone.") and not moved(updated, after, "phi")
        if step % 4 == 3:  # phase 4
            assert moved(updated, after, "phi", "layers.")
            expected = {f"primary.target_{name}" for name in ("q_weight", "q_bias")} if algorithm == "ilql" else set()
            assert moved(updated, after, "model") == expected
            assert not moved(updated, after, "moments")
        elif step % 4 in (0, 2):
            assert not moved(updated, after, "phi") and not moved(updated, after, "moments")


def test_uniform_weights_and_vanilla_train_no_reweighting_head(make_trainer):
    uniform = make_trainer(reweighting="uniform")
    uniform.train()
    assert uniform.reweighting_head is None and set(uniform.example_weights()["weight"]) == {1.0}
    vanilla = make_trainer(method="vanilla", trainer_class=Recording)
    vanilla.train()
    assert vanilla.model.auxiliary is None
    for record in vanilla.history:
        assert moved(record["before"], record["updated"], "model", "primary.")
    assert "validation_loss" not in vanilla.state.log_history[0]


# One optimizer batch, however it is cut


def trained(trainer):
    torch.manual_seed(0)
    trainer.train()
    return trainer.model.state_dict(), trainer.example_weights()["weight"], logged(trainer, "loss")


@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
@pytest.mark.parametrize("normalization", ["trajectory_mean", "token_mean", "sum"])
def test_a_batch_is_the_same_for_every_accumulation(make_trainer, algorithm, normalization):
    results = [
        trained(
            make_trainer(
                algorithm=algorithm,
                loss_normalization=normalization,
                per_device_train_batch_size=size,
                gradient_accumulation_steps=8 // size,
                reweighting_learning_rate=1e-2,
                max_steps=8,
                # SGD: Adam's division would amplify rounding in near-zero gradients.
                optim="sgd",
                learning_rate=1e-3,
            )
        )
        for size in (8, 2, 1)
    ]
    (parameters, weights, losses), *others = results
    assert np.std(weights) > 1e-3
    for other_parameters, other_weights, other_losses in others:
        np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
        # Phase 4 sees differences of θ's and ψ's losses, which as sums are a thousand times as large.
        np.testing.assert_allclose(other_weights, weights, rtol=5e-4)
        for name, value in parameters.items():
            torch.testing.assert_close(other_parameters[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_the_weighted_loss_and_its_gradient_are_those_of_the_definition(make_trainer, make_dialogues):
    train, validation = make_dialogues(16, seed=5), make_dialogues(6, seed=6)

    class Check(Recording):
        def _before_policy_update(self):
            plan = self.optimizer_batch
            if plan.phase is Phase.PRIMARY:
                is_validation = np.concatenate([micro_batch.is_validation for micro_batch in plan.micro_batches])
                rows, drawn = plan.rows[~is_validation], plan.rows[is_validation] - len(train)
                actual = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}
                self.model.zero_grad()
                weights = torch.softmax(self.reweighting_head(self.reweighter.embeddings[rows]), 0).detach()
                assert len(drawn) == 4 and weights.max() > 1.5 * weights.min()
                lower = (weights * naive_trajectory_losses(self, "primary", rows, train)).sum()
                upper = naive_trajectory_losses(self, "primary", drawn, validation).mean()
                (upper + 0.7 * lower).backward()
                for name, parameter in self.model.named_parameters():
                    if name.startswith("auxiliary"):
                        assert name not in actual or not actual[name].any()
                    else:
                        torch.testing.assert_close(actual[name], parameter.grad, rtol=1e-4, atol=1e-5, msg=name)
                self.checked = (upper + 0.7 * lower).item()
            super()._before_policy_update()

    trainer = make_trainer(
        trainer_class=Check,
        train=train,
        validation=validation,
        auxiliary_steps=1,
        primary_steps=1,
        max_steps=2,
        penalty_alpha_init=0.7,
        penalty_alpha_final=0.7,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        per_device_validation_batch_size=1,
    )
    # Unequal weights from the first step.
    nn.init.normal_(trainer.reweighting_head.layers[-1].weight, std=1.0)
    trainer.train()
    assert logged(trainer, "loss")[1] == pytest.approx(trainer.checked, rel=1e-5)
    entry = [entry for entry in trainer.state.log_history if "validation_loss" in entry][0]
    assert entry["validation_loss"] + 0.7 * entry["train_loss_weighted"] == pytest.approx(trainer.checked, rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"method": "validated", "guard": False}, {"value_head_rank": 4}])
def test_training_takes_gradients_ahead_and_evaluation_none(make_trainer, monkeypatch, options):
    calls = []

    def recorded(*args, logsumexp_grad=None):
        calls.append((torch.is_grad_enabled(), logsumexp_grad is not None))
        return q_statistics(*args, logsumexp_grad=logsumexp_grad)

    monkeypatch.setattr("boost_trl.models.value_heads.q_statistics", recorded)
    make_trainer(train_backbone=False, **options).train()
    assert {is_ahead for learns, is_ahead in calls if learns} == {True}
    assert {is_ahead for learns, is_ahead in calls if not learns} == {False}


def test_phase_4_takes_the_exact_gradient_of_the_whole_batch(make_trainer, make_dialogues):
    train = make_dialogues(16, seed=5)
    trainer = make_trainer(train=train, per_device_train_batch_size=3, gradient_accumulation_steps=2, max_steps=4)
    updates = []
    original = trainer.reweighter.update

    def update(rows, gaps, alpha):
        head = copy.deepcopy(trainer.reweighting_head)
        trainer.model.eval()
        with torch.no_grad():
            expected = naive_trajectory_losses(trainer, "primary", rows, train) - naive_trajectory_losses(
                trainer, "auxiliary", rows, train
            )
        torch.testing.assert_close(gaps, expected, rtol=1e-4, atol=1e-5)
        scores = head(trainer.reweighter.embeddings[rows])
        scores.retain_grad()
        weights = torch.softmax(scores, 0)
        (alpha * (weights * expected).sum()).backward()
        # α w̃_i (gap_i − Σ_j w̃_j gap_j)
        by_hand = alpha * weights * (expected - (weights * expected).sum())
        torch.testing.assert_close(scores.grad, by_hand.detach(), rtol=1e-4, atol=1e-6)
        original(rows, gaps, alpha)
        for ours, theirs in zip(trainer.reweighting_head.parameters(), head.parameters()):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)
        updates.append(len(rows))
        return 0.0

    trainer.reweighter.update = update
    trainer.train()
    assert updates == [6]


def test_rows_are_cut_to_the_models_context(make_trainer, make_dialogues):
    rows = make_dialogues(8, seed=3).to_list()
    rows[2]["messages"] = [
        m for _ in range(30) for m in ({"role": "user", "content": "no"}, {"role": "assistant", "content": "old ?"})
    ]
    rows[2]["rewards"], rows[2]["terminated"] = [-1.0] * 30, True
    trainer = make_trainer(train=Dataset.from_list(rows), max_length=1024)
    assert trainer.data.training.input_lengths.max() <= 128 == trainer.model.config.max_position_embeddings
    trainer.train()


# A frozen backbone, and its cached states


@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
def test_cached_states_give_the_losses_of_the_full_forward(make_trainer, algorithm):
    cached = make_trainer(algorithm=algorithm, train_backbone=False, max_steps=8)
    before = copy.deepcopy(cached.model.backbone.state_dict())
    full = make_trainer(algorithm=algorithm, train_backbone=False, max_steps=8)
    full.data.store.states = None
    cached.train()
    full.train()
    assert all(torch.equal(value, before[name]) for name, value in cached.model.backbone.state_dict().items())
    np.testing.assert_allclose(logged(cached, "loss"), logged(full, "loss"), rtol=1e-4)


def test_states_and_embeddings_are_reused_only_for_the_same_model_and_data(make_trainer, make_tiny_model, tmp_path):
    def files():
        return {path.name for path in (tmp_path / "cache").iterdir()}

    make_trainer(train_backbone=False)
    first = files()
    make_trainer(train_backbone=False)
    assert files() == first
    make_trainer(train_backbone=False, model=make_tiny_model(seed=1))
    assert len(files()) == 2 * len(first)


def test_embeddings_are_the_last_tokens_final_states(make_trainer, make_dialogues, tiny_tokenizer):
    train = make_dialogues(9, seed=3)
    trainer = make_trainer(train=train)
    for row in range(9):
        ids = tiny_tokenizer.apply_chat_template(train[row]["messages"], return_tensors="pt", return_dict=True)
        hidden = trainer.model.backbone(ids["input_ids"], output_hidden_states=True).hidden_states[-1][0, -1]
        torch.testing.assert_close(trainer.reweighter.embeddings[row], hidden, rtol=1e-4, atol=1e-5)


# Heads at the start


@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
def test_heads_start_as_the_language_model_with_the_mean_return(make_trainer, algorithm):
    trainer = make_trainer(algorithm=algorithm)
    primary = trainer.model.primary
    store = trainer.data.training
    batch = store.collate(range(len(store)))
    with torch.no_grad():
        output = trainer.model(
            action_index=batch.action_index,
            actions=batch.actions,
            state_index=batch.state_index,
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
        )["primary"]
        logits = trainer.model.backbone(batch.input_ids, attention_mask=batch.attention_mask).logits
        logits = logits.reshape(-1, logits.shape[-1])[batch.state_index][batch.action_index]
    expected = logits.log_softmax(-1).gather(1, batch.actions[:, None])[:, 0]
    tolerance = {"mc": 1e-4, "ilql": 0.05}[algorithm]  # ILQL's twin heads carry different noise
    for q_taken, q_logsumexp in zip(output["q_taken"], output["q_logsumexp"]):
        torch.testing.assert_close(q_taken - q_logsumexp, expected, rtol=0, atol=tolerance)
    returns = (batch.returns.mean() - primary.config.return_shift) / primary.config.return_scale
    torch.testing.assert_close(output["q_taken"].mean(1), returns.expand(len(output["q_taken"])), rtol=0, atol=1e-4)
    if algorithm == "mc":
        assert (store.action_returns.mean() - primary.config.return_shift) == pytest.approx(0, abs=1e-5)
    else:
        assert primary.config.return_shift == 0
        assert not torch.equal(primary.q_weight[0], primary.q_weight[1])


# Averages, results, saving


def test_the_result_is_the_average_of_the_last_updates(make_trainer):
    trainer = make_trainer(trainer_class=Recording, average_last=0.5, max_steps=16, auxiliary_steps=2, primary_steps=2)
    trainer.train()
    ends = [trainer.history[step]["after"]["model"]["primary.q_weight"] for step in (11, 15)]
    torch.testing.assert_close(trainer.model.primary.q_weight.data, torch.stack(ends).mean(0))


def test_example_weights_are_one_row_per_original_row(make_trainer, make_dialogues):
    train = make_dialogues(20, seed=7)
    rows = train.to_list()
    rows[3]["messages"][1]["content"] = "is it " * 40
    trainer = make_trainer(train=Dataset.from_list(rows), max_length=40, reweighting_learning_rate=0.1, max_steps=8)
    trainer.train()
    weights = trainer.example_weights()
    assert weights["index"] == list(range(20)) and weights["source"] == train["source"]
    assert weights["weight"][3] == 0 and weights["score"][3] is None
    used = [weight for row, weight in enumerate(weights["weight"]) if weights["score"][row] is not None]
    assert np.mean(used) == pytest.approx(1, abs=1e-5) and np.std(used) > 1e-3
    scores = np.array([score for score in weights["score"] if score is not None])
    np.testing.assert_allclose(used, len(used) * np.exp(scores) / np.exp(scores).sum(), rtol=1e-4)
    first = [" ".join(message["content"] for message in row["messages"])[:25] for row in trainer.data.train_dataset]
    assert [text[:25] for text in weights["text"]] == first


def test_logs_name_both_levels_and_the_weights(make_trainer):
    trainer = make_trainer(algorithm="ilql", max_steps=4)
    trainer.train()
    expected = {
        *(
            "loss",
            "train_loss_weighted",
            "validation_loss",
            "td_loss",
            "cql_loss",
            "expectile_loss",
            "mean_q",
            "mean_v",
        ),
        *("phase", "penalty_alpha", "effective_sample_size", "weight_entropy", "largest_weight"),
        *("weight_offline", "weight_synthetic", "grad_norm_backbone", "grad_norm_primary", "num_tokens"),
    }
    assert expected <= trainer.state.log_history[3].keys()
    assert trainer.state.log_history[3]["reweighting_objective"] != 0


@pytest.mark.parametrize("every, phases", [(1, [1, 1, 3, 3, 1, 1, 3, 3]), (3, [3, 1]), (4, [3, 3])])
def test_the_logged_phase_is_that_of_the_last_update(make_trainer, every, phases):
    trainer = make_trainer(max_steps=8, logging_steps=every)
    trainer.train()
    assert logged(trainer, "phase") == phases


@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
@pytest.mark.parametrize("interrupted_after", [1, 3, 5, 6, 8])
def test_resuming_in_any_phase_equals_an_uninterrupted_run(make_trainer, tmp_path, algorithm, interrupted_after):
    options = {
        "algorithm": algorithm,
        "max_steps": 12,
        "average_last": 0.7,
        "reweighting_learning_rate": 1e-2,
        "save_strategy": "steps",
        "save_steps": 1,
        "weight_decay": 0.1,
    }
    straight = make_trainer(output_dir=str(tmp_path / "run"), **options)
    straight.train()
    resumed = make_trainer(output_dir=str(tmp_path / "other"), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"run/checkpoint-{interrupted_after}"))
    assert logged(resumed, "loss") == logged(straight, "loss")
    assert logged(resumed, "num_tokens") == logged(straight, "num_tokens")
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert straight.example_weights()["weight"] == resumed.example_weights()["weight"]


def test_a_checkpoint_of_another_run_is_refused(make_trainer, make_dialogues, tmp_path):
    make_trainer(save_strategy="steps", save_steps=4).train()
    checkpoint = str(tmp_path / "out/checkpoint-4")
    for options, complaint in [
        ({"algorithm": "ilql"}, "algorithm='mc'"),
        ({"reweighting": "uniform"}, "reweighting='learned'"),
        ({"train": make_dialogues(32, seed=9)}, "other training or validation data"),
        ({"cql_weight": 3.0}, "cql_weight=10"),
        ({"discount": 0.5}, "discount=1.0"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            make_trainer(**options).train(resume_from_checkpoint=checkpoint)


def test_the_output_folder_opens_with_plain_transformers(make_trainer, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from boost_trl import ReweightingHead, ValueHeads

    trainer = make_trainer()
    trainer.train()
    trainer.save_model()
    folder = tmp_path / "out"
    ids = torch.tensor([[3, 4, 5]])
    reloaded = AutoModelForCausalLM.from_pretrained(folder / "backbone")
    torch.testing.assert_close(reloaded(ids).logits, trainer.model.backbone.eval()(ids).logits)
    assert AutoTokenizer.from_pretrained(folder).chat_template == trainer.processing_class.chat_template
    assert torch.equal(ValueHeads.from_pretrained(folder).q_weight, trainer.model.primary.q_weight)
    embeddings = trainer.reweighter.embeddings
    assert torch.equal(ReweightingHead.from_pretrained(folder)(embeddings), trainer.reweighter.scores())
    assert (
        Dataset.from_parquet(str(folder / "example_weights.parquet")).to_dict() == trainer.example_weights().to_dict()
    )
    assert not list(folder.glob("*.bin")) and not list(folder.glob("*.pt"))


# Bad input


def test_bad_arguments_are_refused_before_training(
    make_trainer, make_dialogues, make_tiny_model, tiny_tokenizer, tmp_path
):
    with pytest.raises(ValueError, match="pass `validation_dataset="):
        BilevelOfflineRLTrainer(
            make_tiny_model(),
            BilevelOfflineRLConfig(str(tmp_path), use_cpu=True),
            train_dataset=make_dialogues(4),
            processing_class=tiny_tokenizer,
        )
    with pytest.raises(ValueError, match="never sees validation data"):
        BilevelOfflineRLTrainer(
            make_tiny_model(),
            BilevelOfflineRLConfig(str(tmp_path), use_cpu=True, method="vanilla"),
            train_dataset=make_dialogues(4),
            processing_class=tiny_tokenizer,
            validation_dataset=make_dialogues(4),
        )
    with pytest.raises(ValueError, match="`compute_metrics` has no meaning"):
        make_trainer(arguments={"compute_metrics": print})
    with pytest.raises(ValueError, match="training has 3: raise `max_steps`"):
        make_trainer(max_steps=3)
    with pytest.raises(ValueError, match="validation_dataset is empty"):
        make_trainer(validation=make_dialogues(4).select([]))
    with pytest.raises(ValueError, match="requires a gradient although"):
        make_trainer(model=make_tiny_model().requires_grad_(False))


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"algorithm": "dqn"}, "`algorithm` must .* got 'dqn'"),
        ({"method": "bilevel"}, "`method` must .* got 'bilevel'"),
        ({"discount": 1.5}, "`discount` must .* got 1.5"),
        ({"expectile": 0.0}, "`expectile` must .* got 0.0"),
        ({"primary_steps": 0}, "`primary_steps` must .* got 0"),
        ({"cql_weight": -1.0}, "`cql_weight` must .* got -1.0"),
        ({"penalty_alpha_init": 0.0, "penalty_alpha_final": 0.0}, "phase 4 needs some α"),
        ({"reweighting_alpha": 0.0}, "phase 4 needs some α"),
        ({"reweighting_steps": 0}, "choose `reweighting='uniform'`"),
        ({"cql_weight": float("nan")}, "`cql_weight` must .* got nan"),
        ({"cql_weight": "10"}, "`cql_weight` must .* got '10'"),
        ({"beta": 0.0}, "`beta` must .* got 0.0"),
        ({"per_device_validation_batch_size": -3}, "`per_device_validation_batch_size` must .* got -3"),
        ({"value_head_rank": 0}, "`value_head_rank` must .* got 0"),
        ({"reweighting_learning_rate": -1.0}, "`reweighting_learning_rate` must .* got -1.0"),
        ({"return_shift": 1.0, "algorithm": "ilql"}, "`return_shift` has no meaning for ILQL"),
        ({"neftune_noise_alpha": 5.0}, "`neftune_noise_alpha` is not supported"),
        (
            {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 500},
            "`load_best_model_at_end` would discard",
        ),
    ],
)
def test_bad_settings_are_refused_by_name(tmp_path, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        BilevelOfflineRLConfig(str(tmp_path), use_cpu=True, **options)


def test_a_value_loss_that_no_scale_can_lower_does_not_stop_the_start(make_trainer):
    # LMRL-Gym's CQL weight: the variance of the returns alone is above three times the CQL term.
    with pytest.warns(UserWarning, match="`cql_weight=0.01` and `policy_prior='none'`"):
        trainer = make_trainer(cql_weight=0.01)
    assert trainer.model.primary.q_weight.isfinite().all()
    make_trainer(normalize_returns=False)


def test_a_model_with_nan_is_refused(make_trainer, make_tiny_model):
    model = make_tiny_model()
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="is not finite"):
        make_trainer(model=model)


def test_training_too_short_by_epochs_is_refused(make_trainer):
    options = {"max_steps": -1, "num_train_epochs": 1, "auxiliary_steps": 20, "primary_steps": 20}
    with pytest.raises(
        ValueError, match="needs 20 . 20 policy updates for its first outer iteration .* training has 4: raise"
    ):
        make_trainer(**options)
    make_trainer(**options, method="validated")


def test_updates_of_rows_that_the_loader_drops_are_not_planned(make_trainer, make_dialogues):
    options = {
        "max_steps": -1,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "auxiliary_steps": 2,
        "primary_steps": 2,
    }
    assert make_trainer(train=make_dialogues(14), **options)
    with pytest.raises(ValueError, match="training has 3: raise `max_steps`"):
        make_trainer(train=make_dialogues(14), dataloader_drop_last=True, **options)


def test_the_policy_has_no_dropout(make_trainer, make_tiny_model):
    model = make_tiny_model()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    trainer = make_trainer(model=model)
    trainer.train()
    ids = torch.tensor([[3, 4, 5]])
    assert torch.equal(trainer.policy()(ids).logits, trainer.policy()(ids).logits)


def test_beta_and_prior_are_saved_with_the_heads(make_trainer, tmp_path):
    from boost_trl import ValuePolicy

    trainer = make_trainer(beta=3.0, train_backbone=False, policy_prior="lm")
    trainer.train()
    trainer.save_model()
    ids = torch.tensor([[3, 4, 5]])
    reloaded = ValuePolicy.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(reloaded(ids).logits, trainer.policy()(ids).logits)


def test_given_normalisation_constants_are_used(make_trainer):
    config = make_trainer(return_shift=-2.0, return_scale=7.0).model.primary.config
    assert (config.return_shift, config.return_scale) == (-2.0, 7.0)


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ({"environment": "chess"}, "no environment is called 'chess'"),
        ({"environment": 3}, "`environment` is 3"),
        ({"environment": "twenty_questions", "eval_tasks": []}, "`eval_tasks` is empty"),
        ({"eval_tasks": []}, "`eval_tasks` needs an `environment`"),
    ],
)
def test_games_that_cannot_be_played_are_refused_before_training(make_trainer, arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        make_trainer(arguments=arguments)


def test_an_environment_with_a_bug_does_not_end_training(make_trainer, caplog):
    class Bug(TwentyQuestions):
        def step(self, action):
            raise KeyError("oops")

    trainer = make_trainer(
        arguments={"environment": Bug}, eval_strategy="steps", eval_steps=4, eval_games=2, max_steps=8
    )
    trainer.train()
    assert trainer.state.global_step == 8 and logged(trainer, "eval_errors") == [2, 2]
    assert "all 2 games ended in an error of the environment, such as: KeyError: 'oops'" in caplog.text


def test_a_collapse_of_the_weights_is_said_once(make_trainer, make_dialogues, caplog):
    trainer = make_trainer(train=make_dialogues(150, seed=2), max_steps=8)
    trainer.reweighter.embeddings[0] = 1e6  # one row outweighs all others
    nn.init.normal_(trainer.reweighting_head.layers[-1].weight)
    if trainer.reweighter.scores()[0] < 0:
        nn.init.constant_(trainer.reweighting_head.layers[-1].weight, 1.0)
    trainer.train()
    assert caplog.text.count("the weights have collapsed") == 1
    assert "of 150 rows" in caplog.text


@pytest.mark.parametrize(
    "options", [{}, {"normalize_returns": False}, {"normalize_returns": False, "algorithm": "ilql"}]
)
def test_the_largest_rewards_that_are_let_in_can_be_squared(make_trainer, make_dialogues, options):
    largest = float(np.nextafter(REWARD_LIMIT, 0))
    rows = make_dialogues(32, max_turns=8).map(lambda row: {"rewards": [largest] * len(row["rewards"])})
    trainer = make_trainer(train=rows, loss_normalization="sum", max_steps=8, **options)
    trainer.train()
    assert np.isfinite(logged(trainer, "loss")).all()


def test_evaluation_and_training_have_their_own_batch_sizes(make_trainer, make_dialogues):
    trainer = make_trainer(
        per_device_train_batch_size=8, per_device_eval_batch_size=3, arguments={"eval_dataset": make_dialogues(10)}
    )
    forward, sizes = trainer._token_losses, []

    def measuring(model, batch, *args):
        sizes.append(len(batch.lengths))
        return forward(model, batch, *args)

    trainer._token_losses = measuring
    trainer.model_wrapped = trainer.model
    loss = trainer.evaluate()["eval_loss"]
    assert sizes == [3, 3, 3, 1]
    trainer.args.per_device_eval_batch_size = 100
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss, rel=1e-6) and sizes[4:] == [10]
    sizes.clear()
    trainer.train()
    assert sizes == [8, 8, 16, 16, 8]  # phases 1, 3 (with validation rows) and 4


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({}, [2, 2, 2]),
        ({"per_device_validation_batch_size": 5}, [5, 5, 5]),
        ({"per_device_validation_batch_size": 1}, [1, 1, 1]),
        ({"validation_batch_size": 4}, [2, 1, 1]),
    ],
)
def test_validation_rows_per_device_and_micro_batch(make_trainer, settings, sizes):
    seen = []

    class Count(BilevelOfflineRLTrainer):
        def _plan(self, rows):
            plan = super()._plan(rows)
            seen.append([int(micro_batch.is_validation.sum()) for micro_batch in plan.micro_batches])
            return plan

    old = "validation_batch_size" in settings
    expected = pytest.warns(FutureWarning, match="rows per device and micro-batch") if old else nullcontext()
    with expected:
        trainer = make_trainer(
            trainer_class=Count,
            auxiliary_steps=1,
            primary_steps=1,
            max_steps=2,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=3,
            **settings,
        )
    trainer.train()
    assert seen == [[0, 0, 0], sizes]


def test_both_names_of_the_validation_batch_size(make_trainer):
    with pytest.raises(ValueError, match="are both given"), pytest.warns(FutureWarning):
        make_trainer(validation_batch_size=4, per_device_validation_batch_size=4)


# Waste


def test_rows_are_rescored_when_the_weights_have_moved_and_not_before(make_trainer):
    trainer = make_trainer(max_steps=8, reweighting_learning_rate=0.1)
    scores, calls = trainer.reweighter.scores, []

    def counting():
        calls.append(trainer.state.global_step)
        return scores()

    trainer.reweighter.scores = counting
    trainer.train()
    assert calls == [1, 4, 8]
    largest = logged(trainer, "largest_weight")
    assert largest[0] == largest[2] != largest[3] == largest[6] != largest[7]
    assert largest[7] == trainer.weight_statistics()["largest_weight"]


@pytest.mark.parametrize("auxiliary_policy", ["heads", "adapter"])
def test_one_process_makes_no_gradients_of_the_other_policy(make_trainer, auxiliary_policy):
    arguments = {}
    if auxiliary_policy == "adapter":
        arguments["peft_config"] = LoraConfig(r=2, target_modules=["c_attn"], task_type="CAUSAL_LM")
    seen = []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            names = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
            seen.append({model.role_of(name) for name in names})

    trainer = make_trainer(
        algorithm="ilql", auxiliary_policy=auxiliary_policy, arguments={**arguments, "callbacks": [Watch()]}
    )
    trainer.train()
    shared = {"backbone"} if auxiliary_policy == "heads" else set()
    assert seen == [{"auxiliary", *shared}] * 2 + [{"primary", *shared}] * 2
