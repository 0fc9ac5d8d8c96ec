// What the page shows, its history, and the link that restores it. All modules read `state`; `change` changes it.
import {Problem} from "./api.js";

/** offsets: by row of the set, or "s0", "s1", … for the changes kept on this page. */
export const state = {model: "", set: "", seed: 7, label: null, truncation: 1, offsets: {}, other: null, mix: 0, picture: null};
/** The open model as the server tells, its sets of sliders by key, what the user made of each set, and opened pictures. */
export const open = {info: null, sets: {}, mine: {}, pictures: {}};

const LARGEST_SEED = Number.MAX_SAFE_INTEGER;
const LARGEST_OFFSET = 100;
const MOST_STEPS = 200;
const steps = [];
let at = -1;

export const sliders = () => open.sets[state.set];
export const mine = () => open.mine[state.set];
export const edited = () => Object.keys(state.offsets).length > 0;
export const canUndo = () => at > 0;
export const canRedo = () => at < steps.length - 1;

/** A set of sliders as the server tells; names, notes and kept changes of an earlier visit come back. */
export function addSet(info) {
  open.sets[info.key] = info;
  open.mine[info.key] ??= remembered(info.key);
}

function remembered(key) {
  const fresh = {names: {}, notes: {}, saved: []};
  try {
    const found = JSON.parse(localStorage.getItem("orthogan " + key));
    return found && Array.isArray(found.saved) ? Object.assign(fresh, found) : fresh;
  } catch { return fresh; }
}

/** Keep names, notes and kept changes in this browser. */
export function remember() {
  try { localStorage.setItem("orthogan " + state.set, JSON.stringify(mine())); } catch { /* private browsing */ }
}

export function nameOf(row) {
  if (String(row)[0] === "s") { return mine().saved[Number(row.slice(1))].name; }
  return mine().names[row] ?? sliders().rows[row].name;
}

/** Offsets along the rows of the set alone: kept changes are sums of them. */
export function expanded(offsets) {
  const sum = {};
  for (const [row, offset] of Object.entries(offsets)) {
    const parts = row[0] === "s" ? mine().saved[Number(row.slice(1))].offsets : {[row]: 1};
    for (const [part, factor] of Object.entries(parts)) { sum[part] = (sum[part] ?? 0) + offset * factor; }
  }
  return Object.fromEntries(Object.entries(sum).filter(([, offset]) => offset !== 0));
}

/** What the server draws a picture from. */
export function view(changes) {
  const now = {...state, ...changes};
  return {
    seed: now.seed, label: now.label, truncation: now.truncation, offsets: expanded(now.offsets),
    other: now.mix > 0 ? now.other : null, mix: now.mix, picture: now.picture,
  };
}

/** Any request about the present sliders. */
export const asked = (more) => ({model: state.model, set: state.set, ...more});

function emit(preview) { document.dispatchEvent(new CustomEvent("state", {detail: {preview}})); }

/** Change the state; with `preview`, while a slider is dragged, it is no step of the history yet. */
export function change(changes, preview = false) {
  Object.assign(state, changes);
  if (!preview) {
    const now = JSON.stringify(state);
    if (now !== steps[at]) {
      steps.splice(at + 1, Infinity, now);
      if (steps.length > MOST_STEPS) { steps.shift(); }
      at = steps.length - 1;
    }
    history.replaceState(null, "", link());
  }
  emit(preview);
}

/** The same state with one slider at another place. */
export function moved(row, offset) {
  const offsets = {...state.offsets};
  if (offset === 0) { delete offsets[row]; } else { offsets[row] = offset; }
  return {offsets};
}

/** One step back (-1) or forth (1) in the history; `restore` brings a state of another model back. */
export async function travel(by, restore) {
  if (!steps[at + by]) { return; }
  const there = JSON.parse(steps[at + by]);
  await restore(there);
  at += by;
  Object.assign(state, there);
  history.replaceState(null, "", link());
  emit(false);
}

/** A seed as it was typed. Throws a Problem. */
export function readSeed(text) {
  const seed = Number(text.trim());
  if (!/^\d+$/.test(text.trim()) || seed > LARGEST_SEED) {
    throw new Problem("“" + text.trim() + "” is not a seed. A seed is a whole number, 0 or more, such as 7.");
  }
  return seed;
}

/** An address of this page that opens with the present state. */
export function link() {
  const parts = new URLSearchParams({model: state.model, hash: open.info.hash, seed: state.seed});
  if (state.label !== null) { parts.set("class", state.label); }
  if (state.truncation !== 1) { parts.set("variety", state.truncation); }
  const offsets = Object.entries(expanded(state.offsets));
  if (offsets.length) { parts.set("change", offsets.map(([row, offset]) => row + ":" + Number(offset.toFixed(4))).join(",")); }
  if (state.mix > 0) { parts.set("blend", state.other + ":" + state.mix); }
  if (state.picture) { parts.set("picture", state.picture); }
  if (!sliders().start) { parts.set("sliders", state.set); }
  return location.pathname + "#" + parts;
}

/** The state that a link describes, checked: anybody may have written it. Throws a Problem. */
export function readLink(text) {
  const parts = new URLSearchParams(text.replace(/^#/, ""));
  const wrong = (what, value) => new Problem("This link is not complete: " + what + " cannot be “" + value.slice(0, 40) + "”.");
  const number = (what, value, least, most, whole) => {
    const found = Number(value);
    if (!/^-?\d+(\.\d+)?(e-?\d+)?$/.test(value) || !(found >= least && found <= most) || (whole && !Number.isInteger(found))) {
      throw wrong(what, value);
    }
    return found;
  };
  const found = {model: parts.get("model") ?? "", hash: parts.get("hash") ?? "", set: parts.get("sliders") ?? "", picture: parts.get("picture")};
  found.seed = number("the seed", parts.get("seed") ?? "7", 0, LARGEST_SEED, true);
  found.label = parts.has("class") ? number("the class", parts.get("class"), 0, 1e6, true) : null;
  found.truncation = number("the variety", parts.get("variety") ?? "1", 0, 1);
  found.offsets = {};
  for (const part of (parts.get("change") || "").split(",").filter(Boolean).slice(0, 2000)) {
    const [row, offset, ...rest] = part.split(":");
    if (rest.length || offset === undefined) { throw wrong("a change", part); }
    const value = number("a change", offset, -LARGEST_OFFSET, LARGEST_OFFSET);
    if (value !== 0) { found.offsets[number("a slider", row, 0, 1e6, true)] = value; }
  }
  const blend = (parts.get("blend") ?? "").split(":");
  found.other = blend.length === 2 ? number("the second seed", blend[0], 0, LARGEST_SEED, true) : null;
  found.mix = blend.length === 2 ? number("the blend", blend[1], 0, 1) : 0;
  if (parts.has("blend") && blend.length !== 2) { throw wrong("the blend", parts.get("blend")); }
  return found;
}
