// Talking to this server. The key stays in this variable: no storage, no cookie, no address.

let key = "";
let asking = null;

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const setKey = (value) => { key = value; };
export const onKeyNeeded = (ask) => { asking = ask; };

// Paths are relative to <base>, so that a prefix in front of the server does not matter.
export async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  const answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error" });
  if (answer.ok) return answer;
  if (answer.status === 401 && asking) asking(Boolean(key));
  throw new Refused(answer.status, await messageOf(answer));
}

async function messageOf(answer) {
  try {
    const { error } = await answer.json();
    return error.message || `The server answered ${answer.status}.`;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}

// The objects of a stream of server-sent events, up to [DONE].
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}
