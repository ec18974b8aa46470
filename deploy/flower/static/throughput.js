// Throughput beside the paper's figures and the operator's targets, and by worker and device.

import { by, count, counted, element, figure, jobsOf, memory, percent, rate, row, table, unique } from "./dom.js";

// Colour says something only where like is compared with like.
const grade = (ours, theirs) => ours == null || theirs == null ? "" : ours <= theirs ? "good" : ours <= 3 * theirs ? "fair" : "bad";
const word = (ours, theirs, whose) => ours <= theirs ? figure(theirs / ours) + " × as fast as " + whose : figure(ours / theirs) + " × the time of " + whose;
const verdict = (c) => {
  if (c.p50_ms == null) return [element("div", "verdict soft", "no figure now")];
  const lines = [];
  if (c.target_ms != null) lines.push(element("div", "verdict " + grade(c.p50_ms, c.target_ms), word(c.p50_ms, c.target_ms, "the target")));
  if (c.incomparable) lines.push(element("div", "verdict soft", "not comparable with the talk: " + c.incomparable));
  else lines.push(element("div", "verdict " + grade(c.p50_ms, c.paper_ms), word(c.p50_ms, c.paper_ms, "the talk")));
  return lines;
};
const edge = (c) => c.p50_ms == null ? "" : c.target_ms != null ? grade(c.p50_ms, c.target_ms) : c.incomparable ? "" : grade(c.p50_ms, c.paper_ms);
const column = (label, ms, className) => element("div", "", element("small", "", label), element("b", className, rate(ms), ms == null ? null : element("span", "unit", "/s")),
  element("small", "", ms == null ? "\u00a0" : figure(ms) + " ms"));
const setting = (c, view) => c.name === "search"
  ? unique(view.collections.map((held) => held.factory + " over " + count(held.vectors + held.journal) + " vectors"))
  : unique(view.workers.filter((w) => w.queues.includes("activate")).map((w) => w.device + ", " + w.extractor + ", batches of up to " + w.batch_images));
const card = (c, view) => {
  const steps = c.steps == null ? "" : ", " + counted(Number(figure(c.steps)), "step") + " on average";
  const seen = c.count ? counted(c.count, c.name === "search" ? "search" : "image").replace("searchs", "searches") + steps + ", p95 " + figure(c.p95_ms) + " ms"
    : "none in the last " + view.window_s / 60 + " minutes";
  return element("div", "figure " + edge(c),
    element("h2", "", c.title + " ", element("small", "", c.name === "search" ? "by one thread" : "an image, by one device")),
    element("div", "columns-of-figures",
      column("here", c.p50_ms, ""), column("the talk", c.paper_ms, "lesser"),
      ...(c.target_ms == null ? [] : [column("target", c.target_ms, "lesser")])),
    ...verdict(c),
    element("p", "", "Here: " + (setting(c, view) || "no worker") + "; " + seen + "."),
    element("p", "", "The talk: " + c.paper_setting + "."));
};

const gpu = (state) => state == null ? "" : percent(state.utilisation) + ", " + memory(state.memory_used_bytes) + " of " + memory(state.memory_total_bytes) +
  ", " + state.temperature_c + " °C";
const between = (speed) => speed.images_per_s ? figure(1000 / speed.images_per_s) : "–";
// Of one kind of device, the time of an image differs by a few percent; a worker beyond this has another trouble.
const SLOW = 1.5;
const named = (speed, fastest) => {
  const times = speed.device_ms / fastest;
  const cell = element("span", "", jobsOf("worker", speed.worker));
  if (speed.device_ms != null && times >= SLOW) cell.append(" ", element("strong", "bad", "slow: " + figure(times) + " × the fastest’s time"));
  return cell;
};
const worker = (speed, note, fastest) => row([[named(speed, fastest), "text"], [speed.device, "text wide"], figure(speed.images_per_s), figure(speed.queries_per_s),
  figure(speed.device_ms), [between(speed), "wide"], [percent(note?.device_busy), "wide"], [gpu(note?.gpu), "text wide"]]);
const total = (name, speeds) => {
  const sum = (what) => speeds.reduce((all, speed) => all + speed[what], 0);
  const images = sum("images_per_s");
  const device = images ? speeds.reduce((all, s) => all + (s.device_ms ?? 0) * s.images_per_s, 0) / images : null;
  return row([[name, "text"], [counted(speeds.length, "worker"), "text wide"], figure(images), figure(sum("queries_per_s")), figure(device), ["", "wide"], ["", "wide"], ["", "wide"]], "whole");
};
const fastest = (speeds) => Math.min(...speeds.map((speed) => speed.device_ms).filter((ms) => ms != null));
const devices = (view) => {
  const groups = new Map();
  for (const speed of view.speeds) groups.set(speed.device, [...(groups.get(speed.device) ?? []), speed]);
  const notes = new Map(view.workers.map((note) => [note.worker, note]));
  const header = view.workers.some((note) => note.gpu) ? "GPU" : "";
  const rows = [...groups].flatMap(([device, speeds]) => [
    ...(speeds.length > 1 ? [total("all on " + device, speeds)] : []), ...speeds.map((speed) => worker(speed, notes.get(speed.worker), fastest(speeds)))]);
  table("speeds", ["worker", ["device", "text wide"], "images/s", "queries/s", "device, ms an image", ["ms between images", "wide"], ["device busy", "wide"], [header, "text wide"]],
    rows, "No worker.");
};

export const throughput = (view) => {
  by("mission").replaceChildren(...view.comparisons.map((c) => card(c, view)));
  devices(view);
};
