// For pages that the server fills: the banner, and buttons that change something.

import { asking } from "./dom.js";
import { watchProblems } from "./problems.js";

for (const button of document.querySelectorAll("button[data-post]")) {
  const path = button.dataset.post.replace(/^\.\.\//, "");
  button.addEventListener("click", () => asking(button, path, button.dataset.ask));
}
watchProblems();
