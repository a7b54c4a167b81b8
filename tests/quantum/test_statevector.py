"""The layered circuit on the engine: PennyLane's on both of its paths, within memory; and states that are measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from time import process_time
from types import SimpleNamespace
from weakref import finalize

import pennylane as qml
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, jacfwd, jacrev
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hqnn_utils.quantum import circuits, compilation, fusion, programs, statevector
from hqnn_utils.quantum.circuits import ENTANGLERS, layered, qnode


def forget() -> None:
    """Programs as if the process had just started."""
    for name in ("_program", "program", "sources", "ready", "ready_separate"):
        getattr(compilation, name).cache_clear()


@contextmanager
def path(block_qubits: int | None) -> Iterator[None]:
    """One path at every width: blocks of so many qubits, or with `None` one matrix."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fusion, "WHOLE_WIRES", 99 if block_qubits is None else 0)
        patch.setattr(fusion, "BLOCK_WIRES", block_qubits or 5)
        forget()
        try:
            yield
        finally:
            forget()


def forced(block_qubits: int | None, function=statevector.expval_z):
    """`function` on that path, compiled anew at every call."""

    def run(*arguments):
        with path(block_qubits):
            return function(*arguments)

    return run


def few(examples: int):
    """For what is compiled at nearly every example."""
    return settings(max_examples=examples)


PATHS = {"one matrix": None, "blocks of 1": 1, "blocks of 2": 2, "one block": 5}
every_path = pytest.mark.parametrize("block_qubits", PATHS.values(), ids=PATHS)
every_entangler = pytest.mark.parametrize("entangler", ENTANGLERS)
seeds = st.integers(0, 2**32 - 1)


def circuit(n: int, depth: int, *batch: int, seed: int = 0, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Random angles, leaves of the graph: inputs `(*batch, n)` and weights `(depth, n)`, a few turns wide."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (*batch, n), (depth, n)
    return tuple(5 * torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes)


def program(n: int, depth: int, entangler: str = "ring") -> programs.Program:
    """What `statevector.expval_z` computes."""
    return compilation.program(statevector._key(n, depth, entangler, False), n)


def pennylane(x, theta, entangler="ring"):
    """The oracle: the definition of the circuit, row by row on default.qubit."""
    n = x.shape[-1]
    node = qnode(layered, lambda: circuits.expval_z(n), n)
    rows = [torch.stack(node(row, theta, entangler)) for row in x.reshape(prod(x.shape[:-1]), n)]
    return torch.stack(rows).reshape(x.shape) if rows else x.clone()  # an empty batch has no rows to stack


def value_and_gradients(function, x, theta, *entangler):
    """Value, and gradients to inputs and weights of a fixed sum in which no two outputs weigh alike."""
    value = function(x, theta, *entangler)
    weights = torch.linspace(-1, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
    gradients = torch.autograd.grad((weights * value).sum(), (x, theta), allow_unused=True, materialize_grads=True)
    return value.detach(), *gradients


def assert_equal_to_pennylane(function, x, theta, entangler):
    found = value_and_gradients(function, x, theta, entangler)
    torch.testing.assert_close(found, value_and_gradients(pennylane, x, theta, entangler), atol=1e-10, rtol=0)


@every_entangler
@few(8)
@given(n=st.integers(1, 8), depth=st.integers(0, 6), seed=seeds)
def test_values_and_gradients_are_pennylanes(entangler, n, depth, seed):
    assert_equal_to_pennylane(statevector.expval_z, *circuit(n, depth, 2, seed=seed), entangler)


@every_entangler
@few(6)
@given(n=st.integers(1, fusion.WHOLE_WIRES), depth=st.integers(0, 6), seed=seeds)
def test_values_and_gradients_from_one_matrix_are_pennylanes(entangler, n, depth, seed):
    assert_equal_to_pennylane(forced(None), *circuit(n, depth, 2, seed=seed), entangler)


@every_entangler
@few(8)
@given(n=st.integers(1, 8), depth=st.integers(0, 6), block_qubits=st.integers(1, 5), seed=seeds)
def test_values_and_gradients_in_blocks_of_any_size_are_pennylanes(entangler, n, depth, block_qubits, seed):
    assert_equal_to_pennylane(forced(block_qubits), *circuit(n, depth, 2, seed=seed), entangler)


@every_path
@every_entangler
@pytest.mark.parametrize("n", [1, 2])
def test_the_smallest_circuits_are_pennylanes(block_qubits, entangler, n):
    assert_equal_to_pennylane(forced(block_qubits), *circuit(n, 3, 2), entangler)


@pytest.mark.parametrize("n", [fusion.WHOLE_WIRES, fusion.WHOLE_WIRES + 1, 2 * fusion.BLOCK_WIRES + 1])
def test_values_and_gradients_are_pennylanes_where_the_path_or_the_number_of_blocks_changes(n):
    assert_equal_to_pennylane(statevector.expval_z, *circuit(n, 2, 2), "ring")


@every_entangler
@pytest.mark.parametrize("n, depth", [(4, 2), (4, 3), (3, 2), (3, 3), (2, 4), (2, 5), (1, 8), (1, 9)])
def test_values_and_gradients_are_pennylanes_where_one_table_for_all_layers_ends(entangler, n, depth):
    assert_equal_to_pennylane(statevector.expval_z, *circuit(n, depth, 2), entangler)


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 9])
@pytest.mark.parametrize("n", [1, 3, 4, 6, 8])
def test_all_layers_are_one_table_as_long_as_that_is_small_and_no_table_is_large(n, depth):
    plan = program(n, depth).plan
    parts = [part for group in plan.groups for part in group]
    angles = [0 if part.features is None else part.features.frequencies.shape[0] for part in parts]
    assert all(m <= fusion.TABLE_ANGLES for m in angles)
    if n <= fusion.WHOLE_WIRES and 0 < depth * n <= fusion.TABLE_ANGLES:
        assert [part.parts for part in parts] == [1] and angles == [depth * n]


@every_path
@few(6)
@given(batch=st.lists(st.integers(0, 3), max_size=3))
def test_any_leading_dimensions_are_a_batch_of_rows(block_qubits, batch):
    assert_equal_to_pennylane(forced(block_qubits), *circuit(3, 2, *batch), "ring")


@every_path
@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_keep_the_dtype(block_qubits, depth, dtype):
    found = value_and_gradients(forced(block_qubits), *circuit(3, depth, 2, dtype=dtype))
    assert {tensor.dtype for tensor in found} == {dtype}


@every_path
@few(4)
@given(n=st.integers(1, fusion.WHOLE_WIRES), depth=st.integers(0, 6), seed=seeds)
def test_float32_is_good_to_five_places(block_qubits, n, depth, seed):
    single = circuit(n, depth, 4, seed=seed, dtype=torch.float32)
    exact = [angles.detach().double().requires_grad_() for angles in single]
    found = [tensor.double() for tensor in value_and_gradients(forced(block_qubits), *single)]
    torch.testing.assert_close(found, list(value_and_gradients(pennylane, *exact)), atol=2e-5, rtol=1e-5)


@every_path
@every_entangler
@few(3)
@given(n=st.integers(1, 6), depth=st.integers(0, 4), seed=seeds)
def test_the_state_is_pennylanes_up_to_no_phase_at_all(block_qubits, entangler, n, depth, seed):
    x, theta = (angles.detach() for angles in circuit(n, depth, seed=seed))
    found = forced(block_qubits, statevector.state)(x, theta, entangler)
    assert found.dtype == torch.float64
    torch.testing.assert_close(
        found.to(torch.complex128), circuits.prepared_state(layered, n, x, theta, entangler), atol=1e-10, rtol=0
    )


@every_path
@few(6)
@given(n=st.integers(1, 6), depth=st.integers(0, 6), seed=seeds)
def test_every_state_of_a_batch_is_normalised(block_qubits, n, depth, seed):
    psi = forced(block_qubits, statevector.state)(*circuit(n, depth, 2, 3, seed=seed))
    assert psi.shape == (2, 3, 2**n)
    torch.testing.assert_close(psi.square().sum(dim=-1), torch.ones(2, 3, dtype=torch.float64), atol=1e-12, rtol=0)


@every_path
@every_entangler
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_the_engine_can_be_differentiated_twice(block_qubits, entangler, check):
    with path(block_qubits):
        assert check(lambda x, theta: statevector.expval_z(x, theta, entangler), circuit(3, 2, 2))


@every_path
@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0), (1, 1)])
def test_vmap_equals_a_loop_in_value_and_gradient(block_qubits, in_dims):
    models = 4
    x, theta = (
        torch.stack([circuit(3, 2, 5, seed=k)[i].detach() for k in range(models)], dim).requires_grad_()
        if dim is not None
        else circuit(3, 2, 5)[i]
        for i, dim in enumerate(in_dims)
    )

    def loop(x, theta):
        def pick(tensor, dim, k):
            return tensor if dim is None else tensor.select(dim, k)

        return torch.stack([pennylane(pick(x, in_dims[0], k), pick(theta, in_dims[1], k)) for k in range(models)])

    found = value_and_gradients(torch.vmap(forced(block_qubits), in_dims), x, theta)
    torch.testing.assert_close(found, value_and_gradients(loop, x, theta), atol=1e-10, rtol=0)


@every_path
def test_per_row_jacobians_by_torch_func_are_autograds(block_qubits):
    (x, theta), run = circuit(3, 2, 4), forced(block_qubits)
    found = torch.vmap(torch.func.jacrev(run), (0, None))(x, theta)  # (row, output, input)
    whole = torch.autograd.functional.jacobian(lambda x: pennylane(x, theta), x)  # (row, output, row, input)
    torch.testing.assert_close(found, torch.stack([whole[k, :, k] for k in range(4)]))


@pytest.fixture
def fresh_tables():
    """Programs as if the process had just started, and none of this test's left behind."""
    forget()
    yield
    forget()


@every_path
def test_a_model_that_predicted_in_inference_mode_can_be_trained_afterwards(fresh_tables, block_qubits):
    x, theta = circuit(3, 2, 4)
    with path(block_qubits):
        with torch.inference_mode():
            statevector.expval_z(x, theta)
        assert_equal_to_pennylane(statevector.expval_z, x, theta, "ring")


class Circuit(torch.nn.Module):
    """What tracers take."""

    def __init__(self, n: int):
        super().__init__()
        self.theta = torch.nn.Parameter(torch.full((2, n), 0.3))

    def forward(self, x):
        return statevector.expval_z(x, self.theta)


def by_set_default(setter, value, before):
    """A call with a default of torch's set for the process."""

    def run(module, x):
        setter(value)
        try:
            return module(x)
        finally:
            setter(before)

    return run


def faked(module, x):
    with FakeTensorMode(allow_non_fake_inputs=True):
        return module(x)


def born_fake(module, x):
    with FakeTensorMode():
        return Circuit(x.shape[-1])(torch.zeros(x.shape)).sum().backward()


def on_meta(module, x):
    with torch.device("meta"):
        return Circuit(x.shape[-1])(torch.zeros(x.shape))


def traced(module, x):
    return make_fx(lambda theta, x: functional_call(module, {"theta": theta}, (x,)), tracing_mode="symbolic")(module.theta, x)


TRACERS = {
    "export": lambda module, x: torch.export.export(module, (x,)),
    "strict export": lambda module, x: torch.export.export(module, (x,), strict=True),
    "compile": lambda module, x: torch.compile(module, backend="aot_eager", fullgraph=True)(x),
    "jit.trace": torch.jit.trace,
    "make_fx": traced,
    "fake tensors": faked,
    "a fake module": born_fake,
    "meta tensors": on_meta,
    "meta as default": by_set_default(torch.set_default_device, "meta", None),
    "half as default": by_set_default(torch.set_default_dtype, torch.float16, torch.float32),
    "inference mode": torch.inference_mode()(lambda module, x: module(x)),
    "vmap of jacrev": lambda module, x: torch.vmap(jacrev(module))(x),
    "vmap of jacfwd": lambda module, x: torch.vmap(jacfwd(module))(x),
}
untold = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "error::torch.jit.TracerWarning")


@untold
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("n", [3, 5, 7])  # one table for all layers, a table for each, blocks
@pytest.mark.parametrize("tracer", TRACERS.values(), ids=TRACERS)
def test_whoever_asks_first_for_the_constants_others_compute_and_train_with_them(fresh_tables, tracer, n):
    tracer(Circuit(n), torch.zeros(2, n))
    x, theta = circuit(n, 2, 2)
    assert_equal_to_pennylane(statevector.expval_z, x, theta, "ring")
    single = x.detach().float().requires_grad_(), theta.detach().float().requires_grad_()
    found = value_and_gradients(statevector.expval_z, *single)
    assert all(type(tensor) is torch.Tensor and not tensor.is_inference() for tensor in found)
    torch.testing.assert_close(found[0].double(), statevector.expval_z(x, theta).detach(), atol=1e-5, rtol=0)


def test_a_circuit_is_traced_and_compiled_once_for_each_width_and_dtype(fresh_tables, monkeypatch):
    traced, compiled, converted = [], [], []

    def noted(notes, function):
        return lambda *arguments, **options: notes.append(arguments) or function(*arguments, **options)

    monkeypatch.setattr(compilation, "trace", noted(traced, compilation.trace))
    monkeypatch.setattr(programs, "Plan", noted(compiled, fusion.Plan))
    monkeypatch.setattr(fusion.Plan, "tensors", noted(converted, fusion.Plan.tensors))
    for dtype in (torch.float32, torch.float64) * 3:
        for batch in (1, 2, 5):
            statevector.expval_z(*circuit(7, 2, batch, dtype=dtype))
    assert (len(traced), len(compiled), len(converted)) == (1, 1, 2)


@pytest.mark.parametrize("function", [statevector.expval_z, statevector.state])
@pytest.mark.parametrize("n", [3, 8])
def test_weights_of_another_width_than_the_inputs_are_refused(function, n):
    with pytest.raises(ValueError, match=f"x has {n} angles a row and theta 2: both need one for each qubit"):
        function(torch.zeros(4, n), torch.zeros(5, 2))


@pytest.mark.parametrize("n", [3, 8])
def test_an_unknown_entangler_is_refused_by_name(n):
    with pytest.raises(ValueError, match="unknown entangler 'star': choose one of none, linear, ring, all"):
        statevector.expval_z(torch.zeros(n), torch.zeros(1, n), "star")


@pytest.mark.parametrize("n", [40, 784, 3072])
def test_more_qubits_than_memory_are_refused_at_once(n):
    start = process_time()
    with pytest.raises(MemoryError, match=rf"{n} qubits need about .* GB and .* GB are free"):
        statevector.expval_z(torch.zeros(3, n), torch.zeros(2, n))
    assert process_time() - start < 1


@pytest.mark.parametrize("n", [3, 8])
def test_a_larger_batch_than_memory_is_refused_at_once(n):
    with pytest.raises(MemoryError, match="take fewer qubits, fewer layers or a smaller batch"):
        statevector.expval_z(torch.zeros(1, n).expand(10**12, n), torch.zeros(1, n))


def free_memory(patch: pytest.MonkeyPatch, free: int) -> None:
    patch.setattr(programs.psutil, "virtual_memory", lambda: SimpleNamespace(available=free))


def counted(n: int, depth: int, batch: int, dtype: torch.dtype) -> int:
    """Bytes of the states that are kept, of what is computed from the last one, and of the places of exchanged amplitudes."""
    plan = program(n, depth).plan
    return (batch * plan.kept * dtype.itemsize + plan.own) * 2**n


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "depth", "batch"), [(3, 2, 9), (8, 0, 3), (8, 2, 3), (11, 2, 1)])
def test_the_refusal_begins_where_the_description_says(monkeypatch, n, depth, batch, dtype):
    monkeypatch.setattr(programs, "CHECKED_BYTES", 0)
    needed = counted(n, depth, batch, dtype)
    x, theta = circuit(n, depth, batch, dtype=dtype)
    statevector.expval_z(x, theta)  # compiled, which asks for memory of its own
    free_memory(monkeypatch, needed)
    statevector.expval_z(x, theta)
    free_memory(monkeypatch, needed - 1)
    with pytest.raises(MemoryError):
        statevector.expval_z(x, theta)


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0)])
def test_the_rows_of_all_mapped_models_are_counted(monkeypatch, in_dims):
    monkeypatch.setattr(programs, "CHECKED_BYTES", 0)
    n, depth, batch, models = 8, 2, 3, 5
    x, theta = (angles.detach() for angles in circuit(n, depth, batch))
    x, theta = (t if dim is None else t.expand(models, *t.shape) for t, dim in zip((x, theta), in_dims, strict=True))
    run = torch.vmap(statevector.expval_z, in_dims)
    free_memory(monkeypatch, needed := counted(n, depth, models * batch, torch.float64))
    assert run(x, theta).shape == (models, batch, n)
    free_memory(monkeypatch, needed - 1)
    with pytest.raises(MemoryError, match=f"a batch of {models * batch} need"):
        run(x, theta)


@pytest.mark.parametrize(("n", "depth"), [(8, 0), (8, 1), (9, 6), (11, 3)])
def test_the_backward_pass_keeps_no_more_than_was_counted(n, depth):
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch = 256  # so many that the tables do not matter
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = statevector.expval_z(*circuit(n, depth, batch))
    assert value.requires_grad
    assert counted(n, depth, batch, torch.float64) / 2 < sum(kept.values()) <= counted(n, depth, batch, torch.float64)


class Peak(TorchDispatchMode):
    """The largest number of bytes that torch held at once for the results of operations."""

    def __init__(self):
        super().__init__()
        self.held = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and (key := leaf.untyped_storage()._cdata) not in self.known:
                self.known.add(key)
                self.held += leaf.untyped_storage().nbytes()
                finalize(leaf.untyped_storage(), self.release, key, leaf.untyped_storage().nbytes())
        self.peak = max(self.peak, self.held)
        return result

    def release(self, key, size):
        self.known.discard(key)
        self.held -= size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_not_twice_the_memory_is_taken_that_was_counted(fresh_tables, dtype):
    n, depth = 16, 1
    with Peak() as memory:
        statevector.expval_z(*circuit(n, depth, 1, dtype=dtype))
    assert memory.peak < 2 * counted(n, depth, 1, dtype)


def test_small_circuits_do_not_wait_for_the_question_how_much_memory_is_free(monkeypatch):
    free_memory(monkeypatch, 0)
    assert counted(8, 2, 3, torch.float64) < programs.CHECKED_BYTES
    assert_equal_to_pennylane(statevector.expval_z, *circuit(8, 2, 3), "ring")


# States that are measured


def measured_z(psi: torch.Tensor, shots: int = 0, seed: int = 0) -> torch.Tensor:
    """⟨Z⟩ of every qubit of given states, or the means of so many measurements."""
    n = psi.shape[-1].bit_length() - 1
    of = compilation.ready(statevector._key(n, 0, "none", False), n, psi.real.dtype, psi.device).readout
    return of.means(psi, shots, torch.Generator().manual_seed(seed)) if shots else of.exactly(psi)


def random_states(n: int, *batch: int, seed: int = 0, dtype=torch.complex128) -> torch.Tensor:
    psi = torch.randn(*batch, 2**n, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return psi / psi.norm(dim=-1, keepdim=True)


every_kind = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])


@every_kind
@few(12)
@given(n=st.integers(1, 12), seed=seeds)
def test_z_is_measured_as_by_pennylane(dtype, n, seed):
    psi = random_states(n, 2, seed=seed, dtype=dtype)
    node = qnode(lambda row: qml.StatePrep(row, range(n)), lambda: circuits.expval_z(n), n)
    expected = torch.stack([torch.stack(node(row)) for row in psi])
    torch.testing.assert_close(measured_z(psi), expected, atol=1e-12, rtol=0)


def test_phases_of_the_amplitudes_do_not_change_the_outcomes():
    psi = random_states(3, 4, 5)
    with_phases, without = (measured_z(p, 9) for p in (psi, psi.abs()))
    assert torch.equal(with_phases, without)


@pytest.mark.parametrize("shots", [1, 7])
def test_measured_values_are_one_of_shots_plus_one_steps_for_any_batch(shots):
    psi = statevector.state(*(angles.detach() for angles in circuit(3, 2, 4, 5)))
    values = measured_z(psi, shots)
    counts = (values + 1) / 2 * shots
    assert values.shape == (4, 5, 3)
    torch.testing.assert_close(counts, counts.round())


def test_qubits_are_measured_together():
    psi = torch.zeros(4000, 4)
    psi[:, [0, 3]] = 0.5**0.5  # (|00⟩ + |11⟩)/√2: each qubit is a coin, and both fall alike
    values = measured_z(psi, 1)
    assert torch.equal(values[:, 0], values[:, 1])
    assert abs(values.mean()) < 5 / 4000**0.5


def test_measured_means_are_the_exact_values():
    psi = statevector.state(*(angles.detach() for angles in circuit(3, 2, 2))).expand(3000, 2, 8)
    values = measured_z(psi, 20)
    exact = measured_z(psi[0])
    standard_error = ((1 - exact**2) / (20 * 3000)).sqrt()
    assert ((values.mean(0) - exact).abs() < 5 * standard_error).all()


def product_states(n: int, *batch: int, dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """States of qubits that know nothing of each other, and their ⟨Z⟩ by hand."""
    x = torch.linspace(-1.5, 1.4, max(1, prod(batch)) * n, dtype=dtype).reshape(*batch, n)
    return statevector.state(x, torch.zeros(0, n, dtype=dtype), "none"), -torch.sin(x.double())


@pytest.mark.parametrize(("n", "batch"), [(1, 5), (4, 64), (6, 64), (7, 64), (10, 64), (11, 64), (14, 9), (18, 2), (22, 1)])
def test_in_float32_z_is_the_float64_sum_over_the_same_state(n, batch):
    psi, closed = product_states(n, batch)
    found, expected = measured_z(psi), measured_z(psi.double())
    assert (found.double() - expected).abs().max() < (5e-7 if n <= 6 else 2.5e-7)
    assert (expected - closed).abs().max() < 1e-6
    of_complex = measured_z(torch.complex(psi * 0.6, psi * 0.8))
    assert (of_complex.double() - expected).abs().max() < 7e-7


@pytest.mark.parametrize("n", [7, 12, 18])
@pytest.mark.parametrize("depth", [0, 2])
def test_in_float32_values_and_gradients_of_one_wide_row_are_float64s(n, depth):
    single = circuit(n, depth, 1, dtype=torch.float32)
    double = [angles.detach().double().requires_grad_() for angles in single]
    found, exact = (value_and_gradients(statevector.expval_z, *angles, "none") for angles in (single, double))
    torch.testing.assert_close([tensor.double() for tensor in found], list(exact), atol=3e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 2, 6, 16, 18, 20, 22])
def test_shots_are_unbiased_at_every_width(n, dtype):
    shots, (psi, closed) = 50_000, product_states(n, 2, dtype=dtype)
    means = measured_z(psi, shots)
    standard_errors = (means - closed) / ((1 - closed**2) / shots).sqrt()
    assert means.dtype == dtype
    assert standard_errors.abs().max() < 4.5
    assert standard_errors.square().mean().sqrt() < 1.8  # about 1, from at least two numbers


def test_shots_are_drawn_over_all_of_a_wide_float32_state():
    """Were probabilities added up in float32, the last of these equal amplitudes would never be seen."""
    n, shots = 20, 20_000
    psi = torch.full((2**n,), 2 ** (-n / 2))
    means = measured_z(psi, shots)
    assert means.abs().max() < 4.5 / shots**0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
@pytest.mark.parametrize("shots", [1, 7])
@pytest.mark.parametrize("n", [1, 3])
def test_one_state_is_measured_as_a_batch_of_one(dtype, n, shots):
    psi = random_states(n, dtype=dtype)
    alone, batch = (measured_z(p, shots) for p in (psi, psi.unsqueeze(0)))
    assert alone.shape == (n,) and torch.equal(alone, batch[0])


def test_a_basis_state_is_always_measured_as_what_it_is():
    psi = torch.eye(8)
    assert torch.equal(measured_z(psi, 50), measured_z(psi))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_state_that_cannot_be_measured_is_refused_with_its_place(n, value):
    psi = random_states(n, 2, 3, dtype=torch.float64)
    psi[1, 2] *= value
    with pytest.raises(ValueError, match=r"the state psi\[1, 2\] is zero, NaN or infinite and cannot be measured"):
        measured_z(psi, 10)
    with pytest.raises(ValueError, match="the state psi is zero, NaN or infinite and cannot be measured"):
        measured_z(psi[1, 2], 10)


# One rule for dtypes

FUNCTIONS = {  # of two sets of angles
    "expval_z": lambda x, y: statevector.expval_z(x, y.unsqueeze(0)),
    "state": lambda x, y: statevector.state(x, y.unsqueeze(0)),
    "by keywords": lambda x, y: statevector.expval_z(x=x, theta=y.unsqueeze(0)),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)
precisions = torch.float16, torch.bfloat16, torch.float32, torch.float64


@every_function
@pytest.mark.parametrize("first", precisions)
@pytest.mark.parametrize("second", precisions)
def test_every_function_answers_in_the_widest_precision_of_its_tensors(name, first, second):
    x, y = (angles.detach() for angles in circuit(3, 0, 2)[:1] * 2)
    found = FUNCTIONS[name](x.to(first), y[0].to(second))
    assert found.dtype == torch.promote_types(first, second)


@every_function
def test_every_function_refuses_angles_that_are_no_real_floating_point_numbers(name):
    for x, y in ((torch.ones(2, 3).long(), torch.ones(3)), (torch.ones(2, 3), torch.ones(3).bool())):
        with pytest.raises(TypeError, match=r"angles .*, got torch\.(int64|bool): convert them"):
            FUNCTIONS[name](x, y)
    with pytest.raises(TypeError, match=r"angles .*, got torch\.complex128: convert them"):
        FUNCTIONS[name](torch.ones(2, 3), torch.ones(3).to(torch.complex128))


@every_function
def test_every_function_computes_in_full_precision_under_autocast(name):
    x, y = (angles.detach().float() for angles in circuit(3, 0, 2)[:1] * 2)
    expected = FUNCTIONS[name](x, y[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(FUNCTIONS[name](x, y[0]), expected)
