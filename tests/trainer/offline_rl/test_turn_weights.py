"""`weight_level="turn"`: weights of assistant turns, against plain formulas and against weights of trajectories."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from offline_rl_tiny import Recording, logged, naive_token_losses
from torch import nn

from boost_trl import ReweightingHead
from boost_trl.trainer.common.checkpoint_error import CheckpointError
from boost_trl.trainer.offline_rl.optimizer_batch import mixed_batch
from boost_trl.trainer.offline_rl.schedule import Phase


VALIDATED = {"method": "validated", "score_steps": 6, "guard_folds": 2, "train_backbone": False}
# SGD: Adam's division would amplify rounding in near-zero gradients.
LEARNING = {"optim": "sgd", "learning_rate": 1e-3, "reweighting_learning_rate": 1e-2, "max_steps": 8}


def trained(trainer):
    torch.manual_seed(0)
    trainer.train()
    return trainer.model.state_dict(), trainer.example_weights(), logged(trainer, "loss")


def turn_means(trainer, role, rows, dataset):
    """ℓ_u of every turn of `rows` and its share of the row's action tokens, (U,) each."""
    by_row = naive_token_losses(trainer, role, rows, dataset)
    losses = torch.stack([turn.mean() for turns in by_row for turn in turns])
    shares = [len(turn) / sum(map(len, turns)) for turns in by_row for turn in turns]
    return losses, torch.tensor(shares)


def softmax_by_shares(scores, shares):
    unnormalised = shares * scores.exp()
    return unnormalised / unnormalised.sum()


# The special cases


@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
@pytest.mark.parametrize("options", [{"reweighting_learning_rate": 0.1, "max_steps": 8}, VALIDATED])
def test_dialogues_of_one_turn_are_weighed_as_trajectories_bit_for_bit(
    make_trainer, make_dialogues, algorithm, options
):
    rows = {"train": make_dialogues(24, max_turns=1, cut_share=0), "validation": make_dialogues(10, seed=2)}
    (ours, weights, losses), (theirs, expected, other_losses) = (
        trained(make_trainer(**rows, algorithm=algorithm, weight_level=level, **options))
        for level in ("turn", "trajectory")
    )
    assert losses == other_losses and np.std(weights["weight"]) > 1e-3
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert weights.remove_columns("turn_weights").to_dict() == expected.to_dict()
    np.testing.assert_allclose(np.ravel(weights["turn_weights"]), weights["weight"], rtol=1e-6)


@pytest.mark.parametrize("normalization", ["trajectory_mean", "token_mean", "sum"])
@pytest.mark.parametrize("method", ["boost", "validated"])
def test_equal_weights_of_turns_are_equal_weights_of_trajectories(make_trainer, method, normalization):
    options = {**LEARNING, "method": method, "reweighting": "uniform", "loss_normalization": normalization}
    (ours, weights, losses), (theirs, _, other_losses) = (
        trained(make_trainer(weight_level=level, algorithm="ilql", **options)) for level in ("turn", "trajectory")
    )
    assert losses == pytest.approx(other_losses, rel=1e-6)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(np.concatenate(weights["turn_weights"]), 1, rtol=1e-6)


def test_a_head_that_has_learned_nothing_weighs_turns_equally(make_trainer):
    (_, _, learned), (_, _, uniform) = (
        trained(make_trainer(weight_level="turn", reweighting=name, **(LEARNING | {"max_steps": 4})))
        for name in ("learned", "uniform")
    )
    assert learned == pytest.approx(uniform, rel=1e-6)


# The definition


@pytest.mark.parametrize("normalization", ["trajectory_mean", "token_mean", "sum"])
def test_the_weighted_loss_and_its_gradient_are_those_of_the_definition(make_trainer, make_dialogues, normalization):
    train, validation = make_dialogues(16, seed=5), make_dialogues(6, seed=6)

    def row_factors(by_row):
        lengths = torch.tensor([float(sum(map(len, turns))) for turns in by_row])
        if normalization == "trajectory_mean":
            return torch.ones(len(lengths))
        return lengths if normalization == "sum" else lengths / lengths.mean()

    class Check(Recording):
        def _before_policy_update(self):
            plan = self.optimizer_batch
            if plan.phase is Phase.PRIMARY:
                is_validation = np.concatenate([micro_batch.is_validation for micro_batch in plan.micro_batches])
                rows, drawn = plan.rows[~is_validation], plan.rows[is_validation] - len(train)
                actual = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}
                self.model.zero_grad()
                losses, shares = turn_means(self, "primary", rows, train)
                embeddings = self.reweighter.embeddings[self.data.store.units.of_rows(rows)]
                weights = softmax_by_shares(self.reweighting_head(embeddings), shares).detach()
                assert (weights / shares).max() > 1.5 * (weights / shares).min()
                by_row = naive_token_losses(self, "primary", rows, train)
                factors = row_factors(by_row).repeat_interleave(torch.tensor([len(turns) for turns in by_row]))
                by_drawn = naive_token_losses(self, "primary", drawn, validation)
                upper = torch.stack([torch.cat(turns).mean() for turns in by_drawn]) * row_factors(by_drawn)
                objective = upper.mean() + 0.7 * (weights * factors * losses).sum()
                objective.backward()
                for name, parameter in self.model.named_parameters():
                    if not name.startswith("auxiliary"):
                        torch.testing.assert_close(actual[name], parameter.grad, rtol=1e-4, atol=1e-4, msg=name)
                self.checked = objective.item()
            super()._before_policy_update()

    trainer = make_trainer(
        trainer_class=Check,
        train=train,
        validation=validation,
        weight_level="turn",
        loss_normalization=normalization,
        auxiliary_steps=1,
        primary_steps=1,
        max_steps=2,
        penalty_alpha_init=0.7,
        penalty_alpha_final=0.7,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
    )
    # Unequal weights from the first step.
    nn.init.normal_(trainer.reweighting_head.layers[-1].weight, std=1.0)
    trainer.train()
    assert logged(trainer, "loss")[1] == pytest.approx(trainer.checked, rel=1e-5)


def test_phase_4_takes_the_gradient_of_the_bilevel_objective(make_trainer, make_dialogues):
    train = make_dialogues(16, seed=5)
    trainer = make_trainer(
        train=train, weight_level="turn", per_device_train_batch_size=3, gradient_accumulation_steps=2, max_steps=4
    )
    nn.init.normal_(trainer.reweighting_head.layers[-1].weight, std=1.0)
    original, take, checked = trainer.reweighter.update, trainer.samplers["reweighting"].take, []

    def remember(count):
        checked.append(take(count))
        return checked[-1]

    def update(units, gaps, alpha):
        trainer.model.eval()
        rows = checked[-1]
        head, objective = trainer.reweighting_head, 0.0
        for role, sign in (("primary", 1), ("auxiliary", -1)):
            losses, shares = turn_means(trainer, role, rows, train)
            weights = softmax_by_shares(head(trainer.reweighter.embeddings[units]), shares)
            objective = objective + sign * alpha * (weights * losses.detach()).sum()
        expected = torch.autograd.grad(objective, list(head.parameters()))
        assert original(units, gaps, alpha) == pytest.approx(objective.item(), rel=1e-4)
        for parameter, gradient in zip(head.parameters(), expected):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)
        assert max(gradient.abs().max() for gradient in expected) > 0.01 and len(units) > len(rows) == 6
        checked.append(True)
        return objective.item()

    trainer.samplers["reweighting"].take, trainer.reweighter.update = remember, update
    trainer.train()
    assert checked[-1] is True


def test_embeddings_are_the_final_states_of_the_turns_ends(make_trainer, make_dialogues, tiny_tokenizer):
    train = make_dialogues(9, seed=3)
    trainer = make_trainer(train=train, weight_level="turn")
    expected = []
    for example in train:
        messages = example["messages"]
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                ids = tiny_tokenizer.apply_chat_template(messages[: number + 1], return_tensors="pt", return_dict=True)
                output = trainer.model.backbone(ids["input_ids"], output_hidden_states=True)
                expected.append(output.hidden_states[-1][0, -1])
    torch.testing.assert_close(trainer.reweighter.embeddings, torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
def test_a_batch_is_the_same_for_every_accumulation(make_trainer, algorithm):
    (parameters, weights, losses), *others = [
        trained(
            make_trainer(
                algorithm=algorithm,
                weight_level="turn",
                per_device_train_batch_size=size,
                gradient_accumulation_steps=8 // size,
                **LEARNING,
            )
        )
        for size in (8, 2, 1)
    ]
    assert np.std(np.concatenate(weights["turn_weights"])) > 1e-3
    for other_parameters, other_weights, other_losses in others:
        np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
        np.testing.assert_allclose(
            np.concatenate(other_weights["turn_weights"]), np.concatenate(weights["turn_weights"]), rtol=1e-4
        )
        for name, value in parameters.items():
            torch.testing.assert_close(other_parameters[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_turns_weight_touches_its_own_tokens_only(make_trainer):
    """With ILQL too: the loss at a turn's last token reads V of the next turn's first state, as a constant."""
    trainer = make_trainer(algorithm="ilql", weight_level="turn", train_backbone=False)
    nn.init.normal_(trainer.model.primary.v_weight)
    store = trainer.data.store
    row = int(np.argmax(store.units.counts))
    first, second = store.units.of_rows([row])[:2]
    batch = store.collate([row])
    states = batch.states.clone().requires_grad_(True)
    batch.states = states
    losses = trainer._token_losses(trainer.model, batch, ("primary",))["primary"]["loss"]
    losses[batch.unit == 0].sum().backward()
    moved = states.grad.abs().sum(dim=1) > 0
    assert moved.tolist() == [position < store.units.lengths[first] for position in range(len(states))]
    # Its value all the same depends on that state.
    next_state = store.units.lengths[first]
    before = losses[batch.unit == 0][-1].item()
    with torch.no_grad():
        batch.states = states + 3 * (torch.arange(len(states)) == next_state)[:, None]
        after = trainer._token_losses(trainer.model, batch, ("primary",))["primary"]["loss"]
    assert after[batch.unit == 0][-1].item() != pytest.approx(before) and second == first + 1


# Validated reweighting


def test_scores_of_turns_are_those_of_the_definition(make_trainer, make_dialogues):
    train = make_dialogues(24, seed=1)
    trainer, whole = (
        make_trainer(train=train, weight_level=level, guard=False, **VALIDATED) for level in ("turn", "trajectory")
    )
    for each in (trainer, whole):
        each.train()
    units, weights = trainer.data.training.units, trainer.example_weights()
    # A trajectory's score is the mean of its turns', by tokens: the heads are fitted alike.
    np.testing.assert_allclose(weights["score"], whole.example_weights()["score"], rtol=1e-4, atol=1e-5)
    scores, relative = trainer.validated.scores, np.concatenate(weights["turn_weights"])
    assert len(scores) == len(relative) == sum(map(len, train["rewards"])) > 24
    assert 24 / (units.shares / 24 * relative**2).sum() / 24 == pytest.approx(0.4, rel=1e-4)
    tempering = trainer.validated_report["tempering"]
    np.testing.assert_allclose(np.log(relative / relative[0]), tempering * (scores - scores[0]), atol=1e-6)
    np.testing.assert_allclose(weights["weight"], units.mean_by_row(relative), rtol=1e-6)
    assert np.mean(weights["weight"]) == pytest.approx(1)


@pytest.mark.parametrize("normalization", ["trajectory_mean", "sum"])
def test_drawn_rows_train_the_loss_weighted_by_turn(make_trainer, make_dialogues, normalization):
    """The expectation over all rows that can be drawn, of the loss that training takes of them, term by term."""
    train = make_dialogues(10, seed=1)
    options = VALIDATED | {"guard": False, "loss_normalization": normalization, "states_dtype": "float32"}
    trainer = make_trainer(train=train, weight_level="turn", **options)
    trainer.train()
    units, weights = trainer.data.training.units, trainer.validated.weights
    draws = trainer._weighted_batches()
    probabilities = np.diff(draws._cumulative, prepend=0)
    expectation = 0.0
    for row, probability in enumerate(probabilities):
        plan = mixed_batch(
            [np.array([row])],
            10,
            trainer.data.store.units,
            normalization=normalization,
            within_rows=trainer._within_rows,
        )
        batch = trainer.data.store.collate([row])
        with torch.no_grad():
            losses = trainer._token_losses(trainer.model, batch, ("primary",))["primary"]["loss"]
        coefficients = torch.from_numpy(plan.micro_batches[0].coefficients)
        expectation += probability * (coefficients[batch.unit] * losses).sum().item()
    trainer.model.backbone.eval()
    losses, _ = turn_means(trainer, "primary", range(10), train)
    if normalization == "sum":
        losses = losses * torch.from_numpy(units.row_lengths[units.rows])
    assert expectation == pytest.approx((weights * losses.detach().numpy()).sum(), rel=1e-4)
    assert np.std(weights / units.shares) * 10 > 0.1


def test_single_bad_turns_are_found(make_trainer):
    """Good and bad turns share every dialogue: weights of turns tell them apart, weights of trajectories cannot."""
    rng = np.random.default_rng(0)

    def dialogues(count, noise_share):
        rows, bad = [], []
        for _ in range(count):
            messages, of_row = [], []
            for _ in range(3):
                first = str(rng.choice(["big", "small"]))
                of_row.append(bool(rng.random() < noise_share))
                second = {"big": ("hot", "old"), "small": ("tall", "red")}[first][of_row[-1]]
                messages += [
                    {"role": "user", "content": str(rng.choice(["yes .", "no ."]))},
                    {"role": "assistant", "content": f"{first} {second}"},
                ]
            rows.append({"messages": messages, "rewards": [-1.0] * 3})
            bad.append(of_row)
        return Dataset.from_list(rows), np.array(bad)

    (pool, bad), (validation, _) = dialogues(120, 0.5), dialogues(30, 0.0)
    options = VALIDATED | {"score_steps": 60, "guard": True, "max_steps": 4}
    trainer = make_trainer(train=pool, validation=validation, weight_level="turn", **options)
    trainer.train()
    weights = np.array(trainer.example_weights()["turn_weights"])
    assert trainer.validated_report["winner"] != "uniform"
    assert weights[bad].max() < weights[~bad].min()


# Results, checkpoints, files


def test_example_weights_list_the_turns_of_every_row(make_trainer, make_dialogues):
    rows = make_dialogues(20, seed=7, max_turns=4, cut_share=0).to_list()
    rows[3]["messages"][1]["content"] = "is it " * 40  # no whole action fits
    longest = max(range(20), key=lambda row: len(rows[row]["rewards"]) if row != 3 else 0)
    trainer = make_trainer(
        train=Dataset.from_list(rows), max_length=25, weight_level="turn", reweighting_learning_rate=0.1, max_steps=8
    )
    trainer.train()
    weights, units = trainer.example_weights(), trainer.data.training.units
    assert weights["turn_weights"][3] == [] and weights["weight"][3] == 0 and weights["score"][3] is None
    assert 0 < len(weights["turn_weights"][longest]) < len(rows[longest]["rewards"])
    used = [row for row in range(20) if row != 3]
    assert [len(weights["turn_weights"][row]) for row in used] == units.counts.tolist()
    relative = np.concatenate([weights["turn_weights"][row] for row in used])
    assert np.std(relative) > 1e-3
    of_rows = [weights["weight"][row] for row in used]
    np.testing.assert_allclose(of_rows, units.mean_by_row(relative), rtol=1e-5)
    assert np.mean(of_rows) == pytest.approx(1, rel=1e-5)
    statistics = trainer.weight_statistics()
    assert statistics["largest_weight"] == pytest.approx(relative.max(), rel=1e-5)
    assert statistics["effective_sample_size"] == pytest.approx(19 / (units.shares / 19 * relative**2).sum(), rel=1e-4)


@pytest.mark.parametrize("options", [{"max_steps": 8, "reweighting_learning_rate": 1e-2}, VALIDATED])
def test_resuming_equals_an_uninterrupted_run(make_trainer, tmp_path, options):
    options = options | {"weight_level": "turn", "save_strategy": "steps", "save_steps": 1}
    straight = make_trainer(output_dir=str(tmp_path / "run"), **options)
    straight.train()
    resumed = make_trainer(output_dir=str(tmp_path / "other"), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-3"))
    assert logged(resumed, "loss") == logged(straight, "loss")
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert straight.example_weights().to_dict() == resumed.example_weights().to_dict()
    with pytest.raises(CheckpointError, match="weight_level='turn'"):
        make_trainer(**(options | {"weight_level": "trajectory"})).train(
            resume_from_checkpoint=str(tmp_path / "run/checkpoint-3")
        )


def test_the_card_and_the_head_say_that_turns_are_weighed(make_trainer, tmp_path):
    trainer = make_trainer(weight_level="turn", reweighting_learning_rate=0.1)
    trainer.train()
    trainer.save_model()
    head = ReweightingHead.from_pretrained(tmp_path / "out")
    assert torch.equal(head(trainer.reweighter.embeddings), trainer.reweighter.scores())
    table = Dataset.from_parquet(str(tmp_path / "out/example_weights.parquet"))
    assert table["turn_weights"] == trainer.example_weights()["turn_weights"]
    card = ModelCard.load(tmp_path / "out/README.md").text
    assert "| method | boost, learned weights per turn |" in card
    assert "weights of the assistant turns of all trajectories were learned" in card
    assert "Scores a turn by the embedding of its last token" in card
    assert "every training row and of each of its turns (mean 1)" in card
