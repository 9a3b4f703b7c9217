// Numbers and times as people read them.

const STEPS = ["B", "kB", "MB", "GB", "TB"];

export function bytes(count) {
  let step = 0;
  while (count >= 999.5 && step < STEPS.length - 1) {
    count /= 1000;
    step += 1;
  }
  const digits = step > 0 && count < 9.95 ? 1 : 0;
  return `${count.toFixed(digits)} ${STEPS[step]}`;
}

export function clock(time, style = "medium") {
  return new Date(time).toLocaleTimeString([], { timeStyle: style, hour12: false });
}
