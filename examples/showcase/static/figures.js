// The panel of the machine's figures: three plots and the numbers of this second.

import { Plot, SPAN } from "./plot.js";
import { bytes } from "./units.js";

const FRAME = 66; // ms; a minute is some 300 pixels wide, more frames show nothing new
const CALM_FRAME = 1000; // ms, for users who prefer reduced motion
const GIB = 2 ** 30;

const percent = (value) => `${Math.round(value)} %`;
const rate = (value) => `${bytes(value)}/s`;
const gib = (value) => `${(value / GIB).toFixed(value < 99.5 * GIB ? 1 : 0)} GiB`;
const byId = (id) => document.getElementById(id);

export function showFigures(stream) {
  let memoryTotal = GIB;
  const cpu = new Plot(byId("cpu-plot"), { range: () => [0, 100], label: percent });
  const memory = new Plot(byId("memory-plot"), {
    range: () => [0, memoryTotal],
    label: (value) => percent((100 * value) / memoryTotal),
  });
  const network = new Plot(byId("network-plot"), {
    range: bothWays,
    label: (value) => rate(Math.abs(value)),
    filled: 2,
  });

  const redraw = animate([cpu, memory, network]);
  markCuts(stream, [cpu, memory, network], redraw);

  stream.addEventListener("event", ({ detail: { type, data, time, kind } }) => {
    if (type !== "figures") return;
    const mean = data.cpu.reduce((sum, core) => sum + core, 0) / data.cpu.length;
    const { used, total } = data.memory;
    const { received, sent } = data.network;
    const missed = kind === "missed";

    memoryTotal = total;
    cpu.push(time, [mean, ...data.cpu], missed);
    memory.push(time, [used], missed);
    network.push(time, [received, -sent], missed);

    byId("cpu-now").textContent = percent(mean);
    byId("cpu-note").textContent = `mean of ${data.cpu.length} cores`;
    byId("memory-now").textContent = gib(used);
    byId("memory-note").textContent = `${percent((100 * used) / total)} of ${gib(total)}`;
    byId("received-now").textContent = rate(received);
    byId("sent-now").textContent = rate(sent);
    redraw();
  });
}

// Received is drawn upwards and sent downwards, to a round number: 1, 2 or 5 times a
// power of ten.
function bothWays(rates) {
  const least = Math.max(10_000, ...rates.map(Math.abs));
  const power = 10 ** Math.floor(Math.log10(least));
  const top = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= least);
  return [-top, top];
}

// Slides the plots along with the time; the result asks for a new drawing.
function animate(plots) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let stale = true;
  let last = 0;
  const redraw = () => { stale = true; };
  new ResizeObserver(redraw).observe(document.querySelector(".plots"));

  requestAnimationFrame(function frame(time) {
    requestAnimationFrame(frame);
    if (time - last < (calm.matches ? CALM_FRAME : FRAME)) return;
    last = time;
    const now = Date.now();
    for (const plot of plots) {
      if (stale) plot.draw(now);
      else plot.slide(now);
    }
    stale = false;
  });
  return redraw;
}

// Tells the plots when there was no connection.
function markCuts(stream, plots, redraw) {
  let cuts = [];
  let opened = false;
  stream.addEventListener("state", ({ detail: { state } }) => {
    const now = Date.now();
    const last = cuts.at(-1);
    if (state === "open") {
      opened = true;
      if (last) last.to ??= now;
    } else if (opened && last?.to !== null) {
      cuts = [...cuts.filter((cut) => cut.to > now - 2 * SPAN), { from: now, to: null }];
    }
    for (const plot of plots) plot.cuts = cuts;
    redraw();
  });
}
