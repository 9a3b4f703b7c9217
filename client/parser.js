// The format of an event stream (WHATWG HTML, 9.2.6), from text that comes in pieces.
//
// Here lives what a line means. Nothing here knows of connections or of listeners.

const LINE_END = /\r\n?|\n/;

/**
 * A parser for one connection.
 *
 * `onBlock` gets each block that has data or an id: { type, data, id, marked, channel }.
 * `data` is undefined where the block has none; `marked` says that the block itself
 * has an id, otherwise `id` is the last one.
 *
 * @param {string} id the id that the client comes with
 * @returns {(text: string) => void} takes the stream's next piece
 */
export function parser(id, { onBlock, onRetry, onComment }) {
  let rest = ""; // A line that has not ended yet.
  let endedWithCr = false; // A line feed that comes next belongs to that end.
  let block = {};

  function takeLine(line) {
    if (!line) {
      const { type, data, marked, channel } = block;
      block = {};
      if (marked || data !== undefined) {
        onBlock({ type: type || "message", data, id, marked, channel });
      }
      return;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
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
      if (/^\d+$/.test(value)) onRetry(+value);
    } else if (!name) {
      onComment(value);
    }
  }

  return (text) => {
    if (!text) return;
    const piece = endedWithCr && text[0] === "\n" ? text.slice(1) : text;
    endedWithCr = text.endsWith("\r");
    // Only the new piece is looked through: a line of many pieces costs no more.
    const lines = piece.split(LINE_END);
    lines[0] = rest + lines[0];
    rest = lines.pop();
    lines.forEach(takeLine);
  };
}
