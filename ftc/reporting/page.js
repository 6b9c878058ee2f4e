"use strict";
// Every number follows from three numbers an image and model: its margin, and the leading columns on both
// sides of it. An image is given an absent class exactly when γ > margin (ftc/functional/outcomes.py).

const byId = (id) => document.getElementById(id);
const GROUPS = ["others", "seen", "absent"];
const LANES = {
  seen_only: "On labelled seen target images",
  unlabelled: "With unlabelled target images",
  oracle: "Bound, no method: looks at test labels",
};
const SHOWN = { classes: 40, confusions: 12, flips: 50 };
const BINS = 72;
const state = { run: null, model: null, gamma: 0, share: 0.5, epoch: 0, allClasses: false };
const runs = [];

// ---- numbers -------------------------------------------------------------------------------------------

const TYPES = { uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float64: Float64Array };

function decoded({ type, base64 }) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new TYPES[type](bytes.buffer);
}

function runAt(number) {
  if (!runs[number]) {
    const run = JSON.parse(byId(`data-${number}`).textContent);
    run.number = number;
    if (run.models.length) countImages(run);
    runs[number] = run;
  }
  return runs[number];
}

function countImages(run) {
  run.target = decoded(run.target);
  run.ids = decoded(run.ids);
  run.counts = new Uint32Array(run.classes.length);
  for (const label of run.target) run.counts[label]++;
  // How many each accuracy is a mean over: images, or classes that have images.
  run.sizes = [0, 0, 0];
  run.counts.forEach((count, column) => {
    run.sizes[run.groups[column]] += run.average === "class" ? Number(count > 0) : count;
  });
  run.hasBoth = run.sizes[1] > 0 && run.sizes[2] > 0;
}

function modelOf(run, name) {
  const model = run.models.find((candidate) => candidate.name === name);
  if (!model.order) {
    for (const field of ["margin", "fixed", "absent"]) model[field] = decoded(model[field]);
    model.order = new Uint32Array(model.margin.length).map((_, i) => i);
    model.order.sort((a, b) => model.margin[a] - model.margin[b]);
    model.sorted = Float64Array.from(model.order, (i) => model.margin[i]);
    model.atZero = rightByClass(run, model, 0);
    model.range = rangeOfGamma(run, model);
  }
  return model;
}

function predicted(model, i, gamma) {
  return gamma > model.margin[i] ? model.absent[i] : model.fixed[i];
}

function rightByClass(run, model, gamma) {
  const right = new Uint32Array(run.classes.length);
  for (let i = 0; i < run.target.length; i++) {
    if (predicted(model, i, gamma) === run.target[i]) right[run.target[i]]++;
  }
  return right;
}

function accuracies(run, right) {
  const sums = [0, 0, 0];
  right.forEach((hits, column) => {
    if (hits) sums[run.groups[column]] += run.average === "class" ? hits / run.counts[column] : hits;
  });
  const rate = (sum, size) => (size ? sum / size : NaN);
  const total = (values) => values[0] + values[1] + values[2];
  const seen = rate(sums[1], run.sizes[1]);
  const absent = rate(sums[2], run.sizes[2]);
  const harmonic = seen + absent > 0 ? (2 * seen * absent) / (seen + absent) : 0 * (seen + absent);
  return {
    acc_all: rate(total(sums), total(run.sizes)),
    acc_seen: seen,
    acc_absent: absent,
    harmonic,
    balanced: (seen + absent) / 2,
  };
}

// The exact curve: one point for each step between distinct margins, as ftc.functional.curve has it.
function stepsOf(run, model) {
  if (model.steps) return model.steps;
  const { sorted, order } = model;
  const weight = (i) => (run.average === "class" ? 1 / run.counts[run.target[i]] : 1);
  let seen = 0;
  let absent = 0;
  for (const i of order) {
    if (run.groups[run.target[i]] === 1 && model.fixed[i] === run.target[i]) seen += weight(i);
  }
  const gammas = [sorted[0] - 1];
  const points = { seen: [seen / run.sizes[1]], absent: [0] };
  for (let k = 0; k < order.length; k++) {
    const i = order[k];
    const label = run.target[i];
    if (run.groups[label] === 1 && model.fixed[i] === label) seen -= weight(i);
    if (run.groups[label] === 2 && model.absent[i] === label) absent += weight(i);
    if (k + 1 < order.length && sorted[k + 1] === sorted[k]) continue;
    gammas.push(k + 1 < order.length ? between(sorted[k], sorted[k + 1]) : sorted[k] + 1);
    points.seen.push(Math.max(seen, 0) / run.sizes[1]);
    points.absent.push(absent / run.sizes[2]);
  }
  model.steps = { gamma: gammas, ...points };
  return model.steps;
}

function between(low, high) {
  const middle = low + (high - low) / 2;
  return middle > low ? middle : high;
}

// Of several best steps, that with the smallest |γ|.
function bestForShare(steps, share) {
  let best = { gamma: NaN, score: -1 };
  for (let k = 0; k < steps.gamma.length; k++) {
    const score = (1 - share) * steps.seen[k] + share * steps.absent[k];
    const better = score > best.score;
    if (better || (score === best.score && Math.abs(steps.gamma[k]) < Math.abs(best.gamma))) {
      best = { gamma: steps.gamma[k], score };
    }
  }
  return best;
}

function lowerBound(sorted, value) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

// Images whose answer at γ is another than at 0, the nearest to γ first.
function flipsOf(model, gamma) {
  const [low, high] = [Math.min(gamma, 0), Math.max(gamma, 0)];
  const found = model.order.slice(lowerBound(model.sorted, low), lowerBound(model.sorted, high));
  return gamma > 0 ? found.reverse() : found;
}

function rangeOfGamma(run, model) {
  const finite = model.sorted.filter(Number.isFinite);
  const at = (share) => finite[Math.round(share * (finite.length - 1))] ?? 0;
  const known = run.calibrators.filter((c) => c.model === model.name);
  const values = [0, at(0.005), at(0.995), ...known.map((c) => c.gamma), ...known.flatMap((c) => c.interval ?? [])];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const margin = 0.05 * (high - low) || 1;
  const step = 10 ** Math.floor(Math.log10((high - low || 1) / 300));
  return { low: Math.floor((low - margin) / step) * step, high: Math.ceil((high + margin) / step) * step, step };
}

// ---- texts ---------------------------------------------------------------------------------------------

const missing = (value) => value === null || value === undefined || Number.isNaN(value);
const minus = (text) => text.replace("-", "−");
const percent = (value) => (missing(value) ? "–" : minus((100 * value).toFixed(1)));
const logits = (value) => minus(value.toFixed(2));
const many = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function number(value, text = percent(value)) {
  return missing(value) ? "–" : element("data", { value: String(value), textContent: text });
}

function change(from, to) {
  if (missing(from) || missing(to)) return "–";
  const points = 100 * (to - from);
  return Math.abs(points) < 0.05 ? "0.0" : `${points > 0 ? "+" : ""}${minus(points.toFixed(1))}`;
}

// Fills a table's body with rows of cells; the first cell is the row's heading.
function fill(id, rows) {
  const body = byId(id).tBodies[0];
  const numeric = [...byId(id).tHead.rows[0].cells].map((cell) => cell.classList.contains("number"));
  body.replaceChildren(
    ...rows.map((cells) => {
      const row = document.createElement("tr");
      cells.forEach((content, k) => {
        const cell = document.createElement(k ? "td" : "th");
        if (!k) cell.scope = "row";
        if (numeric[k]) cell.className = "number";
        cell.append(content);
        row.append(cell);
      });
      return row;
    }),
  );
}

// ---- drawing -------------------------------------------------------------------------------------------

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function ticksBetween(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((candidate) => candidate >= rough);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) ticks.push(k * step);
  return ticks;
}

// An empty chart in a box: axes, and functions X and Y from values to pixels.
function chart(box, { title, about, height, x, y, xLabel, yLabel, inPercent = [false, false], label = String }) {
  const width = Math.max(box.clientWidth, 240);
  // Where it is narrow, the legend has a line of its own below the axis' name.
  const legendAt = width < 480 ? 28 : 10;
  const room = { left: 46, right: 14, top: legendAt + 12, bottom: 42 };
  const X = (value) => room.left + ((value - x[0]) / (x[1] - x[0])) * (width - room.left - room.right);
  const Y = (value) => height - room.bottom - ((value - y[0]) / (y[1] - y[0])) * (height - room.top - room.bottom);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `${title}. ${about}` });
  root.append(svg("title", {}, title), svg("desc", {}, about));
  const text = (value, scaled) => minus(String(+(scaled ? 100 * value : value).toPrecision(6)));
  for (const tick of ticksBetween(y[0], y[1], height / 55)) {
    root.append(svg("line", { class: "grid", x1: room.left, x2: width - room.right, y1: Y(tick), y2: Y(tick) }));
    root.append(svg("text", { x: room.left - 7, y: Y(tick) + 4, "text-anchor": "end" }, text(tick, inPercent[1])));
  }
  for (const tick of ticksBetween(x[0], x[1], width / 80)) {
    root.append(svg("line", { class: "grid", x1: X(tick), x2: X(tick), y1: room.top, y2: height - room.bottom }));
    root.append(svg("text", { x: X(tick), y: height - room.bottom + 17, "text-anchor": "middle" }, label(text(tick, inPercent[0]))));
  }
  root.append(svg("text", { x: width - room.right, y: height - 6, "text-anchor": "end" }, xLabel));
  root.append(svg("text", { x: 0, y: 11 }, yLabel));
  box.replaceChildren(root);
  return { root, X, Y, width, height, room, legendAt, low: [x[0], y[0]] };
}

function path(points, { X, Y }) {
  let text = "";
  let last = "";
  for (const [x, y] of points) {
    const next = `${X(x).toFixed(1)} ${Y(y).toFixed(1)}`;
    if (next !== last) text += `${text ? "L" : "M"}${next}`;
    last = next;
  }
  return text;
}

const GLYPHS = [
  "M0-6 6 0 0 6-6 0Z", "M-5-5H5V5H-5Z", "M0 6-6-5H6Z", "M0-6 6 5H-6Z",
  "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z", "M-6-4-4-6 0-2 4-6 6-4 2 0 6 4 4 6 0 2-4 6-6 4-2 0Z", "M0-6 6-2 4 5H-4L-6-2Z",
];
const STAR = "M0-7 2-2 7-2 3 1 4.5 6 0 3-4.5 6-3 1-7-2-2-2Z";
const CIRCLE = "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z";

// Marks differ in shape and colour; the bound's is hollow, and so are models at γ = 0.
function glyph(entry) {
  if (entry.lane === "oracle") return svg("path", { d: STAR, class: "glyph hollow" });
  if (entry.lane === "model") return svg("path", { d: CIRCLE, class: "glyph hollow" });
  return svg("path", { d: GLYPHS[entry.index % 7], class: "glyph", style: `fill: var(--c${entry.index % 6})` });
}

// A glyph that stands in a text.
function markOf(entry) {
  return svg("svg", { viewBox: "-8 -8 16 16", width: 16, height: 16, "aria-hidden": "true" }, glyph(entry));
}

function placed(entry, x, y, name) {
  return svg("g", { transform: `translate(${x} ${y})` }, svg("title", {}, name), glyph(entry));
}

// Entries of the list of γ: models at γ = 0, then calibrators by lane.
function entriesOf(run) {
  const models = run.models
    .filter((model) => model.name === "source" || model.name === run.main)
    .map((model) => ({ name: model.name, title: `${model.title}, γ = 0`, lane: "model", gamma: 0, model: model.name }));
  return [...models, ...run.calibrators.map((calibrator, index) => ({ ...calibrator, index }))];
}

function drawTicks() {
  const box = byId("ticks");
  const entries = entriesOf(state.run).sort((a, b) => laneOrder(a) - laneOrder(b));
  box.replaceChildren(tickAxis(state.model.range));
  entries.forEach((entry, k) => {
    if (entry.lane in LANES && entry.lane !== entries[k - 1]?.lane) box.append(element("h3", { textContent: LANES[entry.lane] }));
    box.append(tick(entry));
  });
}

// Where γ lies on the slider, as CSS has it.
function where(gamma) {
  const { low, high } = state.model.range;
  return `${Math.min(Math.max((100 * (gamma - low)) / (high - low), 0), 100)}%`;
}

function tickAxis({ low, high }) {
  const axis = element("span", { className: "tick-track" });
  for (const value of ticksBetween(low, high, 7)) {
    const text = element("span", { textContent: minus(String(+value.toPrecision(6))) });
    text.style.left = where(value);
    axis.append(text);
  }
  return element("div", { className: "tick-axis", ariaHidden: "true" }, element("span"), axis);
}

// A button that goes to a γ: its mark and name, and where it lies.
function tick(entry) {
  const mark = markOf(entry);
  const value = entry.lane === "model" ? "" : logits(entry.gamma);
  const name = element("span", { className: "tick-name" }, mark, element("span", {}, entry.title), value);
  if (value && entry.model !== state.run.main) name.children[1].append(" ", element("small", { textContent: "own weights" }));
  const track = element("span", { className: "tick-track" });
  if (entry.interval) {
    const bar = element("span", { className: "interval", title: entry.interval.map(logits).join(" to ") });
    bar.style.left = where(entry.interval[0]);
    bar.style.right = `calc(100% - ${where(entry.interval[1])})`;
    track.append(bar);
  }
  const spot = element("span", { className: `mark ${entry.model === state.model.name ? "" : "elsewhere"}` }, mark.cloneNode(true));
  spot.style.left = where(entry.gamma);
  track.append(element("span", { className: "now" }), spot);
  const button = element("button", { type: "button", className: `tick ${entry.lane === "oracle" ? "bound" : ""}` }, name, track);
  Object.assign(button.dataset, { name: entry.name, gamma: entry.gamma, model: entry.model });
  button.addEventListener("click", () => goTo(entry.gamma, entry.model));
  return button;
}

function laneOrder(entry) {
  return ["model", "seen_only", "unlabelled", "oracle"].indexOf(entry.lane);
}

function drawCurve() {
  const { run, model } = state;
  const box = byId("curve");
  byId("curve-note").textContent = "";
  if (!run.hasBoth) {
    state.here = null;
    box.replaceChildren(element("p", { textContent: "The curve needs test images of seen and of absent classes." }));
    return;
  }
  const own = entriesOf(run).filter((entry) => entry.model === model.name);
  const marks = own.map((entry) => [entry, accuracies(run, rightByClass(run, model, entry.gamma))]);
  const corner = (name) => Math.floor(10 * Math.min(0.9, ...marks.map(([, at]) => at[name] - 0.02))) / 10;
  const other = run.models.find((m) => m.name === (model.name === "source" ? run.main : "source"));
  const frame = chart(box, {
    title: "Seen–absent curve", about: `U/Y against S/Y of the ${model.title} model as γ moves, with the γ of each calibrator.`,
    x: [state.enlarged ? corner("acc_seen") : 0, 1], y: [state.enlarged ? corner("acc_absent") : 0, 1], ...CURVE_AXES(box),
  });
  if (other) addCurve(frame, stepsOf(run, modelOf(run, other.name)), "k-faint");
  addCurve(frame, stepsOf(run, model), "k-main");
  for (const [entry, at] of marks) {
    frame.root.append(placed(entry, frame.X(at.acc_seen), frame.Y(at.acc_absent), `${entry.title}, γ = ${logits(entry.gamma)}`));
  }
  state.here = svg("circle", { class: "here", r: 10 });
  frame.root.append(state.here);
  state.frame = frame;
  const dashed = other ? ` Dashed: ${other.title}.` : "";
  byId("curve-note").textContent = `Line: ${model.title}.${dashed} Ring: the γ above. Marks as in the list of calibrators; those with weights of their own lie on their own curve.`;
}

// The axes of seen–absent curves, in boxes of any width.
const CURVE_AXES = (box) => ({
  height: Math.max(260, Math.min(380, box.clientWidth * 0.75)), inPercent: [true, true],
  xLabel: "S/Y, seen classes (%)", yLabel: "U/Y, absent classes (%)",
});

function addCurve(frame, { seen, absent }, kind) {
  const [x, y] = frame.low;
  const points = Array.from(seen, (value, k) => [value, absent[k]]).filter((point) => point[0] >= x && point[1] >= y);
  frame.root.append(svg("path", { class: `line ${kind}`, d: path(points, frame) }));
}

function binned(run, model) {
  const { low, high } = model.range;
  const bins = GROUPS.map(() => new Float64Array(BINS));
  const totals = [0, 0, 0];
  model.margin.forEach((margin, i) => {
    const group = run.groups[run.target[i]];
    totals[group]++;
    const bin = Math.floor(((margin - low) / (high - low)) * BINS);
    if (bin >= 0 && bin < BINS) bins[group][bin]++;
  });
  return bins.map((counts, group) => counts.map((count) => count / (totals[group] || 1)));
}

function drawHistogram() {
  const { run, model } = state;
  const { low, high } = model.range;
  const bins = binned(run, model);
  const top = Math.max(...bins.map((counts) => Math.max(...counts))) * 1.08 || 1;
  const frame = chart(byId("histogram"), {
    title: "Margins by group", about: "Share of each group's test images by margin; γ is a vertical line.", height: 230,
    x: [low, high], y: [0, top], xLabel: "margin (logits)", yLabel: "share of the group's images (%)", inPercent: [false, true],
  });
  const width = (high - low) / BINS;
  let shown = 0;
  [1, 2, 0].filter((group) => run.sizes[group]).forEach((group) => {
    const kind = ["all", "seen", "absent"][group];
    const outline = [...bins[group]].flatMap((share, k) => [[low + k * width, share], [low + (k + 1) * width, share]]);
    const line = path([[low, 0], ...outline, [high, 0]], frame);
    frame.root.append(svg("path", { class: `area-${kind}`, d: line }), svg("path", { class: `line k-${kind}`, d: line }));
    frame.root.append(legend(frame, shown++, `k-${kind}`, GROUPS[group]));
  });
  state.line = svg("line", { class: "cursor", y1: frame.room.top - 6, y2: frame.height - frame.room.bottom });
  frame.root.append(state.line);
  state.margins = frame;
}

// An entry of a legend above the plot's right end.
function legend(frame, place, kind, text) {
  const x = frame.width - frame.room.right - 84 * (place + 1) + 8;
  const y = frame.legendAt;
  return svg("g", {}, svg("line", { class: `line ${kind}`, x1: x, x2: x + 22, y1: y - 3, y2: y - 3 }), svg("text", { x: x + 27, y: y + 1 }, text));
}

function drawShares() {
  const { run, model } = state;
  byId("deployment").hidden = !run.hasBoth;
  if (!run.hasBoth) return;
  const steps = stepsOf(run, model);
  model.envelope ??= Array.from({ length: 41 }, (_, k) => [k / 40, bestForShare(steps, k / 40).score]);
  const frame = chart(byId("share-chart"), {
    title: "Expected accuracy by share of absent-class images", about: "At γ = 0, at the γ above, and at the best γ for each share, which looks at test labels.",
    height: 240, x: [0, 1], y: [0, 1], xLabel: "share of absent-class images (%)", yLabel: "expected accuracy (%)", inPercent: [true, true],
  });
  frame.root.append(svg("path", { class: "line k-best", d: path(model.envelope, frame) }));
  const zero = accuracies(run, model.atZero);
  state.shareLine = svg("path", { class: "line k-main" });
  state.shareDot = svg("circle", { class: "here", r: 6 });
  state.shares = frame;
  frame.root.append(svg("path", { class: "line k-faint", d: expectedLine(zero, frame) }), state.shareLine, state.shareDot);
  [["k-main", "now"], ["k-faint", "γ = 0"], ["k-best", "oracle"]].reverse().forEach(([kind, text], k) => frame.root.append(legend(frame, k, kind, text)));
}

function expectedLine(at, frame) {
  return path([[0, at.acc_seen], [1, at.acc_absent]], frame);
}

function expected(at, share) {
  return (1 - share) * at.acc_seen + share * at.acc_absent;
}

// ---- what moves with γ ---------------------------------------------------------------------------------

let due = 0;
function changed() {
  if (!due) due = requestAnimationFrame(update);
}

function update() {
  due = 0;
  const { run, model, gamma } = state;
  const right = rightByClass(run, model, gamma);
  const now = accuracies(run, right);
  const zero = accuracies(run, model.atZero);
  const flips = flipsOf(model, gamma);
  showControls(now);
  showAccuracies(zero, now);
  if (state.here && run.hasBoth) {
    const { X, Y, low } = state.frame;
    state.here.setAttribute("cx", X(Math.max(now.acc_seen, low[0])));
    state.here.setAttribute("cy", Y(Math.max(now.acc_absent, low[1])));
  }
  const x = state.margins.X(Math.min(Math.max(gamma, model.range.low), model.range.high));
  state.line.setAttribute("x1", x);
  state.line.setAttribute("x2", x);
  if (run.hasBoth) showShare(now, zero);
  showClasses(right);
  showConfusions(flips);
  showFlips(flips);
}

function showControls(now) {
  const { run, model, gamma } = state;
  const main = [["Y/Y", "acc_all"], ["S/Y", "acc_seen"], ["U/Y", "acc_absent"]];
  byId("headline").replaceChildren(
    ...main.flatMap(([symbol, name]) => [`${symbol}\u00a0`, element("b", {}, number(now[name]), missing(now[name]) ? "" : "\u00a0%"), " "]),
    element("span", { textContent: `${model.title} model at γ = ${logits(gamma)}` }),
  );
  const said = main.map(([symbol, name]) => `${symbol} ${percent(now[name])} percent`).join(", ");
  const slider = byId("gamma");
  slider.setAttribute("aria-valuetext", `γ ${logits(gamma)} logits: ${said}`);
  clearTimeout(state.speech);
  state.speech = setTimeout(() => (byId("spoken").textContent = `γ ${logits(gamma)}: ${said}`), 400);
  for (const line of document.querySelectorAll(".tick-track .now")) line.style.left = where(gamma);
  for (const tick of document.querySelectorAll(".tick")) {
    tick.setAttribute("aria-pressed", String(tick.dataset.model === model.name && Number(tick.dataset.gamma) === gamma));
  }
}

function showAccuracies(zero, now) {
  const { run, model } = state;
  const rows = [
    ["acc_all", "Y/Y, all"], ["acc_seen", "S/Y, seen"], ["acc_absent", "U/Y, absent"], ["harmonic", "H"], ["balanced", "(S/Y + U/Y)/2"],
    ["acc_seen_within", "S/S"], ["acc_absent_within", "U/U"], ["ausuc", "AUSUC"],
  ];
  fill("accuracies", rows.map(([name, title]) => {
    const moves = name in now;
    const [from, to] = moves ? [zero[name], now[name]] : [model.unmoved[name], model.unmoved[name]];
    const cell = number(to);
    if (cell.dataset) cell.dataset.metric = name;
    return [title, number(from), cell, moves ? change(from, to) : ""];
  }));
  byId("accuracies").caption.textContent = run.average === "class"
    ? "Percent, means over classes of the accuracy of each" : `Percent of ${many(run.target.length, "test image")}`;
}

function showShare(now, zero) {
  const { run, model, share } = state;
  const best = bestForShare(stepsOf(run, model), share);
  const text = byId("share-text");
  const jump = element("button", { type: "button", textContent: "Go there", id: "share-best" });
  jump.addEventListener("click", () => goTo(best.gamma));
  text.replaceChildren(
    `${Math.round(100 * share)} % absent: expected accuracy `, element("b", { id: "share-now" }, number(expected(now, share)), " %"),
    element("span", {}, "at γ = 0 ", number(expected(zero, share)), ` %; the best γ for this share is ${logits(best.gamma)} with `, element("data", { id: "share-oracle", value: String(best.score), textContent: percent(best.score) }), " % (oracle: looks at test labels) "),
    jump,
  );
  text.dataset.best = best.gamma;
  byId("share").setAttribute("aria-valuetext", `${Math.round(100 * share)} percent of the images are of absent classes: expected accuracy ${percent(expected(now, share))} percent`);
  const { shares } = state;
  state.shareLine.setAttribute("d", expectedLine(now, shares));
  state.shareDot.setAttribute("cx", shares.X(share));
  state.shareDot.setAttribute("cy", shares.Y(expected(now, share)));
}

function showClasses(right) {
  const { run, model, allClasses } = state;
  const rate = (hits, column) => hits[column] / run.counts[column];
  const present = [...run.classes.keys()].filter((column) => run.counts[column]);
  const moved = (column) => Math.abs(right[column] - model.atZero[column]) / run.counts[column];
  if (!allClasses) present.sort((a, b) => moved(b) - moved(a) || a - b);
  const shown = allClasses ? present : present.slice(0, SHOWN.classes);
  fill("classes", shown.map((column) => {
    const [before, now] = [rate(model.atZero, column), rate(right, column)];
    const group = GROUPS[run.groups[column]];
    const name = element("span", { className: `mark-${group}`, textContent: group });
    return [run.classes[column], name, run.counts[column].toLocaleString("en"), number(before), number(now), dumbbell(before, now, group)];
  }));
  const button = byId("all-classes");
  button.hidden = present.length <= SHOWN.classes;
  button.textContent = allClasses ? `Show the ${SHOWN.classes} that change most` : `Show all ${present.length.toLocaleString("en")} classes`;
  button.setAttribute("aria-expanded", String(allClasses));
  byId("classes").caption.textContent = allClasses ? "All classes with test images" : "Classes that γ changes most; percent";
}

function dumbbell(before, now, group) {
  const box = element("span", { className: `dumbbell mark-${group}` });
  box.setAttribute("aria-hidden", "true");
  const [span, ring, dot] = ["span", "before", "after"].map((className) => element("i", { className }));
  span.style.left = `${100 * Math.min(before, now)}%`;
  span.style.width = `${100 * Math.abs(now - before)}%`;
  ring.style.left = `${100 * before}%`;
  dot.style.left = `${100 * now}%`;
  box.append(span, dot, ring);
  return box;
}

// Confusions at γ = 0, counted once: label · number of classes + prediction → images.
function confusionsAtZero(run, model) {
  if (!model.confusions) {
    model.confusions = new Map();
    run.target.forEach((label, i) => add(model.confusions, label, predicted(model, i, 0), 1, run));
  }
  return model.confusions;
}

function add(map, label, answer, count, run) {
  if (label === answer) return;
  const key = label * run.classes.length + answer;
  map.set(key, (map.get(key) ?? 0) + count);
}

// The first of many, without sorting them all.
function firstOf(entries, count, compare) {
  const first = [];
  for (const entry of entries) {
    if (first.length === count && compare(entry, first[count - 1]) >= 0) continue;
    first.push(entry);
    first.sort(compare).splice(count);
  }
  return first;
}

function showConfusions(flips) {
  const { run, model, gamma } = state;
  const before = confusionsAtZero(run, model);
  const moved = new Map();
  for (const i of flips) {
    add(moved, run.target[i], predicted(model, i, 0), -1, run);
    add(moved, run.target[i], predicted(model, i, gamma), 1, run);
  }
  const listed = firstOf(moved, SHOWN.confusions, (a, b) => Math.abs(b[1]) - Math.abs(a[1]) || a[0] - b[0]);
  fill("confusions", listed.filter((entry) => entry[1]).map(([key, moves]) => {
    const [label, answer] = [Math.floor(key / run.classes.length), key % run.classes.length];
    const from = before.get(key) ?? 0;
    return [run.classes[label], run.classes[answer], String(from), String(from + moves)];
  }));
}

function showFlips(flips) {
  const { run, model, gamma } = state;
  const gained = { right: 0, wrong: 0 };
  for (const i of flips) {
    if (predicted(model, i, gamma) === run.target[i]) gained.right++;
    else if (predicted(model, i, 0) === run.target[i]) gained.wrong++;
  }
  const count = byId("flip-count");
  count.dataset.count = flips.length;
  const still = flips.length - gained.right - gained.wrong;
  count.replaceChildren(element("b", {}, many(flips.length, "image")), element("span", { textContent: `${gained.right.toLocaleString("en")} become right, ${gained.wrong.toLocaleString("en")} wrong, ${still.toLocaleString("en")} stay wrong` }));
  fill("flips", [...flips.subarray(0, SHOWN.flips)].map((i) => {
    const [before, now] = [predicted(model, i, 0), predicted(model, i, gamma)];
    const answer = now === run.target[i] ? "✓ now right" : before === run.target[i] ? "✗ now wrong" : "✗ still wrong";
    const image = run.thumbnails[run.ids[i]];
    const name = element("span", {}, String(run.ids[i]));
    if (image) name.append(element("img", { src: image, alt: "" }));
    return [name, ...[run.target[i], before, now].map((column) => run.classes[column]), answer];
  }));
  const more = flips.length - SHOWN.flips;
  const small = Object.keys(run.thumbnails).length ? "" : " Small images come into the page with thumbnails=true.";
  byId("flip-more").textContent = `${more > 0 ? `… and ${more.toLocaleString("en")} more. ` : ""}Images are named by their row in the run's test reader.${small}`;
}

// ---- epochs --------------------------------------------------------------------------------------------

const CHARTS = {
  "epoch-accuracies": {
    title: "Accuracies over epochs, γ = 0", label: "accuracy (%)", scaled: true,
    lines: [["acc_all", "k-all", "Y/Y"], ["acc_seen", "k-seen", "S/Y"], ["acc_absent", "k-absent", "U/Y"]],
  },
  "epoch-gaps": {
    title: "Logit gap over epochs", label: "logit gap (logits)", scaled: false,
    lines: [["logit_gap_on_seen", "k-seen", "seen"], ["logit_gap_on_absent", "k-absent", "absent"]],
  },
};

function drawEpochs() {
  const rows = state.run.epochs;
  byId("epochs").hidden = !rows.length;
  if (!rows.length) return;
  state.epoch = Math.min(state.epoch, rows.length - 1);
  byId("epoch").max = rows.length - 1;
  byId("epoch").value = state.epoch;
  byId("epoch-curve").hidden = rows.every((row) => !row.curve);
  state.cursors = Object.entries(CHARTS).map(([id, content]) => overEpochs(byId(id), rows, content));
  const lacks = rows.every((row) => row.acc_absent === null);
  byId("epoch-note").textContent = "Epoch −1 is the source model. " + (lacks
    ? "Validation images were of seen classes alone: there is no U/Y, and no curve, before the test."
    : "All of it is of validation images; the rest of the page is of test images.");
  showEpoch();
}

function overEpochs(box, rows, { title, label, scaled, lines }) {
  const values = lines.flatMap(([name]) => rows.map((row) => row[name])).filter((value) => value !== null);
  if (!values.length) {
    box.replaceChildren();
    return null;
  }
  const first = rows[0].epoch;
  const last = Math.max(rows[rows.length - 1].epoch, first + 1);
  const edge = 0.08 * (Math.max(...values) - Math.min(...values)) || 1;
  const y = scaled ? [0, 1] : [Math.min(...values) - edge, Math.max(...values) + edge];
  const about = lines.map(([, , text]) => text).join(", ");
  const frame = chart(box, { title, about, height: 190, x: [first, last], y, xLabel: "epoch", yLabel: label, inPercent: [false, scaled], label: (text) => (text.includes(".") ? "" : text) });
  lines.forEach(([name, kind, text], k) => {
    const points = rows.filter((row) => row[name] !== null).map((row) => [row.epoch, row[name]]);
    frame.root.append(svg("path", { class: `line ${kind}`, d: path(points, frame) }));
    if (points.length) frame.root.append(legend(frame, lines.length - 1 - k, kind, text));
  });
  const cursor = svg("line", { class: "cursor", y1: frame.room.top, y2: frame.height - frame.room.bottom });
  frame.root.append(cursor);
  return { cursor, frame };
}

function showEpoch() {
  const { run } = state;
  const row = run.epochs[state.epoch];
  const name = row.epoch < 0 ? "−1 (source model)" : String(row.epoch);
  const texts = [["Y/Y", "acc_all"], ["S/Y", "acc_seen"], ["U/Y", "acc_absent"]].filter(([, key]) => row[key] !== null);
  byId("epoch-text").replaceChildren(`Epoch ${name}, γ = 0: `, ...texts.flatMap(([symbol, key]) => [`${symbol}\u00a0`, element("b", {}, number(row[key]), "\u00a0%"), " "]));
  byId("epoch").setAttribute("aria-valuetext", `Epoch ${name}: ${texts.map(([symbol, key]) => `${symbol} ${percent(row[key])} percent`).join(", ")}`);
  for (const found of state.cursors.filter(Boolean)) {
    for (const end of ["x1", "x2"]) found.cursor.setAttribute(end, found.frame.X(row.epoch));
  }
  const known = run.calibrators.map((calibrator, index) => ({ ...calibrator, index, at: row.calibrators[calibrator.name] })).filter((entry) => entry.at);
  drawEpochCurve(row, known);
  // Lanes are not compared: each has a table, with the bound below.
  for (const lane of ["seen_only", "unlabelled"]) {
    const shown = known.filter((entry) => entry.lane === lane || entry.lane === "oracle");
    byId(`epoch-${lane}`).closest(".scroll").hidden = shown.every((entry) => entry.lane === "oracle");
    fill(`epoch-${lane}`, shown.map(({ title, lane, at }) => {
      const name = lane === "oracle" ? `${title} (bound)` : title;
      return [name, number(at.gamma, logits(at.gamma)), number(at.acc_all), number(at.acc_seen), number(at.acc_absent)];
    }));
  }
}

function drawEpochCurve(row, known) {
  const box = byId("epoch-curve");
  if (!row.curve) {
    box.replaceChildren(element("p", { className: "small", textContent: "No curve at this epoch: it needs validation images of seen and of absent classes." }));
    return;
  }
  drawRecorded(box, { [row.epoch]: row.curve }, known.map((entry) => ({ ...entry, ...entry.at })), "Seen–absent curve of the epoch");
}

// Curves that were thinned for drawing, with marks where calibrators are.
function drawRecorded(box, curves, entries, title) {
  const frame = chart(box, {
    title, about: "U/Y against S/Y as γ moves.", x: [0, 1], y: [0, 1], ...CURVE_AXES(box),
  });
  for (const [name, curve] of Object.entries(curves)) addCurve(frame, curve, name === "source" ? "k-faint" : "k-main");
  for (const entry of entries.filter((e) => !missing(e.acc_seen) && !missing(e.acc_absent))) {
    frame.root.append(placed(entry, frame.X(entry.acc_seen), frame.Y(entry.acc_absent), `${entry.title}, γ = ${logits(entry.gamma)}`));
  }
}

// ---- choices -------------------------------------------------------------------------------------------

function goTo(gamma, model = state.model.name) {
  state.gamma = gamma;
  byId("gamma-number").value = gamma;
  if (model === state.model.name) {
    byId("gamma").value = gamma;
    changed();
  } else {
    chooseModel(model);
  }
}

function chooseModel(name) {
  state.model = modelOf(state.run, name);
  const { low, high, step } = state.model.range;
  Object.assign(byId("gamma"), { min: low, max: high, step, value: state.gamma });
  byId("model").value = name;
  drawModel();
}

function drawModel() {
  drawTicks();
  drawCurve();
  drawHistogram();
  drawShares();
  update();
}

function chooseRun(index) {
  const run = runAt(index);
  Object.assign(state, { run, gamma: 0, epoch: run.epochs.length - 1 });
  for (const part of document.querySelectorAll("[data-run]")) part.hidden = Number(part.dataset.run) !== index;
  for (const row of document.querySelectorAll("#runs tbody tr")) {
    if (Number(row.dataset.row) === index) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
  byId("explorer").hidden = false;
  byId("images").hidden = !run.models.length;
  byId("recorded").hidden = !Object.keys(run.curves).length;
  byId("gamma-number").value = 0;
  if (run.models.length) {
    const share = run.sizes[2] / (run.sizes[1] + run.sizes[2]);
    state.share = run.hasBoth ? Math.round(100 * share) / 100 : 0.5;
    byId("share").value = Math.round(100 * state.share);
    byId("share-note").textContent = `Computed from S/Y and U/Y of the test images, where the share is ${percent(share)} %. “Oracle” is the best that γ can do for each share: it looks at test labels, and is a bound.`;
    byId("model").replaceChildren(...run.models.map((model) => element("option", { value: model.name, textContent: model.title })));
    chooseModel(run.main);
  }
  drawRest();
}

function drawRest() {
  const { run } = state;
  if (!byId("recorded").hidden) {
    const entries = run.calibrators.map((calibrator, index) => ({ ...calibrator, index }));
    drawRecorded(byId("recorded-curve"), run.curves, entries, "Seen–absent curve");
    const text = ({ title, gamma, lane }) => ` ${title}, γ = ${logits(gamma)}${lane === "oracle" ? " (bound: looks at test labels)" : ""}`;
    byId("recorded-marks").replaceChildren(...entries.map((entry) => element("li", {}, markOf(entry), text(entry))));
  }
  drawEpochs();
}

function sortRuns(button) {
  const heading = button.closest("th");
  const direction = heading.getAttribute("aria-sort") === "descending" ? 1 : -1;
  for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  const body = heading.closest("table").tBodies[0];
  const key = (row) => {
    const cell = row.cells[heading.cellIndex];
    const value = cell.querySelector("data")?.value ?? cell.textContent;
    return value === "–" ? null : value;
  };
  const compare = (a, b) => (Number.isNaN(a - b) ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  const rows = [...body.rows].sort((a, b) => {
    const [one, two] = [key(a), key(b)];
    if (one === null || two === null) return (one === null) - (two === null);
    return direction * compare(one, two);
  });
  body.append(...rows);
}

function listen() {
  const on = (id, event, act) => byId(id).addEventListener(event, (happened) => act(happened.target));
  on("gamma", "input", (slider) => {
    state.gamma = slider.valueAsNumber;
    byId("gamma-number").value = state.gamma;
    changed();
  });
  on("gamma-number", "input", (field) => {
    if (Number.isFinite(field.valueAsNumber)) state.gamma = field.valueAsNumber;
    byId("gamma").value = state.gamma;
    changed();
  });
  on("model", "change", (list) => chooseModel(list.value));
  on("enlarge", "change", (box) => {
    state.enlarged = box.checked;
    drawCurve();
    changed();
  });
  on("share", "input", (slider) => {
    state.share = slider.valueAsNumber / 100;
    changed();
  });
  on("all-classes", "click", () => {
    state.allClasses = !state.allClasses;
    changed();
  });
  on("epoch", "input", (slider) => {
    state.epoch = slider.valueAsNumber;
    showEpoch();
  });
  for (const button of document.querySelectorAll(".pick")) button.addEventListener("click", () => chooseRun(Number(button.dataset.pick)));
  for (const button of document.querySelectorAll(".sort")) button.addEventListener("click", () => sortRuns(button));
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    if (state.run.models.length) drawModel();
    drawRest();
  });
  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
}

listen();
chooseRun(0);
document.documentElement.dataset.ready = String(performance.now());
