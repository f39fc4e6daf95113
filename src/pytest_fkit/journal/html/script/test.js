// The page of a test: a panel beside the rest of the page, the whole screen of a phone.

const USED = {
  user: ["CPU in the program", (value) => showTime(value * 1000)], system: ["CPU in the kernel", (value) => showTime(value * 1000)],
  peak_memory: ["Peak memory", (value) => showSize(value / 2 ** 20)], gpu_peak_memory: ["Peak of GPU memory", (value) => showSize(value / 2 ** 20)],
  minor_faults: ["Minor page faults", (value) => digits(value, 0)], major_faults: ["Major page faults", (value) => digits(value, 0)],
  read: ["Read", (value) => showBytes(value)], written: ["Written", (value) => showBytes(value)],
};

const showBytes = (bytes) => bytes < 2 ** 20 ? `${digits(bytes / 1024, 1)} KiB` : showSize(bytes / 2 ** 20);

class TestPanel {
  constructor(data, callbacks) {
    this.data = data;
    this.callbacks = callbacks;
    this.panel = byId("panel");
    this.test = -1;
  }

  async show(test) {
    if (test === this.test) return;
    const before = this.test;
    this.test = test;
    document.body.classList.toggle("with-panel", test >= 0);
    if (test < 0) {
      this.panel.hidden = true;
      this.panel.replaceChildren();
      if (this.from?.isConnected) this.from.focus({ preventScroll: true });
      return;
    }
    if (before < 0) this.from = document.activeElement;
    this.panel.hidden = false;
    this.panel.replaceChildren(this.#head(test, null));
    const details = await this.data.detailsOf(test).catch(() => null);
    if (this.test !== test) return; // another one was opened in the meantime
    this.panel.replaceChildren(this.#head(test, details), ...this.#body(test, details));
    this.panel.scrollTop = 0;
    this.panel.focus({ preventScroll: true });
    this.panel.dataset.test = String(test);
  }

  #head(test, details) {
    const outcome = this.data.outcomeOf(test);
    const button = (text, label, act) => make("button", { type: "button", class: "icon", "aria-label": label, title: label, on: { click: act } }, text);
    return make(
      "header", {},
      make("div", { class: "panel-bar" },
        make("span", { class: "pill", "data-outcome": outcome }, sign(outcome), outcome),
        this.data.tests.attempts[test] > 1 ? make("span", { class: "pill plain" }, `${digits(this.data.tests.attempts[test], 0)} ${details?.several ? "repetitions" : "attempts"}`) : null,
        make("span", { class: "space" }),
        button("↑", "Test before ([)", () => this.callbacks.step(-1)),
        button("↓", "Next test (])", () => this.callbacks.step(1)),
        button("✕", "Close (Esc)", () => this.callbacks.close()),
      ),
      make("h2", {}, make("bdi", {}, details?.id || this.data.tests.name[test])),
      make("p", { class: "meta" }, ...this.#meta(test, details)),
    );
  }

  #meta(test, details) {
    const { tests, lanes } = this.data;
    const lane = tests.lane[test] < 0 ? "" : lanes[tests.lane[test]].name;
    const parts = [details?.at, lane, showTime(tests.duration[test]), showSize(tests.memory[test])];
    return parts.filter(Boolean).map((part) => make("bdi", {}, part));
  }

  #body(test, details) {
    if (!details) return [make("p", { class: "nothing" }, "The rest of this test was left out, since the file would be too large. The journal has it.")];
    const blocks = [];
    const block = (title, ...children) => blocks.push(make("section", {}, title ? make("h3", {}, title) : null, ...children));
    const reports = (details.reports || []).filter((each) => each.text || each.message || each.xfail || each.facts);
    const shows = reports.some((each) => (each.text || "").includes(details.message) || each.message === details.message);
    if (details.message && !shows) block("", make("p", { class: "headline" }, details.message));
    if (details.repeated) block("Repeated", ...details.repeated.map((line) => make("p", {}, line)));
    for (const report of reports) block(...this.#report(report));
    if (details.command) block("Run it again", this.#copied(details.command));
    if (details.attempts) block(details.several || (details.attempts.length > 1 ? "Attempts" : "Phases"), ...details.attempts.map((each, at) => this.#attempt(each, at, details.attempts, test)));
    for (const note of details.notes || []) {
      block(`While it ran, after ${digits(note.seconds || 0, 1)} s`, note.line ? make("p", {}, note.line) : null, note.stacks ? this.#text(note.stacks) : null);
    }
    for (const [name, text] of details.sections || []) block(name, this.#text(text, name.startsWith("Captured") ? "output" : ""));
    if (details.properties) block("Properties", this.#pairs(details.properties));
    return blocks;
  }

  #report(report) {
    const what = report.outcome === "failed" ? `Failed in ${report.when}` : report.xfail ? `Expected to fail, in ${report.when}` : report.outcome === "skipped" ? "Skipped" : `${report.when}: ${report.outcome}`;
    return [
      report.rerun !== undefined && report.outcome === "rerun" ? `Attempt ${report.rerun + 1}, run again` : what,
      report.xfail ? make("p", {}, report.xfail) : null,
      report.text ? this.#text(report.text) : null,
      report.message ? make("p", {}, report.message) : null,
      report.facts ? this.#pairs(report.facts) : null,
    ];
  }

  // A text of pytest's or ours, with what matters in it seen first.
  #text(text, kind = "") {
    const box = make("pre", { class: `text ${kind}`, tabindex: "0" });
    if (kind === "output") box.append(text.replace(/\n$/, ""));
    else {
      const lines = text.replace(/\n$/, "").split("\n").map((line) => [`${line}\n`, meaningOf(line)]);
      for (let at = 0; at < lines.length;) {
        const [line, meaning] = lines[at];
        let end = at;
        while (end < lines.length && lines[end][1] === "t-foreign") end++;
        if (end - at > 3) {
          const folded = lines.slice(at, end).map(([each]) => each).join("");
          box.append(make("details", { class: "fold" }, make("summary", {}, `${end - at} frames of pytest and libraries`), make("span", { class: "t-foreign" }, folded)));
          at = end;
        } else {
          box.append(meaning ? make("span", { class: meaning }, line) : line);
          at++;
        }
      }
    }
    const copy = make("button", { type: "button", class: "copy", on: { click: () => copyText(copy, text) } }, "Copy");
    return make("div", { class: "text-box" }, box, copy);
  }

  #copied(command) {
    const copy = make("button", { type: "button", class: "copy", on: { click: () => copyText(copy, command) } }, "Copy");
    return make("div", { class: "text-box" }, make("pre", { class: "text command", tabindex: "0" }, make("bdi", {}, command)), copy);
  }

  #attempt(attempt, at, all, test) {
    const several = all.length > 1;
    const title = attempt.title || `Attempt ${at + 1}`;
    const box = make("div", { class: "attempt" });
    const where = [attempt.where, attempt.pid ? `pid ${attempt.pid}` : "", `from ${showMoment(attempt.start * 1000, 10)}`, showTime(attempt.duration * 1000)];
    box.append(make("p", { class: "attempt-head" }, several ? make("b", {}, `${title} `) : null, where.filter(Boolean).join(" · ")));
    const problem = [attempt.ending, attempt.category, attempt.cut ? "was running when the journal was cut off" : ""].filter(Boolean).join(", ");
    if (problem) box.append(make("p", { class: "problem" }, problem, attempt.to ? ` → run again on ${attempt.to}` : ""));
    if (attempt.phases) box.append(this.#phases(attempt.phases));
    if (attempt.wide) box.append(make("p", { class: "sub" }, "Wide fixtures"), this.#pairs(attempt.wide.map(([label, seconds]) => [label, showTime(seconds * 1000)])));
    if (attempt.metrics) box.append(make("p", { class: "sub" }, "Metrics"), this.#pairs(attempt.metrics));
    if (attempt.facts) box.append(this.#pairs(attempt.facts));
    if (attempt.used) box.append(make("details", { open: !several }, make("summary", {}, "Used"), this.#pairs(attempt.used.map(([name, value]) => USED[name] ? [USED[name][0], USED[name][1](value)] : [name, value]))));
    return box;
  }

  #phases(phases) {
    const total = phases.reduce((sum, [, seconds]) => sum + seconds, 0) || 1;
    const bar = make("div", { class: "phase-bar", "aria-hidden": "true" });
    const list = make("ul", { class: "phases" });
    phases.forEach(([when, seconds, outcome]) => {
      const part = bar.appendChild(make("i", { "data-phase": when, "data-outcome": outcome === "died" ? "error" : outcome }));
      part.style.flexGrow = String(Math.max(seconds / total, 0.012));
      list.append(make("li", {}, make("i", { class: "key", "data-phase": when, "data-outcome": outcome === "died" ? "error" : outcome }), make("span", {}, when), make("b", {}, showTime(seconds * 1000)), outcome === "passed" ? null : make("em", {}, outcome)));
    });
    return make("div", {}, bar, list);
  }

  #pairs(pairs) {
    return make("dl", { class: "pairs" }, ...pairs.map(([name, value]) => make("div", {}, make("dt", {}, make("bdi", {}, name)), make("dd", {}, make("bdi", {}, String(value))))));
  }
}

// What a line of a report is: the error, the line that failed, a place, a frame of somebody else.
function meaningOf(line) {
  if (/^E( |$)/.test(line)) return "t-error";
  if (/^>/.test(line)) return "t-here";
  if (/^\s*File ".*\/(?:site-packages|lib\/python[\d.]+)\//.test(line) || /^\s+#?\d* .*\/(?:site-packages|lib\/python[\d.]+)\//.test(line)) return "t-foreign";
  if (/^\s*File "/.test(line) || /^\S+:\d+: /.test(line)) return "t-place";
  if (/^reproduce: /.test(line)) return "t-foreign";
  if (/^(?:Python stacks? |native stack |Fatal Python error|Current thread|Thread 0x|phase |output |the )/i.test(line) && !line.startsWith(" ")) return "t-head";
  return "";
}

async function copyText(button, text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no permission, or a page from a file in some browsers
    const area = document.body.appendChild(make("textarea", { class: "off" }));
    area.value = text;
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}
