// The live page: opens the model, and wires what is not a tool of its own. Texts go in as text only, never as HTML.
import {addSet, canRedo, canUndo, change, link, open, readLink, readSeed, sliders, state, travel} from "./state.js";
import {Problem, call, complain, say} from "./api.js";
import {node, surprise} from "./change.js";
import "./pictures.js";
import "./blend.js";
import {sizes} from "./save.js";
import "./own.js";
import "./stage.js";

const find = (id) => document.getElementById(id);
const models = {}; // what each opened one is, and its last state

async function openModel(name) {
  const kept = models[name];
  const info = kept?.info ?? await call("open", name ? {model: name} : {});
  if (models[state.model]) { models[state.model].state = JSON.parse(JSON.stringify(state)); }
  models[info.model] ??= {info, sets: {}, mine: {}, pictures: Object.fromEntries(info.pictures.map((one) => [one.key, one]))};
  Object.assign(open, models[info.model]);
  if (!kept) { addSet(info.sliders); }
  const picture = info.pictures[0] ?? null;
  Object.assign(state, kept?.state ?? {
    model: info.model, set: info.sliders.key, label: info.classes.length ? picture?.label ?? info.label : null, offsets: {}, picture: picture?.key ?? null,
  });
  find("models").hidden = info.models.length < 2;
  find("title").classList.toggle("hidden", info.models.length > 1); // the list says it
  find("model").replaceChildren(...info.models.map((one) => node("option", one)));
  find("model").value = info.model;
  find("title").textContent = info.model;
  document.title = info.model + " · orthogan";
  find("classes").hidden = !info.classes.length;
  find("class").replaceChildren(...info.classes.map((words, value) => node("option", words, {value})));
  document.documentElement.style.setProperty("--ratio", info.side / info.height);
  sizes();
  return info;
}

async function switchTo(name) {
  say("Opening " + name + " …");
  try {
    const info = await openModel(name), {seed} = state;
    change({seed});
    say(info.sliders.warnings.join(" "));
  } catch (error) { find("model").value = state.model; complain(error); }
}

/** The state of a link, as far as this page can restore it; then a sentence about what it cannot. */
async function follow(text) {
  const wanted = readLink(text);
  if (wanted.model && wanted.model !== state.model) {
    if (!open.info.models.includes(wanted.model)) {
      throw new Problem("This link is for the model “" + wanted.model.slice(0, 80) + "”. Start orthogan explore with that model, then open the link again.");
    }
    await openModel(wanted.model);
  }
  let warning = "";
  if (wanted.hash && wanted.hash !== open.info.hash) {
    warning = "This link was made with other weights of this model, so the picture differs from the one that was shared.";
  }
  if (wanted.set && !open.sets[wanted.set]) {
    try {
      addSet((await call("open", {model: state.model, set: wanted.set})).sliders);
    } catch {
      wanted.offsets = {};
      warning = "This link uses sliders from a file. Load the file under Save, then open the link again.";
    }
  }
  if (wanted.picture && !open.pictures[wanted.picture]) {
    try {
      open.pictures[wanted.picture] = await call("picture", {model: state.model, picture: wanted.picture});
    } catch {
      wanted.picture = null;
      warning = "This link starts from a picture that is not open here anymore. Open its file again.";
    }
  }
  const set = open.sets[wanted.set] ? wanted.set : open.info.sliders.key;
  const count = open.sets[set].rows.length;
  if (Object.keys(wanted.offsets).some((row) => Number(row) >= count)) {
    throw new Problem("This link moves a slider that this model does not have.");
  }
  if (wanted.label !== null && wanted.label >= open.info.classes.length) {
    throw new Problem("This link is for class " + wanted.label + ", and this model has " + open.info.classes.length + " classes.");
  }
  const {seed, label, truncation, offsets, other, mix, picture} = wanted;
  change({set, seed, label: label ?? state.label, truncation, offsets, other, mix, picture});
  if (warning) { complain(new Problem(warning)); } else { say(""); }
}

function paint() {
  for (const [id, value] of [["seed", state.seed]]) {
    if (document.activeElement !== find(id) || !find(id).hasAttribute("aria-invalid")) { find(id).value = value; }
    find(id).removeAttribute("aria-invalid");
  }
  find("class").value = String(state.label);
  find("variety").value = Math.round(100 * state.truncation);
  find("variety-value").textContent = Math.round(100 * state.truncation) + "%";
  find("undo").disabled = !canUndo();
  find("redo").disabled = !canRedo();
}

async function step(by) {
  try {
    await travel(by, async (there) => {
      if (there.model !== state.model) { await openModel(there.model); }
    });
    say(by < 0 ? "Undone." : "Redone.");
  } catch (error) { complain(error); }
}

const go = (seed) => { change({seed: Math.max(0, seed), mix: 0, picture: null}); say(""); };
find("previous").addEventListener("click", () => go(state.seed - 1));
find("next").addEventListener("click", () => go(state.seed + 1));
find("seed").addEventListener("change", () => {
  try { go(readSeed(find("seed").value)); } catch (error) { find("seed").setAttribute("aria-invalid", "true"); complain(error); }
});
find("surprise").addEventListener("click", () => { surprise(); say("Undo brings back the last picture."); });
find("class").addEventListener("change", () => change({label: Number(find("class").value)}));
find("variety").addEventListener("input", () => change({truncation: Number(find("variety").value) / 100}, true));
find("variety").addEventListener("change", () => change({}));
find("model").addEventListener("change", () => switchTo(find("model").value));
find("undo").addEventListener("click", () => step(-1));
find("redo").addEventListener("click", () => step(1));
find("share").addEventListener("click", async () => {
  const address = new URL(link(), location.href).href;
  try {
    await navigator.clipboard.writeText(address);
    say(state.picture ? "The link is copied. It works as long as this page runs." : "The link is copied. It opens this picture wherever this page runs with the same model.");
  } catch { complain(new Problem("The browser does not let this page copy: copy the address of the page instead.")); }
});
document.addEventListener("keydown", (event) => {
  const writing = event.target.matches("input[type=text]");
  if (!(event.ctrlKey || event.metaKey) || event.altKey || writing) { return; }
  const key = event.key.toLowerCase();
  if (key === "z" || key === "y") {
    event.preventDefault();
    step(key === "y" || event.shiftKey ? 1 : -1);
  }
});
document.addEventListener("state", paint);
window.addEventListener("hashchange", () => follow(location.hash).catch(complain));

// Tabs: arrows move between them, as usual.
const tabs = [...document.querySelectorAll("[role=tab]")];
function show(tab) {
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", String(chosen));
    one.tabIndex = chosen ? 0 : -1;
    find(one.getAttribute("aria-controls")).hidden = !chosen;
  }
  document.dispatchEvent(new CustomEvent("shown", {detail: tab.getAttribute("aria-controls")}));
}
tabs.forEach((tab, index) => {
  tab.addEventListener("click", () => show(tab));
  tab.addEventListener("keydown", (event) => {
    const to = {ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tabs.length - 1}[event.key];
    if (to === undefined) { return; }
    event.preventDefault();
    const next = tabs[(to + tabs.length) % tabs.length];
    next.focus();
    show(next);
  });
});

const system = window.matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
const nameTheme = () => { find("theme").textContent = isDark() ? "Light" : "Dark"; };
find("theme").addEventListener("click", () => { document.documentElement.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
system.addEventListener("change", nameTheme);
nameTheme();

try {
  const start = location.hash, info = await openModel("");
  change({});
  say(info.sliders.warnings.join(" "));
  if (start.length > 1) { await follow(start); }
} catch (error) { complain(error); }
document.documentElement.dataset.ready = "true";
