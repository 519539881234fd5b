// Selecting links in a list. Without this file the checkboxes and the buttons below the list do the same.

import { say } from "./app.js";

const picks = () => [...document.querySelectorAll(".pick input")];
const batch = () => document.getElementById("batch");
const kept = () => batch().elements.codes.value.split(" ").filter(Boolean);

// Says how many links are ticked, and after how many a click on Select says so aloud.
function tell() {
  if (!batch()) return;
  const number = picks().filter((pick) => pick.checked).length + kept().length;
  const all = batch().elements.all.checked;
  batch().querySelector("[data-count]").textContent = all ? "All of the list" : `${number} selected`;
}

document.addEventListener("change", (event) => { if (event.target.closest(".pick, #batch")) tell(); });
document.addEventListener("htmx:after:swap", tell);

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-clear]")) return;
  for (const pick of picks()) pick.checked = false;
  const form = batch();
  form.elements.codes.value = "";
  form.elements.all.checked = false;
  form.classList.remove("batch-open");
  tell();
  say("Nothing is selected");
});

// The codes travel as one field, so that a form with a thousand of them has few.
document.addEventListener("formdata", (event) => {
  if (event.target !== batch()) return;
  const data = event.formData;
  const ticked = [...data.keys()].filter((name) => name.startsWith("pick-"));
  data.set("codes", [...kept(), ...ticked.map((name) => name.slice(5))].join(" "));
  for (const name of ticked) data.delete(name);
});

// The result of a batch is shown at an address of its own: a reload shows the list.
const place = document.getElementById("results")?.dataset.place;
if (place && location.pathname === "/ui/batch") history.replaceState(null, "", place);
tell();
