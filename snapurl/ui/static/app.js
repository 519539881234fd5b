// What the pages of the dashboard do besides links and forms: copying, keyboard, dialogs. Every task that this file
// makes quicker works without it, too.

const said = document.getElementById("said");
let quiet = 0;

// Says something in passing, to eyes and ears alike.
export function say(text) {
  said.textContent = text;
  clearTimeout(quiet);
  quiet = setTimeout(() => { said.textContent = ""; }, 2500);
}

// Copies text, also where the page came over plain http and browsers offer no clipboard.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = Object.assign(document.createElement("textarea"), { value: text, className: "visually-hidden" });
    const focused = document.activeElement;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    if (!done) return say("The browser does not allow it: select the address and copy it");
  }
  say("Copied");
}

document.addEventListener("click", (event) => {
  const copied = event.target.closest("[data-copy]");
  if (copied) copy(copied.dataset.copy);
  const opened = event.target.closest("[data-open]");
  if (opened) document.getElementById(opened.dataset.open).showModal();
  if (!event.target.closest(".menu")) closeMenus();
});

function closeMenus() {
  for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
}

// -- forms ------------------------------------------------------------------------------------------------------

// Dates are UTC on the wire, and in the browser's zone on the screen.
for (const field of document.querySelectorAll("input[type=datetime-local]")) {
  const zone = field.closest(".field").querySelector("[data-zone]");
  const offset = field.form.elements.utc_offset;
  if (field.value) {
    const moment = new Date(`${field.value}Z`);
    moment.setMinutes(moment.getMinutes() - moment.getTimezoneOffset());
    field.value = moment.toISOString().slice(0, 16);
  }
  if (zone) zone.textContent = `— ${Intl.DateTimeFormat().resolvedOptions().timeZone}`;
  const tell = () => { offset.value = field.value ? new Date(field.value).getTimezoneOffset() : 0; };
  field.addEventListener("input", tell);
  tell();
}

// A form is sent once, however often its button is pressed.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!("onceOnly" in form.dataset)) return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// -- keyboard ---------------------------------------------------------------------------------------------------

const rowOf = (element) => element?.closest?.(".row");

function step(by) {
  const links = [...document.querySelectorAll(".row .row-link")];
  const here = links.indexOf(rowOf(document.activeElement)?.querySelector(".row-link"));
  const next = links[here < 0 ? (by > 0 ? 0 : links.length - 1) : here + by];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

const follow = (selector) => {
  const link = (rowOf(document.activeElement) ?? document).querySelector(selector);
  if (link) link.click();
};

const KEYS = {
  "/": () => document.querySelector("[type=search]")?.focus(),
  "?": () => document.getElementById("keyboard")?.showModal(),
  c: () => {
    const field = document.querySelector("[data-create]");
    if (field) field.focus();
    else location.assign("/ui/new");
  },
  e: () => follow("a[data-edit]"),
  j: () => step(1),
  k: () => step(-1),
  y: () => follow("[data-copy]"),
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeMenus();
  const typing = event.target.closest?.("input, textarea, select, [contenteditable], dialog[open]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = KEYS[event.key];
  if (!action || !document.getElementById("keyboard")) return;
  event.preventDefault();
  action();
});
