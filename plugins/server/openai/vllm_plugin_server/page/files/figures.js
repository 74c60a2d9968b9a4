// Prometheus' text, and what can be read off two moments of it.

const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

// name -> [{labels, value}]
export function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const match = line[0] === "#" ? null : LINE.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, name, value] of (match[2] ?? "").matchAll(LABEL)) {
      labels[name] = value.replace(/\\(.)/g, (_, c) => (c === "n" ? "\n" : c));
    }
    if (!found.has(match[1])) found.set(match[1], []);
    found.get(match[1]).push({ labels, value: Number(match[3]) });
  }
  return found;
}

// The sum over all label sets; null if there is no such figure.
export function total(figures, name) {
  const samples = figures.get(name);
  return samples ? samples.reduce((sum, sample) => sum + sample.value, 0) : null;
}

// The mean over all label sets: a share of several engines. null if there is no such figure.
export function mean(figures, name) {
  return figures.has(name) ? total(figures, name) / figures.get(name).length : null;
}

// How much a counter grew a second. A counter that fell was begun anew.
export function rate(now, then, name) {
  const [to, from] = [total(now.figures, name), total(then.figures, name)];
  const seconds = (now.time - then.time) / 1000;
  if (to === null || from === null || seconds <= 0) return null;
  return (to >= from ? to - from : to) / seconds;
}

// A quantile of what a histogram saw between two moments, in its unit; null if it saw nothing.
export function quantile(now, then, name, share) {
  const to = buckets(now.figures, name);
  const from = then ? buckets(then.figures, name) : new Map();
  const rows = [...to].map(([bound, count]) => [bound, count - (from.get(bound) ?? 0)]).sort((a, b) => a[0] - b[0]);
  const seen = rows.length ? rows.at(-1)[1] : 0;
  if (seen <= 0) return null;
  const rank = share * seen;
  let below = [0, 0];
  for (const row of rows) {
    if (row[1] >= rank) {
      if (row[0] === Infinity) return below[0];
      const inside = row[1] - below[1];
      return below[0] + (row[0] - below[0]) * (inside ? (rank - below[1]) / inside : 1);
    }
    below = row;
  }
  return below[0];
}

function buckets(figures, name) {
  const found = new Map();
  for (const { labels, value } of figures.get(`${name}_bucket`) ?? []) {
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    found.set(bound, (found.get(bound) ?? 0) + value);
  }
  return found;
}
