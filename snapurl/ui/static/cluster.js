// Keeps the cluster page up to date. The server sends the parts of the page as HTML, always all of them.

import { follow, patchChildren } from "./live.js";

const spoken = document.getElementById("spoken");
let level = document.querySelector("[data-level]").dataset.level;
const template = document.createElement("template");

follow((parts) => {
  for (const [id, html] of Object.entries(parts)) {
    const element = document.getElementById(id);
    template.innerHTML = html;
    if (element) patchChildren(element, template.content);
  }
  const headline = document.querySelector("[data-level]");
  document.title = `${headline.textContent} · SnapURL`;
  // Screen readers hear what kind of state it is now, not every percent.
  if (level !== headline.dataset.level) spoken.textContent = headline.textContent;
  level = headline.dataset.level;
});
