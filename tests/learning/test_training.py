"""Many seeds at once, against a plain torch loop for each seed alone."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score
from torch import nn

from hqnn_utils.checks import NotFinite
from hqnn_utils.errors import BookError
from hqnn_utils.learning import training
from hqnn_utils.learning.training import Ensemble, accuracy, fit, negative_probability, top1
from hqnn_utils.quantum.layers import QuantumActivation, QuantumLayer

SEEDS = [3, 0, 11]
SETTINGS = {"epochs": 3, "batch_size": 4, "learning_rate": 0.05}


class Small(nn.Module):
    """Two linear layers around an activation, in float64: `(batch, 5)` → probabilities `(batch,)`."""

    def __init__(self, activation: nn.Module):
        super().__init__()
        self.first, self.activation, self.last = nn.Linear(5, 3), activation, nn.Linear(3, 1)
        self.double()

    def forward(self, images):
        return torch.sigmoid(self.last(self.activation(self.first(images)))).squeeze(-1)


BUILDS = {
    "tanh": lambda: Small(nn.Tanh()),
    "activation": lambda: Small(QuantumActivation()),
    "activation, backprop": lambda: Small(QuantumActivation("default.qubit")),
    "activation, parameter-shift": lambda: Small(QuantumActivation("default.qubit", "parameter-shift")),
    "layer": lambda: Small(QuantumLayer(3, 2)),
    "layer, backprop": lambda: Small(QuantumLayer(3, 2, "all", "default.qubit")),
    "layer, parameter-shift": lambda: Small(QuantumLayer(3, 2, "linear", "default.qubit", "parameter-shift")),
}


def task(n: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """`n` images that are rows of five numbers, and labels that can be learnt from them. Not a multiple of the batch."""
    images = torch.randn(n, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return images, (images.sum(dim=1) > 0).long()


def fitted(build=BUILDS["tanh"], seeds=SEEDS, **changes) -> tuple[Ensemble, torch.Tensor]:
    ensemble = Ensemble(build, seeds)
    return ensemble, fit(ensemble, *task(), negative_probability, **SETTINGS | changes)


def alone(
    build, seed: int, epochs: int, batch_size: int, learning_rate: float, optimizer=torch.optim.Adam, rates=None
) -> tuple[nn.Module, list[float]]:
    """The oracle: one model, one seed, the training loop of every torch tutorial."""
    images, labels = task()
    torch.manual_seed(seed)
    model = build()
    order = torch.Generator().manual_seed(seed)
    optimiser = optimizer(model.parameters(), lr=learning_rate)
    history = []
    for epoch in range(epochs):
        losses = []
        if rates:
            optimiser.param_groups[0]["lr"] = rates[epoch]
        for rows in torch.randperm(len(images), generator=order).split(batch_size):
            loss = negative_probability(model(images[rows]), labels[rows])
            optimiser.zero_grad()
            loss.mean().backward()
            optimiser.step()
            losses += loss.tolist()
        history.append(np.mean(losses))
    return model, history


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_seeds_trained_at_once_are_the_seeds_trained_alone(build):
    ensemble, history = fitted(build)
    for k, seed in enumerate(SEEDS):
        model, losses = alone(build, seed, **SETTINGS)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(ensemble.parameters[name][k].detach(), parameter.detach(), atol=1e-10, rtol=0)
        assert history[:, k].tolist() == pytest.approx(losses, abs=1e-6)


OPTIMISERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


@pytest.mark.parametrize("optimizer", training.OPTIMIZERS)
def test_with_every_optimiser_seeds_trained_at_once_are_the_seeds_trained_alone(optimizer):
    ensemble, history = fitted(optimizer=optimizer)
    for k, seed in enumerate(SEEDS):
        model, losses = alone(BUILDS["tanh"], seed, **SETTINGS, optimizer=OPTIMISERS[optimizer])
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(ensemble.parameters[name][k].detach(), parameter.detach(), atol=1e-10, rtol=0)
        assert history[:, k].tolist() == pytest.approx(losses, abs=1e-6)


def test_the_step_size_decays_after_so_many_epochs_again_and_again():
    ensemble, history = fitted(epochs=5, decay_every=2, decay=0.5)
    model, losses = alone(BUILDS["tanh"], SEEDS[0], **SETTINGS | {"epochs": 5}, rates=[0.05, 0.05, 0.025, 0.025, 0.0125])
    assert history[:, 0].tolist() == pytest.approx(losses, abs=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ensemble.parameters[name][0].detach(), parameter.detach(), atol=1e-10, rtol=0)


def test_an_ensemble_starts_from_what_each_seed_builds():
    ensemble = Ensemble(BUILDS["tanh"], SEEDS)
    for k, seed in enumerate(SEEDS):
        torch.manual_seed(seed)
        for name, parameter in BUILDS["tanh"]().named_parameters():
            assert torch.equal(ensemble.parameters[name][k], parameter)


def test_the_history_has_a_row_for_each_epoch_and_a_column_for_each_seed():
    assert fitted(epochs=2)[1].shape == (2, len(SEEDS))


@pytest.mark.parametrize("build", [BUILDS["tanh"], BUILDS["layer"]], ids=["tanh", "layer"])
def test_training_lowers_the_loss_of_every_seed(build):
    history = fitted(build, epochs=30)[1]
    assert (history[-1] < history[0] - 0.1).all()


def test_after_each_epoch_the_caller_may_look_at_the_weights_of_that_epoch():
    ensemble, seen = Ensemble(BUILDS["tanh"], SEEDS), []

    def look():
        seen.append({name: stacked.detach().clone() for name, stacked in ensemble.parameters.items()})

    fit(ensemble, *task(), negative_probability, **SETTINGS, after_epoch=look)
    assert len(seen) == SETTINGS["epochs"]
    for epochs, weights in enumerate(seen, start=1):
        for name, stopped in fitted(epochs=epochs)[0].parameters.items():
            assert torch.equal(weights[name], stopped)


def test_looking_at_the_networks_after_an_epoch_does_not_change_the_training():
    ensemble = Ensemble(BUILDS["tanh"], SEEDS)
    history = fit(ensemble, *task(), negative_probability, **SETTINGS, after_epoch=lambda: ensemble.predict(task()[0]))
    expected, losses = fitted()
    assert torch.equal(history, losses)
    assert all(torch.equal(ensemble.parameters[name], stacked) for name, stacked in expected.parameters.items())


def test_a_batch_larger_than_the_data_is_one_step_an_epoch():
    model, _ = alone(BUILDS["tanh"], SEEDS[0], **SETTINGS | {"batch_size": 10})
    ensemble, _ = fitted(batch_size=999)
    torch.testing.assert_close(ensemble.parameters["last.weight"][0], model.last.weight)


def test_the_callers_random_state_is_left_as_it_was():
    torch.manual_seed(42)
    before = torch.get_rng_state()
    fitted()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "activation",
    [
        nn.Tanh,
        lambda: QuantumLayer(3, 2),
        lambda: QuantumActivation("default.qubit", shots=10, seed=0),
        lambda: QuantumLayer(3, 2, simulator="default.qubit", shots=10, seed=0),
    ],
    ids=["exact", "exact layer", "activation with shots", "layer with shots"],
)
def test_the_same_seeds_give_the_same_numbers(activation):
    first, second = (fitted(lambda: Small(activation()))[0].parameters for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_seed_gives_the_same_numbers_in_any_company():
    one, many = fitted(seeds=[11])[0].parameters, fitted(seeds=SEEDS)[0].parameters
    for name in one:
        torch.testing.assert_close(one[name][0], many[name][2], atol=1e-12, rtol=0)


def test_training_moves_the_weights_of_a_quantum_layer():
    before, after = (fitted(BUILDS["layer"], epochs=n)[0].parameters["activation.theta"] for n in (1, 3))
    assert ((after - before).abs() > 1e-4).all()


def test_different_seeds_give_different_numbers():
    weights = fitted()[0].parameters["first.weight"]
    assert all(not torch.equal(weights[i], weights[j]) for i, j in [(0, 1), (0, 2), (1, 2)])


def test_an_ensemble_gives_each_model_its_own_batch_or_one_to_all():
    ensemble, (images, _) = Ensemble(BUILDS["tanh"], SEEDS), task(6)
    own = ensemble(images.reshape(3, 2, 5))
    shared = ensemble.shown(images)
    assert (own.shape, shared.shape) == ((3, 2), (3, 6))
    torch.testing.assert_close(own, torch.stack([shared[k, 2 * k : 2 * k + 2] for k in range(3)]))


@pytest.mark.parametrize("batch_size", [1, 3, 10, 256])
def test_predictions_do_not_depend_on_the_batch_size(batch_size):
    ensemble, (images, _) = Ensemble(BUILDS["tanh"], SEEDS), task()
    torch.testing.assert_close(ensemble.predict(images, batch_size), ensemble.shown(images).detach())


def test_predictions_carry_no_gradient():
    assert not Ensemble(BUILDS["tanh"], SEEDS).predict(task()[0]).requires_grad


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"learning_rate": -0.1}, "learning_rate must be positive, got -0.1"),
        ({"learning_rate": float("inf")}, "learning_rate must be positive, got inf"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
        ({"decay_every": -1}, r"a decay must be in \(0, 1\], after 0 epochs \(never\) or more, got 0.1 after -1"),
        ({"decay_every": 1, "decay": 0}, "got 0 after 1"),
        ({"decay": 1.1}, "got 1.1 after 0"),
        ({"optimizer": "lbfgs"}, "unknown optimizer 'lbfgs': choose one of adam, adamw, rmsprop, sgd"),
    ],
)
def test_training_that_cannot_be_done_is_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        fitted(**change)


def test_the_negative_probability_is_minus_that_of_the_true_class():
    loss = negative_probability(torch.tensor([0.9, 0.9, 0.0, 1.0]), torch.tensor([1, 0, 0, 0]))
    torch.testing.assert_close(loss, torch.tensor([-0.9, -0.1, -1.0, 0.0]))


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1))
def test_the_negative_probability_is_what_nll_loss_makes_of_probabilities(rows):
    p1, labels = torch.tensor([p for p, _ in rows]), torch.tensor([label for _, label in rows])
    oracle = nn.functional.nll_loss(torch.stack([1 - p1, p1], dim=1), labels, reduction="none")
    torch.testing.assert_close(negative_probability(p1, labels), oracle)


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(0, 1)), min_size=1))
def test_accuracy_is_scikit_learns(rows):
    p1, labels = torch.tensor([p for p, _ in rows]), torch.tensor([label for _, label in rows])
    assert accuracy(p1, labels).item() == pytest.approx(accuracy_score(labels, (p1 > 0.5).int()))


def test_accuracy_is_given_for_each_model():
    p1 = torch.tensor([[0.9, 0.2, 0.6, 0.4], [0.1, 0.2, 0.3, 0.4]])
    torch.testing.assert_close(accuracy(p1, torch.tensor([1, 0, 0, 1])), torch.tensor([0.5, 0.5], dtype=torch.float64))
    torch.testing.assert_close(accuracy(p1, torch.tensor([1, 0, 1, 0])), torch.tensor([1.0, 0.5], dtype=torch.float64))


def test_the_history_can_have_several_points_an_epoch_each_the_mean_of_its_images():
    (whole,), parts = fitted(epochs=1)[1], fitted(epochs=1, points=2)[1]
    images = torch.tensor([[8.0], [2.0]])  # ten images in steps of 4, 4 and 2
    assert parts.shape == (2, len(SEEDS))
    torch.testing.assert_close((parts * images).sum(0) / 10, whole)
    assert not torch.allclose(parts[0], parts[1])


@pytest.mark.parametrize("points", [0, 99])
def test_more_points_than_steps_are_refused_with_their_number(points):
    with pytest.raises(ValueError, match=rf"points must be between 1 and the \d+ steps of an epoch, got {points}"):
        fitted(points=points)


def test_a_model_of_an_ensemble_is_that_model_and_its_own_copy():
    ensemble, _ = fitted()
    for k in range(len(SEEDS)):
        model = ensemble.model(k)
        torch.testing.assert_close(model(task()[0]), ensemble.shown(task()[0])[k])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert not torch.equal(model(task()[0]), ensemble.shown(task()[0])[k])


@given(rows=st.lists(st.tuples(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.integers(0, 2)), min_size=1))
def test_top1_is_scikit_learns_accuracy_of_the_largest_score(rows):
    scores, labels = torch.tensor([row for row, _ in rows]), torch.tensor([label for _, label in rows])
    assert top1(scores, labels).item() == pytest.approx(accuracy_score(labels, scores.argmax(-1)))
    assert torch.equal(
        top1(torch.stack([scores, -scores]), labels), torch.stack([top1(scores, labels), top1(-scores, labels)])
    )


# Where it is computed


@pytest.mark.parametrize(
    ("asked", "there", "found"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda"), ("cpu", False, "cpu")],
)
def test_a_gpu_is_taken_where_it_is_asked_for_or_found(monkeypatch, asked, there, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert training.torch_device(asked).type == found


@pytest.mark.parametrize(("name", "sentence"), [("cuda", "torch finds no GPU here"), ("tpu", "unknown device 'tpu'")])
def test_a_device_that_is_not_there_is_refused(monkeypatch, name, sentence):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BookError, match=sentence):
        Ensemble(BUILDS["tanh"], SEEDS, name)


def test_an_ensemble_and_all_it_is_shown_are_moved_to_its_device(monkeypatch):
    monkeypatch.setattr(
        training, "torch_device", lambda name: torch.device("meta")
    )  # where shapes are computed and no numbers
    monkeypatch.setattr(training, "finite", lambda *_, **__: None)
    monkeypatch.setattr(training, "_check_labels", lambda *_: None)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: torch.zeros(tensor.shape))
    ensemble = Ensemble(BUILDS["tanh"], SEEDS, "cuda")
    assert {parameter.device.type for parameter in ensemble.parameters.values()} == {"meta"}
    assert fit(ensemble, *task(), negative_probability, **SETTINGS).device.type == "cpu"
    assert ensemble.predict(task()[0]).device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("build", [BUILDS["tanh"], BUILDS["layer"]], ids=["tanh", "layer"])
def test_a_gpu_gives_the_numbers_of_the_processor(build):
    (here, losses), there = fitted(build), Ensemble(build, SEEDS, "cuda")
    history = fit(there, *task(), negative_probability, **SETTINGS)
    torch.testing.assert_close(history, losses, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(there.predict(task()[0]), here.predict(task()[0]), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(there.model(1)(task()[0]), here.model(1)(task()[0]), atol=1e-6, rtol=1e-6)


# Numbers that are no numbers


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_an_image_that_is_not_finite_is_refused_before_training_and_named(bad):
    images, labels = task()
    images[7, 2] = bad
    ensemble = Ensemble(BUILDS["tanh"], SEEDS)
    before = {name: stacked.clone() for name, stacked in ensemble.parameters.items()}
    with pytest.raises(NotFinite, match=f"images must be finite, got {bad} at row 7$"):
        fit(ensemble, images, labels, negative_probability, **SETTINGS)
    assert all(torch.equal(ensemble.parameters[name], stacked) for name, stacked in before.items())


def test_a_loss_that_is_not_finite_ends_the_training_with_its_epoch_steps_and_seed():
    def second_epoch():
        ensemble.parameters["last.bias"].data[1] = torch.nan

    ensemble = Ensemble(BUILDS["tanh"], SEEDS)
    sentence = f"training losses of epoch 2 must be finite, got nan at steps 1 to 2, seed {SEEDS[1]}"
    with pytest.raises(NotFinite, match=sentence):
        fit(ensemble, *task(), negative_probability, **SETTINGS, points=2, after_epoch=second_epoch)


def test_weights_that_the_last_step_made_infinite_are_not_handed_back():
    def root(p1, labels):  # whose slope at zero is infinite, so that the loss is finite and the step is not
        return (p1 - p1).sqrt()

    ensemble = Ensemble(BUILDS["tanh"], SEEDS)
    with pytest.raises(NotFinite, match=f"weights first.weight after epoch 1 must be finite, got nan at seed {SEEDS[0]}"):
        fit(ensemble, *task(), root, **SETTINGS | {"epochs": 1, "batch_size": 10})


@pytest.mark.parametrize("wrong", [-1, 2])
@pytest.mark.parametrize("row", [0, 9])
def test_a_label_that_is_no_class_is_refused_before_the_first_step(wrong, row):
    images, labels = task()
    labels[row] = wrong
    ensemble = Ensemble(BUILDS["tanh"], SEEDS)
    before = ensemble.parameters["last.weight"].clone()
    with pytest.raises(ValueError, match=f"labels must be in 0 to 1, the classes of the outputs, got {wrong}"):
        fit(ensemble, images, labels, negative_probability, **SETTINGS)
    assert torch.equal(ensemble.parameters["last.weight"], before)


@pytest.mark.parametrize(("images", "labels"), [(0, 0), (10, 9), (9, 10)])
def test_every_image_needs_a_label(images, labels):
    ensemble, (x, y) = Ensemble(BUILDS["tanh"], SEEDS), task()
    fit_unchecked = inspect.unwrap(fit)  # as outside the tests, where nobody compares shapes with annotations
    with pytest.raises(ValueError, match=f"got {images} images and {labels} labels"):
        fit_unchecked(ensemble, x[:images], y[:labels], negative_probability, **SETTINGS)


def test_the_progress_bar_is_closed_also_after_an_error(monkeypatch):
    bars = []

    class Watched(training.tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            bars.append(self)

    def broken(p1, labels):
        raise RuntimeError("this loss cannot be computed")

    monkeypatch.setattr(training, "tqdm", Watched)
    with pytest.raises(RuntimeError, match="cannot be computed"):
        fit(Ensemble(BUILDS["tanh"], SEEDS), *task(), broken, **SETTINGS)
    assert bars[0].disable  # what tqdm sets when it is closed


def test_an_output_that_is_not_finite_is_refused_with_its_seed_and_image():
    ensemble, (images, _) = Ensemble(BUILDS["tanh"], SEEDS), task()
    images[4] = torch.nan
    with pytest.raises(NotFinite, match=f"outputs of the networks must be finite, got nan at seed {SEEDS[0]}, image 4$"):
        ensemble.predict(images, batch_size=3)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_outputs_that_are_not_finite_have_no_accuracy(bad):
    scores, labels = torch.zeros(2, 4, 3), torch.tensor([0, 1, 0, 1])
    scores[1, 2, 0] = bad
    with pytest.raises(NotFinite, match=f"probabilities must be finite, got {bad} at model 1, image 2$"):
        accuracy(scores[..., 0], labels)
    with pytest.raises(NotFinite, match=f"scores must be finite, got {bad} at model 1, image 2$"):
        top1(scores, labels)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_label_that_is_no_class_is_neither_right_nor_wrong(wrong):
    labels = torch.tensor([0, 1, wrong])
    for score in (lambda: top1(torch.zeros(3, 3), labels), lambda: accuracy(torch.zeros(3), labels)):
        with pytest.raises(ValueError, match=f"labels must be in 0 to [12], .* got {wrong}"):
            score()


def test_a_score_needs_as_many_labels_as_images():
    for score, outputs in ((top1, torch.zeros(1, 3)), (accuracy, torch.zeros(1))):
        with pytest.raises(ValueError, match="of 1 images and 2 labels"):
            inspect.unwrap(score)(outputs, torch.tensor([0, 1]))
