// The data of the report. `index` has columns for lists and the timeline, one entry per test or
// attempt; the details of tests are in chunks that are unpacked when a test is opened.
// See packing.py, which makes both. Times are in milliseconds, sizes in MiB, -1 is "not known".

async function unpack(element) {
  const binary = atob(element.textContent);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < binary.length; at++) bytes[at] = binary.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

class Data {
  static async load() {
    const element = document.getElementById("index");
    const index = await unpack(element);
    element.remove();
    return new Data(index);
  }

  constructor(index) {
    Object.assign(this, index);
    this.size = this.tests.name.length;
    this.chunkElements = [...document.getElementsByClassName("chunk")];
    this.unpacked = new Map();
    this.outcomeOf = (test) => this.outcomes[this.tests.outcome[test]];
    this.#nameTests();
    this.#findAttempts();
  }

  // What stands for a test in the address: its name, with a number if another has the same.
  #nameTests() {
    const seen = new Map();
    this.byKey = new Map();
    this.keys = this.tests.name.map((name, test) => {
      const number = (seen.get(name) || 0) + 1;
      seen.set(name, number);
      const key = number > 1 ? `${name}@${number}` : name;
      if (!this.byKey.has(key)) this.byKey.set(key, test);
      return key;
    });
  }

  // Attempts are sorted by lane and start.
  #findAttempts() {
    const { test, lane } = this.attempts;
    this.firstOfLane = new Array(this.lanes.length + 1).fill(test.length);
    for (let at = test.length - 1; at >= 0; at--) this.firstOfLane[lane[at]] = at;
    for (let at = this.lanes.length - 1; at >= 0; at--) {
      this.firstOfLane[at] = Math.min(this.firstOfLane[at], this.firstOfLane[at + 1]);
    }
    this.several = new Map(); // of tests with more than one attempt, these by time
    const first = new Int32Array(this.size).fill(-1);
    for (let at = 0; at < test.length; at++) {
      const which = test[at];
      if (first[which] < 0) first[which] = at;
      else if (this.several.has(which)) this.several.get(which).push(at);
      else this.several.set(which, [first[which], at]);
    }
    for (const each of this.several.values()) {
      each.sort((a, b) => this.attempts.start[a] - this.attempts.start[b]);
    }
    this.firstAttempt = first;
  }

  attemptsOf(test) {
    if (this.several.has(test)) return this.several.get(test);
    return this.firstAttempt[test] < 0 ? [] : [this.firstAttempt[test]];
  }

  // All that there is to say of a test; null if the report leaves it out.
  async detailsOf(test) {
    if (test >= this.told) return null;
    let chunk = this.chunks.length - 1;
    while (this.chunks[chunk] > test) chunk--;
    if (!this.unpacked.has(chunk)) this.unpacked.set(chunk, unpack(this.chunkElements[chunk]));
    return (await this.unpacked.get(chunk))[test - this.chunks[chunk]];
  }

  // The time of day at a place on the axis of a session.
  clock(session, at) {
    const runs = this.sessions[session].runs;
    let run = runs.length - 1;
    while (run > 0 && runs[run][0] > at) run--;
    return new Date(runs[run][1] + at - runs[run][0]);
  }
}
