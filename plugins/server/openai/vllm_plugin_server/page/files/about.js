// What runs: the model, who serves which part of it, where the start's seconds went, the plugins and their states.

const $ = (id) => document.getElementById(id);

export function show(about) {
  facts(about);
  choices(about.choices);
  startup(about.startup);
  plugins(about.plugins);
}

function facts({ model, served_as, version, max_model_len, started }) {
  const names = served_as.filter((name) => name !== model);
  const rows = [
    ["Model", model],
    ["Served as", names.join(", ")],
    ["Context", max_model_len ? `${max_model_len.toLocaleString("en")} tokens` : ""],
    ["Version", `vllm-core ${version}`],
    ["Running since", new Date(started * 1000).toLocaleString()],
  ];
  $("facts").replaceChildren(...rows.filter(([, text]) => text).flatMap(([name, text]) => [make("dt", name), make("dd", text)]));
}

function choices(rows) {
  const body = rows.map(({ part, name, distribution, version }) => [part, [name, make("span", `${distribution} ${version}`, "why")]]);
  $("choices").replaceChildren(table("Who serves it", ["Part", "Served by"], body));
}

function startup(stages) {
  const whole = stages.reduce((sum, { seconds }) => sum + seconds, 0);
  const rows = stages.filter(({ seconds }) => seconds >= 0.005).map(({ stage, seconds }) => {
    const bar = make("span", "", "bar");
    bar.style.width = `${(100 * seconds) / whole}%`;
    return [[stage, bar], make("td", `${seconds.toFixed(2)} s`, "number")];
  });
  $("startup").replaceChildren(...(rows.length ? [table(`Building the engine: ${whole.toFixed(1)} s`, ["Stage", "Seconds"], rows)] : []));
}

function plugins(all) {
  const details = document.createElement("details");
  const used = all.filter(({ state }) => state === "used").length;
  const broken = all.filter(({ state }) => state === "quarantined").length;
  const text = [`${all.length} plugins installed`, `${used} used`, ...(broken ? [`${broken} quarantined`] : [])];
  details.append(make("summary", text.join(", ")));
  details.open = broken > 0;
  const rows = all.map(({ name, version, state, reason, remedy }) => {
    const why = [reason, remedy].filter(Boolean).join("; ");
    return [[`${name} `, make("span", version, "beside")], [make("span", state, `mark ${state}`), ...(why ? [make("span", why, "why")] : [])]];
  });
  details.append(table("", ["Plugin", "State"], rows));
  $("plugins").replaceChildren(details);
}

// A row's cell is text, a list of texts and elements, or a <td>; the first one is the row's header.
function table(caption, heads, rows) {
  const element = document.createElement("table");
  if (caption) element.append(make("caption", caption));
  const head = element.createTHead().insertRow();
  heads.forEach((text, i) => {
    const cell = head.appendChild(make("th", text));
    cell.scope = "col";
    if (text === "Seconds") cell.className = "number";
  });
  const body = element.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    cells.forEach((cell, i) => {
      if (cell instanceof HTMLTableCellElement) {
        row.append(cell);
        return;
      }
      const place = row.appendChild(document.createElement(i ? "td" : "th"));
      if (!i) place.scope = "row";
      place.append(...[cell].flat());
    });
  }
  return element;
}

function make(name, text, kind = "") {
  const element = document.createElement(name);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
}
