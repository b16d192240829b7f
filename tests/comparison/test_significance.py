"""Errors and p-values against brute force and cases by hand."""

import itertools

import numpy as np
import pytest

from boost_trl.comparison.significance import Estimate, estimate, paired_estimate, sign_test, student_p


def test_errors_over_seeds_and_over_items_by_hand():
    found = estimate([[1.0, 3.0], [4.0, 8.0]])
    # Means 2 and 6; the means' own errors are 1 and 2.
    assert found.mean == 4 and found.seeds_error == pytest.approx(2) and found.seeds == 2
    assert found.items_error == pytest.approx((1 + 4) ** 0.5 / 2) and found.error == found.seeds_error
    alone = estimate([[1.0, 3.0]])
    assert alone.seeds_error is None and alone.error == alone.items_error == pytest.approx(1)


def test_items_error_is_that_of_the_mean_when_items_are_drawn_again():
    rng = np.random.default_rng(0)
    drawn = [estimate([rng.normal(0, 1, 40), rng.normal(5, 3, 10)]) for _ in range(4000)]
    assert np.mean([each.items_error for each in drawn]) == pytest.approx(
        np.std([each.mean for each in drawn]), rel=0.05
    )


def test_of_equals_five_in_a_hundred_get_a_star():
    rng = np.random.default_rng(0)
    # Seeds differ more than games explain.
    trained = [estimate([rng.normal(rng.normal(), 1, 30) for _ in range(3)]).p < 0.05 for _ in range(4000)]
    alone = [estimate([rng.normal(0, 1, 60)]).p < 0.05 for _ in range(4000)]
    assert np.mean(trained) == pytest.approx(0.05, abs=0.012) and np.mean(alone) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("dof, quantile", [(1, 12.7062), (2, 4.30265), (3, 3.18245), (9, 2.26216), (200, 1.97190)])
def test_students_t_against_its_table_and_closed_forms(dof, quantile):
    assert student_p(quantile, dof) == pytest.approx(0.05, abs=1e-5) and student_p(0.0, dof) == pytest.approx(1)
    assert student_p(1.0, 1) == pytest.approx(0.5) and student_p(2**0.5, 2) == pytest.approx(1 - 0.5**0.5)


def test_pairs_are_of_one_seed_and_item():
    ours = {0: [1.0, 2.0, None], 1: [5.0, 5.0, 5.0], 7: [9.0]}
    theirs = {1: [4.0, None, 4.0], 0: [0.0, 2.0, 3.0], 8: [1.0]}
    found = paired_estimate(ours, theirs)
    assert found.mean == pytest.approx((0.5 + 1.0) / 2) and found.seeds == 2
    assert paired_estimate(ours, {}) is None and paired_estimate({0: [None]}, {0: [1.0]}) is None
    with pytest.raises(ValueError):
        paired_estimate({0: [1.0]}, {0: [1.0, 2.0]})


def test_a_star_stands_at_differences_that_are_clear():
    # 5 and 4 errors, with two degrees of freedom.
    clear, vague, none = Estimate(1.0, 0.2, 0.9, 3), Estimate(1.0, 0.25, 0.1, 3), Estimate(0.0, 0.0, 0.0, 3)
    assert clear.text("+.2f") == "+1.00 ± 0.20\\*" and clear.text() == "1.00 ± 0.20"
    assert vague.text("+.2f") == "+1.00 ± 0.25" and vague.p == pytest.approx(0.0572, abs=1e-4)
    assert none.p == 1 and Estimate(1.0, None, 0.0, 1).p == 0 and Estimate(1.0, None, 0.5, 1).p < 0.05


@pytest.mark.parametrize("higher, lower", [(12, 0), (7, 5), (6, 6), (0, 3), (0, 0)])
def test_sign_test_against_all_outcomes(higher, lower):
    count = higher + lower
    outcomes = [sum(flips) for flips in itertools.product((0, 1), repeat=count)]
    at_least = [abs(2 * heads - count) >= abs(higher - lower) for heads in outcomes]
    assert sign_test(higher, lower) == pytest.approx(np.mean(at_least))
