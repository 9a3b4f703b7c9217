// The chat panel. What is sent goes out with a POST; what is shown came by the stream.

import { sendByPost } from "./form.js";
import { followEnd } from "./scroll.js";
import { clock } from "./units.js";

const KEPT = 200; // messages on the page
const MOODS = ["Calm", "Curious", "Brave", "Quiet", "Sunny", "Nimble", "Kind", "Witty"];
const BEASTS = ["Otter", "Heron", "Badger", "Lynx", "Finch", "Marmot", "Newt", "Crane"];

const any = (list) => list[Math.floor(Math.random() * list.length)];

// `named(name)` is called with the name that this page has, and whenever it changes.
export function showChat(stream, named) {
  const form = document.getElementById("chat-form");
  const log = document.getElementById("chat-log");
  const name = rememberedName(document.getElementById("chat-name"), named);
  const follow = followEnd(log);

  sendByPost(form);
  stream.addEventListener("event", ({ detail }) => {
    if (detail.type === "figures") showWhoIsHere(detail.data.here);
    if (detail.type !== "chat") return;
    document.getElementById("chat-empty").hidden = true;
    log.append(bubble(detail, name.value));
    if (log.children.length > KEPT) log.firstElementChild.remove();
    follow();
  });
  // Until the past has been replayed, a screen reader should not read it all out.
  stream.addEventListener("state", ({ detail }) => {
    if (detail.state === "open") setTimeout(() => log.removeAttribute("aria-busy"), 500);
  });
}

function showWhoIsHere(here) {
  const names = Object.entries(here).map(([name, tabs]) => (tabs > 1 ? `${name} (${tabs} tabs)` : name));
  document.getElementById("here").textContent = names.sort().join(", ") || "–";
}

function rememberedName(input, named) {
  input.value = localStorage.getItem("name") ?? `${any(MOODS)} ${any(BEASTS)}`;
  const remember = () => {
    localStorage.setItem("name", input.value);
    named(input.value);
  };
  input.addEventListener("change", remember);
  remember();
  return input;
}

function bubble({ data, time, kind }, myName) {
  const item = document.createElement("li");
  item.classList.toggle("mine", data.name === myName);
  item.classList.toggle("missed", kind === "missed");
  item.style.setProperty("--hue", hue(data.name));

  const author = part("span", "author", data.name);
  const when = part("time", "", clock(time, "short"));
  when.dateTime = new Date(time).toISOString();
  const head = part("p", "byline", "");
  head.append(author, when);
  if (kind === "missed") head.append(part("span", "tag", "missed, came back"));

  const face = part("span", "face", initials(data.name));
  face.ariaHidden = "true";
  item.append(face, head, part("p", "text", data.text));
  return item;
}

function part(name, className, text) {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  return node;
}

function initials(name) {
  return name.split(" ").slice(0, 2).map((word) => [...word][0]).join("").toUpperCase();
}

// The same name has the same colour in every tab.
function hue(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) % 360;
  return (sum * 137) % 360;
}
