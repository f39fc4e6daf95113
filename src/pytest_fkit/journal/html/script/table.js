// The table of all tests: filters, order, and the rows that are seen, of however many there are.

const COLUMNS = [
  { name: "test", title: "Test" },
  { name: "duration", title: "Time", show: (data, test) => showTime(data.tests.duration[test]) },
  { name: "cpu", title: "CPU", show: (data, test) => showTime(data.tests.cpu[test]) },
  { name: "memory", title: "Memory", show: (data, test) => showSize(data.tests.memory[test]) },
  { name: "gpuMemory", title: "GPU memory", show: (data, test) => showSize(data.tests.gpuMemory[test]) },
  { name: "attempts", title: "Attempts", show: (data, test) => data.tests.attempts[test] > 1 ? String(data.tests.attempts[test]) : "" },
  { name: "worker", title: "Worker", show: (data, test) => data.tests.lane[test] < 0 ? "" : data.lanes[data.tests.lane[test]].name },
];
const IN_NARROW = ["test", "duration", "memory", "worker"]; // style.css hides the others
const IN_NARROWEST = ["test", "duration"];
const SORTS = [
  ["", "Most important first"], ["-duration", "Longest first"], ["-cpu", "Most CPU first"], ["-memory", "Most memory first"],
  ["-gpuMemory", "Most GPU memory first"], ["-attempts", "Most attempts first"], ["start", "In order of execution"], ["test", "By name"],
];

class Table {
  constructor(data, callbacks) {
    this.data = data;
    this.callbacks = callbacks;
    this.grid = byId("grid");
    this.rows = byId("rows");
    this.active = 0;
    this.shown = [];
    this.drawn = new Map();
    const least = { gpuMemory: 0, cpu: 0, memory: 0, attempts: 2 };
    this.columns = COLUMNS.filter(({ name }) => !(name in least) || data.tests[name].some((value) => value >= least[name]));
    const widths = (columns) => columns.map(({ name }) => ({ test: "minmax(0, 1fr)", worker: "minmax(0, 9.5rem)" })[name] || "minmax(0, 5.6rem)").join(" ");
    this.grid.style.setProperty("--columns", widths(this.columns));
    this.grid.style.setProperty("--columns-of-narrow", widths(this.columns.filter(({ name }) => IN_NARROW.includes(name))));
    this.grid.style.setProperty("--columns-of-narrowest", widths(this.columns.filter(({ name }) => IN_NARROWEST.includes(name))));
    this.#fillFilters();
    this.#showColumns();
    this.#listen();
    this.update();
  }

  // --- filters and order ---

  #fillFilters() {
    const { data } = this;
    const fill = (id, all, options) => {
      byId(id).replaceChildren(...[["", all], ...options].map(([value, text]) => make("option", { value }, text)));
      byId(id).hidden = options.length < 2;
    };
    const counts = new Map();
    for (const outcome of data.tests.outcome) counts.set(outcome, (counts.get(outcome) || 0) + 1);
    const names = [...counts.keys()].sort((a, b) => a - b).map((outcome) => data.outcomes[outcome]);
    const tries = data.tests.attempts.some((number) => number > 1) ? [["retried", "several attempts"]] : [];
    const several = (text) => [text, text];
    const red = names.filter((name) => ["error", "failed", "unfinished"].includes(name)).length > 1 ? [["red", "red"]] : [];
    fill("by-outcome", "All outcomes", [...red, ...names.map(several), ...tries]);
    const compare = (a, b) => a.localeCompare(b, "en", { numeric: true });
    const workers = [...new Set(data.lanes.map((lane) => lane.worker))].sort(compare);
    fill("by-worker", "All workers", workers.map(several));
    const gpus = [...new Set(data.lanes.flatMap((lane) => lane.gpus))].sort(compare);
    fill("by-gpu", "All GPUs", gpus.map((gpu) => [gpu, `GPU ${gpu}`]));
    fill("by-cause", "All causes", data.causes.slice(0, 500).map((cause, number) => [String(number + 1), `${number + 1}. ${cause}`]));
    const known = SORTS.filter(([name]) => !name.startsWith("-") || this.columns.some((column) => `-${column.name}` === name));
    byId("sort").replaceChildren(...known.map(([value, text]) => make("option", { value }, text)));
  }

  // Reads what is to be shown from the address, and shows it.
  update() {
    const asked = readAddress();
    const wanted = ["outcome", "worker", "gpu", "cause", "q", "sort"].map((name) => asked[name] || "").join("\0");
    if (wanted === this.wanted) return;
    this.wanted = wanted;
    for (const name of ["outcome", "worker", "gpu", "cause"]) byId(`by-${name}`).value = asked[name] || "";
    if (byId("q") !== document.activeElement || byId("q").value !== (asked.q || "")) byId("q").value = asked.q || "";
    byId("sort").value = asked.sort || "";
    for (const button of document.querySelectorAll("[data-filter-outcome]")) {
      button.setAttribute("aria-pressed", String(button.dataset.filterOutcome === asked.outcome));
    }
    this.shown = this.#sorted(this.#filtered(asked), asked.sort || "");
    this.active = 0;
    this.#showOrder(asked.sort || "");
    const filtered = this.shown.length < this.data.size;
    byId("shown").textContent = filtered ? `${digits(this.shown.length, 0)} of ${countOf(this.data.size, "test")}` : countOf(this.data.size, "test");
    byId("clear").hidden = !["outcome", "worker", "gpu", "cause", "q"].some((name) => asked[name]);
    byId("nothing").hidden = this.shown.length > 0;
    this.grid.setAttribute("aria-rowcount", this.shown.length + 1);
    this.grid.scrollTop = 0;
    this.drawAll();
  }

  #filtered({ outcome, worker, gpu, cause, q }) {
    const { tests, lanes, outcomes } = this.data;
    const checks = [];
    if (outcome === "red") {
      const red = ["error", "failed", "unfinished"].map((name) => outcomes.indexOf(name));
      checks.push((test) => red.includes(tests.outcome[test]));
    } else if (outcome === "retried") checks.push((test) => tests.attempts[test] > 1);
    else if (outcome) {
      const number = outcomes.indexOf(outcome);
      checks.push((test) => tests.outcome[test] === number);
    }
    const onLane = (accepts) => (test) =>
      this.data.attemptsOf(test).some((at) => accepts(lanes[this.data.attempts.lane[at]]));
    if (worker) checks.push(onLane((lane) => lane.worker === worker));
    if (gpu) checks.push(onLane((lane) => lane.gpus.includes(gpu)));
    if (cause) checks.push((test) => tests.cause[test] === Number(cause) - 1);
    const words = (q || "").toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length) {
      this.texts ??= tests.name.map((name, test) => `${name} ${tests.message[test]}`.toLowerCase());
      checks.push((test) => words.every((word) => this.texts[test].includes(word)));
    }
    const found = [];
    for (let test = 0; test < this.data.size; test++) if (checks.every((check) => check(test))) found.push(test);
    return found;
  }

  #sorted(tests, sort) {
    const down = sort.startsWith("-");
    const name = down ? sort.slice(1) : sort;
    const { tests: columns, lanes } = this.data;
    if (name === "test") tests.sort((a, b) => columns.name[a] < columns.name[b] ? -1 : columns.name[a] > columns.name[b] ? 1 : 0);
    else if (name === "worker") {
      const places = lanes.map((lane) => lane.name);
      const order = [...places.keys()].sort((a, b) => places[a].localeCompare(places[b], "en", { numeric: true }));
      const rank = new Map(order.map((lane, at) => [lane, at]));
      tests.sort((a, b) => (rank.get(columns.lane[a]) ?? -1) - (rank.get(columns.lane[b]) ?? -1));
    } else if (["start", "duration", "cpu", "memory", "gpuMemory", "attempts"].includes(name)) {
      const values = columns[name];
      tests.sort((a, b) => values[a] - values[b]);
    } else return tests;
    return down ? tests.reverse() : tests;
  }

  #showColumns() {
    byId("columns").replaceChildren(...this.columns.map(({ name, title }) => {
      const act = () => {
        const now = byId("sort").dataset.now;
        const first = ["test", "worker"].includes(name) ? name : `-${name}`;
        writeAddress({ sort: now === first ? (first.startsWith("-") ? name : `-${name}`) : now && now.replace("-", "") === name ? "" : first });
      };
      return make("span", { role: "columnheader", class: `c-${name}`, "data-column": name }, make("button", { type: "button", tabindex: "-1", on: { click: act } }, title));
    }));
  }

  #showOrder(sort) {
    byId("sort").dataset.now = sort;
    for (const head of byId("columns").children) {
      const sorted = sort.replace("-", "") === head.dataset.column;
      head.setAttribute("aria-sort", sorted ? (sort.startsWith("-") ? "descending" : "ascending") : "none");
    }
  }

  // --- rows ---

  get #rowHeight() {
    return matchMedia("(max-width: 640px)").matches ? 58 : 44;
  }

  drawAll() {
    for (const row of this.drawn.values()) row.remove();
    this.drawn.clear();
    this.height = this.#rowHeight;
    this.rows.style.height = `${this.shown.length * this.height}px`;
    this.grid.style.setProperty("--whole", `${Math.max(this.shown.length * this.height, 120) + byId("columns").offsetHeight + 2}px`);
    this.draw();
  }

  draw() {
    const seen = this.grid.clientHeight || 600;
    const first = Math.max(Math.floor(this.grid.scrollTop / this.height) - 8, 0);
    const end = Math.min(Math.ceil((this.grid.scrollTop + seen) / this.height) + 8, this.shown.length);
    for (const [at, row] of this.drawn) {
      if (at < first || at >= end) {
        row.remove();
        this.drawn.delete(at);
      }
    }
    const added = [];
    for (let at = first; at < end; at++) {
      if (!this.drawn.has(at)) {
        const row = this.#row(at);
        this.drawn.set(at, row);
        added.push(row);
      }
    }
    this.rows.append(...added);
    this.#mark();
  }

  #row(at) {
    const { data } = this;
    const test = this.shown[at];
    const outcome = data.outcomeOf(test);
    const message = data.tests.message[test];
    const cells = this.columns.slice(1).map((column) => make("span", { role: "gridcell", class: `c-${column.name}` }, column.show(data, test)));
    const name = make(
      "span", { role: "gridcell", class: "c-test" },
      sign(outcome),
      make("span", { class: "texts" }, showName(data.tests.name[test]), message ? make("bdi", { class: "message", title: message }, message) : null),
    );
    const row = make("div", {
      role: "row", class: "row", id: `row-${test}`, "aria-rowindex": at + 2, "aria-label": `${outcome}: ${data.tests.name[test].slice(0, 200)}`,
      on: { click: () => { this.active = at; this.callbacks.open(test); } },
    }, name, ...cells);
    row.style.transform = `translateY(${at * this.height}px)`;
    return row;
  }

  // Which row the keyboard is on, and which test is open.
  #mark() {
    for (const [at, row] of this.drawn) {
      row.classList.toggle("active", at === this.active);
      row.setAttribute("aria-selected", String(this.shown[at] === this.open));
    }
    const test = this.shown[this.active];
    if (test === undefined) this.grid.removeAttribute("aria-activedescendant");
    else this.grid.setAttribute("aria-activedescendant", `row-${test}`);
  }

  select(test) {
    this.open = test;
    const at = this.shown.indexOf(test);
    if (at >= 0) this.go(at, false);
    this.#mark();
  }

  // The test that many rows further, from the one that is open.
  neighbour(by) {
    const at = this.shown.indexOf(this.open);
    return at < 0 ? this.shown[0] : this.shown[at + by];
  }

  go(at, follow = true) {
    this.active = Math.min(Math.max(at, 0), Math.max(this.shown.length - 1, 0));
    const top = this.active * this.height;
    const head = byId("columns").offsetHeight;
    const seen = this.grid.clientHeight - head;
    if (top < this.grid.scrollTop) this.grid.scrollTop = top;
    else if (top + this.height > this.grid.scrollTop + seen) this.grid.scrollTop = top + this.height - seen;
    if (follow) this.draw();
  }

  #listen() {
    this.grid.addEventListener("scroll", () => this.draw(), { passive: true });
    this.grid.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const page = Math.max(Math.floor(this.grid.clientHeight / this.height) - 2, 1);
      const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
      if (event.key in steps) this.go(this.active + steps[event.key]);
      else if (event.key === "Enter" && this.shown.length) this.callbacks.open(this.shown[this.active]);
      else return;
      event.preventDefault();
    });
    for (const name of ["outcome", "worker", "gpu", "cause"]) {
      byId(`by-${name}`).addEventListener("change", (event) => writeAddress({ [name]: event.target.value }));
    }
    byId("sort").addEventListener("change", (event) => writeAddress({ sort: event.target.value }));
    byId("q").addEventListener("input", (event) => writeAddress({ q: event.target.value }));
    byId("clear").addEventListener("click", () => writeAddress({ outcome: "", worker: "", gpu: "", cause: "", q: "" }));
    new ResizeObserver(() => this.#rowHeight === this.height ? this.draw() : this.drawAll()).observe(this.grid);
  }
}
