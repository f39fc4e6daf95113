// Puts the parts together, and listens to what concerns all of them.

function showTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

function remember(theme) {
  try {
    localStorage.setItem("fkit-theme", theme);
  } catch {
    // Pages from files have no storage in some browsers.
  }
}

function remembered() {
  try {
    return localStorage.getItem("fkit-theme");
  } catch {
    return null;
  }
}

const isDark = () => document.documentElement.dataset.theme
  ? document.documentElement.dataset.theme === "dark"
  : matchMedia("(prefers-color-scheme: dark)").matches;

function listenToPage() {
  for (const part of document.querySelectorAll("[data-share]")) part.style.flexGrow = part.dataset.share;
  for (const time of document.querySelectorAll("[data-seconds]")) time.textContent = showTime(Number(time.dataset.seconds) * 1000);
  for (const link of document.querySelectorAll("[data-jump]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      byId(link.dataset.jump).scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
      if (link.dataset.jump === "tests") byId("grid").focus({ preventScroll: true });
    });
  }
  byId("more-causes")?.addEventListener("click", (event) => {
    byId("causes").classList.add("all");
    event.target.remove();
  });
  byId("help-button").addEventListener("click", () => byId("help").showModal());
}

function start(data) {
  for (const id of ["timeline", "tests"]) byId(id).hidden = false;
  if (!data.lanes.length) byId("timeline").hidden = true;
  const open = (test) => writeAddress({ test: data.keys[test] }, true);
  const close = () => writeAddress({ test: "" }, true);
  const step = (by) => {
    const test = table.neighbour(by);
    if (test !== undefined) writeAddress({ test: data.keys[test] });
  };
  const table = new Table(data, { open });
  const panel = new TestPanel(data, { close, step });
  const charts = data.lanes.length ? new Charts(data, { open }) : null;

  const sessions = byId("session");
  sessions.replaceChildren(...data.sessions.map((_, number) => make("option", { value: String(number) }, String(number + 1))));
  byId("session-label").hidden = data.sessions.length < 2;
  sessions.addEventListener("change", () => charts.show(Number(sessions.value)));

  const follow = () => {
    table.update();
    const asked = readAddress().test;
    const test = asked === undefined ? -1 : data.byKey.get(asked) ?? -1;
    if (charts && test >= 0 && data.tests.session[test] !== charts.session) {
      sessions.value = String(data.tests.session[test]);
      charts.show(data.tests.session[test]);
    }
    table.select(test);
    charts?.select(test);
    panel.show(test);
  };
  for (const name of ["address", "hashchange", "popstate"]) addEventListener(name, follow);

  const redraw = () => {
    forgetColours();
    charts?.rebuild();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener("change", redraw);
  const turn = () => {
    showTheme(isDark() ? "light" : "dark");
    remember(document.documentElement.dataset.theme);
    redraw();
  };
  byId("theme-button").addEventListener("click", turn);

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-test], [data-filter-outcome], [data-filter-cause]");
    if (!target || target.closest("#panel")) return;
    event.preventDefault();
    if (target.dataset.test) return open(Number(target.dataset.test));
    if (target.dataset.filterOutcome) {
      const pressed = readAddress().outcome === target.dataset.filterOutcome;
      writeAddress({ outcome: pressed ? "" : target.dataset.filterOutcome });
    } else writeAddress({ cause: String(Number(target.dataset.filterCause) + 1), outcome: "", q: "", worker: "", gpu: "" });
    byId("tests").scrollIntoView({ block: "start" });
  });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "Escape") {
      if (typing && event.target.value && event.target.id === "q") writeAddress({ q: event.target.value = "" });
      else if (panel.test >= 0) close();
      return;
    }
    if (typing) return;
    const acts = {
      "/": () => { byId("q").focus(); byId("q").scrollIntoView({ block: "center" }); },
      "?": () => byId("help").showModal(), t: turn,
      "[": () => step(-1), "]": () => step(1),
    };
    if (!(event.key in acts)) return;
    event.preventDefault();
    acts[event.key]();
  });
  follow();
}

async function main() {
  showTheme(remembered());
  listenToPage();
  try {
    start(await Data.load());
    document.documentElement.dataset.ready = String(Math.round(performance.now()));
  } catch (error) {
    byId("broken").hidden = false;
    byId("broken").textContent = typeof DecompressionStream === "undefined"
      ? "The timeline, the table and the pages of tests need a browser from 2023 or later."
      : `The data of this report can't be shown: ${error}`;
    document.documentElement.dataset.failed = String(error.stack || error);
  }
}

main();
