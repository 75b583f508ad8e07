// The dialogue: gathers a turn, sends it, shows what was understood, and the reply as it comes. The history is here alone.
import { decode, fromBase64, play, record, toBase64 } from "./sound.js";

const $ = (id) => document.getElementById(id);
const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
let state = null; // what the program offers
let sound = null; // { buffer, decoded, name }
let seed = 1;
let recording = null;
let busy = false;
let truth = ""; // of a test turn
const nothing = document.querySelector("#turns .empty");

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

async function failure(answer) {
  try {
    const told = await answer.json();
    return typeof told.detail === "string" ? told.detail : `refused (${answer.status})`;
  } catch {
    return `the program failed (${answer.status})`;
  }
}

// --- what is said, typed, shown

async function setSound(buffer, name) {
  const decoded = buffer ? await decode(buffer) : null;
  sound = buffer ? { buffer, decoded, name } : null;
  $("play").disabled = !decoded;
  $("drop").disabled = !sound;
  $("sound").textContent = !sound ? "no sound" : decoded ? `${name}, ${decoded.duration.toFixed(1)} s` : `${name} (no preview: it is sent as it is)`;
}

function setFace(expression, drawn) {
  seed = drawn ?? 1 + Math.floor(Math.random() * 2 ** 30);
  $("expression").value = expression;
  $("redraw").disabled = !expression;
  $("face").hidden = !expression;
  if (!expression) return;
  $("face").src = faceUrl({ expression, seed });
  $("face").alt = `drawn face: ${expression}`;
}

const faceUrl = (face) => `face?expression=${encodeURIComponent(face.expression)}&seed=${face.seed}`;

async function toggleRecording() {
  if (busy) return;
  busy = true;
  try {
    if (!recording) {
      if (!navigator.mediaDevices?.getUserMedia) throw new Error("recording needs https or localhost");
      recording = await record((peak, seconds) => {
        if (!recording) return; // what comes in after the end
        $("level").style.width = `${Math.round(100 * Math.min(1, peak))}%`;
        $("record").firstElementChild.textContent = `Stop ${seconds.toFixed(1)} s`;
        if (seconds >= state.limits.seconds - 0.5 && recording && !busy) // what still comes in must fit
          toggleRecording();
      });
      $("record").classList.add("on");
      $("refused").textContent = "";
    } else {
      const ended = recording;
      recording = null;
      $("record").classList.remove("on");
      $("record").firstElementChild.textContent = "Record";
      $("level").style.width = "0";
      const wav = await ended.end();
      if (wav) await setSound(wav, "recording");
      else $("refused").textContent = "nothing was heard: is the microphone on?";
    }
  } catch (error) {
    const denied = error.name === "NotAllowedError" ? "the microphone was not allowed" : `no microphone: ${error.message}`;
    $("refused").textContent = `${denied}. Type instead, or choose a file.`;
  }
  busy = false;
}

async function takeExample() {
  const number = Math.floor(Math.random() * state.examples);
  const answer = await fetch(`example/${number}`);
  if (!answer.ok) {
    $("refused").textContent = await failure(answer);
    return;
  }
  const turn = await answer.json();
  await setSound(fromBase64(turn.audio), "test voice");
  $("text").value = turn.text;
  setFace(turn.face.expression, turn.face.seed);
  truth = `In truth: ${turn.truth.emotion}, ${turn.truth.intent.replace("_", " ")}; the face shows ${turn.face.expression}.`;
  $("truth").textContent = `${truth} Leave out what you like, then send.`;
}

// --- what comes back

/** Events of a stream of server-sent events: EventSource cannot post. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    for (let at = held.indexOf("\n\n"); at >= 0; at = held.indexOf("\n\n")) {
      const lines = held.slice(0, at).split("\n");
      held = held.slice(at + 2);
      const name = lines.find((l) => l.startsWith("event: "))?.slice(7) ?? "message";
      yield { name, data: JSON.parse(lines.find((l) => l.startsWith("data: ")).slice(6)) };
    }
  }
}

function bars(chances, chosen) {
  const list = el("ul", { class: "bars" });
  const ranked = Object.entries(chances).sort((a, b) => b[1] - a[1]).slice(0, 4);
  for (const [name, share] of ranked) {
    const bar = el("meter", { min: "0", max: "1", "aria-label": name });
    bar.value = share;
    list.append(el("li", name === chosen ? { class: "chosen" } : {}, el("span", {}, name.replace("_", " ")), bar, el("b", {}, percent(share))));
  }
  return list;
}

function showUnderstood(place, found) {
  const unsure = found.intent === "unsure" ? "not sure what is wanted: the reply asks" : `wants: ${found.intent.replace("_", " ")}`;
  const plain = found.felt !== found.emotion ? " (too unsure to speak to it)" : "";
  const parts = [...found.used].sort().join("+");
  const good = state.measured.subsets?.find((s) => [...s.inputs].sort().join("+") === parts);
  const how = good ? ` On test turns with these inputs the emotion is right in ${percent(good.emotion)}, the intent in ${percent(good.intent)}.` : "";
  const absent = found.absent.length ? `; without ${found.absent.join(", ")}` : "";
  place.replaceChildren(
    el("p", {}, el("strong", {}, found.emotion), `${plain}, ${unsure}`),
    el("div", { class: "two" }, bars(found.emotion_chances, found.emotion), bars(found.intent_chances, found.intent)),
    el("p", { class: "note" }, `Based on ${found.used.join(", ")}${absent}.${how}`),
  );
  if (found.facts.length) place.append(el("p", { class: "note" }, `Records: ${found.facts.map((t) => t.join(" ")).join("; ")}.`));
}

async function send(event) {
  event.preventDefault();
  if (busy) return;
  const text = $("text").value.trim(), expression = $("expression").value, customer = $("customer").value;
  const turn = {};
  if (text) turn.text = text;
  if (expression) turn.face = { expression, seed };
  if (customer) turn.customer = customer;
  if (sound) turn.audio = toBase64(sound.buffer);
  $("refused").textContent = "";
  busy = true;
  $("send").disabled = true;
  const said = el("div", { class: "said" });
  if (turn.face) said.append(el("img", { src: faceUrl(turn.face), alt: `face: ${expression}`, width: "48", height: "48" }));
  if (sound?.decoded) {
    const heard = sound.decoded;
    const again = el("button", { type: "button" }, `▶ ${heard.duration.toFixed(1)} s`);
    again.addEventListener("click", () => play(heard));
    said.append(again);
  } else if (sound) said.append(el("span", { class: "note" }, sound.name));
  said.append(el("span", {}, text || (sound ? "(spoken)" : "(shown)")));
  const found = el("div", { class: "found" }), reply = el("p", { class: "reply" });
  const item = el("li", {}, said, found, reply);
  let ended = false;
  try {
    const answer = await fetch("turn", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(turn) });
    if (!answer.ok) throw new Error(await failure(answer));
    nothing.remove();
    $("turns").append(item);
    for await (const { name, data } of events(answer.body)) {
      if (name === "understood") showUnderstood(found, data);
      else if (name === "message") reply.append(data.text);
      else if (name === "error") throw new Error(data.error);
      else if (name === "end") {
        ended = true;
        if (truth) found.append(el("p", { class: "note" }, truth));
        if (!data.fits) {
          reply.classList.add("withdrawn");
          item.append(el("p", { class: "note bad" }, "Withdrawn: this is none of the replies that fit the records."));
        }
        if (data.unknown.length) item.append(el("p", { class: "note bad" }, `The reply names what the records do not have: ${data.unknown.join(", ")}.`));
      }
      item.scrollIntoView({ block: "end" });
    }
    if (!ended) throw new Error("the reply broke off; send the turn again");
    $("text").value = truth = "";
    $("truth").textContent = $("truth").dataset.hint;
    await setSound(null);
  } catch (error) {
    $("refused").textContent = error instanceof TypeError ? "the dialogue's program does not answer: is it running?" : error.message;
    if (item.isConnected && !ended) item.append(el("p", { class: "note bad" }, "no whole reply"));
  }
  busy = false;
  $("send").disabled = false;
  $("text").focus();
}

// --- the start

function showGood() {
  const rows = (state.measured.subsets ?? []).map((s) =>
    el("tr", {}, el("td", {}, s.inputs.join(" + ")), el("td", {}, percent(s.emotion)), el("td", {}, percent(s.intent))));
  $("good").replaceChildren(el("tr", {}, el("th", {}, "given"), el("th", {}, "emotion"), el("th", {}, "intent")), ...rows);
}

async function start() {
  try {
    const answer = await fetch("state");
    if (!answer.ok) throw new Error(await failure(answer));
    state = await answer.json();
  } catch (error) {
    $("trouble").textContent = `the dialogue's program does not answer (${error.message}): reload when it is up`;
    $("send").disabled = $("record").disabled = $("example").disabled = true;
    return;
  }
  $("made").textContent = `Learned from ${state.data}.`;
  for (const { id, name } of state.customers) $("customer").append(el("option", { value: id }, `${name} (${id})`));
  for (const name of state.emotions) $("expression").append(el("option", { value: name }, name));
  $("example").disabled = !state.examples;
  showGood();
}

$("record").addEventListener("click", toggleRecording);
$("file").addEventListener("change", async ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (!file) return;
  if (file.size > state.limits.bytes * 0.7) $("refused").textContent = `${file.name} is too large: at most ${state.limits.seconds} seconds of sound`;
  else await setSound(await file.arrayBuffer(), file.name);
});
$("play").addEventListener("click", () => play(sound.decoded));
$("drop").addEventListener("click", () => setSound(null));
$("expression").addEventListener("change", ({ target }) => setFace(target.value));
$("redraw").addEventListener("click", () => setFace($("expression").value));
$("truth").dataset.hint = $("truth").textContent;
$("example").addEventListener("click", takeExample);
$("forget").addEventListener("click", () => $("turns").replaceChildren(nothing));
$("form").addEventListener("submit", send);
start();
