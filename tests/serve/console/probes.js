// What the tests ask of a page, run inside it.

const shownPart = (e) => (e.type === "file" ? e.closest(".zone") : e.type === "radio" ? e.nextSibling : e);

function dropped(content, name, type) {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name, { type }));
  return data;
}

function drop(zone, content, name, type) {
  const dataTransfer = dropped(content, name, type);
  for (const kind of ["dragenter", "dragover", "drop"]) {
    zone.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
  }
}

/** Whether the page took a drop beside its zones; else the browser would show the file instead of the page. */
function dropBeside() {
  const event = new DragEvent("drop", { dataTransfer: new DataTransfer(), bubbles: true, cancelable: true });
  return !document.body.dispatchEvent(event);
}

function paste(clipboardData, target = document.body) {
  const event = new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
  return !target.dispatchEvent(event);
}

function pasteFile(content, name, type, target, text) {
  const data = dropped(content, name, type);
  if (text) data.setData("text/plain", text);
  return paste(data, target);
}

function pasteText(text) {
  const data = new DataTransfer();
  data.setData("text/plain", text);
  return paste(data);
}

/** Sets a field as a user would have it at the end of typing. */
function enter(field, value) {
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.dispatchEvent(new Event("change", { bubbles: true }));
}

function hide(hidden) {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}

function pointAt(plot, x) {
  const box = plot.getBoundingClientRect();
  plot.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + x, bubbles: true }));
}

/** The field that has the focus, by its column, else the element's id. */
function focused() {
  const field = document.activeElement.closest(".field");
  return field ? field.querySelector("bdi").textContent : document.activeElement.id;
}

function focusIsSeen() {
  const e = document.activeElement;
  // The calendar button inside a date field: the field then matches no :focus, and the button has its own ring.
  if (e.type === "date" && !e.matches(":focus")) return true;
  return getComputedStyle(shownPart(e)).outlineStyle === "solid";
}

function focusIsCovered() {
  const e = document.activeElement;
  const shown = shownPart(e);
  const box = shown.getBoundingClientRect();
  const top = document.elementFromPoint(box.x + box.width / 2, box.bottom - 3);
  return !(top && (shown.contains(top) || top.closest("label")?.contains(shown)));
}

/** Elements that stick out of the window to the right, but for those that scroll on their own. */
function beyond() {
  const wide = document.documentElement.clientWidth + 0.5;
  return [...document.querySelectorAll("main *")]
    .filter((e) => e.checkVisibility() && !e.closest("pre, .scroll, .unseen, svg"))
    .filter((e) => e.getBoundingClientRect().right > wide)
    .map((e) => e.outerHTML.slice(0, 90));
}

function moving() {
  return [...document.querySelectorAll("*")]
    .filter((e) => parseFloat(getComputedStyle(e).transitionDuration) > 0 || getComputedStyle(e).animationName !== "none")
    .map((e) => e.id || e.className);
}

/** Every text against what it stands on (WCAG 2.2, 1.4.3): [texts looked at, those too faint]. */
function contrast() {
  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const colour = (css) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = css;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (e) => {
    for (let n = e; n; n = n.parentElement) {
      const found = colour(getComputedStyle(n).backgroundColor);
      if (found[3] === 255) return found;
    }
    return [255, 255, 255];
  };
  const faint = [];
  let count = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (!text || !e.checkVisibility() || e.closest(".unseen, noscript, .skip, option")) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(colour(e.closest("svg") ? style.fill : style.color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const size = parseFloat(style.fontSize);
    count += 1;
    if (ratio < (size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5)) {
      faint.push(`${ratio.toFixed(2)} ${e.className} ${text.slice(0, 30)}`);
    }
  }
  return [count, faint];
}

/** Controls and pictures without a name, ids given twice, references to nothing, headings that jump. */
function nameless() {
  const bad = [];
  const all = (css) => [...document.querySelectorAll(css)];
  const words = (ids) => ids.split(" ").map((i) => document.getElementById(i)?.textContent ?? "").join("");
  const name = (e) => e.getAttribute("aria-label") || words(e.getAttribute("aria-labelledby") ?? "")
    || [...(e.labels ?? [])].map((l) => l.textContent).join("") || e.textContent;
  for (const e of all("button, input, select, textarea, fieldset, [role=img], [role=region], [role=radiogroup]")) {
    if (e.checkVisibility() && !name(e).trim()) bad.push(`no name: ${e.outerHTML.slice(0, 80)}`);
  }
  for (const e of all("img:not([alt])")) bad.push(`no alt: ${e.src}`);
  const ids = all("[id]").map((e) => e.id);
  for (const i of ids) if (ids.indexOf(i) !== ids.lastIndexOf(i)) bad.push(`twice: ${i}`);
  for (const attribute of ["for", "list", "aria-describedby", "aria-labelledby", "aria-controls"]) {
    for (const i of all(`[${attribute}]`).flatMap((e) => e.getAttribute(attribute).split(" "))) {
      if (!document.getElementById(i)) bad.push(`${attribute} of nothing: ${i}`);
    }
  }
  const levels = all("h1, h2, h3").map((h) => Number(h.tagName[1]));
  levels.forEach((l, i) => i && l > levels[i - 1] + 1 && bad.push(`heading jumps to h${l}`));
  for (const part of ["main", "header", "h1"]) if (all(part).length !== 1) bad.push(`not one ${part}`);
  if (!document.documentElement.lang) bad.push("no language");
  return bad;
}
