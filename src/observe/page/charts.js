// Line charts of the last minutes, as SVG. A chart can be read by pointer or, once it has the
// focus, with the arrow keys: its legend then shows the values of that moment.

const SVG = "http://www.w3.org/2000/svg";
const PADDING = { left: 56, right: 6, top: 8, bottom: 20 };

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// The smallest of 1, 2, 5, 10, 20 … that is not below `value`.
function niceStep(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value * (1 - 1e-9));
}

export class Chart {
  // `series`: name, label and colour of each line. `format` shows a value, `least` is the least
  // upper end of the axis and `most` the greatest, `spanSeconds` how much time is shown at the most.
  // With a `floor`, which is its lower end, the axis is logarithmic.
  constructor(place, { label, series, format, floor, least, most, spanSeconds }) {
    Object.assign(this, { label, series, format, floor, least, most, spanSeconds, samples: [] });
    place.classList.add("chart");
    this.svg = element("svg", { role: "img", tabindex: "0", "aria-label": label });
    this.legend = document.createElement("ul");
    this.legend.className = "legend";
    this.entries = series.map(({ label: name, colour }) => {
      const entry = document.createElement("li");
      const mark = document.createElement("span");
      mark.className = `mark ${colour}`;
      const value = document.createElement("strong");
      entry.append(mark, name, value);
      this.legend.append(entry);
      return value;
    });
    this.when = document.createElement("li");
    this.when.className = "when";
    this.legend.append(this.when);
    place.replaceChildren(this.svg, this.legend);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.look(null));
    this.svg.addEventListener("blur", () => this.look(null));
    this.svg.addEventListener("keydown", (event) => this.step(event));
    new ResizeObserver(() => this.draw(this.samples)).observe(place);
  }

  // `samples`: `at` in seconds and a value for each series, null where there is none; in order.
  draw(samples) {
    this.samples = samples;
    const { width, height } = this.svg.getBoundingClientRect();
    if (width === 0 || samples.length === 0) return;
    const end = samples[samples.length - 1].at;
    const { left, right, top, bottom } = PADDING;
    // A page that was just opened has little to show yet.
    const span = Math.min(30 * Math.max(Math.ceil((end - samples[0].at) / 30), 2), this.spanSeconds);
    this.x = (at) => left + (1 - (end - at) / span) * (width - left - right);
    const { ticks, part } = this.axis(samples);
    const y = (value) => top + (1 - Math.min(Math.max(part(value), 0), 1)) * (height - top - bottom);
    const drawn = [];
    for (const tick of ticks) {
      drawn.push(element("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
      const text = this.format(tick, ticks[ticks.length - 1]);
      drawn.push(element("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, text));
    }
    for (let ago = 0; ago <= span; ago += span / 3) {
      const text = ago === 0 ? "now" : ago % 60 === 0 ? `−${ago / 60} min` : `−${ago} s`;
      const anchor = ago === 0 ? "end" : ago === span ? "start" : "middle";
      drawn.push(element("text", { x: this.x(end - ago), y: height - 3, "text-anchor": anchor }, text));
    }
    for (const { name, colour } of this.series) {
      for (const run of this.runs(samples, name, end)) {
        const line = run.map((sample, place) => `${place ? "L" : "M"}${this.x(sample.at).toFixed(1)} ${y(sample[name]).toFixed(1)}`).join("");
        const [first, last] = [run[0], run[run.length - 1]].map((sample) => this.x(sample.at).toFixed(1));
        const ground = (height - bottom).toFixed(1);
        // The height above the floor of a logarithmic axis is no amount.
        if (!this.floor) drawn.push(element("path", { class: `area ${colour}`, d: `${line}L${last} ${ground}L${first} ${ground}Z` }));
        drawn.push(element("path", { class: `line ${colour}`, d: line }));
      }
    }
    this.cursor = element("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(...drawn, this.cursor);
    this.tell();
  }

  // Where the axis has its ticks, and how far up a value stands, of 1.
  axis(samples) {
    const values = samples.flatMap((sample) => this.series.map(({ name }) => sample[name] ?? 0));
    const highest = Math.max(this.least, ...values);
    const ticks = [];
    if (this.floor) {
      const decades = Math.ceil(Math.log10(highest / this.floor) - 1e-9);
      for (let decade = 0; decade <= decades; decade += 1) ticks.push(this.floor * 10 ** decade);
      return { ticks, part: (value) => Math.log10(Math.max(value, this.floor) / this.floor) / decades };
    }
    const step = niceStep(highest / 4);
    const ceiling = Math.min(step * Math.ceil(highest / step - 1e-9), this.most ?? Infinity);
    for (let tick = 0; tick <= ceiling * 1.001; tick += step) ticks.push(tick);
    return { ticks, part: (value) => value / ceiling };
  }

  // Samples that follow each other without a gap, those that are still in sight.
  runs(samples, name, end) {
    const runs = [[]];
    for (const sample of samples) {
      if (sample[name] === null || sample.at < end - this.spanSeconds) runs.push([]);
      else runs[runs.length - 1].push(sample);
    }
    return runs.filter((run) => run.length > 0);
  }

  point(event) {
    if (!this.x) return;
    const x = event.clientX - this.svg.getBoundingClientRect().left;
    const distance = (sample) => Math.abs(this.x(sample.at) - x);
    this.look(this.samples.reduce((best, sample) => (distance(sample) < distance(best) ? sample : best)).at);
  }

  step(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity, Escape: null }[event.key];
    if (move === undefined || this.samples.length === 0) return;
    event.preventDefault();
    if (move === null) return this.look(null);
    const last = this.samples.length - 1;
    const found = this.samples.findIndex((sample) => sample.at === this.looked);
    const place = Math.min(Math.max((found < 0 ? last : found) + move, 0), last);
    this.look(this.samples[place].at);
  }

  look(at) {
    this.looked = at;
    if (this.samples.length > 0) this.tell();
  }

  // Values of the moment that is looked at, else of now.
  tell() {
    const last = this.samples[this.samples.length - 1];
    const sample = this.samples.find(({ at }) => at === this.looked);
    const shown = sample ?? last;
    const values = this.series.map(({ name }) => (shown[name] === null ? "–" : this.format(shown[name])));
    values.forEach((value, place) => { this.entries[place].textContent = value; });
    const when = sample ? `${Math.round(last.at - sample.at)} s ago` : "";
    this.when.textContent = when;
    this.svg.setAttribute("aria-label", `${this.label}: ${this.series.map(({ label }, place) => `${label} ${values[place]}`).join(", ")} ${when}`);
    if (!this.cursor) return;
    this.cursor.setAttribute("visibility", sample ? "visible" : "hidden");
    if (sample) for (const end of ["x1", "x2"]) this.cursor.setAttribute(end, this.x(sample.at));
  }
}
