// The rest of the page: stages, pictures, queries, failures, queues, workers, collections.

import { action, base, by, clock, count, counted, element, figure, jobsOf, keep, link, memory, percent, readOnly, row, short, table, time } from "./dom.js";

const JOBS_SHOWN = 6, SHOTS_SHOWN = 4, QUERIES_SHOWN = 4;
const LABELS = {
  total: "in all", wait: "wait for the device", optimise: "extract and optimise", step: "one step of it",
  prepare: "visibility map", quality: "PSNR and SSIM",
};

const stages = (view, task, id, words) => {
  const of = view.stages.filter((s) => s.task === task);
  const whole = of.find((s) => s.stage === "total");
  by(words).textContent = whole ? counted(whole.count, "image") + ", last " + view.window_s / 60 + " minutes" : "";
  table(id, ["stage", ["share", "share text"], ["mean, ms", "wide"], "p50, ms", "p95, ms", ["p99, ms", "wide"]], of.map((s) => {
    const bar = element("i", "");
    bar.style.width = 100 * Math.min(1, s.mean_ms / (whole?.mean_ms || 1)) + "%";
    const kind = { total: "whole", step: "inner" }[s.stage];
    return row([LABELS[s.stage] || s.stage, [s.stage === "total" || s.stage === "step" ? null : bar, "share"],
      [figure(s.mean_ms), "wide"], figure(s.p50_ms), figure(s.p95_ms), [figure(s.p99_ms), "wide"]], kind);
  }), "None in the last " + view.window_s / 60 + " minutes.");
};

// ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────────────────
const picture = (path, alt) => Object.assign(document.createElement("img"), { alt, title: alt, src: base + path });
const shot = (result, outdated) => {
  const trio = element("div", "trio", ...["original", "protected", "difference"].map((which) =>
    picture("/picture/" + which + "/" + result.job_id + "?commit=" + result.commit, which)));
  const good = result.status === "activated";
  const steps = result.robust || result.steps > result.steps_asked ? counted(result.steps, "step") : result.steps + " of " + counted(result.steps_asked, "step");
  const name = element("div", "name", link(result.job_id, result.name || short(result.asset_id)), " ",
    element("span", good ? "good" : "bad", good ? "✓ verified" : "✗ passive"));
  name.title = result.name ? result.name + "\n" + result.asset_id : result.asset_id;
  if (outdated) name.append(" ", Object.assign(element("span", "soft", outdated.split(" ")[0]), { title: outdated }));
  const psnr = result.psnr_db == null ? "unchanged" : "PSNR " + figure(result.psnr_db) + " dB";
  return element("article", "shot", trio, name, element("div", "soft", psnr + ", SSIM " + result.ssim.toFixed(4)),
    element("div", "soft", steps + (result.robust ? ", robust" : "") + ", " + result.width + " × " + result.height));
};
const emptyState = () => element("div", "empty", element("strong", "", "Nothing was activated yet."), " Protect a folder of images: ",
  element("code", "", "aii activate photos/ --out protected/"), " and ask for a copy: ", element("code", "", "aii query suspect.jpg"));
const pictures = (view) => {
  const { images, verified, psnr_median_db: median, psnr_lowest_db: lowest } = view.quality;
  by("quality").textContent = "original, protected, ten times their difference" + (images
    ? " — last " + view.window_s / 60 + " minutes: " + counted(images, "image") + ", " + figure(100 * verified / images) + " % verified" +
      (median == null ? "" : ", PSNR median " + median.toFixed(1) + " dB, lowest " + lowest.toFixed(1) + " dB") : "");
  const shown = view.results.slice(0, SHOTS_SHOWN);
  keep(by("shots"), shown.length ? shown : [null], (r) => r ? r.job_id + r.commit + (view.outdated[r.job_id] || "") : "none",
    (r) => r ? shot(r, view.outdated[r.job_id]) : emptyState());
};

// ── queries ──────────────────────────────────────────────────────────────────────────────────────────────────────────
const query = (q) => {
  const match = q.asset_id == null ? element("div", "none soft", "no match") : picture("/pair/match/" + q.job_id, "first match");
  const pair = element("div", "pair", picture("/pair/query/" + q.job_id, "query"), match);
  const named = q.asset_id == null ? "no asset" : q.name || short(q.asset_id);
  const said = element("div", "name", element("span", "band " + q.verdict, q.verdict.replaceAll("_", " ")), " ", link(q.job_id, named));
  said.title = q.reason;
  const opinions = readOnly || q.asset_id == null ? null : element("div", "opinions",
    action("confirm", "Confirm " + named, "feedback/confirm/" + q.job_id, "Confirm that this is a copy of " + named + "?"),
    action("reject", "Reject " + named, "feedback/reject/" + q.job_id, "Reject " + named + "? It is not reported for this image any more."));
  return element("article", "shot", pair, said,
    element("div", "soft", (q.score == null ? "no score" : "score " + figure(q.score)) + (q.distance == null ? "" : ", distance " + figure(q.distance)) + ", " + q.collection), opinions);
};
const queries = (view) => {
  const shown = view.queries.slice(0, QUERIES_SHOWN);
  by("latest-queries-part").hidden = !shown.length;
  keep(by("latest-queries"), shown, (q) => q.job_id + q.commit, query);
  const { confirmed, rejected } = view.feedback;
  by("feedback").textContent = confirmed + rejected ? "Matches that people confirmed: " + count(confirmed) + ", rejected: " +
    count(rejected) + " (" + figure(100 * rejected / (confirmed + rejected)) + " %)" : "";
};

// ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────
const failedJob = (job) => {
  const name = job.asset_id ? short(job.asset_id) : job.task;
  const told = element("div", "soft message", job.error_message);
  told.title = job.error_message;
  const text = element("div", "", link(job.job_id, job.job_id.slice(0, 8)), " ", element("span", "bad", job.error_code), " ",
    element("span", "soft", element("bdi", "", name), ", " + clock(job.failed_at) + ", " + counted(job.attempts, "attempt")), told);
  const useless = readOnly || !job.retry_helps;
  return element("div", "job", text, useless ? null : action("retry", "Retry " + job.job_id.slice(0, 8), "retry/" + job.job_id,
    "Try job " + job.job_id + " again?\n\n" + job.error_message));
};
const failures = (view) => {
  table("failures", ["code", "in " + view.window_s / 60 + " min", "last at", ["message", "text"]], view.failures.map((f) => row([
    [f.code, f.count ? "bad" : ""], count(f.count), clock(f.at), [f.message, "text soft"]], f.count ? "" : "past")), "None in the last day.");
  const shown = view.failed_jobs.slice(0, JOBS_SHOWN);
  by("failed-count").replaceChildren(...(view.failed > shown.length
    ? ["the latest of " + count(view.failed) + "; ", Object.assign(element("a", "", "all"), { href: base + "/jobs?state=failed" })] : []));
  keep(by("failed"), shown.length ? shown : [null], (j) => j ? j.job_id + j.failed_at : "none", (j) => j ? failedJob(j) : element("span", "soft", "None."));
};

// ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────
const system = (view) => {
  table("queues", ["queue", "waiting", "oldest", "empty in"], view.queues.map((q) =>
    row([q.queue, count(q.waiting), time(q.oldest_age_s), q.waiting ? time(q.drain_s) : "–"])), "");
  const flower = (name) => Object.assign(element("a", "", name), { href: base.replace(/activations$/, "workers") });
  table("workers", ["worker", "memory", ["disk free", "wide"], ["queues", "text wide"]], view.workers.map((w) => row([[flower(w.worker), "text"],
    memory(w.memory_bytes) + (w.device_memory_bytes == null ? "" : " + " + memory(w.device_memory_bytes)),
    [w.disk_total_bytes ? percent(w.disk_free_bytes / w.disk_total_bytes) : "–", "wide"], [w.queues.join(", "), "text wide"]])),
    "None is running.");
  table("collections", ["collection", ["index", "wide"], "generation", "vectors", "journal"], view.collections.map((c) =>
    row([[jobsOf("collection", c.name), "text"], [c.factory, "wide"], count(c.generation), count(c.vectors), count(c.journal)])), "None is open.");
  by("services").replaceChildren("Redis answers · ",
    element("span", view.s3_problem ? "bad" : "", view.s3_problem ? "S3 does not answer" : "S3 answers"),
    " · ", element("span", view.workers.length ? "" : "bad", counted(view.workers.length, "worker")));
};
export const sections = (view) => {
  pictures(view);
  queries(view);
  stages(view, "aii.activate", "activate", "activations");
  stages(view, "aii.query", "query", "queries");
  failures(view);
  system(view);
};
