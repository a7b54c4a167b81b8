"""Where the angles of a circuit come from: functions of a row of the input and of all weights.

Most angles are an input or a weight as it is. Most others are sums of products of two of these, such as `scale * x`: they are
one matrix product. What is left, such as `torch.arctan(x)`, stays the graph that torch has traced, and so do matrices and
states that depend on inputs or weights, unless they are the numbers of one argument as they are.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, no_type_check

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

# Compilers take these objects as constants, and cannot guard what a type checker at run time wraps around their methods.


@no_type_check
class CircuitAngles(NamedTuple):
    """Angles of a circuit, and the matrices and states that are given to it: `(rows, …)` what depends on the data."""

    shared: Tensor  # (angles,) or (1, angles)
    data: Tensor  # (rows, angles)
    shared_arrays: Sequence[Tensor] = ()
    data_arrays: Sequence[Tensor] = ()

    def array(self, output: int, of_data: bool) -> Tensor:
        """A matrix or a state."""
        return (self.data_arrays if of_data else self.shared_arrays)[output]


@no_type_check
class Polynomials(NamedTuple):
    """Polynomials of second degree in variables v: `constant + v @ linear + (v[left] * v[right]) @ products`."""

    constant: Tensor  # (polynomials,)
    linear: Tensor  # (variables, polynomials)
    left: Tensor  # (products,), of variables
    right: Tensor
    products: Tensor  # (products, polynomials)

    def of(self, v: Tensor) -> Tensor:
        """`(…, variables)` → `(…, polynomials)`."""
        found = v @ self.linear + self.constant
        if not len(self.left):
            return found
        return found + (v.index_select(-1, self.left) * v.index_select(-1, self.right)) @ self.products


@no_type_check
class Moved(NamedTuple):
    """A matrix or a state that is numbers of one argument as they are, or all of them divided by their norm."""

    argument: int
    places: Tensor
    """Which of its numbers, in the shape of the matrix or state."""
    is_unit: bool

    def of(self, flat: Tensor) -> Tensor:
        """`(…, numbers)` of the argument."""
        return (flat / torch.linalg.vector_norm(flat, dim=-1, keepdim=True) if self.is_unit else flat)[..., self.places]


@no_type_check
class Pool(NamedTuple):
    """Angles: variables as they are, then polynomials in variables, then all others. And matrices and states."""

    n_angles: int
    polynomials: Polynomials | None
    moved: tuple[Moved, ...]
    others: GraphModule | None
    """All arguments → all other angles, then all other matrices and states."""
    n_others: int
    """How many of these are angles."""
    of_rows: GraphModule | None = None
    """The others of all rows at once, if that is known."""

    def drawn(
        self, own: Tensor, variables: Tensor, arguments: Sequence[Tensor], run: Callable[[GraphModule], Sequence[Tensor]]
    ) -> tuple[Tensor, list[Tensor]]:
        """All angles, of which the first are `own`; matrices and states."""
        angles = [own]
        arrays = [one.of(arguments[one.argument].reshape(*own.shape[:-1], -1)) for one in self.moved]
        if self.polynomials is not None:
            angles.append(self.polynomials.of(variables))
        if self.others is not None:
            found = list(run(self.others if own.device.type == "cpu" else self.others.to(own.device)))
            if self.n_others:
                angles.append(torch.stack(found[: self.n_others], dim=-1).to(own.dtype))
            arrays += found[self.n_others :]
        return angles[0] if len(angles) == 1 else torch.cat(angles, dim=-1), arrays


def _is_plain(pool: Pool) -> bool:
    """Whether its angles are variables as they are, and there are no matrices and no states."""
    return pool.polynomials is None and not pool.moved and pool.others is None


@no_type_check
class Sources(NamedTuple):
    """Where all angles come from: those that depend on weights alone, and those that depend on the input."""

    shared: Pool
    """Its variables are the flat weights, one after the other."""
    data: Pool
    """Its variables are a row of the input, which may be angles themselves, and the same weights."""
    flat: tuple[int, ...]
    """Which of the weights are variables; the others enter as matrices or states, or through the graph."""
    is_plain: bool
    """Whether all angles are inputs and weights as they are, of one tensor of weights."""

    @property
    def has_functions(self) -> bool:
        """Whether a graph computes some of them."""
        return self.shared.others is not None or self.data.others is not None

    def angles(self, x: Tensor, weights: Sequence[Tensor]) -> CircuitAngles:
        """Of inputs `(rows, n_inputs)`."""
        if self.is_plain:
            return CircuitAngles(weights[0].reshape(1, -1), x)
        arguments = x, *weights
        flat = [weights[i].reshape(-1) for i in self.flat]
        v = flat[0] if len(flat) == 1 else torch.cat(flat) if flat else x.new_zeros(0)
        shared, shared_arrays = self.shared.drawn(v, v, arguments, lambda graph: graph(*arguments))
        if _is_plain(self.data):
            return CircuitAngles(shared, x, shared_arrays)
        everything = x if self.data.polynomials is None else torch.cat([x, v.expand(*x.shape[:-1], -1)], dim=-1)
        rows = 0, *[None] * len(weights)

        def computed(graph: GraphModule) -> Sequence[Tensor]:
            if self.data.of_rows is not None and len(x) > 1 and x.device.type == "cpu":
                return self.data.of_rows(*arguments)
            return torch.vmap(graph, rows)(*arguments)

        data, data_arrays = self.data.drawn(x, everything, arguments, computed)
        return CircuitAngles(shared, data, shared_arrays, data_arrays)


# What a graph says of its results

_MOVES = {"alias", "cat", "clone", "detach", "expand", "permute", "reshape", "select", "slice", "split", "split_with_sizes",
          "squeeze", "stack", "t", "transpose", "unbind", "unsqueeze", "view", "getitem", "flip", "roll", "_to_copy",
          "_unsafe_view", "index_select", "diagonal"}  # fmt: skip
"""Operations of torch that only move numbers."""

_LINEAR = _MOVES | {"neg", "add", "sub", "rsub", "sum", "ones_like", "zeros_like"}
"""Operations whose results are of no higher degree than what goes in."""


class _Known(NamedTuple):
    """What is known of the elements of a node of a graph."""

    degree: int | float
    """As polynomials in inputs and weights; infinite if they are none."""
    inputs: frozenset[int]
    """On which arguments they depend."""
    is_moved: bool
    """Whether they are elements of arguments as they are."""


def _name(node: Node) -> str:
    return str(getattr(node.target, "__name__", node.target)).split(".")[0]


def _degree(node: Node, known: dict[Node, _Known]) -> int | float:
    """Of which degree, as polynomials in inputs and weights, the elements of a node are; infinite if they are none."""
    most, name, args = max((known[parent].degree for parent in node.all_input_nodes), default=0), _name(node), node.args
    if not most or name in _LINEAR:
        return most
    if name in ("mul", "mm", "mv", "dot", "bmm"):
        return sum(known[a].degree for a in args if isinstance(a, Node))
    if name == "div" and not (isinstance(args[1], Node) and known[args[1]].degree):
        return most
    if name == "pow" and isinstance(args[1], int) and args[1] > 0:
        return most * args[1]
    return float("inf")


def _followed(graph: GraphModule) -> tuple[list[Node], list[_Known]]:
    """The arguments of a graph, and what is known of its results."""
    *nodes, output = graph.graph.nodes
    arguments = [node for node in nodes if node.op == "placeholder"]
    known = {node: _Known(1, frozenset([i]), True) for i, node in enumerate(arguments)}
    for node in nodes[len(arguments) :]:
        parents = [known[parent] for parent in node.all_input_nodes]
        moved = _name(node) in _MOVES and all(parent.is_moved for parent in parents)
        known[node] = _Known(_degree(node, known), frozenset[int]().union(*(parent.inputs for parent in parents)), moved)
    return arguments, [known[result] for result in output.args[0]]


def _only(graph: GraphModule, outputs: list[int]) -> GraphModule:
    """The graph of some of the outputs."""
    chosen, found = torch.fx.Graph(), dict[Node, Node]()
    (results,) = next(node for node in graph.graph.nodes if node.op == "output").args
    chosen.graph_copy(graph.graph, found)
    chosen.output(tuple(found[results[i]] for i in outputs))
    chosen.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
    return GraphModule(graph, chosen)


def _of_rows(graph: GraphModule, arguments: list[Tensor]) -> GraphModule | None:
    """The graph of any number of rows, at least two, without the price of `torch.vmap`; none if torch cannot tell it."""
    x, *weights = arguments
    mapped = torch.vmap(graph, (0, *[None] * len(weights)))

    def some(rows: int) -> list[Tensor]:
        return [x + torch.arange(float(rows)).unsqueeze(-1), *weights]

    try:
        found = make_fx(mapped, tracing_mode="symbolic")(*some(3))
        for rows in (2, 5):
            torch.testing.assert_close(found(*some(rows)), mapped(*some(rows)), equal_nan=True)
    except Exception:  # whatever an operation lacks
        return None
    return found


class Analysis:
    """A graph from a row of the input and all weights to angles, matrices and states, taken apart.

    Attributes:
        unused: which of the arguments nothing depends on.
        is_constant, of_data: of each result, whether it depends on nothing, and whether on the input.
        places: of each result, where it stands among the angles, or among the matrices and states, of its pool.
        sources: the pools.
    """

    def __init__(self, graph: GraphModule, arguments: list[Tensor], is_angle: list[bool]):
        self.graph, self.arguments, self.is_angle = graph, arguments, is_angle
        nodes, self.known = _followed(graph)
        self.unused = [i for i, node in enumerate(nodes) if not node.users]
        self.moved = self._moved()
        inputs = [{moved.argument} if moved else known.inputs for known, moved in zip(self.known, self.moved, strict=True)]
        self.is_constant, self.of_data = [not known.degree for known in self.known], [0 in some for some in inputs]
        of_polynomials = [inputs[i] for i, known in enumerate(self.known) if is_angle[i] and known.degree <= 2]
        self.flat = sorted(set().union(*of_polynomials) - {0})
        self.places: dict[int, int] = {}
        shared, data = self._pool(self.flat, of_data=False), self._pool([0, *self.flat], of_data=True)
        is_plain = self.flat == [1] and _is_plain(shared) and _is_plain(data)
        self.sources = Sources(shared, data, tuple(i - 1 for i in self.flat), is_plain)

    def _moved(self) -> list[Moved | None]:
        """Of each result the argument whose numbers it is, if it is these as they are, or all of them divided by their norm.

        Numbers that are only moved tell, by their value, where they came from. One that does not change sign is a constant.
        """
        ends = np.cumsum([0, *(argument.numel() for argument in self.arguments)])
        numbers = [
            torch.arange(start, end, dtype=torch.float64).view(argument.shape) + 1
            for start, end, argument in zip(ends[:-1], ends[1:], self.arguments, strict=True)
        ]
        found: list[Moved | None] = []
        for known, a, b in zip(self.known, self.graph(*numbers), self.graph(*(-part for part in numbers)), strict=True):
            found.append(self._unit(len(found), a, numbers))
            if known.is_moved and not a.is_complex() and a.numel() and bool((a == -b).all() and (a != 0).all()):
                argument = int(np.searchsorted(ends, int(a.min()) - 1, side="right")) - 1
                if a.max() <= ends[argument + 1]:
                    found[-1] = Moved(argument, a.long() - 1 - int(ends[argument]), False)
        return found

    def _unit(self, i: int, a: Tensor, numbers: list[Tensor]) -> Moved | None:
        """The same of all numbers of one argument divided by their norm, as two points tell."""
        if self.is_angle[i] or a.is_complex() or a.ndim != 1 or len(self.known[i].inputs) != 1:
            return None
        (argument,) = self.known[i].inputs
        first = numbers[argument].flatten()
        places = (a * first.norm() - first[0]).round().long()
        if sorted(places.tolist()) != list(range(len(first))):
            return None
        found = Moved(argument, places, True)
        others = [torch.cos(part) for part in numbers]
        values = [(a, first), (self.graph(*others)[i], others[argument].flatten())]
        return found if all(torch.allclose(value, found.of(flat), 1e-12, 1e-12) for value, flat in values) else None

    def _pool(self, variables: list[int], *, of_data: bool) -> Pool:
        """The results that depend on the input, or that do not; the variables are some arguments, flat."""
        mine = [i for i, data in enumerate(self.of_data) if data == of_data and not self.is_constant[i]]
        angles, arrays = [i for i in mine if self.is_angle[i]], [i for i in mine if not self.is_angle[i]]
        moved = {i: source for i in mine if (source := self.moved[i])}
        polynomials = [i for i in angles if i not in moved and self.known[i].degree <= 2]
        others = [i for i in angles if i not in moved and i not in polynomials]
        arrays.sort(key=lambda i: i not in moved)
        computed = [i for i in arrays if i not in moved]
        sizes = [self.arguments[a].numel() for a in variables]
        starts = dict(zip(variables, np.cumsum([0, *sizes]).tolist(), strict=False))
        n_own = self.arguments[0].numel() if of_data else sum(sizes)
        self.places |= {i: starts[moved[i].argument] + int(moved[i].places) for i in angles if i in moved}
        self.places |= {i: n_own + place for place, i in enumerate(polynomials + others)}
        self.places |= {i: place for place, i in enumerate(arrays)}
        graph = _only(self.graph, others + computed) if others + computed else None
        return Pool(
            n_own + len(polynomials + others),
            self._polynomials(polynomials, variables, sizes) if polynomials else None,
            tuple(moved[i] for i in arrays if i in moved),
            graph,
            len(others),
            _of_rows(graph, self.arguments) if graph is not None and of_data else None,
        )

    def _polynomials(self, outputs: list[int], variables: list[int], sizes: list[int]) -> Polynomials:
        """Their derivatives at zero, which say all of polynomials of second degree."""
        zero = torch.zeros(sum(sizes), dtype=torch.float64)

        def values(v: Tensor) -> Tensor:
            parts = [torch.zeros_like(argument) for argument in self.arguments]
            for a, part in zip(variables, v.split(sizes), strict=True):
                parts[a] = part.view(self.arguments[a].shape)
            found = self.graph(*parts)
            return torch.stack([found[i] for i in outputs])

        halves = np.zeros((len(outputs), len(zero), len(zero)))
        if any(self.known[i].degree == 2 for i in outputs):
            hessians = torch.func.jacrev(torch.func.jacrev(values))(zero).numpy()  # (polynomials, variables, variables)
            halves = np.triu(hessians) * (1 - np.eye(len(zero)) / 2)  # v_i v_j with i < j stands twice in a Hessian
        left, right = (halves != 0).any(axis=0).nonzero()
        linear, products = torch.func.jacrev(values)(zero).T, halves[:, left, right].T
        return Polynomials(values(zero), linear, *map(torch.from_numpy, (left, right, products)))


def converted(tree: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """All tensors of a tree, which are in double precision, in another one; indices remain indices."""
    wide = torch.complex128 if dtype == torch.float64 else torch.complex64

    def one(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(device, wide)
        return tensor.to(device, dtype if tensor.is_floating_point() else None)

    return torch.utils._pytree.tree_map_only(Tensor, one, tree)
