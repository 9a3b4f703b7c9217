// A small plot of the last minutes: one line and what lies below it, as an SVG.

const WIDTH = 240;
const HEIGHT = 48;

/** Numbers that a plot shows: two minutes, at one a second. */
const LENGTH = 120;

const part = (name, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

export class Plot {
  #numbers = [];
  #area = part("path", { class: "area" });
  #line = part("path", { class: "line" });
  #svg;
  #title;
  #written;

  /** @param written how a number is written for who cannot see the plot */
  constructor(svg, written) {
    this.#svg = svg;
    this.#title = svg.getAttribute("aria-label");
    this.#written = written;
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.append(this.#area, this.#line);
  }

  add(number) {
    this.#numbers.push(number);
    if (this.#numbers.length > LENGTH) this.#numbers.shift();
    const most = Math.max(...this.#numbers);
    const scale = (HEIGHT - 4) / (most || 1);
    const step = WIDTH / (LENGTH - 1);
    const first = WIDTH - (this.#numbers.length - 1) * step;
    const points = this.#numbers.map(
      (value, place) =>
        `${(first + place * step).toFixed(1)},${(HEIGHT - 2 - value * scale).toFixed(1)}`,
    );
    const line = `M${points.join("L")}`;
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", `${line}V${HEIGHT}H${first.toFixed(1)}Z`);
    const words = `${this.#title}: ${this.#written(number)}, at most ${this.#written(most)}`;
    this.#svg.setAttribute("aria-label", words);
  }
}
