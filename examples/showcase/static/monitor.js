// The panel that shows the stream itself: its state, its events, its counters, and the
// button that cuts it.

import { followEnd } from "./scroll.js";
import { bytes, clock } from "./units.js";

const CUT = 10; // seconds
const KEPT = 250; // rows
const SHOWN = 160; // characters of an event's data
const RATE_OVER = 10; // seconds

// Which channel an event came from. (The address names no channels, so that the module
// does not tell either.)
const CHANNELS = { figures: "figures", chat: "chat", tick: "ticker", worker: "worker" };

const byId = (id) => document.getElementById(id);
const encoder = new TextEncoder();

export function showStream(stream) {
  const list = eventList(byId("events"));
  showState(stream);
  showCountdown(stream);
  showCounters(stream);
  explain(stream, byId("replayed"));

  let wasOpen = false;
  stream.addEventListener("state", ({ detail: { state } }) => {
    if (state === "cut") list.note("cut", `cut at ${clock(Date.now())}`);
    else if (wasOpen && state === "reconnecting") list.note("cut", "connection lost");
    wasOpen = state === "open";
  });
  stream.addEventListener("event", ({ detail }) => list.add(detail));
  stream.addEventListener("resumed", ({ detail }) => {
    if (!detail.count) return;
    list.noteAfterMissed(`${summary(detail, "missed event")}; now it is live again`);
  });
}

function showState(stream) {
  stream.addEventListener("state", ({ detail: { state } }) => {
    document.documentElement.dataset.stream = state;
    for (const text of document.querySelectorAll(".state-text")) {
      text.textContent = state;
    }
  });
}

function showCountdown(stream) {
  const button = byId("cut");
  const label = button.textContent;
  const countdown = byId("countdown");
  let until = null;
  let ticking = 0;

  const tick = () => {
    const left = Math.max(until - Date.now(), 0) / 1000;
    countdown.querySelector("b").textContent = `${Math.ceil(left)} s`;
    countdown.style.setProperty("--left", left / CUT);
  };
  button.addEventListener("click", () => (until ? stream.open() : stream.cut(CUT)));
  stream.addEventListener("state", ({ detail }) => {
    clearInterval(ticking);
    until = detail.until;
    button.textContent = until ? "Reconnect now" : label;
    countdown.hidden = !until;
    if (!until) return;
    tick();
    ticking = setInterval(tick, 100);
  });
}

function showCounters(stream) {
  const recent = [];
  let count = 0;
  let size = 0;
  let missed = 0;
  stream.addEventListener("event", ({ detail: { text, kind } }) => {
    recent.push(performance.now());
    count += 1;
    size += encoder.encode(text).length;
    missed += kind === "missed";
    byId("count-events").textContent = count.toLocaleString();
    byId("count-bytes").textContent = bytes(size);
    byId("count-replayed").textContent = missed.toLocaleString();
  });
  setInterval(() => {
    while (recent[0] < performance.now() - RATE_OVER * 1000) recent.shift();
    byId("count-rate").textContent = (recent.length / RATE_OVER).toFixed(1);
  }, 1000);
}

// Says in words what happened; a screen reader hears it.
function explain(stream, words) {
  stream.addEventListener("state", ({ detail: { state } }) => {
    if (state !== "cut") return;
    words.className = "cut";
    words.textContent =
      "Cut. The server goes on publishing. Write something in the chat: it comes back too.";
  });
  stream.addEventListener("resumed", ({ detail }) => {
    words.className = detail.gap ? "gap" : "missed";
    words.textContent = detail.gap ? gapSentence(detail) : `${summary(detail, "missed event")}.`;
    words.dataset.count = detail.count;
    words.dataset.ordered = detail.ordered;
  });
}

export function summary({ count, ms, ordered }, noun) {
  if (count === 0) return "Connected again; nothing was missed";
  const time = ms < 10 ? ms.toFixed(1) : Math.round(ms);
  return `${counted(count, noun)} came back in ${time} ms${ordered ? ", in order" : ", but out of order"}`;
}

function gapSentence({ count }) {
  return (
    "A gap: the server no longer has everything that came after the last event seen here " +
    "(it was restarted, or the cut was too long), and says so with stream-gap. " +
    (count ? `What it still had came back: ${counted(count, "missed event")}.` : "Nothing of it was left.")
  );
}

export function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function eventList(list) {
  const follow = followEnd(list);
  const append = (row) => {
    list.append(row);
    if (list.children.length > KEPT) list.firstElementChild.remove();
    follow();
  };
  let lastMissed = null;
  return {
    add(event) {
      const row = eventRow(event);
      append(row);
      if (event.kind === "missed") lastMissed = row;
    },
    note: (kind, text) => append(cell("li", `note ${kind}`, text)),
    // A live event can have come before we know that this missed event was the last.
    noteAfterMissed: (text) => lastMissed.after(cell("li", "note missed", text)),
  };
}

function eventRow({ type, id, text, kind, time, after }) {
  const row = cell("li", `event ${kind}`, "");
  row.dataset.kind = kind;
  row.dataset.type = type;
  row.dataset.id = id;
  const when = cell("span", "when", kind === "missed" ? `+${after.toFixed(1)} ms` : clock(time));
  if (kind === "missed") when.prepend(cell("span", "hidden", "missed, replayed "));
  const shortId = cell("span", "id", shortened(id));
  shortId.title = id;
  row.append(
    when,
    shortId,
    cell("span", "type", type),
    cell("span", "channel", CHANNELS[type] ?? "–"),
    cell("span", "data", text.slice(0, SHOWN)),
  );
  return row;
}

// An id is a long name of this life of the server's log, and a number that grows.
function shortened(id) {
  const dash = id.lastIndexOf("-");
  return dash > 4 ? `…${id.slice(dash - 4)}` : id;
}

function cell(name, className, text) {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  return node;
}
