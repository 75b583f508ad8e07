// The page's program. No library, nothing from elsewhere; every text of a patient or a model is set as text, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const now = { state: null, case: null, picture: null, bitmap: null, answer: null, why: null, turn: 0 };
const TARGETS = ["finding", "severity"];

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children.filter((c) => c !== null));
  return node;
}

async function call(path, body) {
  const options = body === undefined ? {} : { method: "POST", body: body instanceof Blob ? body : JSON.stringify(body) };
  const response = await fetch(path, options);
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Error(typeof told.detail === "string" ? told.detail : `status ${response.status}`);
}
const json = async (path, body) => (await call(path, body)).json();

async function guarded(work) {
  try {
    $("trouble").textContent = "";
    await work();
  } catch (error) {
    $("trouble").textContent = error.message;
  }
}

// ---- the form

function makeFields(fields) {
  for (const field of fields) {
    if (field.kind === "text") continue; // the note has a place of its own
    const input = field.choices.length
      ? el("select", {}, el("option", { value: "" }, "not known"), ...field.choices.map((c) => el("option", { value: c }, c)))
      : el("input", field.kind === "number" ? { type: "number", step: "any", placeholder: "not known" } : { type: "text", placeholder: "not known" });
    input.id = `field-${field.column}`;
    input.addEventListener("input", stale);
    $("fields").append(el("label", {}, field.column.replaceAll("_", " "), input));
  }
}

const noteColumn = () => now.state.fields.find((f) => f.kind === "text").column;

function cells() {
  const out = { [noteColumn()]: $("note").value.trim() || null };
  for (const field of now.state.fields) {
    if (field.kind === "text") continue;
    const given = $(`field-${field.column}`).value.trim();
    out[field.column] = given === "" ? null : field.kind === "number" ? Number(given) : given;
  }
  return out;
}

function fill(values) {
  for (const field of now.state.fields) {
    const value = values[field.column];
    const text = value === null || value === undefined ? "" : String(value);
    if (field.kind === "text") $("note").value = text;
    else $(`field-${field.column}`).value = text;
  }
}

const question = () => ({ cells: cells(), case: now.case, picture: now.picture });

function stale() {
  if (now.answer) $("stale").textContent = "changed since the answer: ask again";
}

// ---- the picture

function caption(words) {
  $("caption").textContent = words;
}

async function show(source) {
  now.bitmap = source ? await createImageBitmap(await (await source).blob()) : null;
  draw();
}

function draw() {
  const canvas = $("picture"), pen = canvas.getContext("2d");
  if (!now.bitmap) {
    [canvas.width, canvas.height] = [512, 220];
    pen.fillStyle = "#98a2b3";
    pen.font = "20px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.fillText("no picture", 256, 116);
    return;
  }
  const large = 512 / Math.max(now.bitmap.width, now.bitmap.height);
  [canvas.width, canvas.height] = [now.bitmap.width * large, now.bitmap.height * large].map(Math.round);
  pen.drawImage(now.bitmap, 0, 0, canvas.width, canvas.height);
  const inside = now.why && $("heat").checked ? now.why.inside.find((i) => i.unit === "patch") : null;
  if (inside) {
    const full = strongest(inside);
    for (const part of inside.parts) {
      const [left, top, right, bottom] = part.place;
      const share = Math.min(1, Math.abs(part.value) / full);
      pen.fillStyle = part.value > 0 ? `rgba(232, 89, 12, ${0.6 * share})` : `rgba(37, 99, 168, ${0.6 * share})`;
      pen.fillRect(left * canvas.width, top * canvas.height, (right - left) * canvas.width, (bottom - top) * canvas.height);
    }
  }
  const told = now.answer && now.answer.details && now.answer.details.lungs;
  if (told && told.width && $("boxes").checked) {
    for (const { box, label, score } of now.answer.value.lungs || []) {
      const [x1, y1, x2, y2] = box.map((v, i) => (v / (i % 2 ? told.height : told.width)) * (i % 2 ? canvas.height : canvas.width));
      pen.lineWidth = 2;
      pen.strokeStyle = "#12d5bd";
      pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
      pen.font = "13px system-ui, sans-serif";
      pen.textAlign = "left";
      const words = `${label} ${score.toFixed(2)}`, base = Math.max(14, y1 - 5);
      pen.fillStyle = "rgba(12, 16, 22, 0.75)"; // readable on a bright picture, too
      pen.fillRect(x1, base - 13, pen.measureText(words).width + 8, 17);
      pen.fillStyle = "#12d5bd";
      pen.fillText(words, x1 + 4, base);
    }
  }
}

// Full colour is the strongest part, or a tenth of the largest input's share where all parts did less.
function strongest(inside) {
  const shares = Object.values(now.why.inputs.values).map(Math.abs);
  return Math.max(...inside.parts.map((p) => Math.abs(p.value)), 0.1 * Math.max(0, ...shares)) || 1;
}

// ---- the answer

const percent = (share) => `${(100 * share).toFixed(0)} %`;
const points = (share) => `${share > 0 ? "+" : share < 0 ? "−" : ""}${Math.abs(100 * share).toFixed(1)}`;

function bar(name, share, inSet) {
  const fillIn = el("i", inSet ? { class: "in" } : {});
  fillIn.style.width = `${100 * share}%`;
  return el("div", { class: "bar" }, el("span", {}, name), el("div", {}, fillIn), el("span", {}, percent(share)));
}

function answered(name, truth) {
  const told = now.answer.details[name] || {}, value = now.answer.value[name];
  const head = el("h3", {}, el("span", {}, name === "severity" ? `severity: ${now.state.told.severity}` : name));
  head.append(told.abstained ? el("b", {}, "no answer") : el("b", {}, String(value)));
  const card = el("div", { class: told.abstained ? "told silent" : "told" }, head);
  if (told.abstained) card.append(el("p", {}, `Not sure enough. It leans to ${told.suggestion}; that is for a person, not for a program.`));
  const set = told.set || [];
  const chances = Object.entries(told.probabilities || {}).sort((a, b) => b[1] - a[1]);
  for (const [label, chance] of chances) card.append(bar(label, chance, set.includes(label)));
  if (told.set) card.append(el("p", { class: "note" }, `Not ruled out (dark; holds the truth in nine of ten like rows): ${set.join(", ")}`));
  if (truth) card.append(el("p", { class: "note" }, `Written down for this case: ${truth[name] ?? "nothing"}`));
  return card;
}

function showAnswer(truth) {
  $("answer").replaceChildren(...TARGETS.map((name) => answered(name, truth)));
  const { used, absent, notes, odd } = now.answer;
  const lines = [el("p", {}, `Based on ${used.join(", ") || "nothing"}. ${absent.length ? `Absent, which is normal: ${absent.join(", ")}.` : ""}`)];
  for (const [name, share] of Object.entries(odd || {})) {
    if (share > 0.99) lines.push(el("p", { class: "odd" }, `${name} is unlike what the model was trained on: odder than ${(100 * share).toFixed(1)} % of held-out rows.`));
  }
  for (const note of notes || []) lines.push(el("p", {}, note));
  $("based").replaceChildren(...lines);
  $("stale").textContent = "";
  draw();
}

async function ask() {
  const turn = ++now.turn;
  now.why = null;
  $("words").replaceChildren();
  $("why").replaceChildren(el("p", { class: "note" }, "Asks the model again with each thing left out; it takes some seconds. It says what the model went by, not what is so in the world."));
  const asked = question();
  const found = await json("ask", asked);
  if (turn !== now.turn) return; // another case was chosen meanwhile
  now.answer = found.answer;
  showAnswer(found.truth);
  await nearest(asked, turn);
}

async function nearest(asked, turn) {
  const found = await json("nearest", asked);
  if (turn !== now.turn) return;
  $("nearest").replaceChildren(...found.rows.map((hit) => {
    const picture = hit.picture ? el("img", { src: `pictures/${hit.row}`, alt: `training case ${hit.row}` }) : el("div", { class: "empty" }, "no picture");
    return el("figure", {}, picture, el("figcaption", {}, `${hit.truth.finding}, ${now.state.told.severity} ${hit.truth.severity ?? "not known"}; ${hit.score.toFixed(2)}`));
  }));
}

// ---- why

function share(name, value, full) {
  const fillIn = el("i", { class: value > 0 ? "for" : "against" });
  fillIn.style.width = `${(100 * Math.abs(value)) / full}%`;
  return el("div", { class: "bar two" }, el("span", {}, name), el("div", {}, fillIn), el("span", {}, points(value)));
}

async function explain(of) {
  for (const target of TARGETS) $(`why-${target}`).disabled = true;
  const turn = now.turn;
  $("why").replaceChildren(el("p", { class: "note" }, "asking ..."));
  try {
    const found = await json("why", { ...question(), of });
    if (turn !== now.turn) return;
    if (found.error) throw new Error(found.error.message || "no explanation");
    now.why = found;
    showWhy();
  } catch (error) {
    if (turn === now.turn) $("why").replaceChildren(el("p", { class: "odd" }, error.message));
  } finally {
    for (const target of TARGETS) $(`why-${target}`).disabled = false;
  }
}

function showWhy() {
  const { of, quantity, inputs, what_if: whatIf, outputs } = now.why;
  const out = [el("p", {}, `${of.target} = ${of.label}: ${percent(quantity)}; with no input at all ${percent(inputs.base)}. What each input added, in points:`)];
  const full = Math.max(...Object.values(inputs.values).map(Math.abs)) || 1;
  for (const [name, value] of Object.entries(inputs.values)) out.push(share(name, value, full));
  const without = whatIf.filter((w) => w.absent && w.change !== null);
  if (without.length) out.push(el("p", {}, "What if one had been absent:"));
  const most = Math.max(...without.map((w) => Math.abs(w.change))) || 1;
  for (const one of without) out.push(share(`without ${one.absent}`, one.change, most));
  out.push(el("p", { class: "note" }, `Orange speaks for ${of.label}, blue against it. ${outputs} answers of the model.`));
  $("why").replaceChildren(...out);
  showWords();
  caption(now.why.inside.some((i) => i.unit === "patch") ? `Heat: what ${of.target} = ${of.label} loses when a patch is hidden. Weak heat may be chance.` : "");
  draw();
}

function showWords() {
  const inside = now.why.inside.find((i) => i.unit === "word");
  if (!inside) return $("words").replaceChildren();
  const full = strongest(inside), text = Array.from(inside.text), pieces = [];
  let at = 0;
  for (const part of inside.parts) {
    const [from, to] = part.place;
    pieces.push(text.slice(at, from).join(""));
    const word = el("span", { title: `${points(part.value)} points` }, text.slice(from, to).join(""));
    const depth = 0.75 * Math.min(1, Math.abs(part.value) / full);
    word.style.background = part.value > 0 ? `rgba(232, 89, 12, ${depth})` : `rgba(37, 99, 168, ${depth})`;
    pieces.push(word);
    at = to;
  }
  pieces.push(text.slice(at).join(""));
  $("words").replaceChildren(...pieces);
}

// ---- what is chosen

async function choose(row) {
  now.turn += 1;
  [now.case, now.picture, now.answer, now.why] = [row, null, null, null];
  $("file").value = "";
  for (const button of document.querySelectorAll("#cases button")) button.setAttribute("aria-current", String(Number(button.dataset.row) === row));
  const listed = now.state.cases.find((c) => c.row === row);
  fill((await json(`cases/${row}`)).cells);
  caption(listed.picture === "dcm" ? "a DICOM file" : "");
  await show(listed.picture ? call(`pictures/${row}`) : null);
  await ask();
}

function base64(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error("the file cannot be read"));
    reader.readAsDataURL(blob);
  });
}

function own(file) {
  now.turn += 1;
  [now.case, now.answer, now.why] = [null, null, null];
  for (const button of document.querySelectorAll("#cases button")) button.setAttribute("aria-current", "false");
  return guarded(async () => {
    now.picture = null;
    const looked = file ? call("look", file) : null;
    await show(looked);
    if (file) now.picture = await base64(file);
    caption(file ? `${file.name}: sent to the model when you ask, kept nowhere` : "");
    await ask();
  });
}

async function begin() {
  now.state = await json("state");
  $("what").textContent = now.state.told.what;
  if (now.state.notice) $("notice-words").textContent = now.state.notice.replace(/^This is no medical device\.\s*/, "");
  makeFields(now.state.fields);
  for (const one of now.state.cases) {
    const button = el("button", { type: "button", "data-row": one.row }, `case ${one.row}`, el("small", {}, [one.picture && `picture (${one.picture})`, ...one.there].filter(Boolean).join(", ")));
    button.addEventListener("click", () => guarded(() => choose(one.row)));
    $("cases").append(el("li", {}, button));
  }
  $("note").addEventListener("input", stale);
  $("ask").addEventListener("click", () => guarded(ask));
  for (const target of TARGETS) $(`why-${target}`).addEventListener("click", () => guarded(() => explain(target)));
  for (const toggle of ["boxes", "heat"]) $(toggle).addEventListener("change", draw);
  $("file").addEventListener("change", () => $("file").files[0] && own($("file").files[0]));
  $("none").addEventListener("click", () => { $("file").value = ""; own(null); });
  draw();
  const wished = new URLSearchParams(location.search); // a link to a case: ?case=7&why=finding
  const first = now.state.cases.find((c) => wished.has("case") && c.row === Number(wished.get("case"))) || now.state.cases.find((c) => c.picture && c.there.includes("report")) || now.state.cases[0];
  if (first) await choose(first.row);
  if (TARGETS.includes(wished.get("why"))) await explain(wished.get("why"));
}

guarded(begin);
