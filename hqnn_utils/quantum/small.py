"""Small batches: the same steps in NumPy, with the way back by hand.

A step of a small circuit is a hundred products of few numbers. Its time is the price of their calls, and NumPy's is lower than
torch's, which notes each for the way back. So up to `LARGEST` amplitudes values and first derivatives are computed here;
further derivatives, transforms, compilers and other devices take the steps in torch.

All angles of a kind go through one product and one sine, of which each step takes its columns. Gradients of states and of
matrices are kept conjugate: so they go back by the same products, and nothing is conjugated on the way.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import singledispatch
from typing import Any

import numpy as np
from numpy import ndarray
from torch import Tensor
from torch.utils._pytree import tree_map_only

from hqnn_utils.quantum.angles import CircuitAngles, Polynomials, Sources
from hqnn_utils.quantum.readout import Readout
from hqnn_utils.quantum.steps import (
    Apply,
    Begun,
    Block,
    Exchange,
    Features,
    Move,
    Phases,
    Prepared,
    Steps,
    require_norms,
)

LARGEST = 2**12
"""Amplitudes of all rows. Where there are more, arithmetic counts for more than the price of a call."""

MOST_FREQUENCIES = 2**20
"""Numbers in the frequencies of all features: where there are more, most are zeros."""

COMPLEX: dict[Any, Any] = {np.dtype("float32"): np.dtype("complex64"), np.dtype("float64"): np.dtype("complex128")}
REAL: dict[Any, Any] = {value: key for key, value in COMPLEX.items()}

Back = Callable[[ndarray], Any]
"""From the gradient of what a step has made to that of what it was given; the run keeps those of all else."""

Grads = list[ndarray | None]
"""Gradients, as far as they are needed."""


def _count(features: Features, n_angles: int) -> int:
    """How many times the features are taken, each time of other angles."""
    return (n_angles if features.places is None else len(features.places)) // len(features.frequencies)


def _all_features(steps: Steps) -> Iterator[tuple[Features, bool]]:
    """Of all steps, and whether they are of the data's angles."""
    yield from ((one.features, True) for one in steps.start if isinstance(one, Prepared) and one.features is not None)
    yield from ((part.features, False) for group in steps.groups for part in group if part.features is not None)
    yield from ((step.features, step.of_data) for step in steps.steps if isinstance(step, Phases))


def small_of(steps: Steps, readout: Readout, sources: Sources) -> "Small | None":
    """The steps for small batches.

    None for a circuit that is never small, is given matrices, or is read more than once; nor for a single product of real
    numbers, which torch does as fast.
    """
    parts = [part for group in steps.groups for part in group]
    is_short = sum(part.parts for part in parts) <= 1 and not any(part.is_complex for part in parts) and len(steps.steps) <= 1
    is_read_at_once = readout.squared is None and readout.turns == [None] and readout.outcomes[0].left is None
    is_given = any(isinstance(step, Apply) for step in steps.steps)
    if is_short or is_given or not is_read_at_once or len(readout.outcomes[0].right) > LARGEST:
        return None
    n_angles = sources.shared.n_angles, sources.data.n_angles
    sizes = ((n_angles[data], _count(one, n_angles[data]) * len(one.phases)) for one, data in _all_features(steps))
    return Small(steps, readout, sources) if sum(a * b for a, b in sizes) <= MOST_FREQUENCIES else None


class Small:
    """Steps and readout in NumPy: a function of the input and of all weights.

    Attributes:
        of_angles: whether it is one of all angles, matrices and states instead, since torch computes some of these.
    """

    def __init__(self, steps: Steps, readout: Readout, sources: Sources):
        self.steps, self.right, self.sources = _arrays((steps, readout.outcomes[0].right, sources))
        self.dtype, self.right_of_parts = np.dtype(str(readout.dtype).removeprefix("torch.")), self.right.repeat(2, axis=0)
        pools = self.sources.shared, self.sources.data
        self.of_angles = any(pool.others is not None or not all(one.is_unit for one in pool.moved) for pool in pools)
        self.polynomials = [pool.polynomials and _spread(pool.polynomials, self.dtype) for pool in pools]
        wide: list[list[ndarray]] = [[np.zeros((pool.n_angles + 1, 0), self.dtype)] for pool in pools]
        self.columns: dict[int, tuple[bool, slice]] = {}
        for features, of_data in _all_features(self.steps):
            n, (m, _) = pools[of_data].n_angles, features.frequencies.shape
            each = np.zeros((n + 1, _count(features, n), len(features.phases)), self.dtype)
            each[n] = features.phases
            for i, place in enumerate(range(n) if features.places is None else features.places):
                each[place, i // m] += features.frequencies[i % m]
            start = sum(part.shape[1] for part in wide[of_data])
            self.columns[id(features)] = of_data, slice(start, start + each[0].size)
            wide[of_data].append(each.reshape(n + 1, -1))
        self.frequencies, self.phases, self.used = [], [], list[ndarray | None]()
        for each in map(np.hstack, wide):
            used = np.flatnonzero(each[:-1].any(axis=1))  # of an angle without use, NaN would be one of all features
            self.frequencies.append(each[used])
            self.phases.append(each[-1])
            self.used.append(None if len(used) == len(each) - 1 else used)

    def run(self, inputs: Sequence[ndarray], n_shared: int) -> tuple[ndarray, Callable[[ndarray, Sequence[bool]], Grads]]:
        """What is measured; and from its gradient those of the inputs, as far as they are needed."""
        if self.of_angles:
            run = Pass(self, placed(inputs, n_shared))
        else:
            angles, sources_back = self._drawn(*inputs)
            run = Pass(self, angles)
        psi, backs = run.begin()
        for step in self.steps.steps:
            psi, back = act(step, psi, run)
            backs.append(back)
        parts = psi.view(self.dtype)  # real and imaginary ones
        right = self.right if psi.dtype == self.dtype else self.right_of_parts

        def back_of_all(grad: ndarray, needed: Sequence[bool]) -> Grads:
            shared = needed[0] if self.of_angles else any(needed[1:])
            data = needed[1] if self.of_angles else needed[0] or (shared and self.polynomials[True] is not None)
            run.needed = shared, data
            run.grads = [np.empty_like(sines) if need else sines for sines, need in zip(run.sines, run.needed, strict=True)]
            grad = (2 * grad @ self.right.T).astype(self.dtype, copy=False) * psi.conj()
            for back in reversed(backs):
                grad = back(grad)
            found = run.angle_grads()
            if not self.of_angles:
                of_shared, of_data = found
                return sources_back(of_shared, of_data, run.arrays)
            return [*found, *(run.arrays.get((i - n_shared * (i >= n_shared), i >= n_shared)) for i in range(len(inputs) - 2))]

        return (parts * parts @ right).astype(self.dtype, copy=False), back_of_all

    def _drawn(self, x: ndarray, *weights: ndarray) -> tuple[CircuitAngles, Callable[[Any, Any, Any], Grads]]:
        """Angles and states of the input and of weights, and the way back."""
        pools = self.sources.shared, self.sources.data
        given = [[(one, _unit(one, (x, *weights)[one.argument])) for one in pool.moved] for pool in pools]
        flat = [weights[i].reshape(1, -1) for i in self.sources.flat]
        v = flat[0] if len(flat) == 1 else np.hstack([np.zeros((1, 0), x.dtype), *flat])
        shared, shared_back = _polynomials(self.polynomials[False], v, v)
        everything = x if self.polynomials[True] is None else np.hstack([x, v.repeat(len(x), axis=0)])
        data, data_back = _polynomials(self.polynomials[True], x, everything)

        def back(of_shared: ndarray | None, of_data: ndarray | None, of_arrays: dict[tuple[int, bool], ndarray]) -> Grads:
            found: Grads = [None] * (1 + len(weights))
            if of_data is not None:
                found[0], of_all = data_back(of_data)
                if of_all is not None:
                    found[0] = found[0] + of_all[:, : x.shape[1]]
            if of_shared is not None:
                of_v, again = shared_back(of_shared)
                of_v = of_v if again is None else of_v + again
                of_v = of_v if of_data is None or of_all is None else of_v + of_all[:, x.shape[1] :].sum(0)
                place = 0
                for i in self.sources.flat:
                    found[1 + i] = of_v[:, place : place + weights[i].size]
                    place += weights[i].size
            for (output, is_of_data), grad in of_arrays.items():
                one, (_, unit_back) = given[is_of_data][output]
                before = found[one.argument]
                made = unit_back(grad)
                found[one.argument] = made if before is None else before + made.reshape(before.shape)
            return found

        shared_states, data_states = ([unit for _, (unit, _) in some] for some in given)
        return placed([shared, data, *shared_states, *data_states], len(shared_states)), back


def _unit(of: Any, argument: ndarray) -> tuple[ndarray, Back]:
    """Rows of the input, or all of a weight, divided by their norm; from its gradient theirs."""
    flat = argument.reshape(-1 if of.argument else len(argument), len(of.places))
    norms = np.sqrt((flat * flat).sum(-1, keepdims=True))
    unit, order = flat / norms, np.argsort(of.places)

    def back(grad: ndarray) -> ndarray:
        grad = grad[:, order]
        return (grad - unit * (unit * grad).sum(-1, keepdims=True)) / norms

    return unit[:, of.places], back


def placed(inputs: Sequence[Any], n_shared: int) -> CircuitAngles:
    """Angles, and matrices and states, of which the first are shared."""
    return CircuitAngles(inputs[0], inputs[1], inputs[2 : 2 + n_shared], inputs[2 + n_shared :])


def _spread(of: Any, dtype: np.dtype) -> Polynomials:
    """With matrices that choose the factors of the products."""
    ones = np.eye(len(of.linear))
    return of._replace(left=ones[:, of.left].astype(dtype), right=ones[:, of.right].astype(dtype))


def _polynomials(
    of: Any, own: ndarray, variables: ndarray
) -> tuple[ndarray, Callable[[ndarray], tuple[ndarray, ndarray | None]]]:
    """Angles, of which the first are `own`; from their gradient that of these and of the variables."""
    if of is None:
        return own, lambda grad: (grad, None)
    left, right = variables @ of.left, variables @ of.right

    def back(grad: ndarray) -> tuple[ndarray, ndarray]:
        n = own.shape[1]
        each = grad[:, n:] @ of.products.T
        return grad[:, :n], grad[:, n:] @ of.linear.T + (each * right) @ of.left.T + (each * left) @ of.right.T

    return np.hstack([own, variables @ of.linear + of.constant + (left * right) @ of.products]), back


class Pass:
    """One pass: the angles' sines, all matrices of blocks, and what comes back to them."""

    grads: list[ndarray]
    needed: tuple[bool, bool]

    def __init__(self, of: Small, angles: CircuitAngles):
        self.of, self.angles, self.inputs = of, angles, (angles.shared.reshape(1, -1), angles.data)
        chosen = [a if used is None else a[:, used] for a, used in zip(self.inputs, of.used, strict=True)]
        self.sums = [a @ f + p for a, f, p in zip(chosen, of.frequencies, of.phases, strict=True)]
        self.sines = [np.sin(sums) for sums in self.sums]
        self.arrays: dict[tuple[int, bool], ndarray] = {}
        self.groups = [[_matrices(part, self) for part in group] for group in of.steps.groups]
        self.back_of = [[np.empty_like(matrices) for matrices in group] for group in self.groups]

    def take(self, features: Features) -> ndarray:
        """The features of a step."""
        of_data, columns = self.of.columns[id(features)]
        return self.sines[of_data][:, columns]

    def give(self, features: Features, grad: ndarray) -> None:
        """Their gradient."""
        of_data, columns = self.of.columns[id(features)]
        self.grads[of_data][:, columns] = grad.reshape(len(self.inputs[of_data]), -1)

    def begin(self) -> tuple[ndarray, list[Back]]:
        """The state in which all qubits begin."""
        psi, back = begin(self.of.steps.start[0], self)
        for first in self.of.steps.start[1:]:
            psi, back = _product(psi, back, *begin(first, self))
        return psi, [back]

    def angle_grads(self) -> Grads:
        """Of the angles, shared and the data's, as far as they are needed."""
        if self.needed[False]:
            for group, grads in zip(self.of.steps.groups, self.back_of, strict=True):
                for part, grad in zip(group, grads, strict=True):
                    if part.features is not None:
                        self.give(part.features, _rows(_entries(grad), part) @ part.tables.swapaxes(-1, -2))
        return [self._angle_grads(of_data) if self.needed[of_data] else None for of_data in (False, True)]

    def _angle_grads(self, of_data: bool) -> ndarray:
        found = (self.grads[of_data] * np.cos(self.sums[of_data])) @ self.of.frequencies[of_data].T
        used = self.of.used[of_data]
        if used is None:
            return found
        whole = np.zeros_like(self.inputs[of_data])
        whole[:, used] = found
        return whole


def _arrays(tree: Any) -> Any:
    """All tensors of a tree in NumPy."""
    return tree_map_only(Tensor, Tensor.numpy, tree)


def _numbers(found: ndarray, is_complex: bool) -> ndarray:
    """What came out of a table, where real and imaginary parts stand side by side."""
    return found.view(COMPLEX[found.dtype]) if is_complex else found


def _entries(grad: ndarray) -> ndarray:
    """The gradient of that, from the conjugate one."""
    return grad.conj().view(REAL[grad.dtype]) if np.iscomplexobj(grad) else grad


def _like(grad: ndarray, of: ndarray) -> ndarray:
    """The gradient of what may be real, and may have been one row for all."""
    if grad.shape != of.shape:
        grad = grad.sum(tuple(i for i, size in enumerate(of.shape) if size != grad.shape[i]), keepdims=True)
    return grad.real if np.iscomplexobj(grad) and not np.iscomplexobj(of) else grad


def _rows(entries: ndarray, part: Any) -> ndarray:
    """The entries of matrices as rows of their tables."""
    return entries.reshape(*part.tables.shape[:-2], -1, part.tables.shape[-1])


def _matrices(part: Any, run: Pass) -> ndarray:
    """Of all parts and blocks, `(parts, blocks, size, size)`."""
    found = part.tables
    if part.features is not None:
        found = run.take(part.features).reshape(*part.tables.shape[:-2], -1, part.tables.shape[-2]) @ part.tables
    size = part.shape[-1 - part.is_complex]
    return _numbers(found.reshape(part.parts, part.blocks, size, -1), part.is_complex)


# How qubits begin


@singledispatch
def begin(first: Any, run: Pass) -> tuple[ndarray, Back]:
    """The state of some qubits, and the way back."""
    raise TypeError(first)


@begin.register(Prepared)
def _(first: Any, run: Pass) -> tuple[ndarray, Back]:
    if first.features is None:
        return _numbers(first.table, first.is_complex), lambda grad: None
    found = run.take(first.features)

    def back(grad: ndarray) -> None:
        if run.needed[1]:
            run.give(first.features, grad if first.table is None else _entries(grad) @ first.table.T)

    return found if first.table is None else _numbers(found @ first.table, first.is_complex), back


@begin.register(Begun)
def _(first: Any, run: Pass) -> tuple[ndarray, Back]:
    given: Any = run.angles.array(first.output, first.of_data)
    require_norms(np.linalg.norm(given, axis=-1))

    def back(grad: ndarray) -> None:
        run.arrays[first.output, first.of_data] = grad.conj().reshape(given.shape)

    return given.reshape(-1, given.shape[-1]), back


def _product(a: ndarray, back_of_a: Back, b: ndarray, back_of_b: Back) -> tuple[ndarray, Back]:
    """Of two sets of qubits the state of both."""
    left, right = a[:, :, None], b[:, None, :]
    made = left * right

    def back(grad: ndarray) -> None:
        grad = grad.reshape(made.shape)
        back_of_a(_like(grad * right, left)[:, :, 0])
        back_of_b(_like(grad * left, right)[:, 0])

    return made.reshape(len(made), -1), back


# What is done to them


@singledispatch
def act(step: Any, psi: ndarray, run: Pass) -> tuple[ndarray, Back]:
    """States after a step, and the way back."""
    raise TypeError(step)


def _moved(psi: ndarray, move: Move, size: int) -> ndarray:
    """States with some qubits at their end, `(rows, 2**n)` → `(rows, rest, size)`."""
    if move is None:
        return psi.reshape(len(psi), -1, size)
    sizes, order, _ = move
    return psi.reshape(-1, *sizes).transpose(0, *(1 + axis for axis in order)).reshape(len(psi), -1, size)


def _moved_back(grad: ndarray, move: Move) -> ndarray:
    """The other way round."""
    if move is not None:
        sizes, order, _ = move
        grad = grad.reshape(-1, *(sizes[axis] for axis in order)).transpose(0, *(1 + np.argsort(order)))
    return grad.reshape(len(grad), -1)


@act.register(Block)
def _(step: Any, psi: ndarray, run: Pass) -> tuple[ndarray, Back]:
    rows = _moved(psi, step.move, step.size)
    shape = rows.shape
    before = [rows.reshape(-1, step.size)]
    places = [(part, i) for part, some in enumerate(run.groups[step.group]) for i in range(len(some))]
    matrices = [run.groups[step.group][part][i, step.member] for part, i in places]
    for matrix in matrices:
        before.append(before[-1] @ matrix)
    made = before.pop().reshape(psi.shape)

    def back(grad: ndarray) -> ndarray:
        grad = grad.reshape(-1, step.size)
        for psi, matrix, (part, i) in zip(reversed(before), reversed(matrices), reversed(places), strict=True):
            if run.needed[0]:
                run.back_of[step.group][part][i, step.member] = _like(psi.T @ grad, matrix)
            grad = _like(grad @ matrix.T, psi)
        return _moved_back(grad.reshape(shape), step.move)

    return made, back


@act.register(Phases)
def _(step: Any, psi: ndarray, run: Pass) -> tuple[ndarray, Back]:
    phases = _numbers(run.take(step.features), True)
    size = phases.shape[-1]
    shape = {None: (len(psi), size), 0: (len(psi), size, -1), 1: (len(psi), -1, size)}[step.half]
    if step.half is not None:
        phases = phases[:, :, None] if step.half == 0 else phases[:, None, :]
    parts = psi.reshape(shape)
    made = parts * phases

    def back(grad: ndarray) -> ndarray:
        grad = grad.reshape(made.shape)
        if run.needed[step.of_data]:
            run.give(step.features, _entries(_like(grad * parts, phases).reshape(len(phases), -1)))
        return _like(grad * phases, parts).reshape(psi.shape)

    return made.reshape(len(made), -1), back


@act.register(Exchange)
def _(step: Any, psi: ndarray, run: Pass) -> tuple[ndarray, Back]:
    made = psi.take(step.order, -1)

    def back(grad: ndarray) -> ndarray:
        grad = grad if step.phases is None else grad * step.phases
        return _like(grad.take(step.inverse, -1), psi)

    return made if step.phases is None else made * step.phases, back
