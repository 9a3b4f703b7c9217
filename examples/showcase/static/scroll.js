// Keeps a list at its end while entries are added, unless its reader has scrolled up.

const NEAR = 24; // px

export function followEnd(list) {
  let following = true;
  let pending = false;
  list.addEventListener("scroll", () => {
    if (pending) return;
    following = list.scrollHeight - list.scrollTop - list.clientHeight < NEAR;
  }, { passive: true });

  // Call this after an entry was added. A burst of entries scrolls once.
  return () => {
    if (!following || pending) return;
    pending = true;
    requestAnimationFrame(() => {
      pending = false;
      list.scrollTop = list.scrollHeight;
    });
  };
}
