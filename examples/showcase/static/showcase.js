// The page is put together here: one stream with the panels that listen to it.
// Answers and the crowd come by streams of their own.

import { showAnswers } from "./answers.js";
import { showAway } from "./away.js";
import { showChat } from "./chat.js";
import { showCrowd } from "./crowd.js";
import { showFigures } from "./figures.js";
import { showKill } from "./kill.js";
import { showStream } from "./monitor.js";
import { Stream } from "./stream.js";

const { events, now } = document.body.dataset;
const skew = Date.now() - Number(now) * 1000; // this clock minus the server's
const stream = new Stream(events, ["figures", "chat", "tick", "worker"], skew);

showAway(stream);
showAnswers(skew);
showCrowd(stream);
showFigures(stream);
showChat(stream, (name) => stream.move(`${events}?${new URLSearchParams({ name })}`));
showStream(stream);
showKill(stream);

stream.open();
