// The page is put together here: one stream with three panels that listen to it, and a
// panel whose answers come by streams of their own.

import { showAnswers } from "./answers.js";
import { showChat } from "./chat.js";
import { showFigures } from "./figures.js";
import { showStream } from "./monitor.js";
import { Stream } from "./stream.js";

const { events, now } = document.body.dataset;
const skew = Date.now() - Number(now) * 1000; // this clock minus the server's
const stream = new Stream(events, ["figures", "chat"], skew);

showFigures(stream);
showChat(stream);
showStream(stream);
showAnswers(skew);

stream.open();
