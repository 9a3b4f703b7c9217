// The format of an event stream (WHATWG HTML, 9.2.6), from text that comes in pieces.
//
// Here lives what a line means. Nothing here knows of connections or of listeners.

const LINE_END = /\r\n?|\n/;

/**
 * A parser for one connection: it takes the stream's next piece, and returns the blocks
 * that end in it, each { type, data, id, marked, channel, retry, comment }.
 *
 * `data` is undefined where the block has none. `marked` says that the block itself has
 * an id, otherwise `id` is the last one. `retry` is in milliseconds.
 *
 * @param {string} id the id that the client comes with
 * @returns {(text: string) => object[]}
 */
export function parser(id) {
  let rest = ""; // A line that has not ended yet.
  let endedWithCr = false; // A line feed that comes next belongs to that end.
  let block = {};

  function take(line) {
    const colon = `${line}:`.indexOf(":");
    const name = line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") {
      block.data = block.data === undefined ? value : `${block.data}\n${value}`;
    } else if (name === "event") {
      block.type = value;
    } else if (name === "id") {
      if (!value.includes("\0")) {
        id = value;
        block.marked = true;
      }
    } else if (name === "channel") {
      block.channel = value;
    } else if (name === "retry") {
      if (/^\d+$/.test(value)) block.retry = +value;
    } else if (!name) {
      block.comment = value;
    }
  }

  return (text) => {
    const piece = endedWithCr && text[0] === "\n" ? text.slice(1) : text;
    endedWithCr = text.endsWith("\r");
    // Only the new piece is looked through: a line of many pieces costs no more.
    const lines = piece.split(LINE_END);
    lines[0] = rest + lines[0];
    rest = lines.pop();
    const blocks = [];
    for (const line of lines) {
      if (line) take(line);
      else {
        blocks.push({ ...block, type: block.type || "message", id });
        block = {};
      }
    }
    return blocks;
  };
}
