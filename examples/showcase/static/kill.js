// The panel that kills the worker behind this page, while another process publishes
// numbers: each must come, whoever serves the page.

const byId = (id) => document.getElementById(id);

export function showKill(stream) {
  const button = byId("kill");
  let worker = null; // who serves this page
  let last = null; // the number that came last
  const isTicking = () => last !== null && last.number < last.count;

  stream.addEventListener("event", ({ detail: { type, data, kind } }) => {
    if (type === "worker" && kind !== "history") {
      worker = data.worker;
      byId("kill-worker").textContent = worker;
      if (button) button.disabled = isTicking();
      if (last) tell(last, worker);
    }
    if (type === "tick" && kind !== "history") {
      last = data;
      show(data, kind);
      tell(data, worker);
    }
  });
  stream.addEventListener("state", ({ detail: { state } }) => {
    if (state === "reconnecting" && isTicking()) {
      say(`Process ${last.worker} is dead, and the connection with it. The page looks for another worker …`);
    }
  });
  button?.addEventListener("click", async () => {
    button.disabled = true;
    const address = button.dataset.url.replace("/0/", `/${worker}/`);
    const response = await fetch(address, { method: "POST" }).catch(() => null);
    if (!response?.ok) say("The server did not take it. Try again in a second.");
  });
}

const boxes = () => [...(byId("ticks")?.children ?? [])]; // none where nothing may be killed

function show({ number }, kind) {
  if (number === 1) boxes().forEach((box) => { box.className = ""; });
  const box = boxes()[number - 1];
  box.className = box.className ? "twice" : kind;
}

function tell({ number, count, worker: killed }, worker) {
  const marks = boxes().map((box) => box.className);
  if (number < count) {
    const isDead = number > count / 3;
    say(isDead ? `Process ${killed} was killed. The numbers go on.` : `Process ${killed} dies at number ${count / 3} …`);
    return;
  }
  const here = marks.filter((mark) => mark === "live" || mark === "missed").length;
  const missed = marks.filter((mark) => mark === "missed").length;
  const how = missed ? `${missed} of them came back after the cut` : "this page was served by another worker";
  say(`${here} of ${count} numbers are here, each once; ${how}.${worker === killed ? "" : ` Process ${worker} serves this page now.`}`);
}

function say(text) {
  byId("kill-told").textContent = text;
}
