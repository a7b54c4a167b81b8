"""The state-vector engine: PennyLane's layered circuit on both of its paths, within memory; and its gates one by one."""

from math import prod
from time import process_time
from types import SimpleNamespace
from weakref import finalize

import pennylane as qml
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, jacfwd, jacrev
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hqnn_utils.quantum import circuits, statevector
from hqnn_utils.quantum.circuits import ENTANGLERS, layered, qnode


def forced(block_qubits: int | None, function=statevector.expval_z):
    """`function` on one path at every width: blocks of so many qubits, or with `None` one matrix."""

    def run(x, theta, entangler="ring"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(statevector, "MATRIX_QUBITS", 99 if block_qubits is None else 0)
            patch.setattr(statevector, "BLOCK_QUBITS", block_qubits or 5)
            return function(x, theta, entangler)

    return run


PATHS = {"one matrix": None, "blocks of 1": 1, "blocks of 2": 2, "one block": 5}
every_path = pytest.mark.parametrize("block_qubits", PATHS.values(), ids=PATHS)
every_entangler = pytest.mark.parametrize("entangler", ENTANGLERS)
seeds = st.integers(0, 2**32 - 1)


def circuit(n: int, depth: int, *batch: int, seed: int = 0, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Random angles, leaves of the graph: inputs `(*batch, n)` and weights `(depth, n)`, a few turns wide."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (*batch, n), (depth, n)
    return tuple(5 * torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes)


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
@given(n=st.integers(1, 8), depth=st.integers(0, 6), seed=seeds)
def test_values_and_gradients_are_pennylanes(entangler, n, depth, seed):
    assert_equal_to_pennylane(statevector.expval_z, *circuit(n, depth, 2, seed=seed), entangler)


@every_entangler
@given(n=st.integers(1, statevector.MATRIX_QUBITS), depth=st.integers(0, 6), seed=seeds)
def test_values_and_gradients_from_one_matrix_are_pennylanes(entangler, n, depth, seed):
    assert_equal_to_pennylane(forced(None), *circuit(n, depth, 2, seed=seed), entangler)


@every_entangler
@given(n=st.integers(1, 8), depth=st.integers(0, 6), block_qubits=st.integers(1, 5), seed=seeds)
def test_values_and_gradients_in_blocks_of_any_size_are_pennylanes(entangler, n, depth, block_qubits, seed):
    assert_equal_to_pennylane(forced(block_qubits), *circuit(n, depth, 2, seed=seed), entangler)


@every_path
@every_entangler
@pytest.mark.parametrize("n", [1, 2])
def test_the_smallest_circuits_are_pennylanes(block_qubits, entangler, n):
    assert_equal_to_pennylane(forced(block_qubits), *circuit(n, 3, 2), entangler)


@pytest.mark.parametrize("n", [statevector.MATRIX_QUBITS, statevector.MATRIX_QUBITS + 1, 2 * statevector.BLOCK_QUBITS + 1])
def test_values_and_gradients_are_pennylanes_where_the_path_or_the_number_of_blocks_changes(n):
    assert_equal_to_pennylane(statevector.expval_z, *circuit(n, 2, 2), "ring")


@every_entangler
@pytest.mark.parametrize("n, depth", [(4, 2), (4, 3), (3, 2), (3, 3), (2, 4), (2, 5), (1, 8), (1, 9)])
def test_values_and_gradients_are_pennylanes_where_one_table_for_all_layers_ends(entangler, n, depth):
    assert_equal_to_pennylane(statevector.expval_z, *circuit(n, depth, 2), entangler)


@pytest.mark.parametrize("block_qubits", [None, 2])
def test_one_table_for_all_layers_is_only_asked_up_to_its_size(monkeypatch, block_qubits):
    asked = []
    monkeypatch.setattr(statevector, "_encoded_layers", lambda *size: asked.append(size[2]) or encoded(*size))
    for depth in (0, 1, 2, 3, 9):
        forced(block_qubits)(*circuit(4, depth, 2))
    assert asked == ([0, 1, 2] if block_qubits is None else [])


encoded = statevector._encoded_layers


@every_path
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
@given(n=st.integers(1, statevector.MATRIX_QUBITS), depth=st.integers(0, 6), seed=seeds)
def test_float32_is_good_to_five_places(block_qubits, n, depth, seed):
    single = circuit(n, depth, 4, seed=seed, dtype=torch.float32)
    exact = [angles.detach().double().requires_grad_() for angles in single]
    found = [tensor.double() for tensor in value_and_gradients(forced(block_qubits), *single)]
    torch.testing.assert_close(found, list(value_and_gradients(pennylane, *exact)), atol=2e-5, rtol=1e-5)


@every_path
@every_entangler
@given(n=st.integers(1, 6), depth=st.integers(0, 4), seed=seeds)
def test_the_state_is_pennylanes_up_to_no_phase_at_all(block_qubits, entangler, n, depth, seed):
    x, theta = (angles.detach() for angles in circuit(n, depth, seed=seed))
    found = forced(block_qubits, statevector.state)(x, theta, entangler)
    assert found.dtype == torch.float64
    torch.testing.assert_close(
        found.to(torch.complex128), circuits.prepared_state(layered, n, x, theta, entangler), atol=1e-10, rtol=0
    )


@every_path
@given(n=st.integers(1, 6), depth=st.integers(0, 6), seed=seeds)
def test_every_state_of_a_batch_is_normalised(block_qubits, n, depth, seed):
    psi = forced(block_qubits, statevector.state)(*circuit(n, depth, 2, 3, seed=seed))
    assert psi.shape == (2, 3, 2**n)
    torch.testing.assert_close(psi.square().sum(dim=-1), torch.ones(2, 3, dtype=torch.float64), atol=1e-12, rtol=0)


@every_path
@every_entangler
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_the_engine_can_be_differentiated_twice(block_qubits, entangler, check):
    assert check(lambda x, theta: forced(block_qubits)(x, theta, entangler), circuit(3, 2, 2))


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
    """Tables of constants as if the process had just started, and none of this test's left behind."""
    caches = [value for value in vars(statevector).values() if hasattr(value, "cache_clear")]
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@every_path
def test_a_model_that_predicted_in_inference_mode_can_be_trained_afterwards(fresh_tables, block_qubits):
    x, theta = circuit(3, 2, 4)
    with torch.inference_mode():
        forced(block_qubits)(x, theta)
    assert_equal_to_pennylane(forced(block_qubits), x, theta, "ring")


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


def test_constants_are_remembered(fresh_tables, monkeypatch):
    made = []
    kept = statevector.cnot_pairs
    monkeypatch.setattr(statevector, "cnot_pairs", lambda *size: made.append(size) or kept(*size))
    for _ in range(3):
        statevector.expval_z(*circuit(7, 2, 2))
    assert made and len(made) == len(set(made))


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
    with pytest.raises(MemoryError, match=rf"{n} qubits with depth 2 and a batch of 3 need about .* GB and .* GB are free"):
        statevector.expval_z(torch.zeros(3, n), torch.zeros(2, n))
    assert process_time() - start < 1


@pytest.mark.parametrize("n", [3, 8])
def test_a_larger_batch_than_memory_is_refused_at_once(n):
    with pytest.raises(MemoryError, match="take fewer qubits, fewer layers or a smaller batch"):
        statevector.expval_z(torch.zeros(1, n).expand(10**12, n), torch.zeros(1, n))


def free_memory(patch: pytest.MonkeyPatch, free: int) -> None:
    patch.setattr(statevector.psutil, "virtual_memory", lambda: SimpleNamespace(available=free))


def counted(n: int, depth: int, batch: int, dtype: torch.dtype) -> int:
    """Bytes by the docstring: (batch * kept + 2 * n) * 2**n numbers."""
    kept = 3 if n <= 6 else 2 + depth * (1 + -(-n // 5))
    return (batch * kept + 2 * n) * 2**n * dtype.itemsize


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "depth", "batch"), [(3, 2, 9), (8, 0, 3), (8, 2, 3), (11, 2, 1)])
def test_the_refusal_begins_where_the_description_says(monkeypatch, n, depth, batch, dtype):
    monkeypatch.setattr(statevector, "CHECKED_BYTES", 0)
    needed = counted(n, depth, batch, dtype)
    x, theta = circuit(n, depth, batch, dtype=dtype)
    free_memory(monkeypatch, needed)
    statevector.expval_z(x, theta)
    free_memory(monkeypatch, needed - 1)
    with pytest.raises(MemoryError):
        statevector.expval_z(x, theta)


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0)])
def test_the_rows_of_all_mapped_models_are_counted(monkeypatch, in_dims):
    monkeypatch.setattr(statevector, "CHECKED_BYTES", 0)
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
    assert counted(8, 2, 3, torch.float64) < statevector.CHECKED_BYTES
    assert_equal_to_pennylane(statevector.expval_z, *circuit(8, 2, 3), "ring")


@pytest.mark.parametrize("shots", [1, 7])
def test_measured_values_are_one_of_shots_plus_one_steps_for_any_batch(shots):
    psi = statevector.state(*(angles.detach() for angles in circuit(3, 2, 4, 5)))
    values = statevector.measured_z(psi, shots, torch.Generator().manual_seed(0))
    counts = (values + 1) / 2 * shots
    assert values.shape == (4, 5, 3)
    torch.testing.assert_close(counts, counts.round())


def test_qubits_are_measured_together():
    psi = torch.zeros(4000, 4)
    psi[:, [0, 3]] = 0.5**0.5  # (|00⟩ + |11⟩)/√2: each qubit is a coin, and both fall alike
    values = statevector.measured_z(psi, 1, torch.Generator().manual_seed(0))
    assert torch.equal(values[:, 0], values[:, 1])
    assert abs(values.mean()) < 5 / 4000**0.5


def test_measured_means_are_the_exact_values():
    psi = statevector.state(*(angles.detach() for angles in circuit(3, 2, 2))).expand(3000, 2, 8)
    values = statevector.measured_z(psi, 20, torch.Generator().manual_seed(0))
    exact = statevector.measured_z(psi[0])
    standard_error = ((1 - exact**2) / (20 * 3000)).sqrt()
    assert ((values.mean(0) - exact).abs() < 5 * standard_error).all()


def product_states(n: int, *batch: int, dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """States of qubits that know nothing of each other, and their ⟨Z⟩ by hand."""
    x = torch.linspace(-1.5, 1.4, max(1, prod(batch)) * n, dtype=dtype).reshape(*batch, n)
    return statevector.encoded(x), -torch.sin(x.double())


@pytest.mark.parametrize(("n", "batch"), [(1, 5), (4, 64), (6, 64), (7, 64), (10, 64), (11, 64), (14, 9), (18, 2), (22, 1)])
def test_in_float32_z_is_the_float64_sum_over_the_same_state(n, batch):
    psi, closed = product_states(n, batch)
    found, expected = statevector.measured_z(psi), statevector.measured_z(psi.double())
    assert (found.double() - expected).abs().max() < (5e-7 if n <= 6 else 2.5e-7)
    assert (expected - closed).abs().max() < 1e-6
    of_complex = statevector.measured_z(torch.complex(psi * 0.6, psi * 0.8))
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
    means = statevector.measured_z(psi, shots, torch.Generator().manual_seed(0))
    standard_errors = (means - closed) / ((1 - closed**2) / shots).sqrt()
    assert means.dtype == dtype
    assert standard_errors.abs().max() < 4.5
    assert standard_errors.square().mean().sqrt() < 1.8  # about 1, from at least two numbers


def test_shots_are_drawn_over_all_of_a_wide_float32_state():
    """Were probabilities added up in float32, the last of these equal amplitudes would never be seen."""
    n, shots = 20, 20_000
    psi = torch.full((2**n,), 2 ** (-n / 2))
    means = statevector.measured_z(psi, shots, torch.Generator().manual_seed(0))
    assert means.abs().max() < 4.5 / shots**0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
@pytest.mark.parametrize("shots", [1, 7])
@pytest.mark.parametrize("n", [1, 3])
def test_one_state_is_measured_as_a_batch_of_one(dtype, n, shots):
    psi = random_states(n, dtype=dtype)
    alone, batch = (statevector.measured_z(p, shots, torch.Generator().manual_seed(0)) for p in (psi, psi.unsqueeze(0)))
    assert alone.shape == (n,) and torch.equal(alone, batch[0])


def test_a_basis_state_is_always_measured_as_what_it_is():
    psi = torch.eye(8)
    assert torch.equal(statevector.measured_z(psi, 50), statevector.measured_z(psi))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_state_that_cannot_be_measured_is_refused_with_its_place(n, value):
    psi = random_states(n, 2, 3, dtype=torch.float64)
    psi[1, 2] *= value
    with pytest.raises(ValueError, match=r"the state psi\[1, 2\] is zero, NaN or infinite and cannot be measured"):
        statevector.measured_z(psi, 10)
    with pytest.raises(ValueError, match="the state psi is zero, NaN or infinite and cannot be measured"):
        statevector.measured_z(psi[1, 2], 10)


@pytest.mark.parametrize("shots", [0, 10])
@pytest.mark.parametrize("shape", [(3,), (2, 6), (1,), (4, 1)])
def test_what_are_no_states_of_qubits_are_refused_with_their_shape(shots, shape):
    with pytest.raises(ValueError, match=r"2\*\*n amplitudes in their last dimension, got the shape \("):
        statevector.measured_z(torch.ones(shape), shots)


@pytest.mark.parametrize("shots", [True, -1])
def test_what_is_no_number_of_shots_is_refused(shots):
    with pytest.raises(ValueError, match=f"shots must be 0 .exact. or positive, got {shots}: give a whole number"):
        statevector.measured_z(torch.ones(2), shots)


# One rule for dtypes

FUNCTIONS = {  # of two sets of angles
    "expval_z": lambda x, y: statevector.expval_z(x, y.unsqueeze(0)),
    "state": lambda x, y: statevector.state(x, y.unsqueeze(0)),
    "by keywords": lambda x, y: statevector.expval_z(x=x, theta=y.unsqueeze(0)),
    "rotated": lambda x, y: statevector.rotated(statevector.encoded(x), y),
    "entangled": lambda x, y: statevector.entangled(statevector.rotated(statevector.encoded(x), y)),
    "measured_z": lambda x, y: statevector.measured_z(statevector.rotated(statevector.encoded(x), y)),
    "measured_z with shots": lambda x, y: statevector.measured_z(statevector.rotated(statevector.encoded(x), y), 4),
    "phased": lambda x, y: statevector.phased(statevector.encoded(x).to(torch.complex64), y.expand(2, 3)),
}
every_function = pytest.mark.parametrize("name", FUNCTIONS)
precisions = torch.float16, torch.bfloat16, torch.float32, torch.float64


@every_function
@pytest.mark.parametrize("first", precisions)
@pytest.mark.parametrize("second", precisions)
def test_every_function_answers_in_the_widest_precision_of_its_tensors(name, first, second):
    x, y = (angles.detach() for angles in circuit(3, 0, 2)[:1] * 2)
    found = FUNCTIONS[name](x.to(first), y[0].to(second))
    given = torch.float32 if name == "phased" else first  # that of complex64
    expected = torch.promote_types(given, second)
    assert found.dtype == (expected.to_complex() if name == "phased" else expected)


@every_function
def test_every_function_refuses_angles_that_are_no_real_floating_point_numbers(name):
    for x, y in ((torch.ones(2, 3).long(), torch.ones(3)), (torch.ones(2, 3), torch.ones(3).bool())):
        with pytest.raises(TypeError, match=r"angles .*, got torch\.(int64|bool): convert them"):
            FUNCTIONS[name](x, y)
    with pytest.raises(TypeError, match=r"angles .*, got torch\.complex128: convert them"):
        FUNCTIONS[name](torch.ones(2, 3), torch.ones(3).to(torch.complex128))


def test_states_of_integers_are_refused():
    for shots in (0, 5):
        with pytest.raises(TypeError, match=r"states must be of floating-point or complex numbers .*, got torch.int64"):
            statevector.measured_z(torch.tensor([0, 1]), shots)


@every_function
def test_every_function_computes_in_full_precision_under_autocast(name):
    x, y = (angles.detach().float() for angles in circuit(3, 0, 2)[:1] * 2)
    torch.manual_seed(0)
    expected = FUNCTIONS[name](x, y[0])
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(FUNCTIONS[name](x, y[0]), expected)


# Gate by gate


def random_states(n: int, *batch: int, seed: int = 0, dtype=torch.complex128) -> torch.Tensor:
    psi = torch.randn(*batch, 2**n, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return psi / psi.norm(dim=-1, keepdim=True)


def after(gates, psi, *angles) -> torch.Tensor:
    """The oracle: what PennyLane's gates make of given states, with angles for each of them or one set for all."""
    n = psi.shape[-1].bit_length() - 1

    def run(row, *angles):
        qml.StatePrep(row, range(n))
        gates(*angles)

    rows = [values.expand(*psi.shape[:-1], n).reshape(-1, n) for values in angles]
    node = qnode(run, qml.state, n)
    return torch.stack([node(*row) for row in zip(psi.reshape(-1, 2**n), *rows, strict=True)]).reshape(psi.shape)


def assert_state_is(found, expected, dtype):
    assert found.dtype == dtype
    torch.testing.assert_close(found.to(torch.complex128), expected, atol=1e-12, rtol=0)


def each(gate):
    """The gate with its own angle on every qubit."""
    return lambda angles: [gate(angle, i) for i, angle in enumerate(angles)]


def cnots(pairs):
    return lambda: [qml.CNOT(pair) for pair in pairs]


every_kind = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
every_block = pytest.mark.parametrize("qubits", [1, 2, 5])
widths = st.integers(1, 7)  # beyond 5 qubits there is more than one block


@given(n=widths, seed=seeds)
def test_encoded_data_are_the_state_after_h_and_ry(n, seed):
    x = circuit(n, 0, seed=seed)[0].detach()
    prepared = qnode(lambda x: [(qml.Hadamard(i), qml.RY(angle, i)) for i, angle in enumerate(x)], qml.state, n)
    assert_state_is(statevector.encoded(x), prepared(x), torch.float64)


@pytest.mark.parametrize("n", [3, 7])
def test_rows_are_encoded_as_each_alone(n):
    x = circuit(n, 0, 2, 3)[0].detach()
    found = statevector.encoded(x)
    assert found.shape == (2, 3, 2**n)
    torch.testing.assert_close(found, torch.stack([torch.stack([statevector.encoded(row) for row in rows]) for rows in x]))


@every_kind
@every_entangler
@given(n=widths, seed=seeds)
def test_a_named_entangler_acts_as_its_cnots(dtype, entangler, n, seed):
    psi = random_states(n, 2, seed=seed, dtype=dtype)
    expected = after(cnots(circuits.cnot_pairs(n, entangler)), psi)
    assert_state_is(statevector.entangled(psi, entangler), expected, dtype)


@every_kind
@given(n=st.integers(2, 7), drawn=st.data())
def test_given_cnots_act_one_after_the_other(dtype, n, drawn):
    qubits = st.permutations(range(n)).map(lambda order: (order[0], order[1]))
    pairs = drawn.draw(st.lists(qubits, max_size=6))
    psi = random_states(n, 2, dtype=dtype)
    assert_state_is(statevector.entangled(psi, pairs), after(cnots(pairs), psi), dtype)


def test_states_are_entangled_by_a_ring_unless_told_otherwise():
    psi = random_states(3)
    assert torch.equal(statevector.entangled(psi), statevector.entangled(psi, "ring"))


@every_kind
@pytest.mark.parametrize("own", [False, True], ids=["one set of angles", "a set for each state"])
@given(n=widths, seed=seeds)
def test_rotated_states_are_those_after_ry(dtype, own, n, seed):
    psi = random_states(n, 2, seed=seed, dtype=dtype)
    theta = circuit(n, 0, *[2] * own, seed=seed)[0].detach()
    assert_state_is(statevector.rotated(psi, theta), after(each(qml.RY), psi, theta), dtype)


@every_kind
@pytest.mark.parametrize("n", [3, 7])
@pytest.mark.parametrize("batch", [(), (1,), (2, 3)])
def test_any_leading_dimensions_of_states_are_turned_each_by_its_own_angles(dtype, n, batch):
    psi, theta = random_states(n, *batch, dtype=dtype), circuit(n, 0, *batch)[0].detach()
    assert_state_is(statevector.rotated(psi, theta), after(each(qml.RY), psi, theta), dtype)


@given(n=widths, seed=seeds)
def test_phased_states_are_those_after_rz(n, seed):
    psi, phi = random_states(n, 2, seed=seed), circuit(n, 0, 2, seed=seed)[0].detach()
    assert_state_is(statevector.phased(psi, phi), after(each(qml.RZ), psi, phi), torch.complex128)


@every_kind
@given(n=widths, seed=seeds)
def test_z_is_measured_as_by_pennylane(dtype, n, seed):
    psi = random_states(n, 2, seed=seed, dtype=dtype)
    node = qnode(lambda row: qml.StatePrep(row, range(n)), lambda: circuits.expval_z(n), n)
    expected = torch.stack([torch.stack(node(row)) for row in psi])
    torch.testing.assert_close(statevector.measured_z(psi), expected, atol=1e-12, rtol=0)


def test_phases_of_the_amplitudes_do_not_change_the_outcomes():
    psi = random_states(3, 4, 5)
    with_phases, without = (statevector.measured_z(p, 9, torch.Generator().manual_seed(0)) for p in (psi, psi.abs()))
    assert torch.equal(with_phases, without)


@every_entangler
@given(n=widths, depth=st.integers(0, 3), seed=seeds)
def test_gate_by_gate_the_layered_circuit_is_its_state(entangler, n, depth, seed):
    x, theta = (angles.detach() for angles in circuit(n, depth, 2, seed=seed))
    psi = statevector.encoded(x)
    for layer in theta:
        psi = statevector.rotated(statevector.entangled(psi, entangler), layer)
    torch.testing.assert_close(psi, statevector.state(x, theta, entangler), atol=1e-12, rtol=0)


def all_gates(x, theta, phi):
    """⟨Z⟩ after every kind of gate, on real states and then on complex ones."""
    psi = statevector.rotated(statevector.entangled(statevector.encoded(x), [(2, 0), (0, 1)]), theta)
    psi = statevector.phased(torch.complex(psi, torch.zeros_like(psi)), phi)
    return statevector.measured_z(statevector.entangled(statevector.rotated(psi, theta), "ring"))


def three_sets_of_angles(*batch: int, dtype=torch.float64) -> list[torch.Tensor]:
    """Of three qubits, leaves of the graph."""
    return [circuit(3, 0, *batch, seed=k, dtype=dtype)[0] for k in range(3)]


@every_block
@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_all_gates_can_be_differentiated_twice(monkeypatch, qubits, check):
    monkeypatch.setattr(statevector, "BLOCK_QUBITS", qubits)
    assert check(all_gates, three_sets_of_angles(2))


@every_block
@pytest.mark.parametrize("in_dims", [(0, 0, 0), (0, None, 0), (None, 0, None), (1, 1, 1)])
def test_vmap_of_all_gates_equals_a_loop_in_value_and_gradient(monkeypatch, qubits, in_dims):
    monkeypatch.setattr(statevector, "BLOCK_QUBITS", qubits)
    models, shapes = 4, {0: (4, 2), 1: (2, 4), None: (2,)}
    angles = [circuit(3, 0, *shapes[dim], seed=k)[0] for k, dim in enumerate(in_dims)]

    def loop(*angles):
        picked = ([t if d is None else t.select(d, k) for t, d in zip(angles, in_dims, strict=True)] for k in range(models))
        return torch.stack([all_gates(*model) for model in picked])

    def derivatives(function):
        value = function(*angles)
        weights = torch.linspace(-1, 2, value.numel(), dtype=value.dtype).reshape(value.shape)
        return value.detach(), *torch.autograd.grad((weights * value).sum(), angles)

    torch.testing.assert_close(derivatives(torch.vmap(all_gates, in_dims)), derivatives(loop), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("dtype", "wide"), [(torch.float32, torch.complex64), (torch.float64, torch.complex128)])
def test_gates_keep_the_precision(dtype, wide):
    x, theta, phi = (angles.detach() for angles in three_sets_of_angles(dtype=dtype))
    psi = statevector.entangled(statevector.rotated(statevector.encoded(x), theta))
    turned = statevector.rotated(statevector.phased(psi.to(wide), phi), theta)
    assert (psi.dtype, turned.dtype, statevector.measured_z(turned).dtype) == (dtype, wide, dtype)


def test_gates_that_were_used_in_inference_mode_can_be_trained_afterwards(fresh_tables):
    angles = three_sets_of_angles()
    with torch.inference_mode():
        all_gates(*angles)
    assert torch.autograd.gradcheck(all_gates, angles)


@pytest.mark.parametrize("pair", [(0, 0), (0, 3), (3, 0), (-1, 1), (1, -1)])
def test_a_cnot_that_is_none_is_refused_with_its_qubits(pair):
    with pytest.raises(ValueError, match=f"a CNOT needs two different qubits of 0 to 2, got {pair[0]} and {pair[1]}"):
        statevector.entangled(random_states(3), [(0, 1), pair])
