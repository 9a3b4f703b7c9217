// The panel of answers. A question goes out with a POST; its answer is typed out from a
// stream of its own, which can be cut, followed in other tabs, and stopped.

import { sendByPost } from "./form.js";
import { counted, summary } from "./monitor.js";
import { Stream } from "./stream.js";

const TYPES = ["question", "token", "generator"];

// What became of an answer that has no end, by the reason that stream-error gives.
const LOST = {
  shutdown: "The server was stopped",
  lost: "The worker that made it died",
  error: "The generator failed",
};

const byId = (id) => document.getElementById(id);
const cutSeconds = () => Number(byId("lose").dataset.seconds);

export function showAnswers(skew) {
  const form = byId("ask-form");
  let stream = null;
  let address = null;
  let isCut = false;

  const show = (ticket) => {
    stream?.close();
    address = `${form.action}/${ticket}`;
    stream = new Stream(address, TYPES, skew);
    byId("answer-link").href = linkTo(ticket);
    byId("answer-link").hidden = false;
    byId("answer-empty").hidden = true;
    showState(stream);
    typeOut(stream);
    explain(stream);
    stream.addEventListener("state", ({ detail }) => { isCut = detail.state === "cut"; });
    stream.open();
  };
  byId("lose").addEventListener("click", () => (isCut ? stream.open() : stream.cut(cutSeconds())));
  byId("stop").addEventListener("click", () => stop(address));
  sendByPost(form, (response) => {
    const ticket = response.headers.get("Location").split("/").pop();
    history.replaceState(null, "", linkTo(ticket)); // a reload shows it again
    show(ticket);
  });
  for (const button of document.querySelectorAll("#questions button")) {
    button.addEventListener("click", () => {
      byId("ask-input").value = button.textContent;
      form.requestSubmit();
    });
  }
  const ticket = new URLSearchParams(location.search).get("answer");
  if (ticket) show(encodeURIComponent(ticket));
}

const linkTo = (ticket) => `?answer=${ticket}#answer`;

async function stop(address) {
  byId("stop").disabled = true;
  try {
    await fetch(address, { method: "DELETE" });
  } catch {
    byId("stop").disabled = false;
    say("The server cannot be reached just now.", "cut");
  }
}

function showState(stream) {
  const lose = byId("lose");
  const words = { open: "typing", ended: "complete" };
  stream.addEventListener("event", ({ detail: { type, data } }) => {
    if (type === "stream-error" || data?.end === "closed") words.ended = "stopped";
  });
  stream.addEventListener("state", ({ detail: { state } }) => {
    const isOver = state === "ended" || state === "gone";
    byId("answer").dataset.answer = state;
    byId("answer-state").querySelector("span:last-child").textContent = words[state] ?? state;
    byId("answer-text").ariaBusy = String(!isOver); // a screen reader then reads it as a whole
    lose.disabled = byId("stop").disabled = isOver;
    lose.textContent = state === "cut" ? "Reconnect now" : lose.dataset.label;
  });
}

function typeOut(stream) {
  const text = byId("answer-text");
  let here = 0;
  let missed = 0;
  const count = () => {
    byId("tokens-here").textContent = here;
    byId("tokens-missed").textContent = missed;
  };
  text.replaceChildren();
  byId("answer-question").textContent = "";
  byId("tokens-made").textContent = "…";
  count();
  stream.addEventListener("event", ({ detail: { type, id, data, kind } }) => {
    if (type === "question") byId("answer-question").textContent = data.text;
    if (type === "generator") byId("tokens-made").textContent = data.made;
    if (type !== "token") return;
    const token = document.createElement("span");
    token.className = kind;
    token.dataset.id = id;
    token.textContent = data.text;
    text.append(token);
    here += 1;
    missed += kind === "missed";
    count();
  });
}

// Says in words what happened; a screen reader hears it.
function explain(stream) {
  let here = 0;
  let cameBack = 0;
  let wasOpen = false;
  const soFar = () => (here ? `${counted(here, "token")} had come.` : "");
  say("Lose the connection while it speaks: the server goes on, and you miss nothing.");
  report("");
  stream.addEventListener("event", ({ detail: { type, data, kind } }) => {
    if (type === "token") {
      here += 1;
      cameBack += kind === "missed";
    } else if (type === "generator") {
      report(sentence(data, here), data.end);
    } else if (type === "stream-gap") {
      stream.finish("gone");
    } else if (type === "stream-error") {
      report(`${LOST[data.reason]} in the middle of it. ${soFar()}`, "closed");
      stream.finish("ended");
    }
  });
  stream.addEventListener("state", ({ detail: { state } }) => {
    if (state === "open") cameBack = 0;
    if (state === "cut") say(`Cut, for ${cutSeconds()} seconds. The server goes on.`, "cut");
    if (state === "reconnecting" && wasOpen) say("The connection was lost …", "cut");
    if (state === "gone") {
      say("");
      report(
        "The server does not know this answer: it was restarted, or it is too long ago. " +
        soFar(), "gone");
    }
    if (state === "ended" && !byId("answer-told").className) say("");
    wasOpen = state === "open";
  });
  stream.addEventListener("resumed", ({ detail }) => {
    if (!detail.gap) say(`${summary({ ...detail, count: cameBack }, "token")}.`, "missed");
  });
}

// A token that the generator makes while it is stopped comes too late to be published.
function sentence({ end, made }, here) {
  const what = end === "finished" ? "came to its end" : "was closed";
  const late = made > here ? " The last of them came too late." : "";
  return `The generator ${what} on the server, after ${counted(made, "token")}.${late}`;
}

function say(text, className = "") {
  byId("answer-told").textContent = text;
  byId("answer-told").className = className;
}

function report(text, end = "") {
  byId("answer-report").textContent = text;
  byId("answer-report").dataset.end = end;
}
