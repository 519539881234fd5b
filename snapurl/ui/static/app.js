// What the pages of the dashboard do besides links and forms: copying, keyboard, dialogs. Every task that this file
// makes quicker works without it, too.

const said = document.getElementById("said");
let quiet = 0;

// Says something in passing, to eyes and ears alike.
export function say(text, forMs = 2500) {
  said.textContent = text;
  clearTimeout(quiet);
  quiet = setTimeout(() => { said.textContent = ""; }, forMs);
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

// -- times ---------------------------------------------------------------------------------------------------

// Times are in the zone of the browser, unless the settings name one: then the server has written them so.
export function localise() {
  if (document.documentElement.dataset.zone) return;
  for (const time of document.querySelectorAll("time[title]")) {
    const text = MOMENT.format(new Date(time.dateTime));
    if ("moment" in time.dataset) time.textContent = text;
    time.title = text;
  }
}

const MOMENT = new Intl.DateTimeFormat("en-GB", {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZoneName: "short",
});
localise();
document.addEventListener("htmx:after:swap", localise);

// -- forms ------------------------------------------------------------------------------------------------------

// Dates are UTC on the wire. Unless the settings name a zone, they are in the browser's on the screen.
for (const field of document.querySelectorAll("input[type=datetime-local]")) {
  const zone = field.closest(".field").querySelector("[data-zone]");
  const offset = field.form.elements[`${field.name}_offset`];
  if (document.documentElement.dataset.zone) break;
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

// -- trying again -----------------------------------------------------------------------------------------------

// What nobody could answer is asked again after a while, unless somebody types, ticks or presses something meanwhile.
// A form counts its tries itself; those of a page are counted here.
const TRIES_MAX = 5, PAUSE_S_MAX = 30;
const TRIES = `tries:${location.pathname}`;
const waiting = document.querySelector("[data-retry]");
const repeated = waiting?.closest("form");

if (!waiting || repeated) sessionStorage.removeItem(TRIES);
if (waiting) tryAgain();

function tryAgain() {
  const tries = repeated ? 0 : +(sessionStorage.getItem(TRIES) ?? 0);
  let left = Math.min(waiting.dataset.retry * 2 ** tries, PAUSE_S_MAX);
  const timer = setInterval(count, 1000);
  const stop = () => { clearInterval(timer); waiting.textContent = ""; };
  for (const name of ["input", "change", "submit"]) document.addEventListener(name, stop, { once: true });

  function count() {
    left -= 1;
    if (left > 0) return void (waiting.textContent = ` Trying again in ${left} s.`);
    stop();
    if (repeated) return repeated.requestSubmit(repeated.querySelector(`button[value="${waiting.dataset.submit}"]`));
    sessionStorage.setItem(TRIES, tries + 1);
    location.reload();
  }
  if (tries >= TRIES_MAX) stop();
  else waiting.textContent = ` Trying again in ${left} s.`;
}

// The same for what is asked in the background: searches, and more links.
document.addEventListener("htmx:response:error", ({ detail: { ctx } }) => {
  const source = ctx.sourceElement, tries = +(source.dataset.tries ?? 0);
  const afterS = +(ctx.response.headers.get("retry-after") ?? 1);
  if (ctx.response.status === 429) return say(`Too many requests: try again in ${afterS} s`, 6000);
  if (ctx.response.status !== 503 || tries >= TRIES_MAX) return say("This cannot be answered now", 6000);
  const pauseS = Math.min(Math.max(2, afterS) * 2 ** tries, PAUSE_S_MAX);
  source.dataset.tries = tries + 1;
  say(`No answer. Trying again in ${pauseS} s`, pauseS * 1000);
  setTimeout(() => { if (source.isConnected) source.requestSubmit ? source.requestSubmit() : source.click(); }, pauseS * 1000);
});
document.addEventListener("htmx:after:swap", ({ detail: { ctx } }) => { delete ctx?.sourceElement?.dataset.tries; });

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

function showQr() {
  const row = rowOf(document.activeElement) ?? document.querySelector(".link-card");
  const copied = row?.querySelector("[data-copy]")?.dataset.copy;
  if (!copied) return;
  const page = row.matches(".link-card") ? location.pathname : row.querySelector("a.row-link").pathname;
  const dialog = document.getElementById("qr");
  dialog.querySelector("img").src = `${page}/qr/svg`;
  dialog.querySelector("p").textContent = copied;
  dialog.showModal();
}

const KEYS = {
  "/": () => document.querySelector("[type=search]")?.focus(),
  "?": () => document.getElementById("keyboard")?.showModal(),
  c: () => {
    const field = document.querySelector("[data-create]");
    if (field) field.focus();
    else location.assign("/ui/new");
  },
  b: () => document.querySelector("#batch [name=tags], #batch button[name=action]")?.focus(),
  e: () => follow("a[data-edit]"),
  j: () => step(1),
  k: () => step(-1),
  q: showQr,
  x: () => rowOf(document.activeElement)?.querySelector(".pick input")?.click(),
  y: () => follow("[data-copy]"),
};

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeMenus();
  const typing = event.target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable], dialog[open]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = KEYS[event.key];
  if (!action || !document.getElementById("keyboard")) return; // nobody has logged in, or they are switched off
  event.preventDefault();
  action();
});
