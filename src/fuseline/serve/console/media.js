// Pictures and sounds: dropped, chosen, pasted or recorded; shown as the browser can, sent byte for byte as they are.

import { bytes, el, name } from "./dom.js";
import { recordButton, soundPreview } from "./sound.js";

const LARGEST = 100 * 2 ** 20;
const LARGEST_PREVIEW = 40 * 2 ** 20;
const PREVIEW_SIDE = 640;
const PICTURES = "image/*,.dcm,.dicom,.tif,.tiff";
const ACCEPT = {
  image: PICTURES, images: PICTURES, audio: "audio/*,.wav,.flac,.ogg,.mp3,.aif,.aiff",
  video: "video/*,.mkv,.avi,.mts,.flv,.wmv,.gif",
};
const WORDS = { image: "a picture", images: "a picture (the API takes several)", audio: "a sound", video: "a video" };

/** The type as a data URI may carry it; the server looks at the bytes and not at this. */
export function typeOf(file) {
  return /^[\w.+-]+\/[\w.+-]+$/.test(file.type) ? file.type : "application/octet-stream";
}

/** A file as a base64 data URI. */
export function dataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(`data:${typeOf(file)};base64,${reader.result.slice(reader.result.indexOf(",") + 1)}`);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read any more: choose it again`));
    reader.readAsDataURL(file);
  });
}

/** Drawn on a canvas: the page's policy lets no picture in but the server's own. Null where the browser cannot show it.
 * Turned as EXIF says, as the model sees it. */
export async function drawnPicture(file) {
  if (file.size > LARGEST_PREVIEW) return null;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return null;
  }
  const scale = Math.min(1, PREVIEW_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = el("canvas", {
    class: "picture", role: "img", "aria-label": `preview of ${file.name}`,
    width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)),
  });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const size = `${bitmap.width} × ${bitmap.height} pixels`;
  bitmap.close();
  return { canvas, size };
}

async function picturePreview(file) {
  const drawn = await drawnPicture(file);
  if (!drawn) {
    return el("p", { class: "note" }, "No preview: this browser cannot show the file (DICOM and TIFF, for example). It is sent as it is.");
  }
  return el("figure", {}, drawn.canvas, el("figcaption", { class: "note" }, drawn.size));
}

function preview(kind, file) {
  if (file.size > LARGEST_PREVIEW) return el("p", { class: "note" }, "No preview of a file this large.");
  if (kind === "video") return el("p", { class: "note" }, "No preview of a video. It is sent as it is.");
  return kind === "audio" ? soundPreview(file) : picturePreview(file);
}

/** The control of an image, audio or video column; see `control` in fields.js. */
export function mediaControl(column, id, changed) {
  const { kind } = column;
  let file = null;
  let turn = 0;
  let stop = () => {};
  const input = el("input", { type: "file", id, class: "unseen", accept: ACCEPT[kind] });
  const shown = el("div", { class: "preview" });
  const said = el("p", { class: "note" });
  const take = async (given) => {
    stop();
    file = given;
    turn += 1;
    const mine = turn;
    input.value = "";
    said.replaceChildren(...(file ? [name(file.name), ` · ${bytes(file.size)}`] : []));
    shown.replaceChildren();
    changed();
    if (!file) return;
    const node = await preview(kind, file);
    if (mine !== turn) return; // another file came while this one was decoded
    stop = node.stop ?? (() => {});
    shown.replaceChildren(node);
  };
  input.addEventListener("change", () => input.files[0] && take(input.files[0]));
  const zone = el("div", { class: "zone" },
    el("div", { class: "zone-row" },
      el("label", { class: "button", for: id }, "Choose a file"),
      kind === "audio" ? recordButton(take) : null,
      el("span", { class: "note" }, `or drop or paste ${WORDS[kind]}`)),
    input, said, shown);
  acceptDrops(zone, take);
  zone.addEventListener("fuseline-paste", (event) => take(event.detail));
  zone.dataset.kind = kind === "images" ? "image" : kind;
  return {
    node: zone,
    focus: input,
    given: () => file !== null,
    file: () => file,
    problem: () => {
      if (file.size === 0) return "the file is empty (0 bytes)";
      return file.size > LARGEST ? `more than ${bytes(LARGEST)} cannot be sent from a page: use curl` : "";
    },
    clear: () => take(null),
  };
}

function acceptDrops(zone, take) {
  let depth = 0; // entering a child fires before leaving its parent
  const over = (change) => {
    depth = Math.max(0, depth + change);
    zone.classList.toggle("over", depth > 0);
  };
  zone.addEventListener("dragenter", (event) => { event.preventDefault(); over(1); });
  zone.addEventListener("dragleave", () => over(-1));
  zone.addEventListener("dragover", (event) => event.preventDefault());
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    over(-depth);
    const [dropped] = event.dataTransfer.files;
    if (dropped) take(dropped);
  });
}

/** A file dropped beside a zone must not replace the page; a pasted one goes to the zone in use, else to a free one. */
export function watchDocument(host) {
  for (const type of ["dragover", "drop"]) document.addEventListener(type, (event) => event.preventDefault());
  document.addEventListener("paste", (event) => {
    // Where one types, a clipboard that holds text too (a word processor's) means its text.
    if (event.target.matches?.("input, textarea") && event.clipboardData?.types.includes("text/plain")) return;
    const file = [...(event.clipboardData?.files ?? [])].find((f) => /^(image|audio)\//.test(f.type));
    if (!file) return;
    const zones = [...host.querySelectorAll(".zone")].filter((z) => file.type.startsWith(z.dataset.kind));
    const zone = zones.find((z) => z.contains(document.activeElement))
      ?? zones.find((z) => z.closest(".field").dataset.state === "absent") ?? zones[0];
    if (!zone) return;
    event.preventDefault();
    zone.dispatchEvent(new CustomEvent("fuseline-paste", { detail: file }));
  });
}
