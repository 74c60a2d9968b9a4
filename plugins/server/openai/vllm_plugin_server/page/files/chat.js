// The playground: a conversation that lives in this page. What the model says becomes text nodes, never markup.

import { events, request } from "./api.js";

const $ = (id) => document.getElementById(id);

export class Chat {
  constructor() {
    this.model = "";
    this.messages = []; // as the API takes them, without the system prompt
    this.stopping = null; // AbortController of the answer that is on its way
    $("ask").addEventListener("submit", (event) => { event.preventDefault(); this.send(); });
    $("stop").addEventListener("click", () => this.stop());
    $("clear").addEventListener("click", () => this.clear());
    $("message").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.send();
      }
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.stopping && !document.querySelector("dialog[open]")) this.stop();
    });
  }

  stop() {
    this.stopping?.abort();
  }

  clear() {
    this.stop();
    this.messages = [];
    $("messages").replaceChildren();
    $("clear").disabled = true;
    this.complain("");
    $("message").focus();
  }

  async send() {
    const text = $("message").value.trim();
    if (!text || this.stopping) return;
    for (const field of [$("temperature"), $("max-tokens")]) {
      if (!field.checkValidity() || field.value === "") {
        document.querySelector(".options").open = true;
        field.reportValidity();
        field.focus();
        return;
      }
    }
    this.complain("");
    const stopping = this.stopping = new AbortController();
    this.busy(true);
    const asked = { role: "user", content: text };
    const yours = this.entry("You", "from-you");
    yours.text.textContent = text;
    $("message").value = "";
    const answer = this.entry("Model", "from-model");
    const report = { text: "", begun: performance.now(), first: null, reason: null, usage: null };
    try {
      await this.stream([...this.messages, asked], answer, report, stopping.signal);
    } catch (error) {
      if (error.name !== "AbortError") {
        report.failed = true;
        this.complain(error.message || "The connection was lost.");
      }
    }
    if (this.stopping !== stopping) return; // a new conversation was begun meanwhile
    this.settle(asked, yours, answer, report, stopping.signal.aborted);
  }

  async stream(messages, answer, report, signal) {
    const system = $("system").value.trim();
    const body = {
      model: this.model,
      messages: system ? [{ role: "system", content: system }, ...messages] : messages,
      temperature: Number($("temperature").value),
      max_tokens: Number($("max-tokens").value),
      stream: true,
      stream_options: { include_usage: true },
    };
    const headers = { "Content-Type": "application/json" };
    const reply = await request("v1/chat/completions", { method: "POST", headers, body: JSON.stringify(body), signal });
    for await (const event of events(reply)) {
      if (event.error) throw new Error(event.error.message);
      report.usage = event.usage ?? report.usage;
      const choice = event.choices?.[0];
      if (!choice) continue;
      const thought = choice.delta.reasoning ?? choice.delta.reasoning_content;
      if (thought || choice.delta.content) report.first ??= performance.now();
      if (thought) answer.thought().append(thought);
      if (choice.delta.content) {
        report.text += choice.delta.content;
        answer.text.append(choice.delta.content);
      }
      report.reason = choice.finish_reason ?? report.reason;
      follow();
    }
  }

  settle(asked, yours, answer, report, stopped) {
    answer.item.classList.remove("answering");
    answer.item.removeAttribute("aria-busy");
    if (report.failed && !report.text) { // as if it had not been asked, so that it can be sent again
      yours.item.remove();
      answer.item.remove();
      $("message").value = asked.content;
    } else {
      this.messages.push(asked, { role: "assistant", content: report.text });
      answer.after.textContent = summary(report, stopped);
    }
    this.stopping = null;
    this.busy(false);
    const said = stopped ? `Stopped. ${report.text}` : report.text;
    $("announce").textContent = report.failed ? "" : `Model: ${said}`;
    follow();
  }

  entry(who, kind) {
    const item = document.createElement("li");
    item.className = kind;
    const name = item.appendChild(document.createElement("div"));
    name.className = "who";
    name.textContent = who;
    const text = document.createElement("div");
    text.className = "text";
    const after = document.createElement("div");
    after.className = "after";
    item.append(text, after);
    let thinking = null;
    const thought = () => {
      if (!thinking) {
        const details = document.createElement("details");
        details.open = true;
        details.appendChild(document.createElement("summary")).textContent = "Reasoning";
        thinking = details.appendChild(document.createElement("div"));
        thinking.className = "text thinking";
        text.before(details);
      }
      return thinking;
    };
    if (kind === "from-model") {
      item.classList.add("answering");
      item.setAttribute("aria-busy", "true");
    }
    $("messages").append(item);
    $("messages").scrollTop = $("messages").scrollHeight;
    return { item, text, after, thought };
  }

  busy(busy) {
    const held = document.activeElement === $("stop") || document.activeElement === $("send");
    $("stop").hidden = !busy;
    $("send").disabled = busy;
    $("clear").disabled = !busy && !this.messages.length;
    if (busy) $("announce").textContent = "Answering";
    if (held) (busy ? $("stop") : $("message")).focus(); // the button that had the focus is gone
  }

  complain(message) {
    $("problem").textContent = message;
    $("problem").hidden = !message;
  }
}

// Stay at the end, unless the reader has scrolled away from it.
function follow() {
  const list = $("messages");
  if (list.scrollHeight - list.scrollTop - list.clientHeight < 80) list.scrollTop = list.scrollHeight;
}

function summary({ begun, first, usage, reason }, stopped) {
  const now = performance.now();
  const parts = [];
  if (usage) {
    const tokens = usage.completion_tokens;
    parts.push(`${tokens} ${tokens === 1 ? "token" : "tokens"}`);
    if (first && tokens > 1) parts.push(`${((tokens - 1) / Math.max((now - first) / 1000, 0.001)).toFixed(0)} tokens/s`);
  }
  if (first) parts.push(`first after ${((first - begun) / 1000).toFixed(2)} s`);
  if (stopped) parts.push("stopped");
  else if (reason === "length") parts.push("cut at the longest length");
  return parts.join(" · ");
}
