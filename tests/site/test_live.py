"""Figures that answer the reader's hand: they stand on their pages, move by keys, and compute what hqnn_utils computes."""

import ast
import gzip
import re
from itertools import product
from pathlib import Path

import numpy as np
import pennylane as qml
import pytest
import torch
from pages import open_page
from playwright.sync_api import Locator, Page
from scipy import integrate, stats
from torch import nn

from hqnn_utils.evidence import statistics
from hqnn_utils.files import read_notebook
from hqnn_utils.hardware import devices, timing
from hqnn_utils.learning.models import Sine
from hqnn_utils.notebooks import results
from hqnn_utils.quantum import circuits, entanglement, gradients

REPOSITORY = Path(__file__).parents[2]
BOOK = REPOSITORY / "book"
SCRIPT = REPOSITORY / "_static" / "live.js"
PAGES = {
    "turn": "foundations/pqc",
    "shots": "foundations/pqc",
    "shift": "foundations/parameter_shift",
    "chsh": "foundations/chsh",
    "cnots": "experiments/inside_the_circuit",
    "saturation": "experiments/gradient_vanishing",
    "count": "evidence/first_order",
    "best": "evidence/many_networks",
    "step": "experiments/remote_devices",
}
each_figure = pytest.mark.parametrize("figure", PAGES)
each_page = pytest.mark.parametrize("page", dict.fromkeys(PAGES.values()))
CLOSE = dict(rtol=0, atol=1e-6)
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def opened(browser, html):
    """Opens a page once, and gives it again with what it has complained of since."""
    context = browser.new_context(offline=True, viewport=WIDE, color_scheme="light")
    tabs = {}

    def get(page: str) -> tuple[Page, list[str]]:
        if page not in tabs:
            tab, asked, complaints = open_page(context, html, f"book/{page}")
            assert asked == []
            tabs[page] = tab, complaints
        return tabs[page]

    yield get
    context.close()


@pytest.fixture
def shown(opened):
    """A figure on its page."""
    return lambda figure: opened(PAGES[figure])[0].locator(f'div.live[data-figure="{figure}"]')


@pytest.fixture
def values(opened):
    """What a figure computes for many settings: by name, an array with one entry for each."""

    def get(figure: str, settings: list[dict]) -> dict[str, np.ndarray]:
        tab, _ = opened(PAGES[figure])
        found = tab.evaluate(f"settings => settings.map(live.figures.{figure}.value)", settings)
        return {name: np.array([row[name] for row in found]) for name in found[0] if name != "sets"}

    return get


def drawing(shown: Locator) -> str:
    return shown.locator(".live-drawing").inner_html()


def words(shown: Locator) -> str:
    return shown.locator(".live-words").inner_text()


def settings_of(tab: Page, figure: str) -> dict:
    """What a figure hands to its function: the state of its inputs, and what the page says."""
    return tab.evaluate(
        """name => {
            const figure = live.figures[name], value = figure.value;
            let seen;
            figure.value = (settings) => { seen = settings; return value(settings); };
            document.querySelector(`div.live[data-figure=${name}] input`).dispatchEvent(new Event("input", {bubbles: true}));
            figure.value = value;
            return seen;
        }""",
        figure,
    )


def test_the_script_is_small():
    assert len(gzip.compress(SCRIPT.read_bytes())) <= 10_000


def test_every_figure_of_the_script_is_known_here_and_stands_on_one_page(opened):
    tab, _ = opened("foundations/pqc")
    assert set(tab.evaluate("Object.keys(live.figures)")) == set(PAGES)
    found = [
        (figure, path.relative_to(BOOK).with_suffix("").as_posix())
        for path in sorted(BOOK.rglob("*.ipynb"))
        for cell in read_notebook(path)["cells"]
        for figure in re.findall(r'class="live" data-figure="(\w+)"', "".join(cell["source"]))
    ]
    assert sorted(found) == sorted(PAGES.items())


@each_figure
def test_a_figure_is_drawn_and_says_what_it_shows(shown, figure):
    svg = shown(figure).locator(".live-drawing svg")
    assert svg.count() == 1 and svg.get_attribute("role") == "img" and len(svg.get_attribute("aria-label")) > 30
    assert shown(figure).locator(".live-words").get_attribute("aria-live") == "polite"
    assert shown(figure).locator(".still").count() == 0
    for text in (drawing(shown(figure)), words(shown(figure))):
        assert text and not re.search("NaN|undefined|Infinity", text)


@each_figure
def test_keys_move_every_input_with_its_label_the_drawing_and_the_sentence(opened, shown, figure):
    tab, complaints = opened(PAGES[figure])
    for field in shown(figure).locator("input, select").all():
        assert field.evaluate("field => [...field.labels].map(label => label.textContent).join()")
        before = drawing(shown(figure)), words(shown(figure)), field.get_attribute("aria-valuetext")
        kind = field.get_attribute("type") or "select"
        at_the_end = kind == "range" and field.input_value() == field.get_attribute("max")
        key = {"checkbox": "Space", "select": "ArrowDown"}.get(kind, "ArrowLeft" if at_the_end else "ArrowRight")
        field.focus()
        tab.keyboard.press(key)
        after = drawing(shown(figure)), words(shown(figure)), field.get_attribute("aria-valuetext")
        assert before[0] != after[0] and before[1] != after[1]
        assert kind != "range" or before[2] != after[2]
    assert complaints == []


@each_figure
def test_no_setting_breaks_a_figure(opened, shown, figure):
    tab, complaints = opened(PAGES[figure])
    for field in shown(figure).locator("input[type=range]").all():
        for key in ("End", "Home"):
            field.focus()
            tab.keyboard.press(key)
            assert not re.search("NaN|undefined|Infinity", drawing(shown(figure)) + words(shown(figure)))
    assert complaints == []


def test_a_click_on_a_gate_switches_it(shown):
    box = shown("cnots").locator("input").first
    was = box.is_checked()
    shown("cnots").locator("[data-input=cnot0] circle").first.dispatch_event("click")
    assert box.is_checked() is not was


@each_page
def test_nothing_overflows_on_a_phone(opened, page):
    tab, _ = opened(page)
    tab.set_viewport_size(PHONE)
    try:
        tab.wait_for_function("[...document.querySelectorAll('.live-drawing svg')].every(svg => svg.clientWidth < 390)")
        assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        over = tab.evaluate("""[...document.querySelectorAll("div.live")].flatMap(figure => {
            const { left, right } = figure.getBoundingClientRect();
            return [...figure.querySelectorAll("*")].filter(part => {
                const place = part.getBoundingClientRect();
                return place.width && !part.matches("polyline, polygon") && (place.left < left - 1 || place.right > right + 1);
            }).map(part => part.outerHTML);
        })""")
        assert over == []
    finally:
        tab.set_viewport_size(WIDE)


@each_page
def test_a_figure_follows_the_theme_and_is_printed_without_its_inputs(opened, page):
    tab, _ = opened(page)
    ink = "getComputedStyle(document.querySelector('.live-drawing text')).fill"
    light = tab.evaluate(ink)
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    dark = tab.evaluate(ink)
    assert dark != light and dark == tab.evaluate("getComputedStyle(document.querySelector('div.live p')).color")
    tab.evaluate("document.documentElement.dataset.theme = 'light'")
    tab.emulate_media(media="print")
    assert not tab.locator(".live-inputs").first.is_visible() and tab.locator(".live-drawing svg").first.is_visible()
    tab.emulate_media(media="screen")


def test_without_a_script_its_sentences_stand_there(browser, html):
    context = browser.new_context(offline=True, java_script_enabled=False)
    tab = context.new_page()
    tab.goto((html / "book" / "foundations" / "pqc.html").as_uri())
    figure = tab.locator('div.live[data-figure="turn"]')
    assert figure.locator("p").count() == 2 and figure.locator(".still").is_visible()
    assert figure.locator("svg, input").count() == 0
    context.close()


# ---- What they compute, against hqnn_utils


def expval(observable, circuit=circuits.h_ry):
    """A circuit of one angle as a function of angles of any shape."""
    node = circuits.qnode(circuit, lambda: qml.expval(observable(0)), 1)
    return lambda theta: node(theta.reshape(-1)).reshape(theta.shape)


def test_the_arrow_is_the_circuits(values):
    theta = torch.linspace(-2 * torch.pi, 2 * torch.pi, 49, dtype=torch.float64)
    found = values("turn", [{"theta": t} for t in theta.tolist()])
    np.testing.assert_allclose(found["x"], expval(qml.X)(theta), **CLOSE)
    np.testing.assert_allclose(found["z"], expval(qml.Z)(theta), **CLOSE)
    np.testing.assert_allclose(found["slope"], gradients.parameter_shift(expval(qml.Z), theta), **CLOSE)


def test_both_slopes_are_those_of_the_circuits_values(values):
    f = expval(qml.Z)
    for shift in (0.05, 0.7, torch.pi / 2, 2.9):
        theta = torch.linspace(-torch.pi, torch.pi, 25, dtype=torch.float64)
        found = values("shift", [{"theta": t, "shift": shift} for t in theta.tolist()])
        np.testing.assert_allclose(found["plus"], f(theta + shift), **CLOSE)
        np.testing.assert_allclose(found["minus"], f(theta - shift), **CLOSE)
        np.testing.assert_allclose(found["rule"], gradients.parameter_shift(f, theta, shifts=[shift]), **CLOSE)
        np.testing.assert_allclose(found["finite"], (f(theta + shift) - f(theta - shift)) / (2 * shift), **CLOSE)


@pytest.mark.parametrize(("theta", "shots"), [(0.0, 10), (0.6, 10), (-1.2, 32), (0.3, 1000), (0.0, 1)])
def test_estimates_scatter_as_shots_do(values, theta, shots):
    """Exact value and error by the circuit, and 2,000 estimates against the binomial distribution."""
    found = values("shots", [{"theta": theta, "shots": shots, "seed": seed} for seed in range(1, 51)])
    exact = expval(qml.Z)(torch.tensor(theta, dtype=torch.float64)).item()
    error = np.sqrt((1 - exact**2) / shots)
    np.testing.assert_allclose(found["f"], exact, **CLOSE)
    np.testing.assert_allclose(found["error"], error, **CLOSE)
    counts = (found["estimates"] + 1) * shots / 2
    np.testing.assert_allclose(counts, counts.round(), **CLOSE)
    law = stats.binom(shots, (1 + exact) / 2)
    least, most = law.ppf([0.02, 0.98])
    places = np.arange(least, most + 1)
    seen = np.array([(counts.round() <= place).mean() for place in places])
    assert abs(seen - law.cdf(places)).max() < 0.035  # Kolmogorov: 2,000 estimates, one in a hundred
    assert counts.std() == pytest.approx(law.std(), rel=0.05)
    assert len({tuple(row) for row in found["estimates"]}) == 50, "each seed is another experiment"
    np.testing.assert_array_equal(found["within"], (abs(found["estimates"] - exact) <= error + 1e-9).sum(axis=1))


def test_bobs_score_is_that_of_the_circuits(values):
    phi, share = np.array(list(product(np.linspace(0, np.pi, 13), (0, 0.3, 0.55, 1)))).T
    found = values("chsh", [{"phi": p, "share": s} for p, s in zip(phi, share, strict=True)])

    def score(prepare):
        node = circuits.qnode(circuits.chsh, lambda: qml.expval(qml.Z(0) @ qml.Z(1)), 2)
        a, b = np.repeat([0, np.pi / 2], 2), np.array([1, -1, 1, -1])
        pairs = node(np.tile(a, len(phi)), np.outer(phi, b).ravel(), prepare).reshape(-1, 4)
        return np.asarray(pairs) @ [1, 1, 1, -1]

    envelopes = (score(lambda: None) + score(lambda: (qml.X(0), qml.X(1)))) / 2
    np.testing.assert_allclose(found["S"], share * score(circuits.bell) + (1 - share) * envelopes, **CLOSE)
    bell = np.asarray(circuits.prepared_state(circuits.bell, 2))
    coin = np.diag([0.5, 0, 0, 0.5])
    X, Z = qml.X.compute_matrix(), qml.Z.compute_matrix()
    for s, most in zip(share, found["most"], strict=True):
        rho = s * np.outer(bell, bell.conj()) + (1 - s) * coin
        T = [np.trace(rho @ np.kron(P, R)).real for P, R in product((Z, X), repeat=2)]
        assert most == pytest.approx(2 * np.linalg.norm(T), abs=1e-6)


def test_every_choice_of_cnots_makes_the_products_of_the_circuit(opened):
    """All 256: each output of the circuit, at random inputs and angles of zero, is the product that the figure says."""
    tab, _ = opened(PAGES["cnots"])
    chosen = [{f"cnot{k}": bool(s >> k & 1) for k in range(8)} for s in range(256)]
    found = tab.evaluate("settings => settings.map(live.figures.cnots.value)", chosen)
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outputs = entanglement.every_subset(x, torch.zeros(2, 4, dtype=torch.float64), "ring")
    products = [torch.stack([(-torch.sin(x[:, wires])).prod(dim=1) for wires in row["sets"]], dim=1) for row in found]
    np.testing.assert_allclose(torch.stack(products), outputs, **CLOSE)
    assert [row["alone"] for row in found] == [sum(len(wires) == 1 for wires in row["sets"]) for row in found]


def test_outputs_of_one_input_are_counted_as_the_package_counts_them(values):
    entanglers = [e for e in circuits.ENTANGLERS if e != "none"]
    for n in range(2, 9):
        chosen = [{"entangler": e, "depth": d, "n_qubits": n} for e in entanglers for d in range(1, 17)]
        orders = np.array([entanglement.orders_at_zero(n, s["depth"], s["entangler"]) for s in chosen])
        found = values("count", chosen)
        np.testing.assert_array_equal(found["orders"], orders)
        np.testing.assert_array_equal(found["alone"], (orders == 1).sum(axis=1))


FUNCTIONS = {
    "sine (quantum)": Sine(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "stretched sigmoid": lambda t: 4 * torch.sigmoid(t) - 2,
    "low sine": lambda t: Sine()(t) / 4,
}


@pytest.mark.parametrize("spread", [0.1, 0.5, 1.0, 3.0, 10.0])
def test_a_layer_leaves_the_root_mean_square_slope(values, spread):
    """The slopes by autograd of the network's functions, the mean over normal inputs by another integral."""
    z = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    found = values("saturation", [{"spread": spread, "layers": layers} for layers in (1, 6)])
    assert set(found) == set(FUNCTIONS)
    for name, f in FUNCTIONS.items():
        theta = (spread * z).requires_grad_()
        (slope,) = torch.autograd.grad(f(theta).sum(), theta)
        factor = np.sqrt(integrate.simpson(slope.numpy() ** 2 * stats.norm.pdf(z.numpy()), x=z.numpy()))
        np.testing.assert_allclose(found[name], [factor, factor**6], **CLOSE)


def test_the_best_of_some_networks_is_that_of_the_record(opened, values):
    """The page hands over how many images each network has right; the record has accuracies."""
    path = BOOK / "evidence" / "many_networks.ipynb"
    record = results.of_seeds_in(read_notebook(path))
    accuracy = {kind: np.array([r.value for r in record[f"accuracy_{kind}"].values()]) for kind in ("classical", "q_ent")}
    settings = settings_of(opened(PAGES["best"])[0], "best")
    images = results.of(path)["n_test"].value
    assert settings["images"] == images
    for name, kind in (("classical", "classical"), ("entangling", "q_ent")):
        right = " ".join(str(round(a * images / 100)) for a in accuracy[kind])
        assert settings[name] == [int(count) for count in right.split()], f'stale: write data-{name}="{right}" in {path.name}'
        np.testing.assert_allclose(100 * np.array(settings[name]) / images, accuracy[kind], **CLOSE)
    tried = list(range(1, 21))
    found = values("best", [settings | {"old": k, "young": k} for k in tried])
    best = {kind: [statistics.best_of(accuracy[kind], k) for k in tried] for kind in accuracy}
    np.testing.assert_allclose(found["classical"], best["classical"], **CLOSE)
    np.testing.assert_allclose(found["entangling"], best["q_ent"], **CLOSE)
    np.testing.assert_allclose(found["gain"], np.subtract(best["q_ent"], best["classical"]), **CLOSE)


def rounds_of_the_page(n_angles: int):
    """The chapter's own function that counts how often a step waits."""
    cells = read_notebook(BOOK / "experiments" / "remote_devices.ipynb")["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    trees = [node for source in sources for node in ast.parse(source).body]
    (function,) = [node for node in trees if isinstance(node, ast.FunctionDef) and node.name == "rounds"]
    known = {"ours": n_angles}
    exec(compile(ast.Module([function], []), "remote_devices", "exec"), known)
    return known["rounds"]


def test_a_step_takes_and_costs_what_the_chapter_says(opened, values):
    """Circuits and prices by the package, rounds by the chapter's function, times by its formula."""
    record = results.of(BOOK / "experiments" / "remote_devices.ipynb")
    settings = settings_of(opened(PAGES["step"])[0], "step")
    prices = {name: devices.listed()[name].price for name in ("sv1", "processor")}
    assert settings["perMinute"] == prices["sv1"].per_minute and settings["least"] == prices["sv1"].least_s
    assert settings["perTask"] == prices["processor"].per_task and settings["perShot"] == prices["processor"].per_shot
    assert settings["angles"] == record["angles"].value and settings["shots"] == record["shots"].value
    for name, of in {"once": "once_s", "alone": "alone_s", "client": "client_s"}.items():
        assert settings[name] == pytest.approx(record[of].value, abs=0.005), "as the page quotes it"
    for name, of in {"printedSv1": "claimed_SV1", "printedAspen": "claimed_Aspen-9"}.items():
        assert f"{settings[name]:.4f}s" == record[of].value
    n_angles, shots = int(settings["angles"]), int(settings["shots"])
    rounds_of = rounds_of_the_page(n_angles)
    chosen = [dict(together=p, latency=s, batch=b) for p in (1, 3, 10, 100) for s in (0.0, 0.3, 3.2) for b in (1, 4, 7)]
    found = values("step", [settings | each for each in chosen])
    for k, each in enumerate(chosen):
        circuits_ = timing.shift_circuits(each["batch"], n_angles)
        rounds = rounds_of(each["batch"], each["together"])
        a, b = settings["alone"], settings["client"] - settings["alone"]
        seconds = settings["once"] + circuits_ * a + rounds * (each["latency"] + b)
        usd = prices["sv1"].of(circuits_), prices["processor"].of(circuits_, circuits_ * shots)
        expected = [circuits_, rounds, seconds, *usd]
        names = ("circuits", "rounds", "seconds", "sv1", "processor")
        np.testing.assert_allclose([found[name][k] for name in names], expected, **CLOSE)
