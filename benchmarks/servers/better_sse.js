// better-sse: one session per subscriber, one channel for all.
//
//     node better_sse.js PORT PACKAGE
//
// PACKAGE is the folder that npm installed it to. /publish does what control.py's does.
"use strict";

const { createServer } = require("node:http");

const [port, folder] = process.argv.slice(2);
const { createChannel, createSession } = require(folder);

const DATA_BYTES = 64;
const channel = createChannel();
const asItIs = { serializer: (data) => data }; // The default is JSON, with quotes.

function stamped(seq) {
  return `${seq} ${process.hrtime.bigint()} `.padEnd(DATA_BYTES, "x");
}

function publish(query, response) {
  const first = Number(query.get("first"));
  const end = first + Number(query.get("count"));
  for (let seq = first; seq < end; seq++) channel.broadcast(stamped(seq));
  response.end("{}");
}

createServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://127.0.0.1");
  if (pathname === "/publish") publish(searchParams, response);
  else if (pathname === "/stream")
    channel.register(await createSession(request, response, asItIs));
  else response.writeHead(404).end();
}).listen(Number(port), "127.0.0.1");
