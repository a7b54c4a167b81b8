"""A middle of one's own: any module or circuit from n numbers to n numbers, found by name, and tried before it is trained."""

import hashlib
import inspect
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pennylane as qml
import torch
from torch import Tensor, nn

from hqnn_utils import named as names
from hqnn_utils.errors import BookError
from hqnn_utils.learning.models import Middle
from hqnn_utils.learning.training import Ensemble
from hqnn_utils.quantum.layers import CircuitLayer


class MiddleError(BookError):
    """A middle of one's own that can't be found, or can't be trained in a head."""


@dataclass(frozen=True)
class Own:
    """What makes a middle of one's own, called with n and depth."""

    name: str
    """Of its networks: `ResNet18-name`."""
    make: Middle
    fingerprint: str
    """Of its code and of what it does: so that what was trained with it is found again, and nothing else is."""

    def __call__(self, n: int, depth: int) -> nn.Module:
        """A middle, with weights of its own."""
        return self.make(n, depth)


def middle(named: str, n: int, depth: int = 2) -> Own:
    """What makes a middle of one's own for `methods.network`.

    Args:
        named: `package.module:attribute`, or `path/to/file.py:attribute`. The attribute may be a class of `torch.nn.Module`
            or a function that makes one, called with n or with n and depth; a module; PennyLane's `TorchLayer`; or a pair of
            a `QNode` and its weight shapes. Circuits are run by the engine where it can (`CircuitLayer.from_qnode`).
        n, depth: neurons and quantum depth for which it is tried.

    Raises:
        MiddleError: there is none, or it is none: another width, values that are not finite, or no gradient; an answer that
            depends on other rows or on chance; or it can't be trained many at a time. The sentence says what was found and
            what was expected.
    """
    try:
        make = _maker(names.attribute(named))
    except (TypeError, ValueError) as error:
        raise MiddleError(f"{named} is no middle ({error})") from None
    except BookError as error:
        raise MiddleError(f"a middle of your own: {error}") from None
    _try(named, make, n, depth)
    return Own(named.rpartition(":")[2], make, _fingerprint(named, make, n, depth))


def _maker(found: Any) -> Middle:
    if isinstance(found, qml.qnn.TorchLayer):
        shapes = {name: tuple(weight.shape) for name, weight in found.qnode_weights.items()}
        found = found.qnode, shapes
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], qml.QNode):
        qnode, shapes = found
        takes = [name for name in inspect.signature(qnode.func).parameters if name not in shapes]
        if len(takes) != 1:
            raise TypeError(f"the circuit needs one argument beside its weights {', '.join(shapes)}, got {', '.join(takes)}")
        return lambda n, depth: CircuitLayer.from_qnode(qnode, shapes, input_arg=takes[0])
    if isinstance(found, nn.Module):
        return lambda n, depth: _renewed(found)
    if not callable(found) or isinstance(found, qml.QNode):
        raise TypeError("expected a module, what makes one, a TorchLayer, or a pair of a QNode and its weight shapes")
    takes_depth = len(inspect.signature(found).parameters) > 1
    return lambda n, depth: found(n, depth) if takes_depth else found(n)


def _renewed(module: nn.Module) -> nn.Module:
    """A copy with weights of its own, as far as its parts know how to draw them."""
    copy = deepcopy(module)
    for part in copy.modules():
        if callable(draw := getattr(part, "reset_parameters", None)):
            draw()
    return copy


def _try(named: str, make: Middle, n: int, depth: int) -> None:
    """Refuse what could not be trained between two linear layers."""
    x = torch.linspace(-1, 1, 3 * n).reshape(3, n).requires_grad_()
    try:
        module = make(n, depth)
        if not isinstance(module, nn.Module):
            raise TypeError(f"a torch.nn.Module was expected, got {type(module).__name__}")
        y = module(x)
    except MemoryError:
        raise
    except Exception as error:  # what a module of anyone's may raise
        raise MiddleError(f"{named} doesn't take (3, {n}) numbers ({type(error).__name__}: {error})") from None
    if not isinstance(y, torch.Tensor) or y.shape != x.shape:
        got = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
        raise MiddleError(f"{named} makes {got} of (3, {n}): a middle hands on as many numbers as it takes")
    if not y.isfinite().all():
        raise MiddleError(f"{named} makes numbers that are not finite")
    if not y.requires_grad or torch.autograd.grad(y.sum(), x, allow_unused=True)[0] is None:
        raise MiddleError(f"{named} has no gradient with respect to its input, so that nothing before it could be trained")
    if not _is_settled(module, x.detach()):
        raise MiddleError(
            f"{named} has another answer for a row alone, or the second time: leave out batch norms, dropout and chance"
        )
    try:
        Ensemble(lambda: nn.Sequential(nn.Linear(n, n), make(n, depth)), [0, 1])(torch.stack([x.detach()] * 2))
    except Exception as error:
        raise MiddleError(
            f"{named} can't be trained many at a time, by torch.vmap ({type(error).__name__}: {str(error)[:200]}): "
            "leave out what looks at values"
        ) from None


def _fingerprint(named: str, make: Middle, n: int, depth: int) -> str:
    """Of the file, and of values and slopes over ten orders of size, since a file may use others that have changed.

    Empty where it takes no such values: what has no fingerprint is trained each time.
    """
    digest = hashlib.sha256(names.source(named).read_bytes())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = make(n, depth)
        x = (torch.randn(110, n) * torch.logspace(-5, 5, 110)[:, None]).requires_grad_()
        weights = dict(module.named_parameters())
        try:
            y = module(x)
            slopes = torch.autograd.grad(y.sum(), [x, *weights.values()], allow_unused=True)
        except Exception:  # what a module of anyone's may raise
            return ""
    for name, tensor in {"y": y, **dict(module.state_dict())}.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy(force=True).tobytes())
    for slope in slopes:
        digest.update(b"none" if slope is None else slope.numpy(force=True).tobytes())
    return digest.hexdigest()


def _is_settled(module: nn.Module, x: Tensor) -> bool:
    """Whether the answer for a row depends on this row alone, so that one image is judged as many are."""
    try:
        return torch.allclose(module(x[:1]), module(x)[:1], atol=1e-5)
    except (RuntimeError, ValueError):  # a batch norm takes no row alone
        return False
