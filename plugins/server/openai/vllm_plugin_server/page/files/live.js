// The charts: /metrics every two seconds, while somebody looks.

import { request } from "./api.js";
import { Chart } from "./chart.js";
import { mean, parse, quantile, rate, total } from "./figures.js";

const EVERY = 2000; // milliseconds
const SPAN = 120; // seconds that a chart shows
const SMOOTH = 6000; // milliseconds that a rate is taken over
const RECENT = 30000; // milliseconds that latencies are taken over

const count = (value) => (value >= 9950 ? `${(value / 1000).toFixed(0)}k` : value >= 99.5 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1));
const share = (value) => `${(100 * value).toFixed(value > 0 && value < 0.0995 ? 1 : 0)} %`;
const time = (seconds) => (seconds >= 0.9995 ? `${seconds.toFixed(seconds < 9.95 ? 1 : 0)} s` : `${(1000 * seconds).toFixed(seconds < 0.00995 ? 1 : 0)} ms`);

export class Live {
  // told: called with {state, error} after each round; the engine's state is "ready", "restarting" or "dead"
  constructor(prefix, told) {
    this.prefix = prefix;
    this.told = told;
    this.moments = []; // {time, figures}, oldest first
    this.points = []; // {time, throughput, latency, cache, queue}
    this.paused = false;
    const chart = (name, title, series, options) =>
      new Chart(document.querySelector(`[data-chart=${name}]`), title, series, { seconds: SPAN, ...options });
    this.charts = {
      throughput: chart("throughput", "Throughput in tokens per second", [{ label: "generated", show: count }, { label: "prompts", show: count }], { least: 10 }),
      latency: chart("latency", "Latency", [{ label: "first token", show: time }, { label: "next token", show: time }], { least: 0.02 }),
      cache: chart("cache", "Cache", [{ label: "pages in use", show: share }, { label: "prompts found", show: share }], { least: 0.1 }),
      queue: chart("queue", "Requests", [{ label: "running", show: count }, { label: "waiting", show: count }], { least: 4 }),
    };
    document.addEventListener("visibilitychange", () => this.wake());
  }

  start() {
    this.running = true;
    this.wake();
  }

  pause(paused) {
    this.paused = paused;
    this.wake();
  }

  wake() {
    clearTimeout(this.timer);
    if (this.running && !this.paused && !document.hidden) this.round();
  }

  async round() {
    if (this.busy) return;
    this.busy = true;
    try {
      const answer = await request("metrics");
      this.take(parse(await answer.text()));
    } catch (error) {
      this.told({ state: "", error });
    } finally {
      this.busy = false;
    }
    clearTimeout(this.timer);
    if (this.running && !this.paused && !document.hidden) this.timer = setTimeout(() => this.round(), EVERY);
  }

  take(figures) {
    const now = { time: Date.now(), figures };
    const ago = (milliseconds) => this.moments.findLast(({ time }) => now.time - time >= milliseconds - EVERY / 2) ?? this.moments[0];
    const [shortly, recently] = [ago(SMOOTH), ago(RECENT)];
    this.moments.push(now);
    this.moments = this.moments.filter(({ time }) => now.time - time <= RECENT + 2 * EVERY);
    const name = (rest) => this.prefix + rest;
    const rates = ["generation_tokens_total", "prompt_tokens_total"].map((rest) => (shortly ? rate(now, shortly, name(rest)) : null));
    const seen = ["time_to_first_token_seconds", "inter_token_latency_seconds"].map((rest) => (recently ? quantile(now, recently, name(rest), 0.5) : null));
    this.points.push({
      time: now.time,
      throughput: rates,
      latency: seen,
      cache: [mean(figures, name("kv_cache_usage_perc")), mean(figures, name("prefix_cache_hit_rate"))],
      queue: [total(figures, name("num_requests_running")), total(figures, name("num_requests_waiting"))],
    });
    this.points = this.points.filter(({ time }) => now.time - time <= SPAN * 1000);
    for (const [key, chart] of Object.entries(this.charts)) {
      chart.draw(this.points.map((point) => ({ time: point.time, values: point[key] })), now.time);
    }
    const states = (figures.get(name("engine_state")) ?? []).filter(({ value }) => value === 1).map(({ labels }) => labels.state);
    this.told({ state: states.includes("ready") ? "ready" : states[0] ?? "ready", error: null });
  }
}
