// The page: ask what runs, then draw and chat. If the server wants a key, it is asked for once.

import { onKeyNeeded, request, setKey } from "./api.js";
import { show } from "./about.js";
import { Chat } from "./chat.js";
import { Live } from "./live.js";

const $ = (id) => document.getElementById(id);
const chat = new Chat();
let live = null;

function state(kind, text) {
  if ($("state").textContent !== text) $("state").textContent = text; // a status: said aloud when it changes
  $("state").dataset.state = kind;
}

async function begin() {
  let about;
  try {
    about = await (await request("page/about")).json();
  } catch (error) {
    state("down", error.status === 401 ? "Waiting for a key" : "Not reachable");
    if (error.status !== 401) setTimeout(begin, 2000);
    return;
  }
  chat.model = about.served_as[0];
  $("model").textContent = about.served_as[0];
  document.title = `${about.served_as[0]} · vllm-core`;
  if (about.max_model_len) $("max-tokens").max = about.max_model_len;
  show(about);
  if (!about.metrics) {
    state("up", "Serving");
    $("figures-note").textContent = "No charts: this server does not offer /metrics";
    $("pause").hidden = $("charts").hidden = true;
    return;
  }
  live ??= new Live(about.metrics.prefix, ({ state: engine, error }) => {
    if (error) state("down", error.status === 401 ? "Waiting for a key" : "Not reachable");
    else if (engine === "ready") state("up", "Serving");
    else state("down", engine === "dead" ? "The engine has ended" : "The engine is being started again");
  });
  live.start();
}

$("pause").addEventListener("click", () => {
  const paused = $("pause").getAttribute("aria-pressed") !== "true";
  $("pause").setAttribute("aria-pressed", String(paused));
  $("figures-note").textContent = paused ? "Paused" : "The last two minutes";
  live?.pause(paused);
});

// ---- the key

function openKey(wrong) {
  $("key-button").hidden = false;
  if ($("key-dialog").open) return;
  $("key-problem").hidden = !wrong;
  $("key-problem").textContent = wrong ? "The server does not accept this key." : "";
  $("key").value = "";
  $("key-dialog").showModal();
}

let declined = false;
onKeyNeeded((wrong) => { if (declined) $("key-button").hidden = false; else openKey(wrong); });
$("key-button").addEventListener("click", () => { declined = false; openKey(false); });
$("key-dialog").addEventListener("cancel", () => { declined = true; }); // Esc
$("key-cancel").addEventListener("click", () => { declined = true; $("key-dialog").close(); });
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey($("key").value.trim());
  $("key").value = "";
  $("key-dialog").close();
  $("message").focus();
  begin();
});

begin();
