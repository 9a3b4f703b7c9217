// The inspector's page: what all workers tell, put together, and what its buttons do.
//
// Each worker tells of itself each second, in an event of its own. The page adds up what
// the workers say, and forgets a worker of which it has heard nothing for a while. Texts
// of events and clients are only ever shown as text.

import { Table, age, bytes, count, element, rate } from "./cells.js";
import { Plot } from "./plot.js";

const { module, here, token } = document.body.dataset;
const { connect } = await import(module);

const $ = (id) => document.getElementById(id);

/** Milliseconds of silence after which a worker is taken for gone. */
const SILENCE = 6000;

/** Milliseconds between two times that the page is drawn anew. */
const DRAWN = 1000;

/** Events that the page keeps of the channel that is watched. */
const KEPT = 500;

/** Milliseconds for which the page says what a button has done. */
const TOLD = 8000;

/** Characters of data up to which JSON is laid out. */
const LAID_OUT = 200_000;

const workers = new Map(); // By name: what each has told last, and when.
const taken = new Map(); // By connection: the bytes that its client had taken.

// What workers tell

const own = connect(`${here}/stream`, { shared: false });

own.addEventListener("statechange", ({ detail: { state, reason, delay } }) => {
  const why = reason && state !== "open" ? `: ${reason}` : "";
  const when = state === "waiting" && delay ? `, again in ${age(delay / 1000)}` : "";
  $("state").textContent = state + why + when;
  $("state").dataset.state = state;
});

own.json("worker", (told) => {
  const isNew = !workers.has(told.worker);
  const before = workers.get(told.worker);
  const at = performance.now();
  workers.set(told.worker, { ...told, at, sent: sentBy(told, before, at) });
  if (isNew) draw();
});

/** Bytes per second that a worker's clients have taken since it last told. */
const sentBy = (told, before, at) => {
  let sum = 0;
  for (const { name, bytes: now } of told.connections) {
    const key = `${told.worker} ${name}`;
    if (now === null) continue; // The system does not say.
    if (taken.has(key)) sum += Math.max(0, now - taken.get(key));
    taken.set(key, now);
  }
  return before ? (sum * 1000) / (at - before.at) : 0;
};

const forgetTheSilent = () => {
  for (const [name, { at }] of workers) {
    if (performance.now() - at > SILENCE) workers.delete(name);
  }
  const open = new Set();
  for (const { worker, connections } of workers.values()) {
    for (const { name } of connections) open.add(`${worker} ${name}`);
  }
  for (const key of taken.keys()) if (!open.has(key)) taken.delete(key);
};

// What the page shows of it

const all = (list) =>
  [...workers.values()].flatMap((worker) =>
    worker[list].map((one) => ({ ...one, worker: worker.worker, pid: worker.pid })),
  );

const plots = {
  streams: new Plot($("streams-plot"), count),
  rate: new Plot($("rate-plot"), rate),
  sent: new Plot($("sent-plot"), bytes),
  behind: new Plot($("behind-plot"), count),
};

const tables = {
  workers: new Table(
    $("workers"),
    "Workers",
    [
      { title: "Worker", cell: ({ pid, host }) => `${pid} on ${host}` },
      { title: "Handed off", isNumber: true, cell: (w) => count(w.stats.open["handed off"]) },
      { title: "Iterated", isNumber: true, cell: (w) => count(w.stats.open.iterated) },
      { title: "Why iterated, so far", cell: ({ stats }) => reasons(stats.reasons) },
      { title: "Broker", cell: broker },
    ],
    "No worker has told anything yet.",
  ),
  channels: new Table(
    $("channel-list"),
    "Channels",
    [
      { title: "Channel", cell: ({ name }) => name },
      { title: "Listeners", isNumber: true, cell: (c) => count(c.listeners) },
      { title: "Events/s", isNumber: true, cell: (c) => rate(c.rate) },
      { title: "Kept", isNumber: true, cell: (c) => count(c.events) },
      { title: "Bytes kept", isNumber: true, cell: (c) => bytes(c.bytes) },
      {
        title: "Events",
        cell: ({ name }) => ({ label: "Watch", name: `Watch ${name}`, act: watchRow }),
      },
    ],
    "No channel is listened to.",
  ),
  connections: new Table(
    $("connection-list"),
    "Connections",
    [
      { title: "Identity", cell: ({ identity }) => identity ?? "–" },
      { title: "Channels", cell: channelsOf },
      { title: "Path", cell: ({ path }) => path },
      { title: "Why", cell: ({ why }) => why ?? "–" },
      { title: "Age", isNumber: true, cell: (c) => age(c.age) },
      { title: "Behind", isNumber: true, cell: (c) => count(c.behind) },
      { title: "Waiting", isNumber: true, cell: (c) => bytes(c.waiting) },
      { title: "Taken", isNumber: true, cell: (c) => bytes(c.bytes) },
      { title: "Worker", isNumber: true, cell: ({ pid }) => `${pid}` },
      {
        title: "End",
        cell: (connection) => ({
          label: "Disconnect",
          name: `Disconnect ${connection.identity ?? "the client"} of ${channelsOf(connection)}`,
          isDanger: true,
          act: disconnectRow,
        }),
      },
    ],
    "No stream is open.",
  ),
  runs: new Table(
    $("run-list"),
    "Runs",
    [
      { title: "Run", cell: ({ channel }) => channel },
      { title: "Age", isNumber: true, cell: (run) => age(run.age) },
      { title: "Readers", isNumber: true, cell: (run) => count(run.readers) },
      { title: "Bytes kept", isNumber: true, cell: (run) => bytes(run.bytes) },
      { title: "Worker", isNumber: true, cell: ({ pid }) => `${pid}` },
      {
        title: "End",
        cell: ({ channel }) => ({
          label: "Stop",
          name: `Stop ${channel}`,
          isDanger: true,
          act: stopRow,
        }),
      },
    ],
    "No run goes on.",
  ),
};

function reasons(codes) {
  const words = Object.entries(codes).map(([code, number]) => `${code} (${number})`);
  return words.join(", ") || "–";
}

function broker({ shared, away, reconnects }) {
  if (!shared) return "memory";
  const back = reconnects ? `, back ${count(reconnects)} times` : "";
  return (away ? "away" : "there") + back;
}

function channelsOf({ channels, more_channels: more }) {
  return channels.join(", ") + (more ? ` and ${more} more` : "");
}

/** The channels of all workers: listeners add up, and what is kept is the same for all. */
const joined = () => {
  const found = new Map();
  for (const channel of all("channels")) {
    const known = found.get(channel.name);
    if (!known) found.set(channel.name, { ...channel });
    else {
      known.listeners += channel.listeners;
      for (const key of ["events", "bytes", "rate"]) {
        known[key] = Math.max(known[key], channel[key]);
      }
    }
  }
  return found;
};

const wordsOf = (...texts) => texts.join(" ").toLowerCase();

/** Those rows that have what a field asks for. */
const found = (rows, field, words) => {
  const wanted = $(field).value.trim().toLowerCase();
  return rows.filter((row) => !wanted || words(row).includes(wanted));
};

const keyed = (rows, key) => new Map(rows.map((row) => [key(row), row]));

let isPressed = false; // Whether a finger or a mouse's button is down.

// What moves between a press and its release gets no click. So nothing moves meanwhile.
for (const type of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
  addEventListener(type, ({ buttons }) => (isPressed = buttons > 0), { capture: true });
}

const draw = () => {
  if (isPressed) return;
  if (!isPaused) listWaiting();
  forgetTheSilent();
  const channels = joined();
  const connections = all("connections");
  const runs = all("runs").map((run) => {
    const channel = channels.get(run.channel);
    return { ...run, readers: channel?.listeners ?? 0, bytes: channel?.bytes };
  });
  drawTables(channels, connections, runs);
  drawNumbers(channels, connections);
};

const drawTables = (channels, connections, runs) => {
  const byUse = [...channels.values()].sort(
    (one, other) => other.listeners - one.listeners || one.name.localeCompare(other.name),
  );
  const named = found(byUse, "find-channel", ({ name }) => wordsOf(name));
  const wanted = found(connections, "find-connection", (c) =>
    wordsOf(c.identity, channelsOf(c), c.path, c.why, c.pid),
  );
  const behind = wanted.sort((one, other) => other.behind - one.behind || other.age - one.age);
  const ordered = [...workers.values()].sort((one, other) => one.pid - other.pid);
  tables.workers.show(keyed(ordered, ({ worker }) => worker));
  tables.channels.show(keyed(named, ({ name }) => name));
  tables.connections.show(keyed(behind, ({ worker, name }) => `${worker} ${name}`));
  tables.runs.show(keyed(runs, ({ channel }) => channel));
};

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

/** How many workers there are, by what the others say, that have told nothing. */
const silentWorkers = (told) => {
  const servers = new Map(); // By host and parent: how many workers each has started.
  for (const { host, parent, processes, shared } of told) {
    if (shared) servers.set(`${host} ${parent}`, processes ?? 0);
  }
  return Math.max(0, sum([...servers.values()]) - told.length);
};

const drawNumbers = (channels, connections) => {
  const told = [...workers.values()];
  // The streams of the inspectors' own pages are not among those that are shown.
  const open = sum(
    told.map(({ stats: { open: o }, inspectors }) => o["handed off"] + o.iterated - inspectors),
  );
  const values = {
    streams: open,
    rate: sum([...channels.values()].map((channel) => channel.rate)),
    sent: sum(told.map(({ sent }) => sent)),
    behind: sum(connections.map(({ behind }) => behind)),
  };
  const written = { streams: count, rate, sent: bytes, behind: count };
  for (const [name, plot] of Object.entries(plots)) {
    $(name).textContent = told.length ? written[name](values[name]) : "–";
    if (told.length) plot.add(values[name]);
  }
  const silent = silentWorkers(told);
  $("silent").hidden = silent === 0;
  $("silent").textContent =
    `${count(silent)} more ${silent === 1 ? "worker is" : "workers are"} silent: ` +
    "a worker tells of itself from its first stream on.";
  $("alone").hidden = !told.some(({ shared, several }) => several && !shared);
  $("connections-note").hidden = open <= connections.length;
  $("connections-note").textContent =
    `${count(open)} streams are open. Each worker tells of 100 connections at most, ` +
    "those that are behind first.";
};

setInterval(draw, DRAWN);
for (const id of ["find-channel", "find-connection"]) $(id).addEventListener("input", draw);

// A channel's events as they pass

let watching; // The stream of the channel that is watched.
let isPaused = false;
let waiting = []; // Events that came while the list was paused, or a button pressed.

const watch = (channel) => {
  watching?.close();
  clear();
  setPaused(false);
  $("watched").textContent = channel;
  $("watch-channel").value = channel;
  $("publish-channel").value ||= channel;
  note("No event has passed yet.");
  const address = `${here}/stream?channel=${encodeURIComponent(channel)}`;
  const stream = (watching = connect(address, { shared: false }));
  listen(stream);
  stream.addEventListener("refused", ({ detail }) => {
    note(`The channel is not served: ${detail.reason ?? detail.status}`);
  });
  stream.addEventListener("end", () => note("The channel has ended."));
  stream.addEventListener("gap", () => note("Some events were lost."));
};

const listen = async (stream) => {
  try {
    for await (const event of stream) if (stream === watching) take(event);
  } catch {
    // The page says it: see "refused".
  }
};

const take = (event) => {
  const { type, data, lastEventId: id } = event;
  const passed = { type, data, id, at: new Date() };
  waiting.push(passed);
  if (waiting.length > KEPT) waiting.shift();
  if (isPaused) noteWaiting();
  else if (!isPressed) listWaiting();
};

const noteWaiting = () => note(`Paused: ${count(waiting.length)} events wait.`);

const listWaiting = () => {
  const events = waiting;
  waiting = [];
  events.forEach(list);
};

const list = (passed) => {
  note("");
  const line = lineOf(passed);
  $("event-list").prepend(line);
  hide(line);
  while ($("event-list").childElementCount > KEPT) $("event-list").lastElementChild.remove();
};

const lineOf = ({ type, data, id, at }) => {
  const size = bytes(new TextEncoder().encode(data).length);
  const head = [
    element("time", { datetime: at.toISOString() }, at.toLocaleTimeString("en-GB")),
    element("b", {}, type),
    element("span", { class: "size" }, size),
    element("code", { class: "id" }, id || "–"),
  ];
  const json = jsonOf(data);
  const line = element("li", {});
  const start = element("span", { class: "start" }, data.slice(0, 200));
  if (json === undefined && data.length <= 200 && !data.includes("\n")) {
    line.append(element("div", { class: "summary" }, ...head, start));
  } else {
    const summary = element("summary", {}, ...head, start);
    line.append(element("details", {}, summary, element("pre", { tabindex: 0 }, json ?? data)));
  }
  line.searched = wordsOf(type, id, data);
  return line;
};

/** Data laid out, where it is JSON with something to lay out. */
const jsonOf = (data) => {
  if (!/^\s*[[{]/.test(data) || data.length > LAID_OUT) return undefined;
  try {
    return JSON.stringify(JSON.parse(data), null, 2);
  } catch {
    return undefined;
  }
};

const hide = (line) => {
  const wanted = $("find-event").value.trim().toLowerCase();
  line.hidden = !!wanted && !line.searched.includes(wanted);
};

const note = (text) => {
  if ($("events-note").textContent !== text) $("events-note").textContent = text;
  $("events-note").hidden = !text;
};

const clear = () => {
  $("event-list").replaceChildren();
  waiting = [];
};

const setPaused = (value) => {
  isPaused = value;
  $("pause").setAttribute("aria-pressed", `${value}`);
  if (!isPaused) listWaiting();
  else if (waiting.length) noteWaiting();
};

$("watch").addEventListener("submit", (event) => {
  event.preventDefault();
  watch($("watch-channel").value);
});
$("pause").addEventListener("click", () => setPaused(!isPaused));
$("clear").addEventListener("click", clear);
$("find-event").addEventListener("input", () => [...$("event-list").children].forEach(hide));

function watchRow({ name }) {
  watch(name);
  $("events").focus();
}

// What buttons do

let forgetTold;

const say = (text, isFault = false) => {
  $("told").textContent = text;
  $("told").classList.toggle("fault", isFault);
  $("told").hidden = false;
  clearTimeout(forgetTold);
  forgetTold = setTimeout(() => ($("told").hidden = true), TOLD);
};

/** Have the server do something, and tell what came of it. */
const act = async (action, words, done) => {
  try {
    const answer = await fetch(`${here}/${action}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "SSE-Inspector-Token": token },
      body: JSON.stringify(words),
    });
    if (answer.ok) return say(done);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    say(page.querySelector("p")?.textContent ?? `The server says ${answer.status}`, true);
  } catch (error) {
    say(`The server cannot be reached: ${error.message}`, true);
  }
};

function disconnectRow({ worker, name, identity }) {
  const whom = identity ?? "The client";
  act("disconnect", { worker, name }, `${whom} is disconnected, and can come back.`);
}

function stopRow({ channel }) {
  act("stop", { channel }, `${channel} is stopped.`);
}

$("disconnect").addEventListener("submit", (event) => {
  event.preventDefault();
  const identity = $("identity").value;
  act("disconnect", { identity }, `All streams of ${identity} have ended.`);
});

$("publish-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const [channel, type, data] = ["channel", "type", "data"].map(
    (field) => $(`publish-${field}`).value,
  );
  act("publish", { channel, type, data }, `Published to ${channel}.`);
});

// A button that is pressed before this script has run would do nothing.
$("main").inert = false;
