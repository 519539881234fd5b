// Imports a file piece by piece. The server answers of each piece what became of its rows and where the next one
// begins, and keeps nothing: what is needed to go on is here, and of an import that writes also in the local storage.

import { say } from "./app.js";

const form = document.getElementById("import"), card = document.getElementById("run");
const stopped = document.getElementById("stopped"), fault = document.getElementById("fault");
const BYTES_MAX = +form.dataset.bytesMax, BYTES_MIN = 65_536, READ_BYTES = 1_048_576;
const SHOWN_ROWS = 100; // of each outcome
const REFUSED_CHARS_MAX = 1_000_000; // of the file with refused rows: it is kept in the local storage
const CODES_MAX = 200_000; // of a dry run among which rows with one code are found
const ATTEMPTS = 7, PAUSE_S_MAX = 30;
const KEPT = "snapurl.import";
const number = (value) => Math.round(value).toLocaleString("en");
const find = (selector) => card.querySelector(selector);

let chosen, job, stop;

// -- the file ---------------------------------------------------------------------------------------------------

// Says which encoding a file is in by its first bytes, as the command line does.
function encodingOf(head) {
  if (head[0] === 0xff && head[1] === 0xfe) return "utf-16le";
  if (head[0] === 0xfe && head[1] === 0xff) return "utf-16be";
  const zeros = [0, 0];
  head.forEach((byte, place) => { zeros[place % 2] += byte === 0; });
  if (Math.max(...zeros) * 5 <= head.length) return "utf-8";
  return zeros[1] > zeros[0] ? "utf-16le" : "utf-16be";
}

async function* texts(file, decoder) {
  for (let at = 0; at < file.size; at += READ_BYTES) {
    yield decoder.decode(await file.slice(at, at + READ_BYTES).arrayBuffer(), { stream: true });
  }
  yield decoder.decode();
}

// Returns the file if it is in UTF-8, else what it says in UTF-8.
async function inUtf8(file) {
  let encoding = encodingOf(new Uint8Array(await file.slice(0, READ_BYTES).arrayBuffer()));
  if (encoding === "utf-8") {
    try {
      for await (const _ of texts(file, new TextDecoder(encoding, { fatal: true })));
      return file;
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      encoding = "windows-1252";
    }
  }
  const parts = [];
  for await (const text of texts(file, new TextDecoder(encoding))) parts.push(new Blob([text]));
  return new Blob(parts);
}

// What names a file: its contents may be gigabytes.
const nameOf = (file) => ({ name: file.name, size: file.size, modified: file.lastModified });

// -- what is kept -----------------------------------------------------------------------------------------------

function kept() {
  try {
    return JSON.parse(localStorage.getItem(KEPT));
  } catch {
    return null;
  }
}

function keep(state) {
  try {
    if (state) localStorage.setItem(KEPT, JSON.stringify(state));
    else localStorage.removeItem(KEPT);
  } catch { /* without it the import goes on, but not after a reload */ }
}

const isSame = (state, file) => state && file && Object.entries(nameOf(file)).every(([name, value]) => state.file[name] === value);

function showKept() {
  const state = kept(), file = form.elements.file.files[0];
  stopped.hidden = !state;
  if (state) {
    const part = Math.floor((100 * state.position) / (state.size || 1));
    stopped.querySelector("span").textContent = `The import of ${state.file.name} has stopped at row ${number(state.rows)} (${part} %). `
      + (isSame(state, file) ? "Go on where it was." : "Choose the same file again to go on.");
  }
  form.querySelector("[value=resume]").hidden = !isSame(state, file);
}

// -- one run ----------------------------------------------------------------------------------------------------

function newState(isDry) {
  const asked = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (typeof value === "string" && value && name !== "pasted") asked.set(name, value);
  if (isDry) asked.set("dry", "1");
  return {
    file: nameOf(chosen.file), size: chosen.text.size, asked: asked.toString(), isDry, place: "", position: 0, used: 0, rows: 0,
    counts: { created: 0, present: 0, refused: 0, skipped: 0 }, refused: "", refusedKept: 0,
  };
}

// Sends the next piece. Returns the answer; throws the problem that the server names, or a TypeError without an answer.
async function send(state, signal) {
  const head = +state.place.split(".")[0];
  const wanted = state.used ? Math.min(Math.max(Math.ceil(state.used * 1.2), BYTES_MIN), BYTES_MAX) : BYTES_MAX;
  const end = Math.min(state.position + Math.max(wanted - head, 1), state.size);
  const asked = new URLSearchParams(state.asked);
  if (state.place) asked.set("place", state.place);
  if (end === state.size) asked.set("last", "1");
  const body = new Blob([chosen.text.slice(0, head), chosen.text.slice(state.position, end)]);
  const answer = await fetch(`/ui/import/piece?${asked}`, { method: "POST", body, signal, headers: { "content-type": "application/octet-stream" } });
  if (answer.ok) return answer.json();
  const problem = await answer.json().catch(() => ({ detail: "The service does not answer as it should" }));
  throw Object.assign(new Error(problem.errors?.[0]?.detail ?? problem.detail), { status: answer.status, afterS: +(answer.headers.get("retry-after") ?? 0) });
}

// Sends it again while nobody answers, with growing pauses.
async function sendPatiently(state, signal) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await send(state, signal);
    } catch (error) {
      const isPassing = error.status === undefined ? error instanceof TypeError : [429, 500, 502, 503, 504].includes(error.status);
      if (!isPassing || attempt === ATTEMPTS) throw error;
      await pause(Math.min(Math.max(error.afterS ?? 0, 2 ** (attempt - 1)), PAUSE_S_MAX), signal);
    }
  }
}

async function pause(seconds, signal) {
  const line = document.getElementById("pause");
  line.textContent = `No answer. Trying again in ${seconds} s.`;
  line.hidden = false;
  await new Promise((done) => { setTimeout(done, seconds * 1000); signal.addEventListener("abort", done, { once: true }); });
  line.hidden = true;
  signal.throwIfAborted();
}

async function run() {
  const { state } = job, beganAt = performance.now(), before = { position: state.position, rows: state.rows };
  stop = new AbortController();
  document.getElementById("pause").hidden = true;
  show("running");
  try {
    for (let isOver = false; !isOver;) {
      const answer = await sendPatiently(state, stop.signal);
      take(answer);
      isOver = answer.over;
      if (isOver) state.position = state.size;
      if (!state.isDry) keep(isOver ? null : state);
      showProgress((performance.now() - beganAt) / 1000, before);
    }
    show("over");
  } catch (error) {
    if (!stop.signal.aborted) return fail(error);
    show("stopped");
  }
}

function take(answer) {
  const { state } = job;
  for (const row of answer.rows) {
    const [place, , name, url] = row;
    state.rows = place;
    if (state.isDry && row[1] === "created" && name) {
      if (!job.codes.has(name) && job.codes.size < CODES_MAX) job.codes.set(name, url);
      else if ((job.codes.get(name) ?? url) !== url) [row[1], row[4]] = ["refused", "another row before it has this code"];
    }
    state.counts[row[1]] += 1;
    showRow(row);
  }
  state.place = answer.place;
  state.position += answer.used;
  state.used = answer.used;
  if (state.refused.length + answer.refused.length <= REFUSED_CHARS_MAX) {
    state.refused = (state.refused || answer.refused_head) + answer.refused;
    state.refusedKept = state.counts.refused;
  }
}

// -- what is shown ----------------------------------------------------------------------------------------------

function showRow([place, outcome, name, url, said]) {
  const table = find(`[data-rows=${outcome}]`), { state } = job;
  table.hidden = false;
  const body = table.querySelector("tbody"), rest = table.querySelector(".hint"), left = state.counts[outcome] - SHOWN_ROWS;
  table.querySelector("summary").dataset.number = number(state.counts[outcome]);
  if (body.rows.length >= SHOWN_ROWS) {
    rest.hidden = false;
    rest.textContent = `… and ${number(left)} more`;
    return;
  }
  const row = body.insertRow();
  row.insertCell().textContent = number(place);
  const cell = row.insertCell();
  for (const [text, className] of [[name, "row-name"], [url, "dim"], [said, outcome === "refused" ? "bad" : ""]]) {
    if (text) cell.append(Object.assign(document.createElement("bdi"), { textContent: text, className }));
  }
}

function showProgress(tookS, before) {
  const { state } = job, done = state.size ? state.position / state.size : 1;
  find("progress").value = done;
  for (const [name, value] of Object.entries(state.counts)) find(`[data-count=${name}]`).textContent = number(value);
  const bytesPerS = (state.position - before.position) / tookS, left = bytesPerS ? (state.size - state.position) / bytesPerS : 0;
  const parts = [state.file.name, `${number(state.rows)} rows`, `${number((state.rows - before.rows) / Math.max(tookS, 0.001))} rows/s`];
  if (done < 1) parts.push(`${Math.floor(100 * done)} %`);
  if (left) parts.push(`about ${left < 90 ? `${Math.ceil(left)} s` : `${Math.ceil(left / 60)} min`} left`);
  document.getElementById("rate").textContent = parts.join(" · ");
}

const TITLES = {
  running: ["Reading, nothing is changed yet …", "Importing …"],
  stopped: ["Stopped: nothing was changed", "Stopped"],
  over: ["What would happen", "Imported"],
};

function show(phase) {
  const { state } = job, title = TITLES[phase][state.isDry ? 0 : 1];
  const isRunning = phase === "running", isOver = phase === "over", total = state.counts.created;
  form.hidden = stopped.hidden = true;
  card.hidden = false;
  document.getElementById("run-title").textContent = title;
  find("progress").hidden = isOver;
  find("[data-cancel]").hidden = !isRunning;
  find("[data-resume]").hidden = phase !== "stopped" || state.isDry;
  find("[data-again]").hidden = isRunning;
  find("[data-links]").hidden = !isOver || state.isDry;
  const begin = find("[data-begin]");
  begin.hidden = !isOver || !state.isDry || !total;
  begin.textContent = `Import ${number(total)} ${total === 1 ? "link" : "links"}`;
  if (!isRunning) document.getElementById("rate").textContent = document.getElementById("rate").textContent.replace(/ · about .*/, "");
  showRefused(!isRunning && !state.isDry);
  if (!isRunning) card.focus();
  say(isOver ? `${number(state.rows)} rows are done` : title);
}

function showRefused(isWanted) {
  const { state } = job, link = find("[data-refused]"), hint = document.getElementById("kept");
  link.hidden = !isWanted || !state.counts.refused;
  hint.hidden = link.hidden || state.refusedKept === state.counts.refused;
  if (link.hidden) return;
  hint.textContent = `The file has the first ${number(state.refusedKept)} refused rows: the command line writes them all.`;
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([state.refused], { type: "text/csv" }));
  link.download = `${state.file.name.replace(/\.[^.]*$/, "")}.refused.csv`;
}

// A piece that is refused refuses the file: nothing of what follows would be read.
function fail(error) {
  const { state } = job;
  if (state.rows && !state.isDry) {
    show("stopped");
    document.getElementById("pause").hidden = false;
    document.getElementById("pause").textContent = sentence(error);
    return;
  }
  choose();
  fault.textContent = sentence(error);
  fault.hidden = false;
}

function sentence(error) {
  const text = error.status === undefined ? "The service cannot be reached" : error.message;
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}

// -- what people do ---------------------------------------------------------------------------------------------

function begin(state) {
  job = { state, codes: new Map() };
  for (const table of card.querySelectorAll("[data-rows]")) {
    table.hidden = table.querySelector(".hint").hidden = true;
    table.querySelector("tbody").replaceChildren();
  }
  showProgress(1, state);
  run();
}

function choose() {
  card.hidden = true;
  form.hidden = fault.hidden = false;
  showKept();
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { file, pasted } = form.elements, isResumed = event.submitter?.value === "resume";
  const found = file.files[0] ?? (pasted.value.trim() && new File([pasted.value], "pasted.csv", { lastModified: 0 }));
  fault.hidden = Boolean(found);
  fault.textContent = "Choose a file, or paste rows.";
  if (!found) return;
  try {
    chosen = { file: found, text: await inUtf8(found) };
  } catch {
    fault.textContent = "The file cannot be read: choose it again.";
    fault.hidden = false;
    return;
  }
  begin(isResumed ? kept() : newState(true));
});

form.elements.file.addEventListener("change", showKept);
stopped.querySelector("[data-forget]").addEventListener("click", () => { keep(null); showKept(); });
find("[data-begin]").addEventListener("click", () => begin(newState(false)));
find("[data-cancel]").addEventListener("click", () => stop.abort());
find("[data-resume]").addEventListener("click", run);
find("[data-again]").addEventListener("click", choose);
addEventListener("beforeunload", (event) => { if (job && !find("[data-cancel]").hidden && !job.state.isDry) event.preventDefault(); });
showKept();
