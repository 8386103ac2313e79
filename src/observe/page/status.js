// The status page: asks /api/status once a second and shows what has changed since.

import { Chart } from "/charts.js";

const POLL_MILLISECONDS = 1000;
const SPAN_SECONDS = 180;
// Workers say how long they have run once a second: over less, the shares would jump.
const SHARE_SECONDS = 3;

const $ = (id) => document.getElementById(id);

// Numbers in words that a person reads at a glance.

function digits(value) {
  if (value >= 100 || Number.isInteger(value)) return Math.round(value).toLocaleString("en");
  return value.toLocaleString("en", { maximumSignificantDigits: 2 });
}

function count(value) {
  const [scale, unit] = value >= 1e9 ? [1e9, " G"] : value >= 1e6 ? [1e6, " M"] : value >= 1e5 ? [1e3, " k"] : [1, ""];
  return scale === 1 ? digits(value) : `${(value / scale).toPrecision(3)}${unit}`;
}

function seconds(value, axis = value) {
  const [scale, unit] = axis >= 1 ? [1, "s"] : axis >= 1e-3 ? [1e3, "ms"] : [1e6, "µs"];
  return `${digits(value * scale)} ${unit}`;
}

const share = (value) => `${(100 * value).toFixed(value >= 0.0005 && value < 0.0995 ? 1 : 0)} %`;

function age(value) {
  const [days, hours, minutes] = [value / 86400, (value % 86400) / 3600, (value % 3600) / 60].map(Math.floor);
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min` : `${Math.floor(value)} s`;
}

const date = (unixSeconds) => new Date(unixSeconds * 1000).toISOString().slice(0, 10);

const words = (name) => name.replace(/^dropped_/, "dropped: ").replaceAll("_", " ").replace("nts nak", "NTS NAK");

// Changes of the page. Text only: nothing that a server says becomes markup.

function write(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

function made(name, text = "", classes = "") {
  const found = document.createElement(name);
  found.textContent = text;
  if (classes) found.className = classes;
  return found;
}

// Rows of cells, each a text and its classes; the first one heads its row.
function fill(id, rows, empty) {
  const lines = rows.map(({ cells, classes }) => {
    const line = made("tr", "", classes);
    line.append(...cells.map(([text, of = ""], place) => {
      const cell = made(place === 0 ? "th" : "td", text, of);
      if (place === 0) cell.scope = "row";
      return cell;
    }));
    return line;
  });
  if (lines.length === 0) {
    const cell = made("td", empty);
    cell.colSpan = 4;
    lines.push(made("tr"));
    lines[0].append(cell);
  }
  $(id).replaceChildren(...lines);
}

const perSecond = (label, series) => ({ label, series, format: count, least: 4, spanSeconds: SPAN_SECONDS });
const charts = {
  requests: new Chart($("chart-requests"), perSecond("Requests answered each second", [
    { name: "plain", label: "NTP", colour: "blue" },
    { name: "nts", label: "NTS, authenticated", colour: "teal" },
  ])),
  refused: new Chart($("chart-refused"), perSecond("Not answered with the time, each second", [
    { name: "nak", label: "NTS NAK", colour: "orange" },
    { name: "dropped", label: "dropped", colour: "red" },
    { name: "lost", label: "lost in full sockets", colour: "violet" },
  ])),
  latency: new Chart($("chart-latency"), {
    label: "Latency", format: (value) => seconds(value), floor: 1e-6, least: 1e-3, spanSeconds: SPAN_SECONDS,
    series: [
      { name: "median", label: "half are faster than", colour: "blue" },
      { name: "tail", label: "99 of 100", colour: "orange" },
    ],
  }),
  workers: new Chart($("chart-workers"), {
    label: "Processor time", format: share, least: 0.05, most: 1, spanSeconds: SPAN_SECONDS,
    series: [
      { name: "busiest", label: "the busiest worker", colour: "orange" },
      { name: "mean", label: "all, on average", colour: "blue" },
    ],
  }),
  ke: new Chart($("chart-ke"), perSecond("Key establishment each second", [
    { name: "served", label: "brought cookies", colour: "teal" },
    { name: "failed", label: "did not", colour: "red" },
  ])),
  clock: new Chart($("chart-clock"), {
    label: "Error bound", format: seconds, least: 1e-6, spanSeconds: SPAN_SECONDS,
    series: [{ name: "bound", label: "error bound that clients are told", colour: "violet" }],
  }),
};

// What the page knows: raw statuses of the last seconds, and samples for the charts.
const statuses = [];
const samples = [];

const sum = (values) => values.reduce((all, value) => all + value, 0);
const dropsOf = (stats) => sum(Object.entries(stats.responder).filter(([name]) => name.startsWith("dropped_")).map(([, value]) => value));
const failuresOf = (stats) => Object.entries(stats.key_establishment)
  .filter(([name]) => !name.startsWith("served") && !["accepted", "accept_failed"].includes(name));

// The value that so large a part of what was counted in `counts` does not exceed; in a bucket, as
// if its values were spread evenly.
function percentile(bounds, counts, part) {
  const all = sum(counts);
  if (all === 0) return null;
  let before = 0;
  for (const [place, inside] of counts.entries()) {
    if (inside > 0 && before + inside >= part * all) {
      const lower = place === 0 ? 0 : bounds[place - 1];
      const upper = bounds[place] ?? lower;
      return lower + ((part * all - before) / inside) * (upper - lower);
    }
    before += inside;
  }
  return bounds[bounds.length - 1];
}

function latencies(now, before) {
  const counts = now.workers[0].latency_seconds.counts.map((_, place) =>
    sum(now.workers.map(({ latency_seconds: found }, worker) =>
      found.counts[place] - before.workers[worker].latency_seconds.counts[place])));
  const { bounds } = now.workers[0].latency_seconds;
  return [0.5, 0.99].map((part) => percentile(bounds, counts, part));
}

const elapsed = (now, before) => (now.taken_unix_milliseconds - before.taken_unix_milliseconds) / 1000;

function sharesOf(now) {
  const before = statuses.findLast((status) => elapsed(now, status) >= SHARE_SECONDS) ?? statuses[0];
  const time = Math.max(elapsed(now, before), 0.1);
  return now.workers.map((worker, place) =>
    Math.min(Math.max((worker.processor_seconds - before.workers[place].processor_seconds) / time, 0), 1));
}

function sampleOf(now, before) {
  const time = Math.max(elapsed(now, before), 0.1);
  const rate = (of) => Math.max(of(now.serverstats) - of(before.serverstats), 0) / time;
  const [median, tail] = latencies(now, before);
  const shares = sharesOf(now);
  return {
    at: now.taken_unix_milliseconds / 1000,
    plain: rate((stats) => stats.responder.answered_plain),
    nts: rate((stats) => stats.responder.answered_nts),
    nak: rate((stats) => stats.responder.nts_nak),
    dropped: rate(dropsOf),
    lost: rate((stats) => stats.responder.receive_drops + stats.responder.send_buffer_full),
    served: rate((stats) => stats.key_establishment.served ?? 0),
    failed: rate((stats) => sum(failuresOf(stats).map(([, value]) => value))),
    median, tail, shares,
    mean: sum(shares) / shares.length,
    busiest: Math.max(...shares),
    bound: now.clock.root_dispersion_seconds,
  };
}

function showState(status) {
  const { ready, reasons } = status.health;
  document.body.classList.remove("stale");
  $("badge").className = `badge ${ready ? "ready" : "wrong"}`;
  write("badge", ready ? "Ready" : "Not ready");
  $("reasons").hidden = ready;
  if (!ready) $("reasons").replaceChildren(...reasons.map((reason) => made("li", reason)));
  write("about", `${status.release}, up ${age(status.uptime_seconds)}`);
  document.title = `${ready ? "" : "NOT READY – "}timeball`;
}

function showTiles(sample, status) {
  const requests = sample.plain + sample.nts + sample.nak + sample.dropped;
  write("tile-requests", count(requests));
  write("tile-nts", requests > 0 ? share(sample.nts / requests) : "–");
  write("tile-latency", sample.tail === null ? "–" : seconds(sample.tail));
  const { stratum, root_dispersion_seconds: bound } = status.clock;
  write("tile-clock", stratum === 0 ? "–" : seconds(bound));
  write("tile-clock-note", stratum === 0 ? "clock is unsynchronised" : "of the clock");
}

function showReasons(now, before) {
  const time = Math.max(elapsed(now, before), 0.1);
  const refusals = (stats) => Object.entries(stats.responder)
    .filter(([name]) => name.startsWith("dropped_") || ["nts_nak", "kiss_rate", "kiss_rate_nts", "receive_drops", "send_errors", "send_buffer_full"].includes(name))
    .concat(failuresOf(stats).map(([name, value]) => [`key establishment: ${name}`, value]));
  const earlier = new Map(refusals(before.serverstats));
  const rows = refusals(now.serverstats).filter(([, value]) => value > 0);
  rows.sort(([, one], [, other]) => other - one);
  fill("table-reasons", rows.slice(0, 8).map(([name, value]) => ({
    cells: [[words(name)], [count((value - earlier.get(name)) / time), "number"], [count(value), "number"]],
  })), "Nothing was refused so far.");
}

function showWorkers(status, { shares }) {
  $("meters-workers").replaceChildren(...status.workers.map(({ cpu }, place) => {
    const entry = made("li", `worker ${place}, CPU ${cpu}`);
    const meter = made("meter");
    Object.assign(meter, { min: 0, max: 1, high: 0.9, value: shares[place] });
    meter.setAttribute("aria-label", `worker ${place}`);
    entry.append(made("span", share(shares[place])), meter);
    return entry;
  }));
}

function showClock({ clock }) {
  const sources = {
    local: "local: nobody vouches for it",
    kernel: "kept by this host's time daemon",
    follow: `follows ${clock.followed}`,
  };
  const told = clock.stratum === 0 ? "clients are told unsynchronised" : `stratum ${clock.stratum}`;
  const why = clock.why === "" ? "" : `; ${clock.why}`;
  write("clock-summary", `${sources[clock.source]}; ${told}${why}.`);
  const leap = clock.leap_file;
  $("clock-leap").hidden = !leap;
  if (!leap) return;
  const fares = leap.why || `good until ${date(leap.expires_unix_seconds)}`;
  $("clock-leap").className = leap.why ? "bad" : "";
  write("clock-leap", `Leap-seconds file: ${fares}.`);
}

function showKeys({ keys }) {
  const places = ["previous", "previous", "current", "next"];
  fill("table-keys", keys.ids.map((id, place) => ({
    cells: [[places[place]], [id, "code"], [keys.fingerprints[place], "code"]],
    classes: places[place] === "current" ? "current" : "",
  })));
  const [newest, next] = [keys.newest_age_seconds, keys.next_rotation_seconds];
  write("keys-summary", next === null
    ? "Another program rotates them."
    : `The next rotation is in ${age(next)}; the newest key is ${age(newest)} old.`);
}

function showCertificates({ certificates, taken_unix_milliseconds: now }) {
  $("card-certificates").hidden = certificates.length === 0;
  $("certificates").replaceChildren(...certificates.map((found) => {
    const entry = made("li");
    const left = found.expires_unix - now / 1000;
    const until = date(found.expires_unix);
    entry.append(
      made("p", found.names.join(", ")),
      made("p", left > 0 ? `good for ${age(left)}, until ${until}` : `expired on ${until}`, left > 0 ? "" : "bad"),
      made("p", found.file, "file code"),
      ...found.warnings.map((warning) => made("p", warning, "bad")),
    );
    return entry;
  }));
}

function showProcesses({ processes }) {
  fill("table-processes", processes.map(({ role, pid, is_serving: serves, age_seconds: up, restarts }) => ({
    cells: [
      [role],
      [serves ? "serves" : pid === null ? "waits to be started again" : "is starting", serves ? "good" : "bad"],
      [pid === null ? "–" : String(pid), "number aside"],
      [age(up), "number"],
      [count(restarts), "number"],
    ],
  })));
}

function show(status) {
  const before = statuses[statuses.length - 1];
  const isOther = before && (status.uptime_seconds < before.uptime_seconds || status.workers.length !== before.workers.length);
  if (isOther) {
    // Another server: what was before has nothing to do with it.
    statuses.length = 0;
    samples.length = 0;
  }
  showState(status);
  showClock(status);
  showKeys(status);
  showCertificates(status);
  showProcesses(status);
  $("card-ke").hidden = status.ke_listen.length === 0;
  if (before && !isOther) {
    const sample = sampleOf(status, before);
    samples.push(sample);
    while (sample.at - samples[0].at > SPAN_SECONDS) samples.shift();
    for (const chart of Object.values(charts)) chart.draw(samples);
    showTiles(sample, status);
    showReasons(status, before);
    showWorkers(status, sample);
    // For whoever watches the page from outside.
    document.documentElement.dataset.samples = samples.length;
  }
  statuses.push(status);
  while (elapsed(status, statuses[0]) > 2 * SHARE_SECONDS) statuses.shift();
}

let heard = null;

async function poll() {
  try {
    const answer = await fetch("/api/status", { signal: AbortSignal.timeout(5 * POLL_MILLISECONDS) });
    if (!answer.ok) throw new Error(`it answers ${answer.status}`);
    show(await answer.json());
    heard = Date.now();
    write("freshness", `live, each second`);
  } catch (error) {
    document.body.classList.add("stale");
    $("badge").className = "badge wrong";
    write("badge", "No answer");
    write("freshness", heard === null ? String(error.message) : `last heard ${age((Date.now() - heard) / 1000)} ago`);
  }
  setTimeout(poll, POLL_MILLISECONDS);
}

poll();
