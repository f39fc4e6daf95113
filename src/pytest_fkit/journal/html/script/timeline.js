// The lanes of workers: tests, wide fixtures and marks, drawn into a chart of uPlot's, which has
// the axes, the cursor and the selection.

// In the order of timeline.py.
const MARKS = [
  { name: "finished" },
  { name: "died", colour: "error", text: "crash" },
  { name: "error", colour: "warn", text: "GPU error" },
  { name: "sick", colour: "warn", text: "sick, retired" },
  { name: "well", colour: "passed", text: "readmitted" },
  { name: "xid", colour: "warn", text: "Xid" },
  { name: "run", colour: "muted", text: "another run" },
  { name: "network", colour: "warn", text: "network error" },
];
const [, DIED, , SICK, WELL, , RUN] = MARKS.keys();

// Of several tests in one column of pixels the first of these is seen.
const WORST = ["error", "failed", "unfinished", "retry", "quarantined", "xpassed", "xfailed", "skipped", "passed"];

const MOST_OUTLINES = 50;
const SHARES = { wide: [0.1, 0.26], tests: [0.32, 0.9] }; // of the height of a lane

class Lanes {
  constructor(data, session, callbacks) {
    this.data = data;
    this.session = session;
    this.callbacks = callbacks;
    this.lanes = [...data.lanes.keys()].filter((lane) => data.lanes[lane].session === session);
    this.lanes.sort((a, b) => data.lanes[a].worker.localeCompare(data.lanes[b].worker, "en", { numeric: true }));
    this.rowOf = new Map(this.lanes.map((lane, row) => [lane, row]));
    this.rowHeight = [44, 34, 24, 16][[4, 12, 40, Infinity].findIndex((most) => this.lanes.length <= most)];
    this.rank = data.outcomes.map((name) => WORST.indexOf(name) >= 0 ? WORST.indexOf(name) : WORST.length);
    this.retryRank = WORST.indexOf("retry");
    this.wide = this.#byLane(data.wide);
    this.marks = [...data.marks.at.keys()].filter((at) => data.marks.session[at] === session);
    this.retired = this.#retirements();
    const ranAgain = (attempts) => attempts.slice(0, -1).some((at) => data.attempts.outcome[at] < 0);
    this.retried = [...data.several].filter(([, attempts]) => ranAgain(attempts)).map(([test]) => test);
    this.selected = -1;
    this.hovered = null;
  }

  get height() {
    return Math.max(this.lanes.length, 1) * this.rowHeight;
  }

  #byLane(columns) {
    const found = new Map(this.lanes.map((lane) => [lane, []]));
    columns.lane.forEach((lane, at) => found.get(lane)?.push(at));
    for (const each of found.values()) each.sort((a, b) => columns.start[a] - columns.start[b]);
    return found;
  }

  // From when until when lanes got no tests.
  #retirements() {
    const { kind, lane, at, text } = this.data.marks;
    const found = [];
    const open = new Map();
    for (const mark of this.marks) {
      if (kind[mark] === SICK && text[mark].startsWith("retired") && !open.has(lane[mark])) open.set(lane[mark], at[mark]);
      if (kind[mark] === WELL && open.has(lane[mark])) {
        found.push([lane[mark], open.get(lane[mark]), at[mark]]);
        open.delete(lane[mark]);
      }
    }
    for (const [which, from] of open) found.push([which, from, this.data.sessions[this.session].end]);
    return found;
  }

  // What names lanes at the axis, in at most two lines.
  label(row, width) {
    const lane = this.data.lanes[this.lanes[row]];
    if (!lane) return "";
    const most = Math.floor(width / 6.6);
    const cut = (text) => text.length <= most ? text : `${text.slice(0, most - 1)}…`;
    const gpus = lane.gpus.length ? `GPU${lane.gpus.length > 1 ? "s" : ""} ${lane.gpus.join(",")}` : "";
    if (!gpus) return cut(lane.worker);
    if (this.rowHeight >= 30) return `${cut(lane.worker)}\n${cut(gpus)}`;
    return cut(`${lane.worker} ${gpus}`);
  }

  // --- drawing ---

  draw(u) {
    const { ctx } = u;
    const box = u.bbox;
    ctx.save();
    ctx.beginPath();
    ctx.rect(box.left, box.top, box.width, box.height);
    ctx.clip();
    this.#drawGround(u);
    const byColour = new Map();
    const labels = [];
    for (const lane of this.lanes) this.#collectTests(u, lane, byColour, labels);
    for (const lane of this.lanes) this.#collectWide(u, lane, byColour);
    for (const [name, rectangles] of byColour) {
      ctx.fillStyle = colour(name);
      ctx.beginPath();
      for (const [x, y, width, height] of rectangles) ctx.rect(x, y, width, height);
      ctx.fill();
    }
    this.#drawLabels(u, labels);
    this.#drawRetries(u);
    this.#drawMarks(u);
    ctx.restore();
  }

  #rows(u, row, [from, to]) {
    const top = u.valToPos(row + from, "y", true);
    const bottom = u.valToPos(row + to, "y", true);
    return [Math.round(top), Math.max(Math.round(bottom - top), 1)];
  }

  #drawGround(u) {
    const { ctx, bbox: box } = u;
    ctx.fillStyle = colour("stripe");
    for (let row = 1; row < this.lanes.length; row += 2) {
      const [top, height] = this.#rows(u, row, [0, 1]);
      ctx.fillRect(box.left, top, box.width, height);
    }
    for (const [lane, from, to] of this.retired) {
      const row = this.rowOf.get(lane);
      if (row === undefined) continue;
      const [top, height] = this.#rows(u, row, [0, 1]);
      const left = u.valToPos(from, "x", true);
      const width = u.valToPos(to, "x", true) - left;
      ctx.save();
      ctx.beginPath();
      ctx.rect(left, top, width, height);
      ctx.clip();
      ctx.strokeStyle = colour("hatch");
      ctx.lineWidth = devicePixelRatio;
      ctx.beginPath();
      const step = 7 * devicePixelRatio;
      const begin = Math.max(left, box.left) - height;
      for (let x = begin - (begin % step); x < Math.min(left + width, box.left + box.width); x += step) {
        ctx.moveTo(x, top + height);
        ctx.lineTo(x + height, top);
      }
      ctx.stroke();
      ctx.restore();
    }
  }

  // Rectangles by colour. Attempts of less than a pixel become one column with the worst of them.
  #collectTests(u, lane, byColour, labels) {
    const { start, duration, setup, teardown, outcome, test } = this.data.attempts;
    const { min, max } = u.scales.x;
    const left = u.bbox.left;
    const scale = u.bbox.width / (max - min);
    const [top, height] = this.#rows(u, this.rowOf.get(lane), SHARES.tests);
    const put = (name, rectangle) => {
      if (byColour.has(name)) byColour.get(name).push(rectangle);
      else byColour.set(name, [rectangle]);
    };
    const nameOf = (rank, at) => rank === this.retryRank ? "retry" : this.data.outcomes[outcome[at]];
    const { first, end } = this.#inView(lane, min, max);
    let column = -1;
    let worst = Infinity;
    let worstAt = -1;
    let reached = -1;
    const flush = (next = Infinity) => {
      if (column >= 0) put(nameOf(worst, worstAt), [column, top, Math.max(Math.min(reached, next) - column, 1), height]);
      column = -1;
      worst = Infinity;
    };
    for (let at = first; at < end; at++) {
      const x = left + (start[at] - min) * scale;
      const width = duration[at] * scale;
      const rank = outcome[at] < 0 ? this.retryRank : this.rank[outcome[at]];
      if (width < 2) {
        const pixel = Math.floor(x);
        if (pixel !== column) flush(pixel);
        if (column < 0) { column = pixel; reached = pixel + 1; }
        reached = Math.max(reached, Math.ceil(x + width));
        if (rank < worst) { worst = rank; worstAt = at; }
        continue;
      }
      flush(Math.ceil(x));
      const gap = width > 4 ? devicePixelRatio : 0;
      put(nameOf(rank, at), [x, top, width - gap, height]);
      if (width > 12) {
        const before = Math.min(setup[at] * scale, width - gap);
        const after = Math.min(teardown[at] * scale, width - gap - before);
        if (before > 1) put("phase", [x, top, before, height]);
        if (after > 1) put("phase", [x + width - gap - after, top, after, height]);
      }
      if (width > 46 * devicePixelRatio && this.rowHeight >= 24) labels.push([x, top, width - gap, height, test[at]]);
    }
    flush();
  }

  #inView(lane, min, max) {
    const { start } = this.data.attempts;
    const from = this.data.firstOfLane[lane];
    const to = this.data.firstOfLane[lane + 1];
    // One that began before what is seen may reach into it.
    const first = Math.max(lowerBound(start, min, from, to) - 1, from);
    return { first, end: lowerBound(start, max, from, to) };
  }

  #collectWide(u, lane, byColour) {
    const { start, duration } = this.data.wide;
    const { min, max } = u.scales.x;
    const scale = u.bbox.width / (max - min);
    const [top, height] = this.#rows(u, this.rowOf.get(lane), SHARES.wide);
    const rectangles = [];
    for (const at of this.wide.get(lane)) {
      if (start[at] + duration[at] < min || start[at] > max) continue;
      const x = u.bbox.left + (start[at] - min) * scale;
      rectangles.push([x, top, Math.max(duration[at] * scale, devicePixelRatio), height]);
    }
    byColour.set("wide", (byColour.get("wide") || []).concat(rectangles));
  }

  #drawLabels(u, labels) {
    const { ctx } = u;
    ctx.font = `${11 * devicePixelRatio}px ${getComputedStyle(document.body).fontFamily}`;
    ctx.textBaseline = "middle";
    ctx.textAlign = "left";
    ctx.fillStyle = colour("on-bar");
    for (const [x, top, width, height, test] of labels) {
      const left = Math.max(x, u.bbox.left) + 5 * devicePixelRatio;
      const room = x + width - left - 4 * devicePixelRatio;
      if (room < 34 * devicePixelRatio) continue;
      const name = this.data.tests.name[test];
      const text = fitting(ctx, name.slice(name.lastIndexOf("::", name.indexOf("[") < 0 ? undefined : name.indexOf("[")) + 1).replace(/^:/, ""), room);
      ctx.fillText(text, left, top + height / 2);
    }
  }

  // Lines from attempt to attempt; those of all tests while they are few.
  #drawRetries(u) {
    const { ctx } = u;
    const chosen = [this.selected, this.hovered?.test ?? -1].filter((test) => test >= 0);
    const all = this.retried.length <= 400 ? this.retried : [];
    for (const test of new Set([...all, ...chosen])) {
      const attempts = this.data.attemptsOf(test).filter((at) => this.rowOf.has(this.data.attempts.lane[at]));
      const strong = chosen.includes(test);
      ctx.strokeStyle = colour(strong ? "text" : "retry");
      ctx.lineWidth = (strong ? 2 : 1.25) * devicePixelRatio;
      ctx.beginPath();
      for (let number = 1; number < attempts.length; number++) {
        if (this.data.attempts.outcome[attempts[number - 1]] >= 0) continue; // a repetition
        const [x0, y0] = this.#middle(u, attempts[number - 1], true);
        const [x1, y1] = this.#middle(u, attempts[number], false);
        const bend = Math.max((x1 - x0) / 2, 12 * devicePixelRatio);
        ctx.moveTo(x0, y0);
        ctx.bezierCurveTo(x0 + bend, y0, x1 - bend, y1, x1, y1);
      }
      ctx.stroke();
      if (strong) for (const at of attempts) this.#outline(u, at, attempts.length > MOST_OUTLINES);
    }
    for (const test of chosen) if (!this.data.several.has(test)) for (const at of this.data.attemptsOf(test)) this.#outline(u, at);
  }

  #middle(u, at, atItsEnd) {
    const { start, duration, lane } = this.data.attempts;
    const row = this.rowOf.get(lane[at]);
    const [top, height] = this.#rows(u, row, SHARES.tests);
    return [u.valToPos(start[at] + (atItsEnd ? duration[at] : 0), "x", true), top + height / 2];
  }

  // What is chosen has a frame; where there are too many, a line below.
  #outline(u, at, isLine = false) {
    const { start, duration, lane } = this.data.attempts;
    const row = this.rowOf.get(lane[at]);
    if (row === undefined) return;
    const [top, height] = this.#rows(u, row, SHARES.tests);
    const x = u.valToPos(start[at], "x", true);
    const width = Math.max(u.valToPos(start[at] + duration[at], "x", true) - x, 3 * devicePixelRatio);
    u.ctx.fillStyle = u.ctx.strokeStyle = colour("text");
    u.ctx.lineWidth = 2 * devicePixelRatio;
    if (isLine) u.ctx.fillRect(x, top + height, width, 2 * devicePixelRatio);
    else u.ctx.strokeRect(x - devicePixelRatio, top - devicePixelRatio, width + devicePixelRatio, height + 2 * devicePixelRatio);
  }

  #drawMarks(u) {
    const { ctx, bbox: box } = u;
    const { lane, at, kind } = this.data.marks;
    const { min, max } = u.scales.x;
    const size = Math.min(this.rowHeight / 5, 6) * devicePixelRatio;
    const last = new Map(); // by lane and kind, the column of the last one: more would hide it
    for (const mark of this.marks) {
      if (at[mark] < min || at[mark] > max) continue;
      const x = u.valToPos(at[mark], "x", true);
      const key = `${lane[mark]} ${kind[mark]}`;
      if (x - (last.get(key) ?? -Infinity) < 2) continue;
      last.set(key, x);
      ctx.fillStyle = colour(MARKS[kind[mark]].colour);
      if (lane[mark] < 0) {
        ctx.fillRect(x, box.top, devicePixelRatio, box.height);
        continue;
      }
      const row = this.rowOf.get(lane[mark]);
      if (row === undefined) continue;
      const [top, height] = this.#rows(u, row, SHARES.tests);
      drawMark(ctx, kind[mark], x, top + height / 2, size);
    }
  }

  // --- what is at a place ---

  // What is there, by values of the axes: a mark, an attempt or a wide fixture; null for nothing.
  at(u, left, top) {
    const time = u.posToVal(left, "x");
    const place = u.posToVal(top, "y");
    const row = Math.floor(place);
    const lane = this.lanes[row];
    if (lane === undefined) return null;
    const reach = u.posToVal(6, "x") - u.posToVal(0, "x");
    const marks = this.marks
      .filter((mark) => this.data.marks.lane[mark] === lane && Math.abs(this.data.marks.at[mark] - time) < reach)
      .sort((a, b) => Math.abs(this.data.marks.at[a] - time) - Math.abs(this.data.marks.at[b] - time));
    const attempt = this.#attemptAt(lane, time, reach / 3);
    if (marks.length) {
      const test = this.data.marks.test[marks[0]];
      return { lane, mark: marks[0], test, attempt: test === (attempt < 0 ? -1 : this.data.attempts.test[attempt]) ? attempt : -1 };
    }
    if (place - row < SHARES.wide[1] + 0.03) {
      const { start, duration } = this.data.wide;
      const wide = this.wide.get(lane).find((at) => start[at] - reach / 3 <= time && time <= start[at] + duration[at] + reach / 3);
      if (wide !== undefined) return { lane, wide, test: -1 };
    }
    return attempt < 0 ? null : { lane, attempt, test: this.data.attempts.test[attempt] };
  }

  // The nearest attempt, among those of one place the worst.
  #attemptAt(lane, time, reach) {
    const { start, duration, outcome } = this.data.attempts;
    const { first, end } = this.#inView(lane, time - reach, time + reach);
    let best = -1;
    let bestRank = Infinity;
    for (let at = first; at < end; at++) {
      if (start[at] + duration[at] < time - reach) continue;
      const rank = outcome[at] < 0 ? this.retryRank : this.rank[outcome[at]];
      if (rank < bestRank) { best = at; bestRank = rank; }
    }
    return best;
  }
}

function lowerBound(values, limit, from, to) {
  while (from < to) {
    const middle = (from + to) >> 1;
    if (values[middle] < limit) from = middle + 1;
    else to = middle;
  }
  return from;
}

// The beginning of a text that fits.
function fitting(ctx, text, room) {
  if (text.length > 200) text = text.slice(0, 200);
  if (ctx.measureText(text).width <= room) return text;
  let from = 0;
  let to = text.length;
  while (from < to) {
    const middle = (from + to + 1) >> 1;
    if (ctx.measureText(`${text.slice(0, middle)}…`).width <= room) from = middle;
    else to = middle - 1;
  }
  return from > 2 ? `${text.slice(0, from)}…` : "";
}

// A cross for what died, a triangle for an error of a GPU or the network, a diamond for a sick one.
function drawMark(ctx, kind, x, y, size) {
  ctx.save();
  ctx.translate(x, y);
  ctx.strokeStyle = colour("surface");
  ctx.lineWidth = 1.5 * devicePixelRatio;
  ctx.beginPath();
  if (kind === DIED) {
    ctx.rotate(Math.PI / 4);
    ctx.rect(-size, -size / 3, 2 * size, size / 1.5);
    ctx.rect(-size / 3, -size, size / 1.5, 2 * size);
  } else if (kind === SICK || kind === WELL) {
    ctx.rotate(Math.PI / 4);
    ctx.rect(-size * 0.75, -size * 0.75, size * 1.5, size * 1.5);
  } else {
    ctx.moveTo(0, -size);
    ctx.lineTo(size, size * 0.8);
    ctx.lineTo(-size, size * 0.8);
    ctx.closePath();
  }
  ctx.stroke();
  ctx.fill();
  ctx.restore();
}
