// Tells when the server is away, and when it is back; then nothing of it stays.

import { clock } from "./units.js";

const TOLD = 6_000; // ms for which the page says that the server is back

export function showAway(stream) {
  const banner = document.getElementById("away");
  let since = null;
  let wasOpen = false;
  let fading = 0;

  const say = (text, kind) => {
    clearTimeout(fading);
    banner.textContent = text;
    banner.dataset.kind = kind;
    banner.hidden = !text;
  };
  stream.addEventListener("state", ({ detail: { state } }) => {
    if (state === "reconnecting" && wasOpen) {
      since = Date.now();
      say(`No answer from the server since ${clock(since)}. This page tries again by itself.`, "away");
    } else if (state === "cut") {
      since = null;
      say("");
    } else if (state === "open") {
      if (since) {
        say(`The server is back, after ${((Date.now() - since) / 1000).toFixed(1)} s.`, "back");
        fading = setTimeout(() => say(""), TOLD);
      }
      since = null;
      clearComplaints();
    }
    wasOpen = state === "open";
  });
}

// What forms have said of a server that could not be reached.
function clearComplaints() {
  for (const complaint of document.querySelectorAll("[data-away]")) {
    complaint.textContent = "";
    delete complaint.dataset.away;
  }
}
