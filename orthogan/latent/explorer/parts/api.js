// Calls to the server on this machine, and the status line.

export class Problem extends Error {}

const line = document.getElementById("status");

/** Show a sentence below the picture; it stays until the next one, and screen readers read it out. */
export function say(text) {
  line.textContent = text;
  line.classList.remove("problem");
}

/** The same for what went wrong. Errors that are no `Problem` are bugs, and go to the console too. */
export function complain(error) {
  if (error.name === "AbortError") { return; }
  if (!(error instanceof Problem)) { console.error(error); }
  line.textContent = error.message;
  line.classList.add("problem");
}

// A change that works ends the complaint about one that did not.
document.addEventListener("state", (event) => { if (!event.detail.preview && line.classList.contains("problem")) { say(""); } });

async function post(path, body, type, signal) {
  let answer;
  try {
    answer = await fetch(path, {method: "POST", body, headers: {"Content-Type": type}, signal});
  } catch (error) {
    if (error.name === "AbortError") { throw error; }
    throw new Problem("The connection is lost: orthogan explore does not run any more. Start it again.");
  }
  if (answer.ok) { return answer; }
  const told = await answer.json().catch(() => ({}));
  const text = told.error || "The server answers " + answer.status + ".";
  throw new Problem((/^[a-z]+ /.test(text) ? text[0].toUpperCase() + text.slice(1) : text) + (/[.!?]$/.test(text) ? "" : "."));
}

/** What `/api/PATH` answers, as an object. */
export async function call(path, body, signal) {
  return (await post("api/" + path, JSON.stringify(body), "application/json", signal)).json();
}

/** The file that `/api/PATH` answers, handed to the browser as a download. */
export async function download(path, body) {
  const answer = await post("api/" + path, JSON.stringify(body), "application/json");
  const link = document.createElement("a");
  link.download = /filename="(.*)"/.exec(answer.headers.get("Content-Disposition"))[1];
  link.href = URL.createObjectURL(await answer.blob());
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  return link.download;
}

/** A picture, sent to the server to be projected into the space of the sliders. */
export async function project(about, file) {
  const query = new URLSearchParams({...about, name: file.name});
  return (await post("api/project?" + query, file, "application/octet-stream")).json();
}

/** A file of directions, sent to the server. */
export async function upload(model, file) {
  const query = new URLSearchParams({model, name: file.name});
  return (await post("api/load?" + query, file, "application/octet-stream")).json();
}
