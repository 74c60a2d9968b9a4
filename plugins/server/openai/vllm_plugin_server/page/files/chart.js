// A small line chart of two series: values as text beside it, so that nothing is told by colour or shape alone.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 88;

export class Chart {
  // series: two of {label, show(value) -> text}; most: the top of the scale, or null for one that fits
  constructor(figure, title, series, { seconds, most = null, least = 1, scale }) {
    Object.assign(this, { title, series, seconds, most, least, scale: scale ?? series[0].show });
    this.values = series.map(({ label }, i) => {
      const box = document.createElement("div");
      const value = box.appendChild(document.createElement("div"));
      value.className = "value";
      value.textContent = "–";
      const name = box.appendChild(document.createElement("div"));
      name.className = i ? "series second" : "series first";
      name.textContent = label;
      return { box, value };
    });
    const row = figure.appendChild(document.createElement("div"));
    row.className = "values";
    row.append(...this.values.map(({ box }) => box));

    const plot = figure.appendChild(document.createElement("div"));
    plot.className = "plot";
    this.svg = plot.appendChild(node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }));
    for (const y of [0.5, HEIGHT / 2, HEIGHT - 0.5]) {
      this.svg.append(node("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y }));
    }
    this.area = this.svg.appendChild(node("path", { class: "area" }));
    this.traces = series.map((_, i) => this.svg.appendChild(node("path", { class: `trace ${i ? "second" : "first"}` })));
    this.top = plot.appendChild(document.createElement("div"));
    this.top.className = "scale";
    this.top.setAttribute("aria-hidden", "true");
    this.draw([], Date.now());
  }

  // points: [{time (ms), values: [number or null, number or null]}], oldest first
  draw(points, now) {
    const seen = points.flatMap(({ values }) => values).filter((value) => value !== null);
    const most = this.most ?? round(Math.max(this.least, ...seen));
    const x = (time) => WIDTH * (1 - (now - time) / (this.seconds * 1000));
    const y = (value) => HEIGHT - 1 - (HEIGHT - 2) * Math.min(value / most, 1);
    this.traces.forEach((trace, i) => trace.setAttribute("d", path(points, i, x, y)));
    this.area.setAttribute("d", area(points, x, y));
    this.top.textContent = this.scale(most);
    const newest = points.at(-1);
    const said = this.series.map(({ label, show }, i) => {
      const value = newest?.values[i] ?? null;
      fill(this.values[i].value, value === null ? "–" : show(value));
      return `${label} ${value === null ? "unknown" : show(value)}`;
    });
    this.svg.setAttribute("aria-label", `${this.title}. ${said.join(", ")}. Scale from 0 to ${this.scale(most)}.`);
  }
}

// "12 ms": the unit is smaller than the number.
function fill(element, text) {
  const [number, unit] = text.split(" ");
  element.textContent = number;
  if (unit) {
    const small = document.createElement("small");
    small.textContent = ` ${unit}`;
    element.append(small);
  }
}

function node(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function path(points, i, x, y) {
  let drawing = false;
  return points.map(({ time, values }) => {
    if (values[i] === null) {
      drawing = false;
      return "";
    }
    const step = `${drawing ? "L" : "M"}${x(time).toFixed(1)} ${y(values[i]).toFixed(1)}`;
    drawing = true;
    return step;
  }).join("");
}

// Below the first series, where it has values throughout.
function area(points, x, y) {
  if (points.length < 2 || points.some(({ values }) => values[0] === null)) return "";
  return `${path(points, 0, x, y)}L${x(points.at(-1).time).toFixed(1)} ${HEIGHT}L${x(points[0].time).toFixed(1)} ${HEIGHT}Z`;
}

// 1, 2 or 5 times a power of ten, and not less than the value.
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= value * 0.999);
}
