// EventSource. Prints what it dispatches, as lines of JSON, until it gives up.
//
// node event_source.js URL

const { EventSource } = require("eventsource");

const source = new EventSource(process.argv[2]);
const tell = (told) => console.log(JSON.stringify(told));

for (const type of ["message", "stream-end", "stream-error", "stream-gap"]) {
  source.addEventListener(type, ({ data }) => tell({ type, data }));
}
source.addEventListener("error", ({ code }) => {
  tell({ type: "error", closed: source.readyState === source.CLOSED, code });
});
