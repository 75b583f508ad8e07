// The server, seen from the page. Paths are relative to the page, so that a proxy may put both under a prefix.

const KEY = "fuseline-key";
let key = stored();

function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

export function hasKey() {
  return key !== "";
}

/** Keeps the key for this tab, or forgets it (""). */
export function setKey(text) {
  key = text;
  try {
    if (text) sessionStorage.setItem(KEY, text);
    else sessionStorage.removeItem(KEY);
  } catch {
    // Storage may be refused: the key then lasts until the page is left.
  }
}

/** What went wrong, in the server's words where it said any. `place`: the column at fault. */
export class Failure extends Error {
  constructor({ status = 0, code, message, hint = "", column = null, id = "", retryAfter = null }) {
    super(message);
    Object.assign(this, { status, code, hint, column, id, retryAfter });
  }
}

async function failure(reply) {
  const text = await reply.text();
  let body = {};
  try {
    body = JSON.parse(text) ?? {};
  } catch {
    // A proxy in between answers in HTML: its status is all there is to say.
  }
  const said = typeof body.error === "string" ? body.error : `the server answered ${reply.status} ${reply.statusText}`;
  const seconds = Number.parseFloat(reply.headers.get("Retry-After"));
  return new Failure({
    status: reply.status,
    code: typeof body.code === "string" ? body.code : `http ${reply.status}`,
    message: said,
    hint: typeof body.hint === "string" ? body.hint : "",
    column: typeof body.column === "string" ? body.column : null,
    id: body.request_id ?? reply.headers.get("X-Request-Id") ?? "",
    retryAfter: Number.isFinite(seconds) ? seconds : null,
  });
}

/** JSON from the server, or a Failure. `body`: JSON text to post; `signal`: gives up when it fires. */
export async function call(path, { body, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  let reply;
  try {
    reply = await fetch(new URL(path, document.baseURI), {
      method: body === undefined ? "GET" : "POST", headers, body, signal, cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw new Failure({ code: "cancelled", message: "you cancelled the request" });
    throw new Failure({ code: "unreachable", message: "the server cannot be reached", hint: "is it still running?" });
  }
  if (!reply.ok) throw await failure(reply);
  try {
    return await reply.json();
  } catch {
    throw new Failure({ status: reply.status, code: "no_json", message: "the server's answer is not JSON" });
  }
}

function path(model, version, end) {
  const part = version ? `/versions/${encodeURIComponent(version)}` : "";
  return `v1/models/${encodeURIComponent(model)}${part}/${end}`;
}

/** Where a row is sent. Without a version the server chooses, by the shares of traffic. */
export const predictPath = (model, version) => path(model, version, "predict");

/** Where it is asked why: of the version that answered, not of another that the traffic is shared with. */
export const explainPath = (model, version) => path(model, version, "explain");
