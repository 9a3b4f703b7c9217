// The panel of the crowd: a dot for each of a thousand streams, which a process on the
// server's machine has opened, and what they cost the worker.

import { connect } from "../sse.js";
import { bytes } from "./units.js";

const LIT = 500; // ms that a dot is lit

const byId = (id) => document.getElementById(id);

export function showCrowd(stream) {
  const button = byId("crowd-button");
  const label = button.textContent;
  const field = dots(byId("field"), Number(byId("field").dataset.count));
  const costs = showCosts(stream);
  let source = null;

  const leave = (text) => {
    source?.close();
    source = null;
    button.textContent = label;
    say(text);
    field.clear();
    costs.crowd(false);
  };
  button.addEventListener("click", () => {
    if (source) return leave("You closed them. Each place on the server is free again.");
    source = connect(byId("crowd").dataset.url, { method: "POST", shared: false });
    button.textContent = "Close them";
    costs.crowd(true);
    listen(source, field, leave);
  });
}

function listen(source, field, leave) {
  let deliveries = 0;
  source.addEventListener("crowd", ({ data }) => {
    const { pid, seconds, end, open, refused, opened = [], lost = [], lit = [] } = JSON.parse(data);
    if (pid) say(`The clients are connections of process ${pid}, on the server's machine: a browser opens six at most. They listen to figures and chat for ${seconds} seconds.`);
    if (end) leave(end === "busy" ? "Another page has its crowd open. There is one at a time: try again in a minute." : "The minute is over, and the crowd has left.");
    if (open === undefined) return;
    deliveries += lit.length;
    field.open(opened, true);
    field.open(lost, false);
    field.light(lit);
    byId("crowd-open").textContent = open.toLocaleString();
    byId("crowd-deliveries").textContent = deliveries.toLocaleString();
    if (refused) say(`${refused} of them found no place: the server may have too few file descriptors (ulimit -n).`);
  });
  source.addEventListener("statechange", ({ detail: { state } }) => {
    if (state === "ended") leave("The crowd has left.");
    if (state === "refused") leave("The server did not open them.");
  });
}

// The figures of the worker: now, and before the crowd came.
function showCosts(stream) {
  const shapes = { threads: String, greenlets: String, memory: bytes, cpu: (value) => `${Math.round(value)} %` };
  let last = null;
  let before = null;
  stream.addEventListener("event", ({ detail: { type, data } }) => {
    if (type !== "worker") return;
    last = data;
    byId("crowd-worker").textContent = data.worker;
    byId("crowd-here").textContent = data.streams.toLocaleString();
    for (const [name, shape] of Object.entries(shapes)) {
      byId(`crowd-${name}`).textContent = shape(data[name]);
      if (before) byId(`before-${name}`).textContent = `was ${shape(before[name])}`;
    }
  });
  return { crowd: (isThere) => { if (isThere) before = last; } };
}

function dots(field, count) {
  const all = Array.from({ length: count }, () => document.createElement("i"));
  field.append(...all);
  const mark = (numbers, name, isOn) => numbers.forEach((n) => all[n].classList.toggle(name, isOn));
  return {
    open: (numbers, isOpen) => mark(numbers, "open", isOpen),
    light(numbers) {
      mark(numbers, "lit", true);
      setTimeout(() => mark(numbers, "lit", false), LIT);
    },
    clear() {
      mark([...all.keys()], "open", false);
      byId("crowd-open").textContent = "0";
    },
  };
}

function say(text) {
  byId("crowd-told").textContent = text;
}
