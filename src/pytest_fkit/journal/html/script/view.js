// What all parts of the page use: elements, texts of numbers, colours, and the address, which says
// what is shown.

const byId = (id) => document.getElementById(id);

// An element. Texts are texts: nothing that a test says is ever read as markup.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [what, act] of Object.entries(value)) element.addEventListener(what, act);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((each) => each !== null && each !== undefined && each !== ""));
  return element;
}

const digits = (value, number) => value.toLocaleString("en", { maximumFractionDigits: number });

function showTime(ms) {
  if (ms < 0) return "";
  if (ms < 1) return `${digits(ms, 1)} ms`;
  if (ms < 1000) return `${digits(ms, 0)} ms`;
  if (ms < 60_000) return `${digits(ms / 1000, ms < 10_000 ? 2 : 1)} s`;
  const minutes = Math.floor(ms / 60_000);
  const seconds = Math.floor((ms % 60_000) / 1000);
  if (minutes < 60) return `${minutes} min ${seconds} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

// As axes show it: 0:05, 1:02:03, with parts of seconds where the axis has them.
function showMoment(ms, step) {
  const total = Math.max(ms, 0) / 1000;
  const places = step >= 1000 ? 0 : step >= 100 ? 1 : step >= 10 ? 2 : 3;
  const seconds = (total % 60).toFixed(places).padStart(places ? 3 + places : 2, "0");
  const minutes = Math.floor(total / 60);
  if (minutes < 60) return `${minutes}:${seconds}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${seconds}`;
}

function showSize(mib) {
  if (mib < 0) return "";
  return mib < 1024 ? `${digits(mib, mib < 10 ? 1 : 0)} MiB` : `${digits(mib / 1024, 1)} GiB`;
}

const countOf = (number, what) => `${digits(number, 0)} ${what}${number === 1 ? "" : "s"}`;

const SIGNS = new Map(Object.entries({
  error: "!", failed: "✕", unfinished: "…", "not run": "○", quarantined: "⚑", xpassed: "↑", passed: "✓",
  skipped: "–", xfailed: "≈",
}));

const sign = (outcome) => make("i", { class: "sign", "data-outcome": outcome, "aria-hidden": "true" }, SIGNS.get(outcome) || "?");

// The name of a test, with what tells it from its neighbours apart from where it is.
function showName(name) {
  const end = name.indexOf("[");
  const cut = name.lastIndexOf("::", end < 0 ? undefined : end);
  if (cut < 0) return make("bdi", { class: "name" }, make("span", { class: "leaf" }, name));
  return make(
    "bdi", { class: "name", title: name },
    make("span", { class: "leaf" }, name.slice(cut + 2)),
    make("span", { class: "path" }, name.slice(0, cut)),
  );
}

// --- colours ---

// Canvases can't use variables of the style sheet; an element that does says what they are.
const colours = new Map();

function colour(name) {
  if (!colours.has(name)) {
    const probe = document.body.appendChild(make("i", { hidden: true }));
    probe.style.color = `var(--${name.replace(" ", "-")}, currentColor)`;
    colours.set(name, getComputedStyle(probe).color);
    probe.remove();
  }
  return colours.get(name);
}

const forgetColours = () => colours.clear();

// --- the address ---

const TO_READ = { "%3A": ":", "%2F": "/", "%5B": "[", "%5D": "]", "%2C": ",", "%20": " ", "%40": "@" };
const encodePart = (text) => encodeURIComponent(text).replace(/%(?:3A|2F|5B|5D|2C|40)/g, (code) => TO_READ[code]);

// What is shown, as in #outcome=failed&q=text&test=a.py::test_it
function readAddress() {
  const found = {};
  for (const part of location.hash.slice(1).split("&")) {
    const equals = part.indexOf("=");
    if (equals < 1) continue;
    try {
      found[part.slice(0, equals)] = decodeURIComponent(part.slice(equals + 1));
    } catch {
      // Somebody cut it; the rest may do.
    }
  }
  return found;
}

// Changes the address. `enters` makes a step that the browser's Back undoes.
function writeAddress(changes, enters = false) {
  const parts = { ...readAddress(), ...changes };
  const text = Object.entries(parts)
    .filter(([, value]) => value)
    .map(([name, value]) => `${name}=${encodePart(value)}`)
    .join("&");
  if (`#${text}` === location.hash || (!text && !location.hash)) return;
  history[enters ? "pushState" : "replaceState"](null, "", `#${text}`);
  dispatchEvent(new Event("address"));
}
