// Keeps the clicks of a link up to date: the number at once, what is drawn and listed every few seconds at most.

import { localise } from "./app.js";
import { follow, patchChildren } from "./live.js";

const REDRAW_MS = 10_000;
const spoken = document.getElementById("spoken");
const number = () => document.querySelector("[data-clicks]");
let drawnAt = -REDRAW_MS, timer;

follow(({ clicks }) => {
  if (clicks === null) return location.reload(); // the link is gone, and the page says why
  if (clicks === +number().dataset.clicks) return;
  number().dataset.clicks = clicks;
  number().textContent = clicks.toLocaleString("en");
  timer ??= setTimeout(redraw, Math.max(0, drawnAt + REDRAW_MS - performance.now()));
});

async function redraw() {
  timer = undefined;
  drawnAt = performance.now();
  const answer = await fetch(location.href, { redirect: "manual" }).catch(() => undefined);
  if (!answer?.ok) return; // the next click draws it
  const wanted = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const id of ["clicks", "sources"]) {
    patchChildren(document.getElementById(id), wanted.getElementById(id));
  }
  const clicks = number().textContent;
  spoken.textContent = `${clicks} ${clicks === "1" ? "click" : "clicks"} in all`;
  localise();
}
