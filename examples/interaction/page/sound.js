// The microphone as WAV, sounds as base64, and playing them. A MediaRecorder would give WebM, which the model does not read.

/** Mono 16-bit PCM. `chunks`: Float32Array pieces in -1..1. */
export function encodeWav(chunks, rate) {
  const count = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * count));
  const word = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  word(0, "RIFF");
  view.setUint32(4, 36 + 2 * count, true);
  word(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  word(36, "data");
  view.setUint32(40, 2 * count, true);
  let at = 44;
  for (const chunk of chunks) {
    for (const sample of chunk) {
      view.setInt16(at, Math.round(Math.max(-1, Math.min(1, sample)) * 32767), true);
      at += 2;
    }
  }
  return view.buffer;
}

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
  // The model shall hear what the microphone hears: no clean-up made for telephone calls.
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  const context = new AudioContext();
  const chunks = [];
  let heard = 0;
  const close = async () => {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL("./recorder.js", import.meta.url));
    const node = new AudioWorkletNode(context, "dialogue-recorder");
    node.port.onmessage = ({ data }) => {
      chunks.push(data);
      heard += data.length;
      hear(data.reduce((most, v) => Math.max(most, Math.abs(v)), 0), heard / context.sampleRate);
    };
    context.createMediaStreamSource(stream).connect(node).connect(context.destination); // the node itself is silent
    await context.resume();
  } catch (error) {
    await close();
    throw error;
  }
  return {
    async end() {
      const rate = context.sampleRate;
      await close();
      return heard ? encodeWav(chunks, rate) : null;
    },
  };
}
