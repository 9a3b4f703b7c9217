// Where the page is put together. One stream, and three panels that listen to it.

import { showChat } from "./chat.js";
import { showFigures } from "./figures.js";
import { showStream } from "./monitor.js";
import { Stream } from "./stream.js";

const { events, now } = document.body.dataset;
const stream = new Stream(events, ["figures", "chat"], Number(now) * 1000);

showFigures(stream);
showChat(stream);
showStream(stream);

stream.open();
