// A plot of the last minute (at first, of what there is) that slides with the time, drawn as SVG: sharp on every
// screen, and coloured by the stylesheet alone.

export const SPAN = 60_000; // ms, from one side to the other
const LEAST = 10_000; // ms; a plot that has only just begun shows no less
const LATE = 1_200; // ms; the right side is this long ago, so that points slide in
const HOLE = 2_500; // ms; points further apart than this are not joined
const MARGIN = { left: 64, right: 10, top: 8, bottom: 22 };
const PAD = 2; // px, so that a line along the edge is not cut in half

export class Plot {
  #svg;
  #range;
  #label;
  #filled;
  #points = []; // { time, values, missed }, oldest first
  #cuts = []; // { from, to }
  #window = element("svg", {}); // an inner svg clips what slides out of it
  #slide = element("g", {});
  #axes = element("g", { class: "axes" });
  #origin = 0; // the time at x = 0 of what slides
  #width = 0;
  #span = SPAN; // ms that are shown

  // `range(values)` is the lowest and the highest value of the y axis, `label(value)` the
  // text of a tick. The area between zero and each of the first `filled` series is filled.
  constructor(svg, { range, label, filled = 1 }) {
    this.#svg = svg;
    this.#range = range;
    this.#label = label;
    this.#filled = filled;
    this.#window.append(this.#slide);
    svg.append(this.#axes, this.#window);
  }

  push(time, values, missed) {
    this.#points.push({ time, values, missed });
    while (this.#points[0].time < time - SPAN - 3 * LATE) this.#points.shift();
  }

  // The times without a connection; one that lasts has no `to` yet.
  set cuts(cuts) {
    this.#cuts = cuts;
  }

  slide(now) {
    const x = this.#width * (1 - (now - LATE - this.#origin) / this.#span);
    this.#slide.setAttribute("transform", `translate(${x.toFixed(2)} 0)`);
  }

  draw(now) {
    const box = this.#svg.getBoundingClientRect();
    const width = Math.max(box.width - MARGIN.left - MARGIN.right, 1);
    const height = Math.max(box.height - MARGIN.top - MARGIN.bottom, 1);
    this.#svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    set(this.#window, { x: MARGIN.left, y: MARGIN.top - PAD, width, height: height + 2 * PAD });

    this.#width = width;
    this.#origin = now;
    const first = this.#points[0]?.time ?? now;
    this.#span = Math.min(Math.max(Math.ceil((now - first) / 2000) * 2000, LEAST), SPAN);
    const [low, high] = this.#range(this.#points.flatMap((p) => p.values));
    const x = (time) => ((time - now) / this.#span) * width;
    const y = (value) => PAD + height * (1 - (value - low) / (high - low));

    this.#axes.replaceChildren(...this.#drawAxes([low, (low + high) / 2, high], width, height));
    this.#slide.replaceChildren(
      ...this.#cuts.map((cut) => drawCut(cut, x, height + 2 * PAD)),
      ...this.#drawSeries(x, y),
      ...this.#points.filter((p) => p.missed).map((p) =>
        element("circle", { class: "missed", r: 2.5, cx: x(p.time), cy: y(p.values[0]) })),
    );
    this.slide(now);
  }

  #drawAxes(ticks, width, height) {
    const right = MARGIN.left + width;
    const bottom = MARGIN.top + height;
    const lines = ticks.flatMap((value, i) => {
      const y = bottom - (height * i) / (ticks.length - 1);
      return [
        element("line", { x1: MARGIN.left, x2: right, y1: y, y2: y }),
        text(this.#label(value), { x: MARGIN.left - 8, y, class: "y" }),
      ];
    });
    const times = [
      text(`−${this.#span / 1000} s`, { x: MARGIN.left, y: bottom + 16, class: "start" }),
      text(`−${this.#span / 2000} s`, { x: MARGIN.left + width / 2, y: bottom + 16, class: "middle" }),
      text("now", { x: right, y: bottom + 16, class: "end" }),
    ];
    return [...lines, ...times];
  }

  // The first series is the plot's main one, and drawn last.
  #drawSeries(x, y) {
    const runs = joined(this.#points);
    const count = this.#points.at(-1)?.values.length ?? 0;
    const line = (run, i) =>
      "M" + run.map((p) => `${x(p.time).toFixed(1)} ${y(p.values[i]).toFixed(1)}`).join("L");
    const area = (run, i) =>
      `${line(run, i)}L${x(run.at(-1).time)} ${y(0)}L${x(run[0].time)} ${y(0)}Z`;
    const path = (kind, shape, i) => {
      const d = runs.map((run) => shape(run, i)).join("");
      return element("path", { class: `${kind} series-${i}`, d });
    };
    const series = [...Array(count).keys()].reverse();
    return [
      ...series.filter((i) => i < this.#filled).map((i) => path("area", area, i)),
      ...series.map((i) => path("line", line, i)),
    ];
  }
}

// Points in runs without a hole.
function joined(points) {
  const runs = [];
  points.forEach((point, i) => {
    if (i && point.time - points[i - 1].time < HOLE) runs.at(-1).push(point);
    else runs.push([point]);
  });
  return runs;
}

function drawCut({ from, to }, x, height) {
  const end = to ?? from + 2 * SPAN; // while it lasts: past the right side
  return element("rect", { class: "cut", x: x(from), y: 0, width: x(end) - x(from), height });
}

function element(name, attributes) {
  return set(document.createElementNS("http://www.w3.org/2000/svg", name), attributes);
}

function text(content, attributes) {
  const node = element("text", attributes);
  node.textContent = content;
  return node;
}

function set(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}
