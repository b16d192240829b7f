import math

import pytest
import torch

from boost_trl.losses import (
    effective_sample_size,
    expectile_loss,
    ilql_loss,
    mc_loss,
    returns_to_go,
    trajectory_weights,
    turn_weights,
    weight_entropy,
)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


class TestReturnsToGo:
    @pytest.mark.parametrize("discount", [0.0, 0.5, 0.99, 1.0])
    def test_equals_the_sum_by_definition(self, discount):
        rewards = torch.randn(47, dtype=torch.float64)
        expected = [sum(discount**k * rewards[t + k].item() for k in range(47 - t)) for t in range(47)]
        torch.testing.assert_close(returns_to_go(rewards, discount), doubles(*expected))

    def test_worked_case(self):
        assert returns_to_go(torch.tensor([-1.0, -1.0, 0.0, 4.0]), 0.5).tolist() == [-1.0, 0.0, 2.0, 4.0]

    def test_discount_per_step(self):
        # Two turns of two tokens; only the border between the turns discounts.
        rewards, discount = doubles(0, 1, 0, 8), doubles(1, 0.5, 1, 0.5)
        assert returns_to_go(rewards, discount).tolist() == [5.0, 5.0, 8.0, 8.0]

    def test_integers_and_empty(self):
        assert returns_to_go(torch.tensor([1, 2]), 1.0).dtype == torch.float32
        assert returns_to_go(torch.tensor([]), 1.0).shape == (0,)

    def test_bfloat16_is_summed_exactly(self):
        # Summed in bfloat16, 256 + 1 stays 256.
        assert returns_to_go(torch.ones(400, dtype=torch.bfloat16), 1.0)[0] == 400

    def test_wrong_shapes(self):
        with pytest.raises(ValueError, match=r"`rewards` must have shape \(T,\)"):
            returns_to_go(torch.zeros(2, 3), 1.0)
        with pytest.raises(ValueError, match="`discount` must be"):
            returns_to_go(torch.zeros(3), torch.ones(2))


class TestMCLoss:
    def test_worked_case(self):
        # Q(s, .) = (ln 1, ln 3), action 1, G = ln 3 - 2: (2)^2 + 10 (ln 4 - ln 3)
        args = (doubles(math.log(3)), doubles(math.log(4)), doubles(math.log(3) - 2))
        expected = 4 + 10 * math.log(4 / 3)
        assert mc_loss(*args, cql_weight=10.0).item() == pytest.approx(expected, rel=1e-14)
        halved = mc_loss(*args, cql_weight=10.0, half_squared_error=True)
        assert halved.item() == pytest.approx(expected - 2, rel=1e-14)
        parts = mc_loss(*args, cql_weight=10.0, return_parts=True)
        assert parts["td"].item() == pytest.approx(4) and parts["cql"].item() == pytest.approx(10 * math.log(4 / 3))

    def test_gradient(self):
        q_taken, q_logsumexp, returns = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(3))
        mc_loss(q_taken, q_logsumexp, returns, cql_weight=3.0).sum().backward()
        torch.testing.assert_close(q_taken.grad, 2 * (q_taken - returns).detach() - 3)
        torch.testing.assert_close(q_logsumexp.grad, torch.full_like(q_taken, 3))
        assert returns.grad is None

    def test_half_precision_is_computed_in_float32(self):
        q_taken, q_logsumexp, returns = (torch.randn(31).bfloat16() for _ in range(3))
        loss = mc_loss(q_taken, q_logsumexp, returns, cql_weight=10.0)
        assert loss.dtype == torch.float32
        exact = mc_loss(q_taken.double(), q_logsumexp.double(), returns.double(), cql_weight=10.0)
        torch.testing.assert_close(loss.double(), exact, rtol=1e-5, atol=1e-5)

    def test_wrong_shapes(self):
        with pytest.raises(ValueError, match="q_taken, q_logsumexp and returns"):
            mc_loss(torch.zeros(3), torch.zeros(3), torch.zeros(1), cql_weight=1.0)


class TestExpectileLoss:
    def test_worked_case(self):
        torch.testing.assert_close(expectile_loss(doubles(-2, 0, 3), 0.7), doubles(0.3 * 4, 0, 0.7 * 9))

    @pytest.mark.parametrize("tau", [0.5, 0.7, 0.95])
    def test_minimum_is_the_expectile(self, tau):
        # The expectile v of (0, 1) with equal weights solves tau (1 - v) = (1 - tau) v.
        grid = torch.linspace(0, 1, 10001, dtype=torch.float64)
        losses = expectile_loss(0 - grid, tau) + expectile_loss(1 - grid, tau)
        assert grid[losses.argmin()].item() == pytest.approx(tau, abs=1e-4)


def ilql_inputs(num_tokens=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"q_taken": (2, num_tokens), "q_logsumexp": (2, num_tokens), "values": (num_tokens,)}
    shapes |= {"next_values": (num_tokens,), "target_q": (2, num_tokens), "rewards": (num_tokens,)}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for name, shape in shapes.items()
    }


class TestILQLLoss:
    settings = {"discount": 0.9, "expectile": 0.7, "cql_weight": 4.0}

    def test_worked_case(self):
        # y = 1 + .5 * 4 = 3; td = (3-1)^2 + (3-5)^2 = 8; u = min(2, 1) - 3 = -2: .3 * 4 = 1.2; cql = 2 (1 + 2) = 6
        args = [
            doubles([1.0], [5.0]),
            doubles([2.0], [7.0]),
            doubles(3),
            doubles(4),
            doubles([2.0], [1.0]),
            doubles(1),
        ]
        settings = {"discount": 0.5, "expectile": 0.7, "cql_weight": 2.0}
        assert ilql_loss(*args, **settings).item() == pytest.approx(15.2)
        parts = ilql_loss(*args, **settings, return_parts=True)
        assert {name: part.item() for name, part in parts.items()} == pytest.approx(
            {"td": 8.0, "expectile": 1.2, "cql": 6.0}
        )
        assert ilql_loss(*args, **settings, half_squared_error=True).item() == pytest.approx(4 + 0.6 + 6)

    @pytest.mark.parametrize("half", [False, True])
    def test_equals_a_loop_over_tokens(self, half):
        inputs = ilql_inputs(47)
        discount = torch.rand(47, dtype=torch.float64)
        got = ilql_loss(**inputs, **(self.settings | {"discount": discount}), half_squared_error=half)
        x = {name: tensor.tolist() for name, tensor in inputs.items()}
        for t in range(47):
            y = x["rewards"][t] + discount[t].item() * x["next_values"][t]
            u = min(x["target_q"][0][t], x["target_q"][1][t]) - x["values"][t]
            squares = sum((y - x["q_taken"][j][t]) ** 2 for j in range(2)) + (0.7 if u >= 0 else 0.3) * u**2
            cql = sum(x["q_logsumexp"][j][t] - x["q_taken"][j][t] for j in range(2))
            assert got[t].item() == pytest.approx((0.5 if half else 1) * squares + 4 * cql, rel=1e-12)

    def test_gradients_and_constants(self):
        x = ilql_inputs()
        ilql_loss(**x, **self.settings).sum().backward()
        y = (x["rewards"] + 0.9 * x["next_values"]).detach()
        u = (x["target_q"].amin(0) - x["values"]).detach()
        torch.testing.assert_close(x["q_taken"].grad, 2 * (x["q_taken"].detach() - y) - 4)
        torch.testing.assert_close(x["q_logsumexp"].grad, torch.full_like(x["q_logsumexp"], 4))
        torch.testing.assert_close(x["values"].grad, -2 * (0.7 - (u < 0).double()).abs() * u)
        assert all(x[name].grad is None for name in ("next_values", "target_q", "rewards"))

    def test_wrong_shapes(self):
        for name in ("q_logsumexp", "target_q", "values", "next_values", "rewards"):
            inputs = ilql_inputs()
            inputs[name] = inputs[name][..., :-1]
            with pytest.raises(ValueError, match=name):
                ilql_loss(**inputs, **self.settings)
        with pytest.raises(ValueError, match="discount"):
            ilql_loss(**ilql_inputs(), **(self.settings | {"discount": torch.ones(3)}))


class TestWeights:
    def test_softmax_over_the_batch(self):
        weights = trajectory_weights(doubles(0, math.log(3)))
        torch.testing.assert_close(weights, doubles(0.25, 0.75))
        assert trajectory_weights(torch.zeros(4, dtype=torch.bfloat16)).dtype == torch.float32
        with pytest.raises(ValueError, match="scores"):
            trajectory_weights(torch.zeros(2, 2))

    def test_gradient_of_the_weighted_loss(self):
        # d/ds_i of sum_j w_j l_j is w_i (l_i - sum_j w_j l_j): phase 4's exact gradient.
        scores = torch.randn(6, dtype=torch.float64, requires_grad=True)
        losses = torch.randn(6, dtype=torch.float64)
        weights = trajectory_weights(scores)
        (weights * losses).sum().backward()
        expected = weights.detach() * (losses - (weights.detach() * losses).sum())
        torch.testing.assert_close(scores.grad, expected)

    def test_turns_count_by_their_shares(self):
        # Two trajectories: one turn; two turns of a quarter and three quarters.
        shares = doubles(1, 0.25, 0.75)
        torch.testing.assert_close(turn_weights(torch.zeros(3).double(), shares), shares / 2)
        weights = turn_weights(doubles(0, math.log(4), 0), shares)
        torch.testing.assert_close(weights, doubles(1, 1, 0.75) / 2.75)
        # One score for all turns of a trajectory: the trajectory's weight, by shares.
        of_rows = trajectory_weights(doubles(0.3, -1))
        torch.testing.assert_close(turn_weights(doubles(0.3, -1, -1), shares), of_rows[[0, 1, 1]] * shares)
        with pytest.raises(ValueError, match="`scores` and `shares` must both have shape"):
            turn_weights(torch.zeros(3), torch.ones(2))

    def test_turns_that_are_whole_trajectories_are_weighed_as_these_bit_for_bit(self):
        scores = torch.randn(50)
        weights = trajectory_weights(scores)
        assert torch.equal(weights, scores.softmax(0))
        assert torch.equal(turn_weights(scores, torch.ones(50)), weights)
        assert effective_sample_size(weights, torch.ones(50)) == effective_sample_size(weights)
        assert weight_entropy(weights, torch.ones(50)) == weight_entropy(weights)

    def test_numbers_of_turns_are_those_of_trajectories_whose_turns_count_alike(self):
        shares, weights = doubles(1, 0.25, 0.75), doubles(0.6, 0.1, 0.3)
        of_rows = doubles(0.6, 0.4)
        assert effective_sample_size(weights, shares).item() == pytest.approx(effective_sample_size(of_rows).item())
        assert weight_entropy(weights, shares).item() == pytest.approx(weight_entropy(of_rows).item())
        # All weight on a quarter of a trajectory.
        assert effective_sample_size(doubles(0, 1, 0), shares).item() == pytest.approx(0.25)
        assert weight_entropy(doubles(0, 1, 0), shares).item() == pytest.approx(math.log(0.25))

    def test_effective_sample_size(self):
        assert effective_sample_size(torch.full((8,), 1 / 8)).item() == pytest.approx(8)
        assert effective_sample_size(doubles(0.5, 0.5, 0, 0)).item() == pytest.approx(2)
        assert effective_sample_size(doubles(0.25, 0.75)).item() == pytest.approx(1.6)

    def test_entropy(self):
        assert weight_entropy(torch.full((8,), 1 / 8)).item() == pytest.approx(math.log(8))
        assert weight_entropy(doubles(1, 0)).item() == 0
        assert weight_entropy(doubles(0.25, 0.75)).item() == pytest.approx(0.25 * math.log(4) + 0.75 * math.log(4 / 3))
