// The microphone as WAV, without a page's looks. A MediaRecorder would give WebM, which the model does not read.

/** Mono 16-bit PCM, the one WAV that every reader takes. `chunks`: Float32Array pieces in -1..1. */
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
  return new Blob([view], { type: "audio/wav" });
}

/** The node that hands samples over: an AudioWorklet, or in older browsers the ScriptProcessor it replaced. */
async function tap(context, hear) {
  if (context.audioWorklet) {
    await context.audioWorklet.addModule(new URL("./recorder-worklet.js", import.meta.url));
    const node = new AudioWorkletNode(context, "fuseline-recorder");
    node.port.onmessage = (event) => hear(event.data);
    return node;
  }
  const node = context.createScriptProcessor(4096, 1, 1);
  node.onaudioprocess = (event) => hear(event.inputBuffer.getChannelData(0).slice());
  return node;
}

/** The microphone until `end()`. `hear`: takes each piece, a Float32Array of samples in -1..1, and its rate, Hz. */
export async function listen(hear) {
  // The model shall hear what the microphone hears: no clean-up made for telephone calls.
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  const context = new AudioContext();
  try {
    const node = await tap(context, (piece) => hear(piece, context.sampleRate));
    context.createMediaStreamSource(stream).connect(node).connect(context.destination); // the node itself is silent
    await context.resume();
  } catch (error) {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
    throw error;
  }
  return {
    rate: context.sampleRate,
    async end() {
      stream.getTracks().forEach((track) => track.stop());
      await context.close();
    },
  };
}
