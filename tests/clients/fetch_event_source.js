// fetchEventSource with a POST. Prints what it dispatches, as lines of JSON, until the
// stream ends.
//
// node fetch_event_source.js URL BODY

const nothing = () => {};
globalThis.window = globalThis;
globalThis.document = {
  hidden: false,
  addEventListener: nothing,
  removeEventListener: nothing,
};
const { fetchEventSource } = require("@microsoft/fetch-event-source");

const [url, body] = process.argv.slice(2);
const bookkeeping = ["stream-open", "stream-position"];
let ended = false;
const tell = (told) => console.log(JSON.stringify(told));

fetchEventSource(url, {
  method: "POST",
  headers: { "Content-Type": "application/x-www-form-urlencoded" },
  body,
  onmessage: ({ event, data }) => {
    ended ||= event === "stream-end";
    // A comment's blank line dispatches a message too, with nothing in it.
    if ((event || data) && !bookkeeping.includes(event)) {
      tell({ type: event || "message", data });
    }
  },
  onclose: () => {
    // Node.js takes a connection that was cut for one that was closed.
    if (!ended) {
      throw new Error("The stream was cut.");
    }
  },
  onerror: () => tell({ type: "error", closed: false }),
}).then(() => tell({ type: "done" }));
