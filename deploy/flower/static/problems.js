// What is wrong, first: a banner on top of every page of ours, and the title, which a tab shows from afar.

import { PATIENCE_MS, base, by, clock, element, time, worded } from "./dom.js";

const EVERY_MS = 1000;
const MOST = 6;
let problems = null;  // null: not known yet
let calm = document.title;

const title = () => {
  if (problems === null || !problems.length) { document.title = calm; return; }
  const [first, ...others] = problems;
  const sign = first.severity === "severe" ? "✖ " : "⚠ ";
  document.title = sign + first.title + (others.length ? " (+" + others.length + ")" : "") + " · Activations";
};
// The title of a page on which nothing is wrong.
export const calmTitle = (text) => { calm = text; title(); };

const line = (problem, now) => {
  const more = Object.assign(element("a", "", "what to do"), { href: base + "/operations#" + problem.anchor });
  more.setAttribute("aria-label", "What to do: " + problem.title);
  const since = now - problem.since > 5 ? element("small", "", "for " + time(now - problem.since)) : null;
  return element("div", "problem " + problem.severity, element("span", "sign", problem.severity === "severe" ? "✖" : "⚠"),
    element("strong", "", problem.title), element("span", "", ...worded(problem.detail)), since, more);
};
// Replaced only when something changed: a screen reader reads an alert anew each time.
const banner = (now) => {
  const shown = problems.slice(0, MOST);
  const said = JSON.stringify(shown.map((p) => [p.title, p.detail]));
  const place = by("banner");
  place.hidden = !shown.length;
  if (place.dataset.said !== said) {
    place.dataset.said = said;
    const rest = problems.length - shown.length;
    place.replaceChildren(...shown.map((p) => line(p, now)), ...(rest > 0 ? [element("div", "problem", "and " + rest + " more")] : []));
  }
  place.dataset.worst = shown.length ? shown[0].severity : "";
};
const shownProblems = (found, now) => {
  problems = found;
  banner(now);
  title();
};
const silent = (text) => shownProblems([{ severity: "severe", title: "Flower does not answer", detail: text, since: Date.now() / 1000,
  anchor: "aiifloweraway" }], Date.now() / 1000);

export const watchProblems = async () => {
  try {
    const answer = await fetch(base + "/health.json", { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error("status " + answer.status + " at " + clock(Date.now() / 1000));
    const said = await answer.json();
    shownProblems(said.problems, said.at);
  } catch (error) {
    silent(error.message);
  }
  setTimeout(watchProblems, EVERY_MS);
};
