// The page Activations: asks every two seconds, and shows the answer.

import { PATIENCE_MS, base, by, clock, figure, page } from "./dom.js";
import { calmTitle, watchProblems } from "./problems.js";
import { sections } from "./sections.js";
import { throughput } from "./throughput.js";
import { showTrends, startTrends } from "./trends.js";

const EVERY_MS = 2000;

const show = (view) => {
  calmTitle(figure(view.images_per_s) + " images/s · Activations");
  throughput(view);
  showTrends(view);
  sections(view);
  by("updated").textContent = "updated " + clock(view.at);
};
const refresh = async () => {
  let fresh = false;
  try {
    const answer = await fetch(base + "/overview.json", { signal: AbortSignal.timeout(PATIENCE_MS) });
    const view = await answer.json();
    fresh = answer.ok;
    if (fresh) show(view);
  } catch (error) { /* the banner says so, from its own question */ }
  page.classList.toggle("stale", !fresh);
  setTimeout(refresh, EVERY_MS);
};
// The kiosk view, for a wall: no navigation, larger figures. A bookmark keeps it.
if (new URLSearchParams(location.search).has("kiosk")) document.documentElement.classList.add("kiosk");
startTrends();
watchProblems();
refresh();
