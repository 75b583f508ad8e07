// The request of the form as a program that does the same: curl, or Python without a package.

import { copyButton, el, freshId } from "./dom.js";

/** A file's name as the programs use it: nothing that hides or turns text, and never like an option or a folder. */
function placeholder(file) {
  const clean = file.name.replace(/[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069/\\]/gu, "_") || "file";
  return clean.startsWith("-") ? `./${clean}` : clean;
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
/** Inside an unquoted here-document the shell still reads these three. */
const here = (text) => text.replace(/[\\$`]/g, "\\$&");

/** A here-document, not an argument: a picture is longer than a command line may be. */
export function curl({ url, cells, contributions, keyed }) {
  const row = cells.map(({ column, value, file, type }) => {
    const cell = file ? `"data:${type};base64,$(base64 -w0 ${quote(placeholder(file))})"` : here(JSON.stringify(value));
    return `    ${here(JSON.stringify(column))}: ${cell}`;
  });
  return [
    `curl -sS ${quote(url)} \\`,
    "  -H 'Content-Type: application/json' \\",
    ...(keyed ? ['  -H "Authorization: Bearer $FUSELINE_KEY" \\'] : []),
    "  --data-binary @- <<JSON",
    `{"rows": [{${row.length ? `\n${row.join(",\n")}\n  ` : ""}}], "contributions": ${contributions}}`,
    "JSON",
  ].join("\n");
}

function literal(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  return JSON.stringify(value); // a JSON string or number is a Python literal too
}

export function python({ url, cells, contributions, keyed }) {
  const media = cells.some((cell) => cell.file);
  const row = cells.map(({ column, value, file, type }) =>
    `    ${literal(column)}: ${file ? `media(${literal(placeholder(file))}, ${literal(type)})` : literal(value)},`);
  return [
    ...(media ? ["import base64"] : []),
    "import json",
    ...(keyed ? ["import os"] : []),
    "import urllib.request",
    ...(media ? ["from pathlib import Path", "", "", "def media(path, kind):",
      '    return f"data:{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode()}"', ""] : []),
    "",
    row.length ? `row = {\n${row.join("\n")}\n}` : "row = {}",
    `body = json.dumps({"rows": [row], "contributions": ${literal(contributions)}}).encode()`,
    'headers = {"Content-Type": "application/json"}',
    ...(keyed ? ['headers["Authorization"] = "Bearer " + os.environ["FUSELINE_KEY"]'] : []),
    `request = urllib.request.Request(${literal(url)}, body, headers)`,
    "with urllib.request.urlopen(request) as reply:",
    '    [answer] = json.load(reply)["answers"]',
    "print(json.dumps(answer, indent=2, ensure_ascii=False))",
  ].join("\n");
}

const TABS = [["curl", curl], ["Python", python]];

/** Two tabs. `update(request)` writes both anew. */
export class Snippets {
  constructor(host) {
    this.panels = TABS.map(([label, write]) => {
      const [tab, panel] = [freshId("tab"), freshId("panel")];
      const code = el("code");
      return {
        write, code,
        tab: el("button", { type: "button", role: "tab", id: tab, "aria-controls": panel }, label),
        node: el("div", { role: "tabpanel", id: panel, "aria-labelledby": tab },
          el("pre", { tabindex: "0", dir: "ltr", "aria-label": `the request as ${label}` }, code)),
      };
    });
    const list = el("div", { role: "tablist", "aria-label": "language" }, this.panels.map((p) => p.tab));
    this.panels.forEach((panel, i) => panel.tab.addEventListener("click", () => this.choose(i)));
    list.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      this.choose((this.chosen + step + TABS.length) % TABS.length);
      this.panels[this.chosen].tab.focus();
    });
    this.note = el("p", { class: "note" });
    const copy = copyButton("Copy", () => this.panels[this.chosen].code.textContent);
    host.replaceChildren(el("div", { class: "tabs" }, list, copy), ...this.panels.map((p) => p.node), this.note);
    this.choose(0);
  }

  choose(chosen) {
    this.chosen = chosen;
    this.panels.forEach(({ tab, node }, i) => {
      tab.setAttribute("aria-selected", String(i === chosen));
      tab.tabIndex = i === chosen ? 0 : -1;
      node.hidden = i !== chosen;
    });
  }

  update(request) {
    for (const { write, code } of this.panels) code.textContent = write(request);
    const needs = [];
    if (request.cells.some((cell) => cell.file)) needs.push("Run it in the folder that holds the files.");
    if (request.keyed) needs.push("FUSELINE_KEY is your key, from the environment.");
    this.note.textContent = needs.join(" ");
  }
}
