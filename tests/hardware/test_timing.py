"""What is timed is what is said to be timed: counts, parts and models; no test looks at a clock of this machine."""

import numpy as np
import pennylane as qml
import pytest
import torch

from hqnn_utils.hardware import devices, timing
from hqnn_utils.hardware.timing import Scaling, Timing

FEATURES = torch.randn(4, 512, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("depth", [1, 2])
def test_the_formula_counts_what_the_device_counts(batch, depth):
    backend = devices.connect(devices.device("lightning.qubit"), 4)
    step = timing.training_step(timing.head(backend, depth=depth), FEATURES[:batch], LABELS[:batch])
    timed = timing.time_step(step, backend, repeats=2)
    assert timed.circuits == timing.shift_circuits(batch, 4 * (1 + depth))
    assert len(timed.seconds) == 2


def test_every_device_and_method_trains_the_same_network():
    trained = {}
    for name, method in [
        ("statevector", "backprop"),
        ("statevector", "parameter-shift"),
        ("default.qubit", "backprop"),
        ("default.qubit", "parameter-shift"),
        ("lightning.qubit", "adjoint"),
        ("lightning.qubit", "parameter-shift"),
    ]:
        network = timing.head(devices.connect(devices.device(name), 4), method)
        timing.training_step(network, FEATURES, LABELS)()
        trained[name, method] = torch.cat([p.grad.flatten() for p in network.parameters()])
    first = trained.pop(("statevector", "backprop"))
    for gradient in trained.values():
        torch.testing.assert_close(gradient, first, rtol=1e-3, atol=1e-6)
    assert first[:10].abs().min() > 0


def test_a_head_leaves_the_generator_of_its_caller_alone_and_is_the_same_each_time():
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    first, second = (timing.head("statevector", "backprop").state_dict() for _ in range(2))
    assert torch.equal(torch.randn(3), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_step_trains():
    network = timing.head("statevector", "backprop")
    step = timing.training_step(network, FEATURES, LABELS)
    before = [p.detach().clone() for p in network.parameters()]
    step()
    assert all((p != b).any() for p, b in zip(network.parameters(), before, strict=True))


@pytest.mark.parametrize(("method", "calls"), [("parameter-shift", 2), ("adjoint", 1)])
def test_what_a_device_takes_is_a_part_of_the_step_and_counted_once(method, calls, monkeypatch):
    backend = devices.connect(devices.device("lightning.qubit"), 4)
    step = timing.training_step(timing.head(backend, method), FEATURES, LABELS)
    clock = iter(map(float, range(10_000)))
    monkeypatch.setattr(timing, "perf_counter", lambda: next(clock))  # every look at the clock is a second
    timed = timing.time_step(step, backend, repeats=1)
    # The shift rule asks the device twice, the adjoint method once for values and gradients.
    # Two looks for the step, and within it two for each call of the device, whose calls of itself are not timed again.
    assert timed.inside[0] == calls and timed.seconds[0] == 1 + 2 * calls


def test_a_device_is_left_as_it_was():
    backend = qml.device("default.qubit", wires=1)
    with pytest.raises(ValueError, match="stop"), timing.clocked(backend):
        assert "execute" in vars(backend)
        raise ValueError("stop")
    assert not set(timing.WAYS_IN) & set(vars(backend))


def test_the_first_step_is_not_among_the_others(monkeypatch):
    now, durations = [0.0], iter([9.0, 1.0, 3.0, 2.0])
    monkeypatch.setattr(timing, "perf_counter", lambda: now[0])

    def step():
        now[0] += next(durations)

    timed = timing.time_step(step, "statevector", repeats=3)
    assert (timed.seconds.tolist(), timed.median, timed.circuits) == ([1.0, 3.0, 2.0], 2.0, 0)


def test_a_slow_step_is_repeated_less(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(timing, "perf_counter", lambda: now[0])

    def step():
        now[0] += 4.0

    assert len(timing.time_step(step, "statevector", repeats=5, limit_s=7.0).seconds) == 2
    assert len(timing.time_step(step, "statevector", repeats=5, limit_s=0.0).seconds) == 1
    unwarmed = timing.time_step(step, "statevector", repeats=1, warm_up=False)
    assert unwarmed.seconds.tolist() == [4.0] and now[0] == 4.0 * (1 + 2 + 1 + 1 + 1)


def test_steps_take_turns_until_they_have_had_their_time(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(timing, "perf_counter", lambda: now[0])

    def step(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds

        return run, "statevector"

    timed = timing.time_in_turns({"slow": step("slow", 3.0), "fast": step("fast", 1.0)}, repeats=4, limit_s=5.0)
    assert "".join(name[0] for name in order) == "sfsfff"
    assert (timed["slow"].seconds.tolist(), timed["fast"].seconds.tolist()) == ([3.0, 3.0], [1.0] * 4)


def test_a_timing_divides_its_median_among_its_circuits():
    timed = Timing(np.array([1.0, 3.0, 2.0]), np.array([0.5, 1.5, 1.0]), 100)
    assert (timed.median, timed.per_circuit, timed.in_device) == (2.0, 0.02, 1.0)


def test_gates_are_those_of_the_circuit():
    from hqnn_utils.quantum import circuits

    for n, depth in [(1, 2), (2, 1), (4, 2), (7, 3)]:
        made = qml.tape.make_qscript(circuits.layered)(torch.zeros(n), torch.zeros(depth, n), "ring")
        assert timing.gates(n, depth) == len(made.operations)


def test_the_model_of_a_device_is_found_again_from_its_times():
    true = Scaling(0.002, 1e-4, 2e-9)
    n = np.arange(2, 23, 2)
    found = timing.scaling(n.tolist(), true(n).tolist())
    assert found == pytest.approx(true, rel=1e-6)
    assert found(30) == pytest.approx(timing.gates(30) * (1e-4 + 2e-9 * 2**30) + 0.002)


def test_times_and_their_ratios_may_differ_by_several_times_on_another_machine():
    assert timing.loose({"step": 0.5, "ratio": -2}) == {"step": 3.0, "ratio": 12.0}
