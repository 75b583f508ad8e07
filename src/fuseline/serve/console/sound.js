// Sounds: heard, seen, and recorded.

import { el, svg } from "./dom.js";
import { encodeWav, listen } from "./recording.js";

const COLUMNS = 200;
const HEIGHT = 48;
/** Seconds of a recording; the default limit of the server. */
const LONGEST = 600;

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

/** The waveform as one path: per column a line from the smallest to the largest sample. */
function waveform(buffer) {
  const samples = buffer.getChannelData(0);
  const step = Math.max(1, Math.floor(samples.length / COLUMNS));
  let path = "";
  for (let x = 0; x < COLUMNS && x * step < samples.length; x += 1) {
    let low = 0;
    let high = 0;
    for (let i = x * step; i < Math.min((x + 1) * step, samples.length); i += 1) {
      low = Math.min(low, samples[i]);
      high = Math.max(high, samples[i]);
    }
    const y = (v) => ((1 - Math.max(-1, Math.min(1, v))) * HEIGHT) / 2;
    path += `M${x + 0.5} ${(y(high) - 0.4).toFixed(1)}V${(y(low) + 0.4).toFixed(1)}`;
  }
  return path;
}

/** A player with its waveform, from any file that the browser can decode. `stop` on the node silences it. */
export async function soundPreview(file) {
  let buffer;
  try {
    buffer = await new OfflineAudioContext(1, 1, 44100).decodeAudioData(await file.arrayBuffer());
  } catch {
    return el("p", { class: "note" }, "No preview: this browser cannot play the file. It is sent as it is.");
  }
  const head = svg("line", { class: "playhead", x1: "0", x2: "0", y1: "0", y2: String(HEIGHT) });
  const picture = svg("svg", {
    class: "waveform", viewBox: `0 0 ${COLUMNS} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `waveform of ${buffer.duration.toFixed(1)} seconds`,
  }, svg("path", { d: waveform(buffer) }), head);
  const time = el("span", { class: "note time" }, clock(buffer.duration));
  const button = el("button", { type: "button", class: "quiet small" }, "Play");
  let playing = null;

  function stop() {
    if (!playing) return;
    playing.source.onended = null;
    playing.context.close();
    cancelAnimationFrame(playing.frame);
    playing = null;
    button.textContent = "Play";
    time.textContent = clock(buffer.duration);
    place(0);
  }
  function place(seconds) {
    const x = String((seconds / buffer.duration) * COLUMNS);
    head.setAttribute("x1", x);
    head.setAttribute("x2", x);
  }
  function play() {
    const context = new AudioContext();
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(context.destination);
    source.onended = stop;
    source.start();
    const tick = () => {
      place(Math.min(context.currentTime, buffer.duration));
      time.textContent = `${clock(context.currentTime)} / ${clock(buffer.duration)}`;
      playing.frame = requestAnimationFrame(tick);
    };
    playing = { context, source, frame: 0 };
    button.textContent = "Stop";
    tick();
  }
  button.addEventListener("click", () => (playing ? stop() : play()));
  const node = el("div", { class: "sound" }, button, picture, time);
  if (file.recorded) {
    node.append(el("button", { type: "button", class: "quiet small", click: () => save(file) }, "Save"));
  }
  node.stop = stop;
  return node;
}

/** A recording is on no disk yet, and the request as curl wants a file. */
function save(file) {
  const url = URL.createObjectURL(file);
  el("a", { href: url, download: file.name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Starts and stops a recording and gives it to `take` as a WAV file. */
export function recordButton(take) {
  const level = el("span", { class: "level", "aria-hidden": "true" }, el("i"));
  const label = el("span", {}, "Record");
  const button = el("button", { type: "button", class: "button record" }, label, level);
  const said = el("span", { class: "note", role: "status" });
  let session = null;
  let busy = false;
  let chunks = [];
  let heard = 0;

  const hear = (chunk) => {
    if (!session) return;
    chunks.push(chunk);
    heard += chunk.length;
    const peak = chunk.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    level.firstChild.style.width = `${Math.round(100 * Math.min(1, peak))}%`;
    label.textContent = `Stop ${clock(heard / session.rate)}`;
    if (heard / session.rate > LONGEST) finish();
  };
  async function start() {
    [chunks, heard] = [[], 0];
    said.textContent = "";
    try {
      session = await listen(hear);
      button.dataset.on = "";
      label.textContent = "Stop 0:00";
    } catch (error) {
      said.textContent = error.name === "NotAllowedError" ? "the microphone was not allowed" : "no microphone was found";
    }
  }
  async function finish() {
    const ended = session;
    session = null;
    delete button.dataset.on;
    label.textContent = "Record";
    await ended.end();
    if (!heard) {
      said.textContent = "nothing was heard";
      return;
    }
    const file = new File([encodeWav(chunks, ended.rate)], "recording.wav", { type: "audio/wav" });
    file.recorded = true;
    take(file);
  }
  button.addEventListener("click", async () => {
    if (busy) return;
    busy = true;
    await (session ? finish() : start());
    busy = false;
  });
  if (!navigator.mediaDevices?.getUserMedia) {
    button.disabled = true;
    said.textContent = "recording needs https or localhost";
  }
  return [button, said];
}
