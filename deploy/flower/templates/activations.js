(() => {
  "use strict";
  const base = document.getElementById("url_prefix").value.replace(/\/$/, "") + "/activations";
  const page = document.getElementById("aii");
  const by = (id) => document.getElementById("aii-" + id);
  const readOnly = "readOnly" in page.dataset;
  const EVERY_MS = 2000, PATIENCE_MS = 8000, JOBS_SHOWN = 6, SHOTS_SHOWN = 4, HISTORY_S = 1800;
  const LABELS = {
    total: "in all", wait: "wait for the device", optimise: "extract and optimise", step: "one step of it",
    prepare: "visibility map", quality: "PSNR and SSIM",
  };

  // ── words ──────────────────────────────────────────────────────────────────────────────────────────────────────────
  const figure = (value) => value == null ? "–" : Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 6 });
  const count = (value) => value.toLocaleString("en");
  const counted = (value, word) => count(value) + " " + word + (value === 1 ? "" : "s");
  const time = (s) => s == null ? "–" : s < 90 ? Math.round(s) + " s" : s < 5400 ? Math.round(s / 60) + " min" : figure(s / 3600) + " h";
  const clock = (s) => s == null ? "" : new Date(1000 * s).toLocaleTimeString("en-GB");
  const short = (name) => name.length > 24 ? name.slice(0, 12) + "…" : name;
  const memory = (bytes) => count(Math.round(bytes / 2 ** 20)) + " MiB";
  const unique = (words) => [...new Set(words)].join("; ");

  // ── elements: all text goes in as text nodes, since names and messages come from outside ─────────────────────────────
  const element = (tag, className, ...content) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...content.filter((part) => part != null));
    return made;
  };
  const row = (cells, className, tag = "td") => element("tr", className, ...cells.map((cell) => {
    const [content, cellClass] = Array.isArray(cell) ? cell : [cell];
    return element(tag, cellClass, content);
  }));
  const table = (id, header, rows, empty) => by(id).replaceChildren(
    ...(rows.length ? [row(header, "", "th"), ...rows] : [row([[empty, "soft text"]])]));
  const link = (jobId, text) => {  // in a tab of its own: this page stays on its wall
    const made = element("a", "", text);
    Object.assign(made, { href: base + "/result/" + jobId, target: "_blank", rel: "noopener" });
    return made;
  };
  const drawn = (tag, attributes, ...content) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...content);
    return made;
  };
  // What is there already stays, with its focus and its loaded pictures; only what is new is made.
  const keep = (parent, items, keyOf, make) => {
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

  // ── the mission ────────────────────────────────────────────────────────────────────────────────────────────────────
  const grade = (ratio) => ratio == null ? "" : ratio <= 1 ? "good" : ratio <= 3 ? "fair" : "bad";
  const verdict = (ratio) => ratio <= 1 ? figure(1 / ratio) + " × as fast as the paper" : figure(ratio) + " × the paper’s time";
  const settingOf = (comparison, view) => comparison.name === "search"
    ? unique(view.collections.map((c) => c.factory + " over " + count(c.vectors + c.journal) + " vectors, the journal’s news included"))
    : unique(view.workers.map((w) => w.device + ", extractor " + w.extractor + ", batches of up to " + w.batch_images));
  const comparison = (c, view) => {
    const ratio = c.p50_ms == null ? null : c.p50_ms / c.paper_ms;
    const steps = c.steps == null ? "" : ", " + counted(Number(figure(c.steps)), "step") + " on average";
    const seen = c.count ? counted(c.count, "image") + steps : "none in the last " + view.window_s / 60 + " minutes";
    return element("div", "figure " + grade(ratio),
      element("h2", "", c.title + " ", element("small", "", "ms an image")),
      element("div", "trio-of-figures",
        element("div", "", element("b", "", figure(c.p50_ms)), element("small", "", "p50")),
        element("div", "", element("b", "lesser", figure(c.p95_ms)), element("small", "", "p95")),
        element("div", "", element("b", "lesser", figure(c.paper_ms)), element("small", "", "the paper"))),
      element("div", "verdict " + grade(ratio), ratio == null ? "not comparable now" : verdict(ratio)),
      element("p", "", "Here: " + (settingOf(c, view) || "no worker") + "; " + seen + "."),
      element("p", "", "The paper: " + c.paper_setting + "."));
  };

  // ── the last half hour ─────────────────────────────────────────────────────────────────────────────────────────────
  const sparkline = (points, valueOf, now) => {
    const known = points.map((p) => [100 * (p.at - now + HISTORY_S) / HISTORY_S, valueOf(p)]);
    const top = Math.max(1e-9, ...known.map(([, value]) => value ?? 0));
    const runs = known.reduce((all, [x, value]) => {  // a line ends where nothing is known
      if (value == null) all.push([]); else all.at(-1).push([x, 32 - 30 * value / top]);
      return all;
    }, [[]]).filter((run) => run.length);
    for (const run of runs) if (run.length === 1) run.push([run[0][0] + 0.6, run[0][1]]);  // else it would not be seen
    const text = (run) => run.map(([x, y]) => x.toFixed(2) + "," + y.toFixed(2)).join(" ");
    return drawn("svg", { viewBox: "0 0 100 34", preserveAspectRatio: "none", "aria-hidden": "true" },
      drawn("line", { x1: 0, x2: 100, y1: 32.5, y2: 32.5 }),
      ...runs.flatMap((run) => [
        drawn("polygon", { points: run[0][0] + ",32 " + text(run) + " " + run.at(-1)[0] + ",32" }),
        drawn("polyline", { points: text(run) })]));
  };
  const trend = (value, unit, label, view, valueOf, className) => {
    const known = view.history.map(valueOf).filter((v) => v != null);
    return element("div", "figure " + (className || ""),
      element("div", "now", element("b", "", value), element("small", "", unit)),
      element("div", "now", element("small", "", label), element("small", "", known.length ? "max " + figure(Math.max(...known)) : "")),
      sparkline(view.history, valueOf, view.at));
  };
  const trends = (view) => {
    const ms = (task, stage) => view.stages.find((s) => s.task === task && s.stage === stage)?.p95_ms;
    const failed = view.failures.reduce((sum, f) => sum + f.count, 0);
    const waiting = view.queues.reduce((sum, queue) => sum + queue.waiting, 0);
    by("trends").replaceChildren(
      trend(figure(view.images_per_s), "images/s", "activated", view, (p) => p.images_per_s),
      trend(figure(view.queries_per_s), "queries/s", "answered", view, (p) => p.queries_per_s),
      trend(count(waiting), "waiting", count(view.running) + " running", view, (p) => p.waiting),
      trend(figure(ms("aii.activate", "optimise")), "ms", "optimise p95", view, (p) => p.optimise_p95_ms),
      trend(figure(ms("aii.query", "total")), "ms", "query p95", view, (p) => p.query_p95_ms),
      trend(count(failed), "failed", "in " + view.window_s / 60 + " minutes", view, (p) => p.failed, failed ? "failures bad" : "failures"));
  };

  const feedback = (said) => {
    const all = said.confirmed + said.rejected;
    by("feedback").textContent = all ? "Matches that people confirmed: " + count(said.confirmed) + ", rejected: " +
      count(said.rejected) + " (" + figure(100 * said.rejected / all) + " %)" : "";
  };

  // ── stages ─────────────────────────────────────────────────────────────────────────────────────────────────────────
  const stages = (view, task, id, word) => {
    const of = view.stages.filter((s) => s.task === task);
    const whole = of.find((s) => s.stage === "total");
    by(word).textContent = whole ? counted(whole.count, "image") + ", last " + view.window_s / 60 + " minutes" : "";
    table(id, ["stage", ["share", "share text"], ["mean, ms", "wide"], "p50, ms", "p95, ms", ["p99, ms", "wide"]], of.map((s) => {
      const bar = element("i", "");
      bar.style.width = 100 * Math.min(1, s.mean_ms / (whole?.mean_ms || 1)) + "%";
      const kind = { total: "whole", step: "inner" }[s.stage];
      return row([LABELS[s.stage] || s.stage, [s.stage === "total" || s.stage === "step" ? null : bar, "share"],
        [figure(s.mean_ms), "wide"], figure(s.p50_ms), figure(s.p95_ms), [figure(s.p99_ms), "wide"]], kind);
    }), "None in the last " + view.window_s / 60 + " minutes.");
  };

  // ── pictures ───────────────────────────────────────────────────────────────────────────────────────────────────────
  const shot = (result, outdated) => {
    const trio = element("div", "trio", ...["original", "protected", "difference"].map((which) => Object.assign(
      document.createElement("img"), { alt: which, title: which, src: base + "/picture/" + which + "/" + result.job_id + "?commit=" + result.commit })));
    const good = result.status === "activated";
    const steps = result.steps > result.steps_asked ? counted(result.steps, "step") : result.steps + " of " + counted(result.steps_asked, "step");
    const name = element("div", "name", link(result.job_id, result.name || short(result.asset_id)), " ",
      element("span", good ? "good" : "bad", good ? "✓ verified" : "✗ passive"));
    name.title = result.name ? result.name + "\n" + result.asset_id : result.asset_id;
    if (outdated) name.append(" ", Object.assign(element("span", "soft", outdated.split(" ")[0]), { title: outdated }));
    const psnr = result.psnr_db == null ? "unchanged" : "PSNR " + figure(result.psnr_db) + " dB";
    return element("article", "shot", trio, name,
      element("div", "soft", psnr + ", SSIM " + result.ssim.toFixed(4)),
      element("div", "soft", steps + (result.robust ? ", robust" : "") + ", " + result.width + " × " + result.height));
  };
  const pictures = (view) => {
    const { images, verified, psnr_median_db: median, psnr_lowest_db: lowest } = view.quality;
    by("quality").textContent = "original, protected, ten times their difference" + (images
      ? " — last " + view.window_s / 60 + " minutes: " + counted(images, "image") + ", " + figure(100 * verified / images) + " % verified" +
        (median == null ? "" : ", PSNR median " + median.toFixed(1) + " dB, lowest " + lowest.toFixed(1) + " dB") : "");
    const shown = view.results.slice(0, SHOTS_SHOWN);
    keep(by("shots"), shown.length ? shown : [null], (r) => r ? r.job_id + r.commit + (view.outdated[r.job_id] || "") : "none",
      (r) => r ? shot(r, view.outdated[r.job_id]) : element("span", "soft", "None yet."));
  };

  // ── failed jobs ────────────────────────────────────────────────────────────────────────────────────────────────────
  const retry = async (job, button) => {
    if (!confirm("Try job " + job.job_id + " again?\n\n" + job.error_message)) return;
    button.disabled = true;
    try {
      const xsrf = document.cookie.match("\\b_xsrf=([^;]*)\\b");
      const answer = await fetch(base + "/retry/" + job.job_id, {
        method: "POST", headers: xsrf ? { "X-Xsrftoken": xsrf[1] } : {}, signal: AbortSignal.timeout(PATIENCE_MS),
      });
      button.textContent = answer.ok ? "queued" : (await answer.json()).message;
    } catch (error) {
      button.textContent = "no answer: try again";
      button.disabled = false;
    }
  };
  const failedJob = (job) => {
    const name = job.asset_id ? short(job.asset_id) : job.task;
    const told = element("div", "soft message", job.error_message);
    told.title = job.error_message;
    const text = element("div", "", link(job.job_id, job.job_id.slice(0, 8)), " ", element("span", "bad", job.error_code), " ",
      element("span", "soft", name + ", " + clock(job.failed_at) + ", " + counted(job.attempts, "attempt")), told);
    const button = element("button", "btn btn-sm btn-outline-secondary", "retry");
    button.type = "button";
    button.addEventListener("click", () => retry(job, button));
    return element("div", "job", text, readOnly ? null : button);
  };
  const failures = (view) => {
    table("failures", ["code", "in " + view.window_s / 60 + " min", "last at", ["message", "text"]], view.failures.map((f) => row([
      [f.code, f.count ? "bad" : ""], count(f.count), clock(f.at), [f.message, "text soft"]], f.count ? "" : "past")), "None in the last day.");
    const shown = view.failed_jobs.slice(0, JOBS_SHOWN);
    by("failed-count").textContent = view.failed > shown.length ? "the latest of " + count(view.failed) + "; all: aii jobs list failed" : "";
    keep(by("failed"), shown.length ? shown : [null], (j) => j ? j.job_id + j.failed_at : "none", (j) => j ? failedJob(j) : element("span", "soft", "None."));
  };

  // ── the rest ───────────────────────────────────────────────────────────────────────────────────────────────────────
  const system = (view) => {
    table("queues", ["queue", "waiting", "oldest", "empty in"], view.queues.map((q) =>
      row([q.queue, count(q.waiting), time(q.oldest_age_s), q.waiting ? time(q.drain_s) : "–"])), "");
    table("workers", ["worker", ["device", "text"], "memory", ["queues", "wide"]], view.workers.map((w) => row([[w.worker, "text"], [w.device, "text"],
      memory(w.memory_bytes) + (w.device_memory_bytes == null ? "" : " + " + memory(w.device_memory_bytes)), [w.queues.join(", "), "wide"]])),
      "None is running: start one with `aii worker`.");
    table("collections", ["collection", ["index", "wide"], "generation", "vectors", "journal"], view.collections.map((c) =>
      row([[c.name, "text"], [c.factory, "wide"], count(c.generation), count(c.vectors), count(c.journal)])), "None is open.");
    by("services").replaceChildren("Redis answers · ",
      element("span", view.s3_problem ? "bad" : "", view.s3_problem ? "S3 does not answer" : "S3 answers"),
      " · ", element("span", view.workers.length ? "" : "bad", counted(view.workers.length, "worker")));
  };
  const notice = (text) => {
    by("away").hidden = !text;
    by("away").textContent = text || "";
  };
  const show = (view) => {
    const failed = view.failures.reduce((sum, f) => sum + f.count, 0);
    document.title = (failed ? "⚠ " + failed + " failed · " : "") + figure(view.images_per_s) + " images/s · Activations";
    by("mission").replaceChildren(...view.comparisons.map((c) => comparison(c, view)));
    trends(view);
    pictures(view);
    stages(view, "aii.activate", "activate", "activations");
    stages(view, "aii.query", "query", "queries");
    feedback(view.feedback);
    failures(view);
    system(view);
    notice(view.s3_problem);
    by("updated").textContent = "updated " + clock(view.at);
  };
  const away = (text) => {
    document.title = "⚠ no figures · Activations";
    notice(text);
  };
  const refresh = async () => {
    let fresh = false;
    try {
      const answer = await fetch(base + "/overview.json", { signal: AbortSignal.timeout(PATIENCE_MS) });
      const view = await answer.json();
      fresh = answer.ok;
      if (fresh) show(view); else away(view.message);
    } catch (error) {
      away("Flower does not answer: " + error.message);
    }
    page.classList.toggle("stale", !fresh);
    setTimeout(refresh, EVERY_MS);
  };
  refresh();
})();
