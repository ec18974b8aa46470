// The course of the main figures, with axes, marks, and the values under the pointer or the arrow keys.

import { PATIENCE_MS, base, by, clock, count, drawn, element, figure, time } from "./dom.js";

const LIVE_S = 900;
const REFRESH_MS = 60_000;
const W = 300, H = 96, LEFT = 34, BOTTOM = 16, TOP = 6;
let chosen = "15m";
let kept = null;  // the points of hours or of a week
let last = null;  // the last overview

// ── axes ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
const nice = (top) => {
  const unit = 10 ** Math.floor(Math.log10(top));
  return [1, 2, 5, 10].map((n) => n * unit).find((value) => value >= top);
};
const moment = (s, seconds) => new Date(1000 * s).toLocaleString("en-GB", { hour: "2-digit", minute: "2-digit",
  ...(seconds > 86_400 ? { weekday: "short" } : seconds <= LIVE_S ? { second: "2-digit" } : {}) });
const label = (s, seconds) => new Date(1000 * s).toLocaleString("en-GB", seconds > 86_400 ? { weekday: "short", day: "numeric" } : { hour: "2-digit", minute: "2-digit" });

const axes = (top, range) => {
  const lines = [0, 0.5, 1].map((share) => {
    const y = H - BOTTOM - share * (H - BOTTOM - TOP);
    return [drawn("line", { x1: LEFT, x2: W, y1: y, y2: y, class: "grid" }), drawn("text", { x: LEFT - 3, y: y + 3, class: "end" }, figure(share * top))];
  });
  const ticks = [0, 0.5, 1].map((share) => drawn("text", { x: LEFT + share * (W - LEFT), y: H - 3, class: ["start", "middle", "end"][2 * share] },
    label(range.end - (1 - share) * range.seconds, range.seconds)));
  return [...lines.flat(), ...ticks];
};
const place = (range, top) => [
  (s) => LEFT + (W - LEFT) * (s - range.end + range.seconds) / range.seconds,
  (value) => H - BOTTOM - (H - BOTTOM - TOP) * value / top,
];
// A line ends where nothing is known, for example where no worker was there to count.
const runs = (points, valueOf, step) => {
  const all = [];
  let before = null;
  for (const point of points) {
    const value = valueOf(point);
    if (value == null) { before = null; continue; }
    if (before == null || point.at - before > 2.5 * step) all.push([]);
    all.at(-1).push([point.at + step / 2, value]);
    before = point.at;
  }
  return all;
};
const curve = (run, x, y, step) => {
  const ends = run.length > 1 ? run : [[run[0][0] - step / 2, run[0][1]], [run[0][0] + step / 2, run[0][1]]];
  const text = ends.map(([s, value]) => x(s).toFixed(1) + "," + y(value).toFixed(1)).join(" ");
  return [drawn("polygon", { points: x(ends[0][0]).toFixed(1) + "," + y(0) + " " + text + " " + x(ends.at(-1)[0]).toFixed(1) + "," + y(0) }),
    drawn("polyline", { points: text })];
};

// ── one figure ───────────────────────────────────────────────────────────────────────────────────────────────────────
const parts = (named) => Object.entries(named ?? {}).filter(([, value]) => value).map(([name, value]) => name + " " + figure(value)).join(", ");
const told = (point, valueOf, unit, range, detail) => moment(point.at, range.seconds) + ": " + (valueOf(point) == null ? "nothing known" : figure(valueOf(point)) + " " + unit) +
  (detail && parts(detail(point)) ? " (" + parts(detail(point)) + ")" : "");

const chart = (trend, range) => {
  const { valueOf, unit, detail, title } = trend;
  const known = range.points.filter((point) => valueOf(point) != null);
  const top = nice(Math.max(...known.map(valueOf), 0) || 1);
  const [x, y] = place(range, top);
  const cursor = drawn("line", { y1: TOP, y2: H - BOTTOM, class: "cursor", visibility: "hidden" });
  const marks = range.marks.filter((mark) => mark.at > range.end - range.seconds).map((mark) => drawn("line",
    { x1: x(mark.at), x2: x(mark.at), y1: TOP, y2: H - BOTTOM, class: "mark" }, drawn("title", {}, clock(mark.at) + " " + mark.text)));
  const svg = drawn("svg", { viewBox: "0 0 " + W + " " + H, role: "img", tabindex: "0", "aria-label": title + ": " + summary(known, valueOf, unit) },
    ...axes(top, range), ...runs(range.points, valueOf, range.step).flatMap((run) => curve(run, x, y, range.step)), ...marks, cursor);
  const said = element("output", "said", "");
  hover(svg, cursor, said, range, x, (point) => told(point, valueOf, unit, range, detail));
  return [svg, said];
};
const summary = (known, valueOf, unit) => known.length ? "at most " + figure(Math.max(...known.map(valueOf))) + " " + unit : "nothing known";

// Where the pointer or the keyboard is, kept while the figures go on.
const at = new Map();
const hover = (svg, cursor, said, range, x, tell) => {
  const key = svg.getAttribute("aria-label").split(":")[0];
  const show = (index) => {
    const point = range.points[index];
    if (!point) return;
    at.set(key, point.at);
    const where = x(point.at + range.step / 2);
    for (const [name, value] of Object.entries({ x1: where, x2: where, visibility: "visible" })) cursor.setAttribute(name, value);
    said.textContent = tell(point);
  };
  const hide = () => { at.delete(key); cursor.setAttribute("visibility", "hidden"); said.textContent = ""; };
  const nearest = (s) => range.points.reduce((best, point, i) => Math.abs(point.at - s) < Math.abs(range.points[best].at - s) ? i : best, 0);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * W - LEFT) / (W - LEFT);
    if (range.points.length) show(nearest(range.end - range.seconds * (1 - share)));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !range.points.length) return;
    event.preventDefault();
    const now = at.has(key) ? nearest(at.get(key)) : range.points.length - (step > 0 ? 1 : 0);
    show(Math.max(0, Math.min(range.points.length - 1, now + step)));
  });
  if (at.has(key) && range.points.length) show(nearest(at.get(key)));
};

// ── all of them ──────────────────────────────────────────────────────────────────────────────────────────────────────
const live = (view) => {
  const end = view.at;
  return { end, seconds: LIVE_S, step: 10, points: view.history.filter((point) => point.at >= end - LIVE_S), marks: view.marks };
};
const stored = () => ({ end: kept.at, seconds: kept.seconds, step: kept.step_s, points: kept.points, marks: kept.marks });
// One worker or one collection instead of all: what each point counts by name, queries and activations together.
const KINDS = { workers: "worker ", collections: "collection " };
let part = null;  // a kind and a name
const choices = (view, range) => Object.keys(KINDS).flatMap((kind) => {
  const present = kind === "workers" ? view.workers.map((note) => note.worker) : view.collections.map((held) => held.name);
  const past = range.points.flatMap((point) => Object.keys(point[kind] ?? {}));
  return [...new Set([...present, ...past])].sort().map((name) => [kind, name]);
});
const offer = (view, range) => {
  const offered = choices(view, range);
  const known = [...by("part").options].slice(1).map((option) => option.value);
  const wanted = offered.map((choice) => JSON.stringify(choice));
  if (JSON.stringify(known) === JSON.stringify(wanted)) return;
  by("part").replaceChildren(new Option("all", ""), ...offered.map(([kind, name]) => new Option(KINDS[kind] + name, JSON.stringify([kind, name]))));
  by("part").value = part && wanted.includes(JSON.stringify(part)) ? JSON.stringify(part) : "";
  part = by("part").value ? JSON.parse(by("part").value) : null;
};
const partTrend = (range) => {
  const [kind, name] = part;
  const valueOf = (point) => point[kind]?.[name] ?? 0;
  const latest = range.points.at(-1);
  return { title: "Done, " + KINDS[kind] + name, value: latest ? figure(valueOf(latest)) : "–", unit: "jobs/s", valueOf };
};
const trends = (view, range) => {
  const ms = (task, stage) => view.stages.find((s) => s.task === task && s.stage === stage)?.p95_ms;
  const failed = view.failures.reduce((sum, f) => sum + f.count, 0);
  const waiting = view.queues.reduce((sum, queue) => sum + queue.waiting, 0);
  const minutes = "in " + view.window_s / 60 + " min";
  const done = part ? [partTrend(range)] : [
    { title: "Activated", value: figure(view.images_per_s), unit: "images/s", valueOf: (p) => p.images_per_s, detail: (p) => p.workers },
    { title: "Answered", value: figure(view.queries_per_s), unit: "queries/s", valueOf: (p) => p.queries_per_s, detail: (p) => p.collections },
  ];
  return [
    ...done,
    { title: "Waiting", value: count(waiting), unit: "jobs, " + count(view.running) + " running", valueOf: (p) => p.waiting },
    { title: "Optimise, p95", value: figure(ms("aii.activate", "optimise")), unit: "ms", valueOf: (p) => p.optimise_p95_ms },
    { title: "Query, p95", value: figure(ms("aii.query", "total")), unit: "ms", valueOf: (p) => p.query_p95_ms },
    { title: "Failed", value: count(failed), unit: "jobs " + minutes, valueOf: (p) => p.failed, className: failed ? "failures bad" : "failures" },
  ];
};
const draw = () => {
  if (!last || (chosen !== "15m" && !kept)) return;
  const range = chosen === "15m" ? live(last) : stored();
  const focused = document.activeElement?.closest?.(".trends svg")?.getAttribute("aria-label").split(":")[0];
  offer(last, range);
  by("trends").replaceChildren(...trends(last, range).map((trend) => element("div", "figure " + (trend.className || ""),
    element("h3", "", trend.title), element("div", "now", element("b", "", trend.value), element("small", "", trend.unit)), ...chart(trend, range))));
  if (focused) [...by("trends").querySelectorAll("svg")].find((svg) => svg.getAttribute("aria-label").startsWith(focused + ":"))?.focus();
  by("range-note").textContent = "in steps of " + time(range.step) + (range.points.length ? "" : "; nothing is known yet: workers write the first point after " + time(range.step));
};
const load = async () => {
  if (chosen === "15m") return;
  const asked = chosen;
  try {
    const answer = await fetch(base + "/history.json?range=" + asked, { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (answer.ok && asked === chosen) kept = await answer.json();
  } catch (error) { /* the banner says what does not answer */ }
  draw();
};
export const showTrends = (view) => { last = view; draw(); };
export const startTrends = () => {
  for (const button of document.querySelectorAll("[data-range]")) button.addEventListener("click", () => {
    chosen = button.dataset.range;
    kept = null;
    for (const other of document.querySelectorAll("[data-range]")) other.setAttribute("aria-pressed", String(other === button));
    load();
    draw();
  });
  by("part").addEventListener("change", () => {
    part = by("part").value ? JSON.parse(by("part").value) : null;
    draw();
  });
  setInterval(load, REFRESH_MS);
};
