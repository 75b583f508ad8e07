// Runs beside the page: hands each block of the microphone over, its channels averaged. Gives out silence.
class Recorder extends AudioWorkletProcessor {
  process([channels]) {
    if (!channels.length) return true;
    const mono = channels[0].slice();
    for (const channel of channels.slice(1)) channel.forEach((v, i) => (mono[i] += v));
    if (channels.length > 1) mono.forEach((v, i) => (mono[i] = v / channels.length));
    this.port.postMessage(mono, [mono.buffer]);
    return true;
  }
}

registerProcessor("dialogue-recorder", Recorder);
