"""Quantum circuits as torch modules: what a hybrid network is built from."""

from jaxtyping import Float
from pennylane import Z, expval
from torch import Tensor, nn

from hqnn_utils.circuits import h_ry, qnode
from hqnn_utils.gradients import ShiftRule


class QuantumActivation(nn.Module):
    """f(θ) = ⟨Z⟩ of the one-qubit circuit H–R_Y(θ), one qubit for every element of the input.

    Exactly this equals -sin θ. Each call runs the circuits of the whole input as one broadcast batch, in float64, and
    returns the dtype of the input; it can be trained, differentiated twice and used under `torch.vmap`.

    Args:
        device: any PennyLane device.
        shots: measurements per circuit; 0 is exact. With shots each value is one of `shots + 1` steps in [-1, 1], and
            gradients are estimates from the same number of shots per shifted circuit.
        diff_method: `"backprop"` (through the simulator, exact only) or `"parameter-shift"` (any device, any shots);
            by default the first where it can be had.
        seed: of simulated shots; `None` takes a fresh one.

    Shape: input and output `(*)`; input angles in radians, output in [-1, 1].

    Raises:
        ValueError: negative shots, an unknown method, or backpropagation asked for where there is nothing to go through.

    Derived in book/foundations/pqc (value) and book/foundations/parameter_shift (gradient).
    """

    def __init__(self, device: str = "default.qubit", shots: int = 0, diff_method: str | None = None, seed: int | None = None):
        super().__init__()
        if shots < 0:
            raise ValueError(f"shots must be 0 (exact) or positive, got {shots}")
        exact = shots == 0 and device == "default.qubit"
        diff_method = diff_method or ("backprop" if exact else "parameter-shift")
        if diff_method not in ("backprop", "parameter-shift"):
            raise ValueError(f"diff_method must be 'backprop' or 'parameter-shift', got {diff_method!r}")
        if diff_method == "backprop" and not exact:
            raise ValueError("backpropagation needs default.qubit without shots: use diff_method='parameter-shift'")
        self.diff_method = diff_method
        inside = "backprop" if diff_method == "backprop" else None  # the shift rule is ours, around the device
        self.circuit = qnode(h_ry, lambda: expval(Z(0)), 1, device, shots, seed, diff_method=inside)

    def forward(self, theta: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return self.run(theta) if self.diff_method == "backprop" else ShiftRule.apply(self.run, theta)

    def run(self, theta: Tensor) -> Tensor:
        """⟨Z⟩ of every element; PennyLane broadcasts one axis, so the input is flattened and folded back."""
        return self.circuit(theta.reshape(-1)).reshape(theta.shape).to(theta.dtype)
