// Pictures of the user: opened from a file, projected by the server, and then the start of the sliders.
import {asked, change, open, state} from "./state.js";
import {Problem, call, complain, project, say} from "./api.js";
import {node} from "./change.js";

const find = (id) => document.getElementById(id);
const LARGEST = 16e6; // bytes
const EVERY = 300; // milliseconds between two questions how far the search is
let running = null; // the search of a picture, with the number of its job

const pause = () => new Promise((done) => { setTimeout(done, EVERY); });

async function read(file) {
  if (running) { throw new Problem("Another picture is being opened. Wait until it is done, or cancel it."); }
  if (file.size > LARGEST) { throw new Problem(file.name + " is too large: at most " + LARGEST / 1e6 + " MB are accepted."); }
  const {model} = state, {pictures} = open, {set} = asked();
  say("Opening " + file.name + " …");
  const mine = {};
  running = mine;
  find("picture").disabled = true;
  try {
    let told = await project({model, set}, file);
    mine.job = told.job;
    find("projecting").hidden = false;
    say("Searching for " + file.name + " in the model …");
    while (!told.picture) {
      find("steps").max = told.of;
      find("steps").value = told.steps;
      await pause();
      if (running !== mine) { return; } // canceled
      told = await call("progress", {job: mine.job});
      if (running !== mine) { return; }
    }
    pictures[told.picture.key] = told.picture;
    if (state.model !== model) { say(file.name + " is open in " + model + "."); return; }
    begin(told.picture);
    say(file.name + " is open. The sliders start from it.");
  } finally {
    if (running === mine) { over(); }
  }
}

function over() {
  running = null;
  find("picture").disabled = false;
  find("projecting").hidden = true;
}

/** Start the sliders from an opened picture, just as the search found it. */
function begin(picture) {
  change({picture: picture.key, label: picture.label ?? state.label, offsets: {}, truncation: 1, mix: 0});
}

function paint() {
  const all = Object.values(open.pictures), here = open.pictures[state.picture];
  find("starts").hidden = !all.length;
  find("start").replaceChildren(node("option", "the seed", {value: ""}), ...all.map((one) => node("option", one.name, {value: one.key})));
  find("start").value = here ? here.key : "";
  find("opened").hidden = !here;
  if (!here) { return; }
  document.querySelectorAll("#opened figure").forEach((one) => { one.hidden = !here.original; });
  if (here.original) {
    find("original").src = here.original;
    find("reconstruction").src = here.image;
  }
  find("error").textContent = sentences(here.scores);
}

function sentences({error, nearest, farther}) {
  const words = [];
  if (error !== undefined) { words.push("Error: " + error.toFixed(1) + " of 255 gray levels."); }
  if (nearest !== undefined) { words.push("The most similar random picture has " + nearest.toFixed(1) + "."); }
  if (farther !== undefined && farther < 0.01) { words.push("Its latent is unusual, so changes may look wrong."); }
  return words.join(" ");
}

find("picture").addEventListener("change", async () => {
  const [file] = find("picture").files;
  find("picture").value = "";
  if (!file) { return; }
  try { await read(file); } catch (error) { complain(error); }
});
find("cancel").addEventListener("click", () => {
  const {job} = running;
  over();
  find("picture").focus();
  say("Canceled.");
  call("cancel", {job}).catch(complain);
});
find("start").addEventListener("change", () => {
  const picture = open.pictures[find("start").value];
  if (picture) { begin(picture); } else { change({picture: null, mix: 0}); }
  say("");
});
window.addEventListener("pagehide", () => {
  if (running?.job) { navigator.sendBeacon("api/cancel", new Blob([JSON.stringify({job: running.job})], {type: "application/json"})); }
});
document.addEventListener("state", (event) => { if (!event.detail.preview) { paint(); } });
