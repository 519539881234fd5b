// Keeps a page up to date by a stream of events. If the stream is refused or does not come, the page asks every few
// seconds instead. The page is the element with `data-live`, which names both addresses.

const POLL_MS = 5_000;
const AGAIN_MS = 30_000;

const page = document.querySelector("[data-live]");
const said = document.getElementById("live-state");

function say(state, text) {
  page.dataset.live = state;
  if (said.textContent !== text) said.textContent = text;
}

// Calls `show` with each state that arrives, which is that of the page as a whole.
export function follow(show) {
  let events, poll, again;

  async function ask() {
    try {
      const answer = await fetch(page.dataset.state, { headers: { accept: "application/json" }, redirect: "manual" });
      if (answer.type === "opaqueredirect") return location.reload(); // the session has ended: log in
      if (!answer.ok) throw new Error(`${answer.status}`);
      show(await answer.json());
      say("slow", "Updated every 5 s");
    } catch {
      say("lost", "No answer, trying again …");
    }
  }

  function askRegularly() {
    poll ??= setInterval(ask, POLL_MS);
  }

  function watch() {
    events = new EventSource(page.dataset.events);
    events.onmessage = (event) => {
      clearInterval(poll);
      poll = undefined;
      show(JSON.parse(event.data));
      say("on", "Live");
    };
    events.onerror = () => {
      askRegularly();
      if (events.readyState !== EventSource.CLOSED) return say("lost", "Connecting …");
      ask();
      again = setTimeout(watch, AGAIN_MS);
    };
  }

  // A tab that nobody sees gives its connection back: a browser has six for all tabs of a host.
  document.addEventListener("visibilitychange", () => {
    events.close();
    clearTimeout(again);
    if (document.hidden) askRegularly();
    else watch();
  });

  watch();
}

// Changes what differs from `wanted`, element by element, so that nothing flickers or loses its focus. What somebody
// has unfolded stays so.
export function patchChildren(element, wanted) {
  const present = [...element.childNodes];
  const next = [...wanted.childNodes];
  next.forEach((node, number) => {
    const old = present[number];
    if (!old) element.append(node);
    else if (old.nodeName !== node.nodeName) old.replaceWith(node);
    else if (old.nodeType === Node.ELEMENT_NODE) patch(old, node);
    else if (old.nodeValue !== node.nodeValue) old.nodeValue = node.nodeValue;
  });
  for (const old of present.slice(next.length)) old.remove();
}

function patch(element, wanted) {
  for (const { name } of [...element.attributes]) {
    if (!wanted.hasAttribute(name) && name !== "open") element.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  patchChildren(element, wanted);
}
