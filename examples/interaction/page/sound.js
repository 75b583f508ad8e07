// Recordings, sounds as base64, and playing them. `recording.js` is the console's (app.py serves it beside the page).

import { encodeWav, listen } from "./recording.js";

/** Text by steps: a call with a million arguments fails. */
export function toBase64(buffer) {
  const bytes = new Uint8Array(buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  return btoa(text);
}

export const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;

/** Samples and seconds, or null where this browser cannot decode it: it is sent as it is. */
export async function decode(buffer) {
  try {
    return await new OfflineAudioContext(1, 1, 44100).decodeAudioData(buffer.slice(0));
  } catch {
    return null;
  }
}

export function play(decoded) {
  const context = new AudioContext();
  const source = new AudioBufferSourceNode(context, { buffer: decoded });
  source.connect(context.destination);
  source.onended = () => context.close();
  source.start();
}

/** A running recording: `end()` gives the WAV, or null where nothing was heard. `hear`: peak and seconds so far. */
export async function record(hear) {
  const chunks = [];
  let heard = 0;
  const microphone = await listen((piece, rate) => {
    chunks.push(piece);
    heard += piece.length;
    hear(piece.reduce((most, v) => Math.max(most, Math.abs(v)), 0), heard / rate);
  });
  return {
    async end() {
      await microphone.end();
      return heard ? encodeWav(chunks, microphone.rate).arrayBuffer() : null;
    },
  };
}
