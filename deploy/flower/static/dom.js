// Words and elements that all scripts share. All text goes in as text nodes: names and messages come from outside.

export const base = document.getElementById("url_prefix").value.replace(/\/$/, "") + "/activations";
export const page = document.getElementById("aii");
export const readOnly = "readOnly" in page.dataset;
export const PATIENCE_MS = 8000;
export const by = (id) => document.getElementById("aii-" + id);

// ── words ────────────────────────────────────────────────────────────────────────────────────────────────────────────
export const figure = (value) => value == null ? "–" : Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 6 });
export const rate = (ms) => ms ? (ms < 1 ? count(Math.round(1000 / ms)) : figure(1000 / ms)) : "–";
export const count = (value) => value.toLocaleString("en");
export const counted = (value, word) => count(value) + " " + word + (value === 1 ? "" : "s");
export const time = (s) => s == null ? "–" : s < 90 ? Math.round(s) + " s" : s < 5400 ? Math.round(s / 60) + " min" : figure(s / 3600) + " h";
export const clock = (s) => s == null ? "" : new Date(1000 * s).toLocaleTimeString("en-GB");
export const short = (name) => name.length > 24 ? [...name].slice(0, 12).join("") + "…" : name;
export const memory = (bytes) => count(Math.round(bytes / 2 ** 20)) + " MiB";
export const percent = (share) => share == null ? "–" : Math.round(100 * share) + " %";
export const unique = (words) => [...new Set(words)].join("; ");

// ── elements ─────────────────────────────────────────────────────────────────────────────────────────────────────────
export const element = (tag, className, ...content) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content.filter((part) => part != null));
  return made;
};
export const drawn = (tag, attributes, ...content) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...content);
  return made;
};
export const row = (cells, className, tag = "td") => element("tr", className, ...cells.map((cell) => {
  const [content, cellClass] = Array.isArray(cell) ? cell : [cell];
  return element(tag, cellClass, content);
}));
// What stands between backticks is code, as in our messages.
export const worded = (text) => text.split("`").map((part, i) => i % 2 ? element("code", "", part) : part);
export const table = (id, header, rows, empty) => by(id).replaceChildren(...(rows.length
  ? [element("thead", "", row(header, "", "th")), element("tbody", "", ...rows)]
  : [element("tbody", "", row([[empty, "soft text"]]))]));
export const link = (jobId, text) => Object.assign(element("a", "", text), { href: base + "/job/" + jobId });
// The jobs of a worker or of a collection.
export const jobsOf = (what, name) => Object.assign(element("a", "", name), { href: base + "/jobs?" + new URLSearchParams({ [what]: name }) });
export const labelled = (made, label) => { made.setAttribute("aria-label", label); return made; };

// What is there already stays, with its focus and its loaded pictures; only what is new is made.
export const keep = (parent, items, keyOf, make) => {
  const there = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const known = there.get(keyOf(item));
    if (known) return known;
    const made = make(item);
    made.dataset.key = keyOf(item);
    return made;
  });
  for (const child of [...parent.children]) if (!wanted.includes(child)) child.remove();
  wanted.forEach((child, i) => { if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] || null); });
};

// ── changes: only after a yes, and only from our own pages ───────────────────────────────────────────────────────────
export const post = async (path) => {
  const xsrf = document.cookie.match("\\b_xsrf=([^;]*)\\b");
  const answer = await fetch(base + "/" + path, {
    method: "POST", headers: xsrf ? { "X-Xsrftoken": xsrf[1] } : {}, signal: AbortSignal.timeout(PATIENCE_MS),
  });
  return [answer.ok, await answer.json()];
};
export const asking = async (button, path, question) => {
  if (!confirm(question)) return;
  button.disabled = true;
  try {
    const [good, said] = await post(path);
    button.textContent = good ? said.state : said.message;
  } catch (error) {
    button.textContent = "no answer: try again";
    button.disabled = false;
  }
};
export const action = (text, label, path, question) => {
  const button = labelled(element("button", "btn btn-sm btn-outline-secondary", text), label);
  button.type = "button";
  button.addEventListener("click", () => asking(button, path, question));
  return button;
};
