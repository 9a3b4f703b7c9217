// The AI SDK as a client of a chat. Prints what it makes of an answer, as lines of JSON,
// and then how many heartbeats the answer had.
//
// node chat.js API CHAT_ID BODY   sends what the user says, BODY.text, with all of BODY
// node chat.js API CHAT_ID        comes back to an answer that is being given

const { DefaultChatTransport, readUIMessageStream } = require("ai");

const [api, chatId, given] = process.argv.slice(2);
const tell = (told) => console.log(JSON.stringify(told));

const heard = { first: false, heartbeats: 0 };

// Counts the heartbeats that are on the wire.
async function listen(...request) {
  const response = await fetch(...request);
  if (!response.ok || response.body === null) {
    return response;
  }
  let text = "";
  const count = new TransformStream({
    transform(bytes, controller) {
      text += new TextDecoder().decode(bytes);
      heard.first = text.startsWith(":");
      heard.heartbeats = text.split("\n").filter((line) => line === ":").length;
      controller.enqueue(bytes);
    },
  });
  return new Response(response.body.pipeThrough(count), response);
}

async function answer() {
  const transport = new DefaultChatTransport({ api, fetch: listen });
  if (given === undefined) {
    return transport.reconnectToStream({ chatId });
  }
  const { text, ...body } = JSON.parse(given);
  const said = { id: "1", role: "user", parts: [{ type: "text", text }] };
  const trigger = "submit-message";
  return transport.sendMessages({ trigger, chatId, messages: [said], body });
}

async function main() {
  const stream = await answer();
  if (stream === null) {
    return tell({ nothing: true });
  }
  const onError = (error) => tell({ error: error.message });
  for await (const message of readUIMessageStream({ stream, onError })) {
    tell({ message });
  }
  tell(heard);
}

main().catch((error) => tell({ refused: error.message }));
