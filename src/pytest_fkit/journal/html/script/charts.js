// The charts over time, one above the other: lanes, memory, CPU, memory of GPUs. What is seen of
// the axis is the same in all of them.

const CHART_HEIGHT = 84;
const MOST_POINTS = 1500;
const MOST_LINES = 2;
const GPU_COLOURS = ["#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#06b6d4", "#ec4899", "#84cc16"];
const STEPS_OF_SIZE = Array.from({ length: 32 }, (_, power) => 2 ** (power - 4));
const STEPS_OF_TIME = [
  1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000,
  900_000, 1_800_000, 3_600_000, 7_200_000, 14_400_000, 28_800_000, 86_400_000,
];

// When attempts begin and end, in order: even numbers are begins, odd ones ends, of which[number / 2].
function edgesOf({ start, duration }, which) {
  const number = 2 * which.length;
  // A time and an edge in one number, since numbers alone are sorted many times as fast as objects. Times have tenths.
  const keys = new Float64Array(number);
  which.forEach((at, edge) => {
    keys[2 * edge] = Math.round(10 * start[at]) * number + 2 * edge;
    keys[2 * edge + 1] = Math.round(10 * (start[at] + duration[at])) * number + 2 * edge + 1;
  });
  return keys.sort();
}

// What all that runs at a moment takes together, as steps: times, and what holds from them on.
function totals(attempts, which, edges, amount) {
  const times = [];
  const values = [];
  let total = 0;
  for (const key of edges) {
    const edge = key % edges.length;
    const at = which[edge >> 1];
    const value = attempts.duration[at] > 0 ? amount(at) : 0;
    if (value <= 0) continue;
    total += edge & 1 ? -value : value;
    const time = Math.floor(key / edges.length) / 10;
    if (times.length && times[times.length - 1] === time) values[values.length - 1] = Math.max(total, 0);
    else {
      times.push(time);
      values.push(total < 1e-6 ? 0 : total);
    }
  }
  return { times, values };
}

// What holds at a moment; null before the first step.
function valueAt({ times, values }, at) {
  const step = lowerBound(times, at + 1e-9, 0, times.length) - 1;
  return step < 0 ? null : values[step];
}

// The steps between two moments, no more than can be seen: of several the highest.
function inView({ times, values }, min, max) {
  const first = Math.max(lowerBound(times, min, 0, times.length) - 1, 0);
  const end = Math.min(lowerBound(times, max, 0, times.length) + 1, times.length);
  if (end - first <= 2 * MOST_POINTS) return [times.slice(first, end), values.slice(first, end)];
  const width = (max - min) / MOST_POINTS;
  const seen = [[], []];
  for (let at = first; at < end;) {
    const until = times[at] + width;
    let highest = 0;
    seen[0].push(times[at]);
    for (; at < end && times[at] < until; at++) highest = Math.max(highest, values[at]);
    seen[1].push(highest);
  }
  return seen;
}

const highestOf = (series) => series.reduce((most, each) => each.steps.values.reduce((a, b) => Math.max(a, b), most), 0);

class Charts {
  constructor(data, callbacks) {
    this.data = data;
    this.callbacks = callbacks;
    this.host = byId("plots");
    this.plots = [];
    this.selected = -1;
    this.show(0);
    this.#listen();
  }

  show(session) {
    this.session = session;
    this.end = Math.max(this.data.sessions[session].end, 1);
    this.range = [0, this.end];
    this.lanes = new Lanes(this.data, session);
    this.lanes.selected = this.selected;
    this.sources = this.#sources();
    this.#build();
    this.#showLegend();
  }

  #sources() {
    const { attempts } = this.data;
    const which = [];
    for (const lane of this.lanes.lanes) {
      for (let at = this.data.firstOfLane[lane]; at < this.data.firstOfLane[lane + 1]; at++) which.push(at);
    }
    const edges = edgesOf(attempts, which);
    const memory = totals(attempts, which, edges, (at) => attempts.memory[at]);
    const cpu = totals(attempts, which, edges, (at) => attempts.cpu[at] / attempts.duration[at]);
    const found = [];
    if (memory.times.length) {
      found.push({ title: "Memory of running tests", hint: "sum of their peaks", show: showSize, series: [{ name: "", colour: "accent", steps: memory }] });
    }
    if (cpu.times.length) {
      found.push({ title: "CPUs in use by tests", show: (value) => digits(value, 2), series: [{ name: "", colour: "accent", steps: cpu }] });
    }
    const gpus = this.data.gpus.filter((gpu) => gpu.session === this.session);
    if (gpus.length) {
      const series = gpus.map((gpu, number) => ({
        name: `GPU ${gpu.gpu}`, fixed: GPU_COLOURS[number % GPU_COLOURS.length], steps: { times: this.data.moments[gpu.at], values: gpu.memory },
      }));
      // More lines than these can't be told apart.
      const rows = series.length > MOST_LINES;
      found.push({ title: "GPU memory in use", hint: rows ? `the stronger the colour, the more; at most ${showSize(highestOf(series))}` : "", rows, show: showSize, series });
    }
    return found;
  }

  // --- building ---

  #build() {
    for (const plot of this.plots) plot.destroy();
    this.host.replaceChildren();
    const width = this.host.clientWidth;
    this.gutter = width < 560 ? 62 : 104;
    this.plots = [this.#buildLanes(width), ...this.sources.map((source) => source.rows ? this.#buildRows(source, width) : this.#buildChart(source, width))];
    this.#setRange(...this.range);
  }

  #common(width, height) {
    return {
      width, height, legend: { show: false }, padding: [0, 10, 0, 0],
      cursor: {
        y: false, points: { show: false }, drag: { x: true, y: false, setScale: false },
        // The cursor is in all of them, a selection only where it is made: each would zoom.
        sync: { key: "fkit-time", setSeries: false, scales: ["x", null], filters: { pub: (what) => !["mousedown", "mouseup", "dblclick"].includes(what) } },
        bind: { dblclick: () => () => this.#setRange(0, this.end) },
      },
      hooks: { setSelect: [(u) => this.#select(u)] },
    };
  }

  #timeAxis(shown) {
    const tick = { show: shown, stroke: colour("line"), width: 1, size: 5 };
    return {
      scale: "x", stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: tick,
      size: shown ? 30 : 0, space: 70, incrs: STEPS_OF_TIME, font: AXIS_FONT(),
      values: (u, splits, axis, space, step) => shown ? splits.map((at) => showMoment(at, step)) : splits.map(() => ""),
    };
  }

  #buildLanes(width) {
    const gutter = this.gutter;
    const options = this.#common(width, this.lanes.height + 30);
    options.scales = {
      x: { time: false, range: (u, min, max) => [min, max] },
      y: { dir: -1, range: () => [0, Math.max(this.lanes.lanes.length, 1)] },
    };
    options.series = [{}, { paths: () => null, points: { show: false } }];
    options.axes = [
      this.#timeAxis(true),
      {
        stroke: colour("text"), grid: { show: false }, ticks: { show: false }, size: gutter, gap: 8, font: AXIS_FONT(),
        splits: () => this.lanes.lanes.map((_, row) => row + 0.5),
        values: (u, splits) => splits.map((_, row) => this.lanes.label(row, gutter - 8)),
        lineGap: 1.25,
      },
    ];
    options.hooks.drawAxes = [(u) => this.lanes.draw(u)];
    const box = this.host.appendChild(make("div", { class: "plot lanes" }));
    const plot = new uPlot(options, [[0, this.end], [0, 0]], box);
    plot.over.addEventListener("mousemove", (event) => this.#hover(plot, event));
    plot.over.addEventListener("mouseleave", () => this.#leave(plot));
    plot.over.addEventListener("click", (event) => this.#click(plot, event));
    this.#listenTo(plot);
    return plot;
  }

  #buildChart(source, width) {
    const options = { ...this.#common(width, CHART_HEIGHT), padding: [6, 10, 8, 0] };
    options.scales = { x: { time: false, range: (u, min, max) => [min, max] }, y: { range: (u, min, max) => [0, Math.max(max * 1.15, 0.001)] } };
    options.series = [{}, ...source.series.map((series) => {
      const stroke = series.fixed || colour(series.colour);
      return {
        label: series.name, stroke, width: 1.5, spanGaps: true, points: { show: false },
        fill: source.series.length === 1 ? colour("area") : undefined, paths: uPlot.paths.stepped({ align: 1 }),
      };
    })];
    options.axes = [
      this.#timeAxis(false),
      {
        stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, size: this.gutter,
        font: AXIS_FONT(), gap: 8, space: 22, incrs: source.show === showSize ? STEPS_OF_SIZE : undefined, values: (u, splits) => splits.map((value) => value === 0 ? "0" : source.show(value)),
      },
    ];
    const reading = this.#addTitle(source);
    const box = this.host.appendChild(make("div", { class: "plot" }));
    options.hooks.setCursor = [(u) => this.#read(u, source, reading)];
    const plot = new uPlot(options, [[0, this.end], ...source.series.map(() => [null, null])], box);
    plot.source = source;
    this.#listenTo(plot);
    this.#read(plot, source, reading);
    return plot;
  }

  // A row for each series, of a stronger colour for more.
  #buildRows(source, width) {
    const { series } = source;
    const height = series.length > 32 ? 6 : series.length > 8 ? 12 : 18;
    const highest = Math.max(1, highestOf(series));
    const options = { ...this.#common(width, series.length * height + 12), padding: [4, 10, 8, 0] };
    options.scales = { x: { time: false, range: (u, min, max) => [min, max] }, y: { dir: -1, range: () => [0, series.length] } };
    options.series = [{}, { paths: () => null, points: { show: false } }];
    const named = Math.ceil(12 / height);
    options.axes = [
      { ...this.#timeAxis(false), grid: { show: false } },
      {
        stroke: colour("muted"), grid: { show: false }, ticks: { show: false }, size: this.gutter, gap: 8, font: AXIS_FONT(10),
        splits: () => series.map((_, row) => row + 0.5), values: (u, splits) => splits.map((_, row) => row % named ? "" : series[row].name),
      },
    ];
    options.hooks.drawAxes = [(u) => {
      const { ctx, bbox: box } = u;
      const [min, max] = this.range;
      const x = (time) => box.left + (Math.min(Math.max(time, min), max) - min) / (max - min) * box.width;
      ctx.save();
      ctx.fillStyle = colour("accent");
      series.forEach(({ steps }, row) => {
        const top = Math.round(u.valToPos(row, "y", true));
        const bottom = Math.round(u.valToPos(row + 1, "y", true));
        const [times, values] = inView(steps, min, max);
        times.forEach((time, at) => {
          const begin = x(time);
          ctx.globalAlpha = 0.06 + 0.94 * values[at] / highest;
          ctx.fillRect(begin, top, x(times[at + 1] ?? max) - begin, bottom - top - devicePixelRatio);
        });
      });
      ctx.restore();
    }];
    const reading = this.#addTitle(source);
    options.hooks.setCursor = [(u) => {
      if (u.cursor.left < 0) return reading.replaceChildren();
      const time = u.posToVal(u.cursor.left, "x");
      const now = series.map((each) => valueAt(each.steps, time) ?? 0);
      const here = u.cursor.event && u.over.matches(":hover") ? series[Math.floor(u.posToVal(u.cursor.top, "y"))] : undefined;
      const text = here ? `${here.name} ` : "together ";
      reading.replaceChildren(text, make("b", {}, source.show(here ? now[series.indexOf(here)] : now.reduce((a, b) => a + b, 0))));
    }];
    const plot = new uPlot(options, [[0, this.end], [0, 0]], this.host.appendChild(make("div", { class: "plot" })));
    this.#listenTo(plot);
    return plot;
  }

  #addTitle(source) {
    const reading = make("span", { class: "reading" });
    this.host.append(make("p", { class: "plot-title" }, make("b", {}, source.title), source.hint ? make("small", {}, source.hint) : null, reading));
    return reading;
  }

  // What the cursor is on, in words, or what the colours mean.
  #read(u, source, reading) {
    const at = u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : null;
    reading.replaceChildren(...source.series.map((series) => {
      const box = make("span", { class: "series" });
      if (series.name) {
        const key = box.appendChild(make("i", { class: "key" }));
        key.style.background = series.fixed;
        box.append(series.name);
      }
      if (at !== null) {
        const value = valueAt(series.steps, at);
        box.append(make("b", {}, value === null ? " –" : ` ${source.show(value)}`));
      }
      return box;
    }));
  }

  #showLegend() {
    const { attempts, marks, wide } = this.data;
    const seen = new Set();
    for (const lane of this.lanes.lanes) {
      for (let at = this.data.firstOfLane[lane]; at < this.data.firstOfLane[lane + 1]; at++) {
        seen.add(attempts.outcome[at] < 0 ? "retry" : this.data.outcomes[attempts.outcome[at]]);
      }
    }
    const entries = WORST.filter((name) => seen.has(name)).map((name) => [name, name === "retry" ? "attempt without verdict" : name, ""]);
    if (wide.lane.some((lane) => this.lanes.rowOf.has(lane))) entries.push(["wide", "wide fixtures, collection", ""]);
    const kinds = new Set(this.lanes.marks.map((mark) => marks.kind[mark]));
    for (const kind of kinds) entries.push([MARKS[kind].colour, MARKS[kind].text, `mark-${MARKS[kind].name}`]);
    byId("legend").replaceChildren(...entries.map(([name, text, mark]) => {
      const key = make("i", { class: `key ${mark}` });
      key.style.setProperty("--key", `var(--${name})`);
      return make("li", {}, key, text);
    }));
  }

  // --- what is seen of the axis ---

  #setRange(min, max) {
    const width = Math.min(Math.max(max - min, 2), this.end);
    const from = Math.min(Math.max(min, 0), this.end - width);
    this.range = [from, from + width];
    for (const plot of this.plots) {
      plot.batch(() => {
        if (plot.source) plot.setData(this.#dataInView(plot.source), false);
        plot.setScale("x", { min: from, max: from + width });
      });
    }
    byId("zoom-all").disabled = byId("zoom-out").disabled = width >= this.end;
  }

  #dataInView(source) {
    const [min, max] = this.range;
    const seen = source.series.map((series) => inView(series.steps, min, max));
    const data = seen.length === 1 ? seen[0] : uPlot.join(seen);
    if (!data[0].length) return [[min, max], ...source.series.map(() => [null, null])];
    // The last step goes on to the end of what is seen.
    const last = data[0][data[0].length - 1];
    if (last < max) {
      data[0].push(max);
      for (const values of data.slice(1)) {
        let known = null;
        for (let at = values.length - 1; at >= 0 && known === null; at--) known = values[at] ?? null;
        values.push(known);
      }
    }
    return data;
  }

  #select(u) {
    if (u.select.width > 4) {
      this.#setRange(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x"));
      this.dragged = performance.now();
    }
    if (u.select.width > 0) u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
  }

  zoom(factor, around = (this.range[0] + this.range[1]) / 2) {
    const [min, max] = this.range;
    this.#setRange(around - (around - min) * factor, around + (max - around) * factor);
  }

  move(share) {
    const [min, max] = this.range;
    const by = (max - min) * share;
    this.#setRange(min + by, max + by);
  }

  all() {
    this.#setRange(0, this.end);
  }

  // Shows the attempts at a test, if they are of this session.
  select(test) {
    this.selected = this.lanes.selected = test;
    const { start, duration, lane } = this.data.attempts;
    const attempts = test < 0 ? [] : this.data.attemptsOf(test).filter((at) => this.lanes.rowOf.has(lane[at]));
    if (attempts.length) {
      const from = Math.min(...attempts.map((at) => start[at]));
      const to = Math.max(...attempts.map((at) => start[at] + duration[at]));
      const [min, max] = this.range;
      const width = max - min;
      if (to < min || from > max) this.#setRange((from + to - width) / 2, (from + to + width) / 2);
    }
    this.plots[0]?.redraw(false);
  }

  rebuild() {
    this.#build();
  }

  // --- events ---

  #listen() {
    byId("zoom-in").addEventListener("click", () => this.zoom(0.5));
    byId("zoom-out").addEventListener("click", () => this.zoom(2));
    byId("zoom-all").addEventListener("click", () => this.all());
    const keys = {
      ArrowLeft: () => this.move(-0.2), ArrowRight: () => this.move(0.2), "+": () => this.zoom(0.5), "=": () => this.zoom(0.5),
      "-": () => this.zoom(2), 0: () => this.all(), Home: () => this.all(),
    };
    this.host.addEventListener("keydown", (event) => {
      if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    });
    let width = this.host.clientWidth;
    new ResizeObserver(() => {
      if (this.host.clientWidth === width || !this.host.clientWidth) return;
      width = this.host.clientWidth;
      this.#build();
    }).observe(this.host);
  }

  // The wheel, and fingers: one moves, two zoom.
  #listenTo(plot) {
    const { over } = plot;
    const timeAt = (event) => plot.posToVal(event.clientX - over.getBoundingClientRect().left, "x");
    over.addEventListener("wheel", (event) => {
      const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
      if (event.ctrlKey || event.metaKey) this.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 150), timeAt(event));
      else if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) this.move(sideways / over.clientWidth);
      else return;
      event.preventDefault();
    }, { passive: false });
    const fingers = new Map();
    over.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch") fingers.set(event.pointerId, event.clientX);
    });
    over.addEventListener("pointermove", (event) => {
      if (!fingers.has(event.pointerId)) return;
      const before = fingers.get(event.pointerId);
      if (fingers.size === 1) this.move((before - event.clientX) / over.clientWidth);
      else {
        const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, x]) => x);
        const wide = Math.max(Math.abs(event.clientX - other), 8);
        this.zoom(Math.max(Math.abs(before - other), 8) / wide, timeAt({ clientX: other }));
      }
      fingers.set(event.pointerId, event.clientX);
    });
    for (const name of ["pointerup", "pointercancel", "pointerleave"]) {
      over.addEventListener(name, (event) => fingers.delete(event.pointerId));
    }
  }

  #find(plot, event) {
    const box = plot.over.getBoundingClientRect();
    return this.lanes.at(plot, event.clientX - box.left, event.clientY - box.top);
  }

  #hover(plot, event) {
    const found = this.#find(plot, event);
    const before = this.lanes.hovered;
    this.lanes.hovered = found;
    plot.over.style.cursor = found && found.test >= 0 ? "pointer" : "crosshair";
    if (before?.test !== found?.test) plot.redraw(false);
    showTip(found ? this.#describe(found) : null, event.clientX, event.clientY);
  }

  #leave(plot) {
    showTip(null);
    if (!this.lanes.hovered) return;
    this.lanes.hovered = null;
    plot.redraw(false);
  }

  #click(plot, event) {
    if (performance.now() - (this.dragged || -Infinity) < 300) return;
    const found = this.#find(plot, event);
    if (found && found.test >= 0) this.callbacks.open(found.test);
  }

  #describe({ lane, attempt, wide, mark, test }) {
    const { data } = this;
    const lines = [];
    const line = (text, kind = "") => text && lines.push(make("p", { class: kind }, text));
    if (mark !== undefined) line(data.marks.text[mark], "strong");
    if (wide !== undefined) {
      line(data.wide.label[wide], "strong");
      line(`${showTime(data.wide.duration[wide])} from ${showMoment(data.wide.start[wide], 10)}`);
    }
    if (test >= 0) lines.push(make("p", {}, sign(data.outcomeOf(test)), " ", showName(data.tests.name[test])));
    if (attempt >= 0) {
      const at = attempt;
      const kind = data.attempts.outcome[at] < 0 ? "an attempt that gave no verdict" : data.outcomes[data.attempts.outcome[at]];
      line(`${kind}, ${showTime(data.attempts.duration[at])} from ${showMoment(data.attempts.start[at], 10)}`);
      if (data.attempts.memory[at] >= 0) line(`${showSize(data.attempts.memory[at])}, CPU ${showTime(data.attempts.cpu[at])}`);
      if (data.attempts.outcome[at] === data.tests.outcome[test]) line(data.tests.message[test], "message");
    }
    line(`${data.lanes[lane].name}, ${data.clock(this.session, mark !== undefined ? data.marks.at[mark] : wide !== undefined ? data.wide.start[wide] : data.attempts.start[attempt]).toLocaleTimeString()}`, "dim");
    return lines;
  }
}

const AXIS_FONT = (size = 11) => `${size}px ${getComputedStyle(document.body).fontFamily}`;

function showTip(lines, x, y) {
  const tip = byId("tip");
  tip.hidden = !lines;
  if (!lines) return;
  tip.replaceChildren(...lines);
  const { offsetWidth: width, offsetHeight: height } = tip;
  const left = x + 14 + width > innerWidth ? Math.max(x - width - 14, 4) : x + 14;
  const top = y + 14 + height > innerHeight ? Math.max(y - height - 14, 4) : y + 14;
  tip.style.transform = `translate(${left}px, ${top}px)`;
}
