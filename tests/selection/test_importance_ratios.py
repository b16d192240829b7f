"""Ratios by hand, and expectations over a policy small enough to enumerate all of its answers."""

import itertools
import math

import pytest
import torch

from boost_trl.selection import importance_ratios, response_weights


END, LENGTH = 2, 3


def answers():
    """Every answer over {0, 1, END}: it stops at END or after LENGTH tokens."""
    for length in range(1, LENGTH + 1):
        for body in itertools.product((0, 1), repeat=length - 1):
            yield (*body, END)
    yield from itertools.product((0, 1), repeat=LENGTH)


def token_logps(theta, answer):
    """Log-probabilities of an answer's tokens; θ has one row of logits per prefix."""
    log_probs, prefix, chosen = theta.log_softmax(-1), 0, []
    for token in answer:
        chosen.append(log_probs[prefix, token])
        prefix = 2 * prefix + 1 + token
    return torch.stack(chosen)


def policies():
    g = torch.Generator().manual_seed(0)
    old = torch.randn(7, 3, generator=g, dtype=torch.float64)
    new = (old + 0.5 * torch.randn(7, 3, generator=g, dtype=torch.float64)).requires_grad_()
    return old, new


def test_the_enumeration_is_a_distribution():
    old, _ = policies()
    assert len(set(answers())) == 15
    assert sum(token_logps(old, answer).sum().exp() for answer in answers()).item() == pytest.approx(1)


def expected_gradient(loss_of):
    """E over answers of the old policy of r ∇loss, at the new one."""
    old, new = policies()
    total = torch.zeros_like(new)
    for answer in answers():
        logps_new, logps_old = token_logps(new, answer), token_logps(old, answer)
        mask = torch.ones(1, len(answer))
        ratio = importance_ratios(logps_new[None], logps_old[None], mask, cap=None).ratios[0].double()
        assert not ratio.requires_grad
        (gradient,) = torch.autograd.grad(ratio * loss_of(logps_new), new)
        total += logps_old.sum().exp() * gradient
    return total


def test_importance_weighted_gradient_of_the_summed_loss_is_zero_in_expectation():
    normaliser = 7.0  # anything that does not depend on the sampled length
    assert expected_gradient(lambda logps: -logps.sum() / normaliser).abs().max() < 1e-7
    # A normaliser that is the sampled length is not zero: the test above can fail.
    assert expected_gradient(lambda logps: -logps.mean()).abs().max() > 1e-2


def test_per_token_mean_pulls_towards_short_answers():
    _, new = policies()
    inverse_length = sum(token_logps(new, answer).sum().exp() / len(answer) for answer in answers())
    (pull,) = torch.autograd.grad(inverse_length, new)
    torch.testing.assert_close(expected_gradient(lambda logps: -logps.mean()), -pull, atol=1e-7, rtol=1e-6)


def example():
    new = torch.log(torch.tensor([[0.5, 0.4, 0.9], [0.2, 0.1, 0.3]]))
    old = torch.log(torch.tensor([[0.25, 0.5, 0.3], [0.1, 0.1, 0.1]]))
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    return new, old, mask


def test_levels_by_hand():
    new, old, mask = example()
    sequence = importance_ratios(new, old, mask, "sequence", cap=3.0)
    torch.testing.assert_close(sequence.ratios, torch.tensor([2 * 0.8, 3.0]))
    assert (sequence.mean, sequence.max, sequence.capped_share) == pytest.approx(((1.6 + 6) / 2, 6.0, 0.5))

    token = importance_ratios(new, old, mask, "token", cap=2.5)
    torch.testing.assert_close(token.ratios, torch.tensor([[2.0, 0.8, 0.0], [2.0, 1.0, 2.5]]))
    assert (token.mean, token.max, token.capped_share) == pytest.approx((8.8 / 5, 3.0, 0.2))

    geometric = importance_ratios(new, old, mask, "geometric", cap=None)
    torch.testing.assert_close(geometric.ratios, torch.tensor([1.6**0.5, 6 ** (1 / 3)]))


def test_age_zero_is_exactly_one():
    new, _, mask = example()
    for level in ("sequence", "token", "geometric"):
        ratios = importance_ratios(new, new.clone(), mask, level).ratios
        assert torch.equal(ratios[1], torch.ones_like(ratios[1]))


def test_exploding_and_vanishing_ratios():
    drift = torch.full((3, 400), 4.0)
    drift[1] *= -1
    drift[2] = 0.0
    zeros, mask = torch.zeros(3, 400), torch.ones(3, 400)
    capped = importance_ratios(drift, zeros, mask, cap=3.0)
    assert capped.ratios.tolist() == [3.0, 0.0, 1.0]
    assert capped.is_finite.all()
    assert math.isfinite(capped.mean) and math.isfinite(capped.max) and capped.max > 1e300
    assert capped.capped_share == pytest.approx(1 / 3)
    uncapped = importance_ratios(drift, zeros, mask, cap=None).ratios
    assert torch.isfinite(uncapped).all() and uncapped[0] == torch.finfo(torch.float32).max
    # Many small differences: summed in float64, where float32 loses a percent.
    long_new, long_old = torch.full((1, 200_000), -7.00001), torch.full((1, 200_000), -7.0)
    exact = math.exp(200_000 * (long_new[0, 0].item() - long_old[0, 0].item()))
    ratio = importance_ratios(long_new, long_old, torch.ones(1, 200_000), cap=None).ratios.item()
    assert ratio == pytest.approx(exact, rel=1e-6)


def test_answers_that_are_not_finite_or_empty():
    new, old, mask = torch.zeros(4, 2), torch.zeros(4, 2), torch.ones(4, 2)
    new[0, 1] = float("nan")
    old[1, 0] = float("-inf")
    mask[2] = 0
    new[2] = float("nan")  # outside of the mask
    for level in ("sequence", "geometric", "token"):
        result = importance_ratios(new, old, mask, level)
        assert result.is_finite.tolist() == [False, False, True, True]
        assert torch.isfinite(result.ratios).all()
        assert not result.ratios[:2].any()
        assert result.mean == 1 and result.max == 1 and result.capped_share == 0
    nothing = importance_ratios(new[:1], old[:1], mask[:1])
    assert (nothing.mean, nothing.max) == (0, 0)


def test_softmax_is_lemma_6_times_the_number_of_answers():
    g = torch.Generator().manual_seed(0)
    logps = -3 * torch.rand(5, 4, generator=g, dtype=torch.float64)
    mask = torch.rand(5, 4, generator=g) < 0.7
    questions = torch.tensor([8, 3, 8, 8, 5])
    weights = response_weights(logps, torch.zeros(5, 4), mask, questions, "softmax")
    summed = (logps * mask).sum(1)
    expected = 3 * torch.softmax(summed[[0, 2, 3]], 0)
    torch.testing.assert_close(weights[[0, 2, 3]], expected.float())
    assert weights[[1, 4]].tolist() == [1, 1]
    # Long answers, whose probabilities underflow.
    extreme = response_weights(
        torch.full((2, 1), -1e4), torch.zeros(2, 1), torch.ones(2, 1), torch.zeros(2, dtype=torch.int64), "softmax"
    )
    assert extreme.tolist() == [1, 1]


def test_softmax_leaves_out_answers_that_are_not_finite():
    logps = torch.tensor([[-1.0], [float("nan")], [-1.0], [float("nan")]])
    questions = torch.tensor([0, 0, 0, 1])
    weights = response_weights(logps, torch.zeros(4, 1), torch.ones(4, 1), questions, "softmax")
    assert weights.tolist() == [1, 0, 1, 0]


def test_importance_and_none():
    new, old, mask = example()
    questions = torch.tensor([0, 0])
    torch.testing.assert_close(
        response_weights(new, old, mask, questions, "importance"), importance_ratios(new, old, mask).ratios
    )
    assert response_weights(new, old, mask, questions, "none").tolist() == [1, 1]


def test_wrong_names_and_caps():
    new, old, mask = example()
    with pytest.raises(ValueError, match="importance_sampling_level"):
        importance_ratios(new, old, mask, "word")
    with pytest.raises(ValueError, match="importance_sampling_cap"):
        importance_ratios(new, old, mask, cap=0.0)
    with pytest.raises(ValueError, match="response_weighting"):
        response_weights(new, old, mask, torch.zeros(2), "mean")
