"""The layered circuit as two functions of tensors: its states, and its expectation values.

Both are the program of `circuits.layered` (`quantum.fusion`). Derived in book/foundations/simulation.
"""

import pennylane as qml
from jaxtyping import Float
from torch import Tensor

from hqnn_utils.quantum import circuits
from hqnn_utils.quantum.circuits import cnot_pairs, given, layered
from hqnn_utils.quantum.compilation import constant, key_of, ready
from hqnn_utils.quantum.inputs import one_dtype
from hqnn_utils.quantum.tracing import Definition


@one_dtype
def expval_z(
    x: Float[Tensor, "*batch n"], theta: Float[Tensor, "depth width"], entangler: str = "ring"
) -> Float[Tensor, "*batch n"]:
    """⟨Z_i⟩ of every qubit of `circuits.layered(x, theta, entangler)`, exactly.

    Args:
        x: encoded data, radians, any leading dimensions.
        theta: trainable angles, radians, on the same device.
        entangler: one of `circuits.ENTANGLERS`.

    Returns:
        Expectation values in [-1, 1], the shape of `x`; their dtype, as of all functions here, by `inputs.one_dtype`.

    Raises:
        TypeError: angles that are no real floating-point numbers.
        ValueError: an unknown entangler, or `theta` of another width than `x`.
        MemoryError: before anything is allocated, if the states that the backward pass keeps cannot fit.

    Works under `torch.vmap`, also over stacked `theta`; the rows of all models are counted.
    """
    return _run(x, theta, entangler, of_states=False)


@one_dtype
def state(
    x: Float[Tensor, "*batch n"], theta: Float[Tensor, "depth width"], entangler: str = "ring"
) -> Float[Tensor, "*batch dim"]:
    """The state vector of `circuits.layered(x, theta, entangler)`: real, `2**n` amplitudes, qubit 0 leftmost.

    Args and errors as for `expval_z`.
    """
    return _run(x, theta, entangler, of_states=True)


@constant
def _key(n: int, depth: int, entangler: str, of_states: bool) -> str:
    measure = qml.state if of_states else given(circuits.expval_z, n)
    return key_of(Definition(given(layered, entangler=entangler), (("theta", (depth, n)),), measure, tuple(range(n))))


def _run(x: Tensor, theta: Tensor, entangler: str, of_states: bool) -> Tensor:
    depth, n = map(int, theta.shape)
    if x.shape[-1] != n or n < 1:
        raise ValueError(f"x has {x.shape[-1]} angles a row and theta {n}: both need one for each qubit")
    cnot_pairs(n, entangler)  # refuses an unknown entangler
    found = ready(_key(n, depth, entangler, of_states), n, x.dtype, x.device).outputs(x.reshape(-1, n), [theta])
    return found.reshape(*x.shape[:-1], found.shape[-1])
