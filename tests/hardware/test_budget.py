"""What circuits will cost, what is set aside for them, and where a budget ends: sums, without a service."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqnn_utils.hardware.budget import Budget, BudgetError, estimate
from hqnn_utils.hardware.devices import Price
from hqnn_utils.hardware.ledger import PaidTask

PROCESSOR, SIMULATOR = Price(per_task=0.3, per_shot=0.001), Price(per_minute=0.6, least_s=3.0)


def test_an_estimate_is_of_tasks_and_shots_and_says_so():
    expected = estimate(PROCESSOR, 100, batches=2, shots=1000, before=2.5)
    assert (expected.tasks, expected.usd) == (100, pytest.approx(100 * 0.3 + 100_000 * 0.001))
    assert str(expected).startswith("100 circuits of 1,000 shots in 100 tasks for about $130.00; $2.50 were spent before")


@given(batches=st.lists(st.integers(1, 40), min_size=1, max_size=8), at_once=st.integers(1, 50))
def test_batches_of_any_sizes_are_no_more_tasks_than_estimated(batches, at_once):
    expected = estimate(PROCESSOR, sum(batches), batches=len(batches), at_once=at_once)
    assert sum(-(-batch // at_once) for batch in batches) <= expected.tasks <= sum(batches)


def test_a_simulation_that_has_not_ended_counts_as_the_longest_so_far():
    tasks = {"a": PaidTask("a", "x", 0, usd=SIMULATOR.of(1, seconds=90.0))}
    assert Budget(5.0, SIMULATOR, 0, {}).cost(1) == pytest.approx(0.03)
    assert Budget(5.0, SIMULATOR, 0, {}, simulation_s=60.0).cost(1) == pytest.approx(0.6)
    assert Budget(5.0, SIMULATOR, 0, tasks).cost(1) == pytest.approx(0.9)


def test_a_hundred_tasks_cost_what_a_hundred_times_one_costs():
    tasks = {str(k): PaidTask(str(k), "x", k, usd=0.00375) for k in range(100)}
    assert Budget(5.0, SIMULATOR, 0, tasks).spent == 100 * 0.00375  # to the last digit: half a cent is rounded alike


def test_what_is_on_its_way_counts_until_it_is_settled():
    budget = Budget(2.7, PROCESSOR, 1000, {})
    assert [budget.reserve("x", 1), budget.reserve("x", 1)] == [0, 1]
    with pytest.raises(
        BudgetError, match=r"stopped before the budget of \$2\.70 was passed: \$2\.60 are spent or on their way"
    ):
        budget.reserve("y", 1)
    budget.settle("x", 1)
    assert budget.reserve("y", 1) == 0


def test_a_request_whose_answer_was_lost_keeps_its_number_and_is_set_aside_once():
    budget = Budget(1.4, PROCESSOR, 1000, {})
    assert budget.reserve("x", 1) == 0
    budget.landed("x", 0)
    assert budget.reserve("x", 1) == 0  # asked again, within a budget for one


def test_only_what_other_runs_spent_comes_on_top_of_an_estimate():
    tasks = {"a": PaidTask("a", "x", 0, "other", usd=1.0), "b": PaidTask("b", "y", 0, "own", usd=0.5)}
    budget, expected = Budget(2.5, PROCESSOR, 0, tasks), estimate(PROCESSOR, 5, batches=1)
    budget.admit("sv1", "own", expected)
    with pytest.raises(BudgetError, match=r"sv1: 5 circuits in 5 tasks for about \$1\.50 would exceed the budget of \$2\.50"):
        budget.admit("sv1", "third", expected)
