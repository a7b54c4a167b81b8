/* Figures that answer the reader's hand. A page has <div class="live" data-figure="turn" data-shows="…">…</div>; where there is no
script, as in JupyterLab, the sentences in it are all there is. Here the figure of that name moves in:

    inputs  by name: a slider, a list or a box
    value   settings → numbers; pure, so that tests/site/test_live.py can hold them against hqnn_utils
    words   settings, numbers → the sentence below, which screen readers speak
    draw    settings, numbers, width in pixels → {height, body}: SVG, in nested lists

Whatever was measured comes from the page: attributes of the div, and elements with `data-as`, which `make numbers` renews. */
(() => {
  const { PI, abs, sin, cos, exp, sqrt, ceil, round, max, min } = Math;
  const [ORANGE, BLUE, GREEN, VERMILION, PURPLE, SKY, GREY] =
    ["#E69F00", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#888888"];  // as in hqnn_utils.notebooks.figures
  const INK = "currentColor";

  const range = (n, first = 0) => Array.from({ length: n }, (_, i) => first + i);
  const spaced = (from, to, n = 161) => range(n).map((i) => from + ((to - from) * i) / (n - 1));
  const sum = (list) => list.reduce((total, x) => total + x, 0);
  // With a real minus sign, and none before zero.
  const fixed = (x, digits = 2) => x.toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1").replace("-", "−");
  const whole = (n) => n.toLocaleString("en");
  const percent = (share) => round(100 * share) + "\u00a0%";
  const below = (i) => String.fromCharCode(0x2080 + i);  // a subscript

  // ---- What a hand can move

  const slider = (label, min, max, start, show, of = (k) => k) => ({ type: "range", label, min, max, start, show, of });
  const count = (label, min, max, start) => slider(label, min, max, start, whole);
  // In steps of three degrees, so that right angles can be met.
  const angle = (label, min, max, start) =>
    slider(label, min, max, start, (a) => `${fixed(a)} rad = ${fixed((a * 180) / PI, 0)}°`, (k) => (k * PI) / 60);

  // ---- What is drawn, in pixels

  const DASHED = 'stroke-dasharray="6 4"', DOTTED = 'stroke-dasharray="2 3"', THIN = 'class="thin"';
  const joined = (points) => points.map((point) => point.map((x) => x.toFixed(1))).join(" ");
  const line = (points, colour = INK, more = "") =>
    `<polyline points="${joined(points)}" fill="none" stroke="${colour}" stroke-width="2" ${more}/>`;
  const dot = (x, y, colour, r = 5, fill = colour) =>
    `<circle cx="${x}" cy="${y}" r="${r}" fill="${fill}" stroke="${colour}" stroke-width="1.5"/>`;
  const text = (x, y, words, anchor = "start") => `<text x="${x}" y="${y}" text-anchor="${anchor}">${words}</text>`;
  const area = (points, colour, opacity = 1) => `<polygon points="${joined(points)}" fill="${colour}" opacity="${opacity}"/>`;
  function arrow([x, y], length, way, colour, more) {  // in radians, clockwise from the right
    const tip = [x + length * cos(way), y + length * sin(way)];
    const barb = (turn) => [tip[0] - 10 * cos(way + turn), tip[1] - 10 * sin(way + turn)];
    return [line([[x, y], tip], colour, more), line([barb(0.45), tip, barb(-0.45)], colour)];
  }

  /* Where a plot stands, 230 high with its labels; and two of them, one above the other where it is narrow. */
  const place = (x, y, width) => ({ left: x + 46, right: x + width - 14, top: y + 26, bottom: y + 190 });
  const two = (width) => (width > 520 ? { height: 230, at: [place(0, 0, width / 2), place(width / 2, 0, width / 2)] }
    : { height: 460, at: [place(0, 0, width), place(0, 230, width)] });

  /* A tick is a number, or [number, label]. */
  const axis = (from, to, ticks, label = "", log = false) => ({ from, to, ticks, label, log });
  const TURNS = [[-2 * PI, "−2π"], [-PI, "−π"], [0, "0"], [PI, "π"], [2 * PI, "2π"]], HALF = [[0, "0"], [PI / 2, "π/2"], [PI, "π"]];

  /* `marks` draws with a pen that takes numbers, where all else takes pixels. */
  function plot({ left, right, top, bottom }, x, y, marks) {
    const scale = ({ from, to, log }, a, b) => {
      const of = log ? Math.log : Number;
      return (v) => a + ((b - a) * (of(v) - of(from))) / (of(to) - of(from));
    };
    const px = scale(x, left, right), py = scale(y, bottom, top), pixels = (points) => points.map(([a, b]) => [px(a), py(b)]);
    const pen = {
      line: (points, colour, more) => line(pixels(points), colour, more),
      level: (v, colour, more) => line([[left, py(v)], [right, py(v)]], colour, more),
      curve: (f, colour, more) => line(spaced(left, right).map((p, i) => {
        const v = x.log ? x.from * (x.to / x.from) ** (i / 160) : x.from + ((x.to - x.from) * i) / 160;
        return [p, py(f(v))];
      }), colour, more),
      dot: (a, b, ...look) => dot(px(a), py(b), ...look),
      text: (a, b, words, anchor, dx = 0, dy = 4) => text(px(a) + dx, py(b) + dy, words, anchor),
      area: (points, colour, opacity) => area(pixels(points), colour, opacity),
      box: (x0, y0, x1, y1, colour, opacity) => pen.area([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], colour, opacity),
    };
    const named = (ticks) => ticks.map((tick) => (tick.map ? tick : [tick, String(tick).replace("-", "−")]));
    return [
      named(x.ticks).map(([v, label]) => [line([[px(v), top], [px(v), bottom]], INK, THIN), text(px(v), bottom + 17, label, "middle")]),
      named(y.ticks).map(([v, label]) => [pen.level(v, INK, THIN), text(left - 8, py(v) + 4, label, "end")]),
      text((left + right) / 2, bottom + 35, x.label, "middle"), text(left - 40, top - 12, y.label), marks(pen)];
  }

  const figures = {};

  // ---- 1: book/foundations/pqc

  figures.turn = {
    inputs: { theta: angle("Angle θ", -120, 120, 15) },
    value: ({ theta }) => ({ x: cos(theta), z: -sin(theta), slope: -cos(theta) }),
    words: ({ theta }, { z, slope }) =>
      `At θ = ${fixed(theta)} rad the tip has the height ${fixed(z, 3)}, which is f(θ). ` + (abs(slope) < 1e-9
        ? "The slope is zero: turning a little changes nothing."
        : `The slope is ${fixed(slope, 3)}: turn a little further, and the tip ${slope > 0 ? "rises" : "sinks"}.`),
    draw({ theta }, { x, z, slope }, width) {
      const r = width < 480 ? 56 : 82, cx = r + 30, cy = r + 45;
      return { height: 2 * cy, body: [
        dot(cx, cy, INK, r, "none"), line([[cx - r, cy], [cx + r, cy]], INK, THIN), line([[cx, cy - r], [cx, cy + r]], INK, THIN),
        text(cx, cy - r - 8, "|0⟩", "middle"), text(cx, cy + r + 18, "|1⟩", "middle"),
        text(cx - r - 5, cy + 4, "|−⟩", "end"), text(cx + r + 5, cy + 4, "|+⟩"),
        plot({ left: cx + r + 62, right: width - 14, top: cy - r, bottom: cy + r },
          axis(-2 * PI, 2 * PI, TURNS.filter((_, i) => width > 480 || i % 2 === 0), "θ (rad)"),
          axis(-1, 1, [-1, 0, 1], "f(θ) = ⟨Z⟩"), (pen) => [
            pen.curve((t) => -sin(t), BLUE), pen.line([-0.8, 0.8].map((d) => [theta + d, z + d * slope]), VERMILION),
            pen.level(z, GREY, DOTTED), pen.dot(theta, z, BLUE)]),
        line([[cx + r * x, cy - r * z], [cx + r + 62, cy - r * z]], GREY, DOTTED),
        line(spaced(0, theta).map((t) => [cx + 0.35 * r * cos(t), cy + 0.35 * r * sin(t)]), GREY), arrow([cx, cy], r, theta, BLUE)] };
    },
  };

  // ---- 2: book/foundations/parameter_shift

  figures.shift = {
    inputs: { theta: angle("Angle θ", -60, 60, 15), shift: angle("Shift s", 1, 57, 30) },
    value({ theta, shift }) {
      const plus = -sin(theta + shift), minus = -sin(theta - shift), difference = plus - minus;
      return { plus, minus, rule: difference / (2 * sin(shift)), finite: difference / (2 * shift) };
    },
    words: ({ shift }, { rule, finite }) =>
      `Divided by 2 sin s, the difference gives the slope ${fixed(rule, 3)}, exact at every shift. Divided by 2s, as in finite ` +
      `differences, it gives ${fixed(finite, 3)}, ${shift < 0.15 ? "nearly the same" : `${percent(sin(shift) / shift)} of it`}.`,
    draw({ theta, shift }, { plus, minus, rule, finite }, width) {
      const { height, at } = two(width), f = -sin(theta), side = rule > 0 ? 1 : -1;
      return { height, body: [
        plot(at[0], axis(-2 * PI, 2 * PI, TURNS, "angle (rad)"), axis(-1.6, 1.6, [-1, 0, 1], "f, its tangent and the secant"), (pen) => [
          pen.curve((t) => -sin(t), BLUE), pen.line([-1.3, 1.3].map((d) => [theta + d, f + d * rule]), ORANGE, DASHED),
          pen.line([[theta - shift, minus], [theta + shift, plus]], GREEN), pen.dot(theta, f, ORANGE),
          pen.dot(theta - shift, minus, VERMILION), pen.text(theta - shift, minus, "θ − s", "end", -9),
          pen.dot(theta + shift, plus, VERMILION), pen.text(theta + shift, plus, "θ + s", "start", 9)]),
        plot(at[1], axis(0, PI, HALF, "shift s (rad)"), axis(-1, 1, [-1, 0, 1], "slope that is found"), (pen) => [
          pen.level(rule, ORANGE, DASHED), pen.curve((s) => (s ? (rule * sin(s)) / s : rule), GREEN),
          pen.dot(shift, rule, ORANGE), pen.dot(shift, finite, GREEN),
          pen.text(PI, rule, "shift rule", "end", -4, 4 - 12 * side), pen.text(PI, 0, "finite differences", "end", -4, 4 + 12 * side)])] };
    },
  };

  // ---- 3: book/foundations/pqc

  /* Numbers in (0, 1), for a seed the same in every browser: the minimal standard of Park and Miller. The power keeps
  seeds from being multiples of each other. */
  function generator(seed) {
    let state = 1 + ((seed ** 5 * 69621) % 2147483646);
    return () => (state = (state * 48271) % 2147483647) / 2147483647;
  }

  figures.shots = {
    inputs: {
      shots: slider("Shots of an experiment", 0, 16, 4, whole, (k) => round(10 ** (k / 4))),
      theta: angle("Angle θ", -60, 60, 0),
      seed: slider("Forty other experiments", 1, 50, 1, (n) => `no. ${n}`),
    },
    value({ shots, theta, seed }) {
      const f = -sin(theta), error = sqrt((1 - f * f) / shots), next = generator(seed);
      const estimates = range(40).map(() => (2 * sum(range(shots).map(() => next() < (1 + f) / 2))) / shots - 1);
      return { f, error, estimates, within: estimates.filter((e) => abs(e - f) < error + 1e-12).length };
    },
    words: ({ shots }, { f, error, within }) => `⟨Z⟩ is ${fixed(f, 3)}. ` + (error < 1e-9
      ? "Every shot has the same outcome here, so one is enough."
      : `An estimate from ${whole(shots)} ${shots > 1 ? "shots" : "shot"} has the standard error ${fixed(error, 3)}, and ${within} of ` +
        `these 40 are no further off. A tenth of that error takes ${whole(100 * shots)} shots.`),
    draw: (_, { f, error, estimates }, width) => ({ height: 230, body: plot(place(0, 0, width),
      axis(0, 41, [1, 10, 20, 30, 40], "experiment"), axis(-1.05, 1.05, [-1, -0.5, 0, 0.5, 1], "estimate of ⟨Z⟩"), (pen) => [
        pen.box(0, max(-1, f - error), 41, min(1, f + error), BLUE, 0.2), pen.level(f, BLUE),
        estimates.map((e, i) => pen.dot(i + 1, e, VERMILION, 3))]) }),
  };

  // ---- 4: book/foundations/chsh

  const score = (phi, share) => 2 * cos(phi) + 2 * share * sin(phi);
  figures.chsh = {
    inputs: {
      phi: angle("Bob's angle φ", 0, 60, 8),
      share: slider("Bell pairs (the rest: envelopes)", 0, 20, 20, percent, (k) => k / 20),
    },
    value: ({ phi, share }) => ({ S: score(phi, share), most: 2 * sqrt(1 + share ** 2) }),
    words: ({ phi, share }, { S, most }) =>
      `At φ = ${fixed(phi)} rad these pairs score S = ${fixed(S, 3)}, ` +
      (S > 2 + 1e-9 ? "above 2: no cards in envelopes can do that. " : "which cards in envelopes can do as well. ") +
      (share ? `The most that Bob can reach with them is ${fixed(most, 3)}.` : "Envelopes never get above 2."),
    draw({ phi, share }, { S }, width) {
      const [x, y] = width > 480 ? [188, 10] : [0, 215], colour = share === 1 ? BLUE : share ? GREEN : ORANGE;
      const way = (a, name, more) => [arrow([96, 118], 72, a - PI / 2, INK, more),
        text(96 + 87 * sin(a), 122 - 87 * cos(a), name, "middle")];
      return { height: y + 230, body: [
        dot(96, 118, GREY, 72, "none"), way(0, "a₀"), way(PI / 2, "a₁"), way(phi, "b₀", DASHED), way(-phi, "b₁", DASHED),
        plot(place(x, y, width - x), axis(0, PI, HALF, "Bob's angle φ (rad)"), axis(-3, 3, [-2, 0, 2], "S"), (pen) => [
            pen.box(0, 2, PI, sqrt(8), GREY, 0.25), pen.level(2, INK, DASHED),
            pen.curve((p) => score(p, 0), ORANGE), pen.curve((p) => score(p, 1), BLUE, share < 1 ? DOTTED : ""),
            pen.curve((p) => score(p, share), colour), pen.dot(phi, S, colour), pen.text(PI, 2.35, "out of envelopes' reach", "end", -6),
            pen.text(2.1, 1, "Bell pairs"), pen.text(1.35, -0.5, "envelopes", "end")])] };
    },
  };

  // ---- 5: book/experiments/inside_the_circuit; 7: book/evidence/first_order

  /* The pairs (control, target) of an entangler, as hqnn_utils.quantum.circuits.cnot_pairs. */
  function pairs(n, entangler) {
    const linear = range(n - 1).map((i) => [i, i + 1]);
    return {
      linear, ring: [...linear, [n - 1, 0]], all: range(n).flatMap((i) => range(n - 1 - i, i + 1).map((j) => [i, j])),
      brick: [0, 1].flatMap((odd) => linear.filter(([i]) => i % 2 === odd)),
    }[entangler];
  }
  /* Of which inputs each output is a product: Z of its wire, carried back through the CNOTs. */
  function products(n, cnots) {
    const sets = range(n).map((i) => range(n).map((j) => i === j));
    for (const [control, target] of cnots.slice().reverse()) for (const set of sets) if (set[target]) set[control] = !set[control];
    return sets.map((set) => range(n).filter((j) => set[j]));
  }
  const alone = (sets) => sets.filter((set) => set.length === 1).length;
  /* A row an output, a column an input. */
  const table = (sets, x, y, dx, dy, colour) => sets.map((set, i) => [
    text(x + i * dx, y - 20, "x" + below(i), "middle"), text(x - 22, y + i * dy + 4, `⟨Z${below(i)}⟩`, "end"), sets.map((_, j) =>
      set.includes(j) ? dot(x + j * dx, y + i * dy, colour(set), dx / 3.4) : dot(x + j * dx, y + i * dy, GREY, dx / 3.4, "none"))]);

  const RING = [...pairs(4, "ring"), ...pairs(4, "ring")];  // two layers on four qubits
  figures.cnots = {
    inputs: Object.fromEntries(RING.map(([c, t], k) =>
      ["cnot" + k, { type: "checkbox", label: `${c} → ${t}`, group: `CNOTs of layer ${k < 4 ? 1 : 2}` }])),
    value(settings) {
      const sets = products(4, RING.filter((_, k) => settings["cnot" + k]));
      return { sets, alone: alone(sets) };
    },
    words: (_, { sets, alone }) => sets.map((set, i) =>
      `Output ${i} is ${set.length % 2 ? "−" : ""}${set.map((j) => "sin x" + below(j)).join(" · ")}. `).join("") +
      `${alone} of 4 outputs depend on one input alone.`,
    draw(settings, { sets }, width) {
      const step = min(38, (width - 190) / 8), end = 26 + 8 * step, dx = width < 480 ? 26 : 40, row = (i) => 48 + 40 * i;
      return { height: 200, body: [
        range(4).map((i) => [line([[20, row(i)], [end + 6, row(i)]], INK, THIN), text(0, row(i) + 4, "x" + below(i))]),
        RING.map(([c, t], k) => {
          const x = 26 + (k + 0.5) * step, y = row(t);
          return [`<g data-input="cnot${k}" opacity="${settings["cnot" + k] ? 1 : 0.15}">`,
            area([[x - step / 2, 20], [x + step / 2, 20], [x + step / 2, 190], [x - step / 2, 190]], INK, 0),
            line([[x, row(c)], [x, y + (t > c ? 8 : -8)]]), dot(x, row(c), INK, 4), dot(x, y, INK, 8, "none"),
            line([[x - 8, y], [x + 8, y]]), "</g>"];
        }),
        table(sets, end + 66, 48, dx, 40, (set) => [BLUE, ORANGE, GREEN, PURPLE][set.length - 1]),  // as the bars of the page
        sets.map((set, i) => width > 560 && text(end + 66 + 3.7 * dx, row(i) + 4, set.length > 1 ? `${set.length} together` : "alone"))] };
    },
  };

  const COLOURS = { ring: BLUE, linear: ORANGE, brick: GREEN, all: PURPLE };
  figures.count = {
    inputs: {
      entangler: { type: "select", label: "Entangler", options: Object.keys(COLOURS) },
      depth: count("Depth, layers", 1, 16, 1),
      n_qubits: count("Qubits", 2, 8, 4),
    },
    value({ entangler, depth, n_qubits }) {
      const sets = products(n_qubits, range(depth).flatMap(() => pairs(n_qubits, entangler)));
      return { sets, orders: sets.map((set) => set.length), alone: alone(sets) };
    },
    words: ({ depth, n_qubits }, { orders, alone }) =>
      `After ${depth} ${depth > 1 ? "layers" : "layer"} the outputs are products of ${orders.join(", ")} inputs. ` +
      `${alone} of ${n_qubits} ${alone === 1 ? "is a function" : "are functions"} of one input alone.`,
    draw({ entangler, depth, n_qubits }, { sets }, width) {
      const step = min(30, 190 / n_qubits), low = 70 + n_qubits * step, colour = COLOURS[entangler];
      const [x, y] = width > 520 ? [270, 10] : [0, low];
      return { height: max(y + 230, low), body: [
        table(sets, 74, 60, step, step, (set) => (set.length > 1 ? INK : colour)),
        plot(place(x, y, width - x), axis(0.3, 16.7, [1, 4, 8, 12, 16], "depth (layers)"),
          axis(0, n_qubits, range(n_qubits + 1).filter((i) => n_qubits < 5 || i % 2 === 0), "outputs of one input alone"), (pen) =>
            range(depth, 1).map((d) => {
              const { alone } = figures.count.value({ entangler, n_qubits, depth: d });
              return pen.box(d - 0.35, -0.04, d + 0.35, alone + 0.04, colour, d === depth ? 1 : 0.35);
            }))] };
    },
  };

  // ---- 6: book/experiments/gradient_vanishing

  const hump = (t) => 1 / (2 + exp(t) + exp(-t));  // the slope of a sigmoid
  const SLOPES = {
    "sine (quantum)": [(t) => -cos(t), BLUE],
    tanh: [(t) => 4 * hump(2 * t), GREEN, DASHED],
    sigmoid: [hump, INK, DOTTED],
    "stretched sigmoid": [(t) => 4 * hump(t), VERMILION],
    "low sine": [(t) => -cos(t) / 4, SKY],
  };
  const normal = (z) => exp((-z * z) / 2);
  const NORMAL = spaced(-8, 8, 1601).map((z) => [z, (0.01 * normal(z)) / sqrt(2 * PI)]);  // z and its weight

  figures.saturation = {
    inputs: {
      spread: slider("Spread of the inputs θ", -20, 20, 0, (s) => fixed(s) + " rad", (k) => 10 ** (k / 20)),
      layers: count("Layers", 1, 20, 1),
    },
    value: ({ spread, layers }) => Object.fromEntries(Object.entries(SLOPES).map(([name, [slope]]) =>
      [name, sqrt(sum(NORMAL.map(([z, weight]) => weight * slope(spread * z) ** 2))) ** layers])),
    words: ({ layers }, left) =>
      `${layers > 1 ? layers + " layers leave" : "A layer leaves"} this share of a gradient: ` +
      Object.entries(left).map(([name, share]) => `${name} ${share < 0.001 ? "less than 0.001" : fixed(share, 3)}`).join(", ") + ".",
    draw({ spread }, left, width) {
      const { height, at } = two(width);
      return { height, body: [
        plot(at[0], axis(-9, 9, [-8, -4, 0, 4, 8], "input θ (rad); grey: where the inputs are"),
          axis(0, 1.05, [0, 0.25, 0.5, 1], "size of the slope, |f′(θ)|"), (pen) => [
            pen.area(spaced(-9, 9).map((t) => [t, normal(t / spread)]).concat([[9, 0], [-9, 0]]), GREY, 0.25),
            Object.values(SLOPES).map(([slope, ...look]) => pen.curve((t) => abs(slope(t)), ...look))]),
        plot({ ...at[1], left: at[1].left - 30 }, axis(0, 1, [0, 0.25, 0.5, 0.75, 1], "share of the gradient that is left"), axis(5, 0, []),
          (pen) => Object.entries(SLOPES).map(([name, [, colour]], i) =>
            [pen.text(0, i, name), pen.box(0, i + 0.25, left[name], i + 0.65, colour)]))] };
    },
  };

  // ---- 8: book/evidence/many_networks

  /* As hqnn_utils.evidence.statistics.best_of: the chance C(i - 1, k - 1) / C(n, k) that the i-th smallest is the best of the draw
  falls by the factor (i - k) / (i - 1) from each to the one below. */
  function bestOf(values, k) {
    const sorted = values.slice().sort((a, b) => a - b);
    let chance = k / sorted.length, total = 0;
    for (let i = sorted.length; i >= k; i--) {
      total += chance * sorted[i - 1];
      chance *= (i - k) / (i - 1);
    }
    return total;
  }

  figures.best = {
    inputs: {
      old: count("Classical heads tried, the best one reported", 1, 20, 1),
      young: count("Entangling heads tried, the best one reported", 1, 20, 1),
    },
    value({ images, classical, entangling, old, young }) {
      const best = [bestOf(classical, old), bestOf(entangling, young)].map((right) => (100 * right) / images);
      return { classical: best[0], entangling: best[1], gain: best[1] - best[0] };
    },
    words({ old, young }, { classical, entangling, gain }) {
      const who = (k, kind) => (k > 1 ? `the best of ${k} ${kind} heads` : `one ${kind} head`);
      return `On average ${who(young, "entangling")} has ${fixed(entangling)}\u00a0% of the test images right, and ` +
        `${who(old, "classical")} ${fixed(classical)}\u00a0%. A paper would report a ${gain < 0 ? "loss" : "gain"} of ` +
        `${fixed(abs(gain))} points.`;
    },
    draw({ images, classical, entangling }, found, width) {
      const every = [...classical, ...entangling].map((right) => (100 * right) / images), low = min(...every) - 0.6;
      const high = max(...every) + 0.6;
      return { height: 280, body: plot({ left: 20, right: width - 20, top: 20, bottom: 240 },
        axis(low, high, range(100).filter((v) => v > low && v < high), "test accuracy (%); orange: what is reported"),
        axis(0, 220, []), (pen) =>
          [[classical, "classical", INK, 115], [entangling, "entangling (-Q-Ent)", BLUE, 0]].map(([counts, name, colour, base]) => [
            pen.level(base, INK, THIN), pen.text(low, base + 94, name),
            pen.line([0, 104].map((up) => [found[name.split(" ")[0]], base + up]), VERMILION),
            counts.map((right, i) => pen.dot((100 * right) / images,
              base + 8 + 11 * counts.slice(0, i).filter((other) => other === right).length, colour, 4))])) };
    },
  };

  // ---- 9: book/experiments/remote_devices

  figures.step = {
    inputs: {
      together: slider("Circuits at once", 0, 13, 0, whole, (k) => [1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 40, 50, 75, 100][k]),
      latency: slider("Latency of a circuit", 0, 40, 3, (s) => fixed(s, 1) + " s", (k) => k / 10),
      batch: count("Photographs in a step", 1, 8, 4),
    },
    value({ together, latency, batch, angles, once, alone, client, perMinute, least, perTask, perShot, shots }) {
      const circuits = batch * (1 + 2 * angles), rounds = ceil(batch / together) + ceil((2 * angles * batch) / together);
      const work = once + circuits * alone;
      return { circuits, rounds, work, seconds: work + rounds * (latency + client - alone),
        sv1: (circuits * least * perMinute) / 60, processor: circuits * (perTask + shots * perShot) };
    },
    words: (_, { circuits, rounds, work, seconds, sv1, processor }) =>
      `${circuits} circuits in ${rounds} rounds of waiting: the step takes up to ${fixed(seconds, 1)} s, of which ${fixed(work, 1)} s ` +
      `are work that cannot be shared. It costs $${fixed(sv1)} on SV1 and $${fixed(processor)} on the processor, however many ` +
      "circuits are on their way at once.",
    draw(settings, found, width) {
      const { height, at } = two(width), x = axis(1, 100, [1, 10, 100], "circuits at once", true), { together } = settings;
      return { height, body: [
        plot(at[0], x, axis(1, 1000, [1, 10, 100, 1000], "a training step (s)", true), (pen) => [
          pen.level(found.work, GREY, DASHED), pen.text(1, found.work, "work that cannot be shared", "start", 4, 15),
          [["SV1", settings.printedSv1], ["Aspen-9", settings.printedAspen]].map(([name, seconds]) =>
            [pen.line([[60, seconds], [100, seconds]], VERMILION), pen.text(57, seconds, "slides, " + name, "end")]),
          pen.curve((p) => figures.step.value({ ...settings, together: p }).seconds, BLUE), pen.dot(together, found.seconds, BLUE)]),
        plot(at[1], x, axis(0.01, 1000, [0.01, 1, 100], "its price ($)", true), (pen) =>
          [["SV1", found.sv1, BLUE], ["a processor", found.processor, PURPLE]].map(([name, price, colour]) =>
            [pen.level(price, colour), pen.dot(together, price, colour),
              pen.text(100, price, `${name}: $${fixed(price)}`, "end", -4, -9)]))] };
    },
  };

  // ---- How a figure moves in

  function add(parent, html) {
    parent.insertAdjacentHTML("beforeend", html);
    return parent.lastElementChild;
  }

  /* What the page hands over, as numbers. */
  function handed(div) {
    const texts = { ...div.dataset };
    div.querySelectorAll("[data-as]").forEach((part) => { texts[part.dataset.as] = part.textContent; });
    return Object.fromEntries(Object.entries(texts).map(([name, words]) => {
      const numbers = words.split(" ").map(parseFloat);
      return [name, numbers.length > 1 ? numbers : numbers[0]];
    }));
  }

  /* Makes an input, and a function that reads it. */
  function control(parent, id, { type, label, min, max, start, options, of, show }) {
    const row = add(parent, `<div class="live-input"><label for="${id}">${label}</label></div>`);
    if (options) {
      const list = add(row, `<select id="${id}">${options.map((name) => `<option>${name}</option>`).join("")}</select>`);
      return () => list.value;
    }
    const shown = add(row, '<span aria-hidden="true"></span>');
    const field = add(row, `<input id="${id}" type="${type}" min="${min}" max="${max}" value="${start}" checked>`);
    return () => {
      if (!show) return field.checked;
      const value = of(Number(field.value));
      shown.textContent = show(value);
      field.setAttribute("aria-valuetext", show(value));
      return value;
    };
  }

  function moveIn(div, number) {
    const figure = figures[div.dataset.figure];
    if (!figure) return;
    const given = handed(div), groups = {}, readers = {};
    div.querySelectorAll(".still").forEach((part) => part.remove());
    const hand = add(div, '<div class="live-inputs"></div>');
    for (const [name, input] of Object.entries(figure.inputs)) {
      const { group } = input;
      if (group) groups[group] ??= add(hand, `<fieldset><legend>${group}</legend></fieldset>`);
      readers[name] = control(groups[group] || hand, `live-${number}-${name}`, input);
    }
    const drawing = add(div, '<div class="live-drawing"></div>');
    const sentence = add(div, '<p class="live-words" aria-live="polite"></p>');
    const show = () => {
      const settings = { ...given };
      for (const name in readers) settings[name] = readers[name]();
      const found = figure.value(settings), words = figure.words(settings, found);
      const width = min(680, max(280, drawing.clientWidth));
      const { height, body } = figure.draw(settings, found, width);
      drawing.innerHTML = `<svg role="img" aria-label="${div.dataset.shows}" viewBox="0 0 ${width} ${height}" width="${width}">` +
        body.flat(9).filter(Boolean).join("") + "</svg>";
      if (sentence.textContent !== words) sentence.textContent = words;  // not spoken again when the window changes
    };
    hand.addEventListener("input", show);
    drawing.addEventListener("click", (event) => {  // what is drawn of an input is the input, too
      const part = event.target.closest("[data-input]");
      if (part) div.querySelector(`#live-${number}-${part.dataset.input}`).click();
    });
    new ResizeObserver(show).observe(drawing);
  }

  window.live = { figures };
  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("div.live").forEach(moveIn));
})();
