// Sends a form of one field with a POST, and says beneath it what is wrong.

const AWAY = "The server cannot be reached just now. What you wrote is still here.";

// `sent(response)` is called when the server has accepted the form.
export function sendByPost(form, sent = () => {}) {
  const field = form.querySelector("input");
  const button = form.querySelector("button");
  const error = form.querySelector("[role=alert]");

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    delete error.dataset.away;
    const complaint = await post(form, sent);
    button.disabled = false;
    if (complaint === AWAY) error.dataset.away = ""; // cleared when the server is back
    error.textContent = complaint;
    field.ariaInvalid = String(Boolean(complaint));
    if (!complaint) field.value = "";
    field.focus();
  });
}

// Resolves to the empty text, or to a sentence that says what went wrong.
async function post(form, sent) {
  let response;
  try {
    const body = new URLSearchParams(new FormData(form));
    response = await fetch(form.action, { method: "POST", body });
  } catch {
    return AWAY;
  }
  if (response.status === 400) return await response.text();
  if (response.status === 503) return "The server has no room for it now. Try again later.";
  if (!response.ok) return `The server did not take it (status ${response.status}).`;
  sent(response);
  return "";
}
