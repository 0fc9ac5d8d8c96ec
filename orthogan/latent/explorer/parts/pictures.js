// The gallery of seeds.
import {addSet, asked, change, open, remember, sliders, state, view} from "./state.js";
import {Problem, call, complain, say} from "./api.js";
import {node} from "./change.js";

const find = (id) => document.getElementById(id);
const EACH = 24;
let start = 0, count = EACH, cancel = new AbortController(), shown = "";

async function draw() {
  if (find("pictures").hidden) { return; }
  const offsets = find("edited").checked ? state.offsets : {};
  const key = JSON.stringify([state.model, state.set, state.label, state.truncation, offsets, start, count]);
  mark();
  if (key === shown) { return; }
  shown = key;
  cancel.abort();
  cancel = new AbortController();
  const {signal} = cancel, seeds = Array.from({length: count}, (_, index) => start + index);
  while (find("thumbs").children.length > count) { find("thumbs").lastChild.remove(); }
  while (find("thumbs").children.length < count) { find("thumbs").append(thumb()); }
  [...find("thumbs").children].forEach((item, index) => {
    item.dataset.seed = seeds[index];
    item.querySelector("button").setAttribute("aria-label", "Open seed " + seeds[index]);
    item.querySelectorAll("[data-mark]").forEach((button) => button.setAttribute("aria-label", "Mark seed " + seeds[index] + " as " + button.dataset.mark));
    item.querySelector("span").textContent = seeds[index];
  });
  mark();
  try {
    for (let first = 0; first < count; first += EACH) {
      const views = seeds.slice(first, first + EACH).map((seed) => view({seed, offsets, mix: 0, picture: null}));
      const {images} = await call("pictures", asked({views}), signal);
      images.forEach((image, index) => { find("thumbs").children[first + index].querySelector("img").src = image; });
    }
    find("thumbs").dataset.drawn = String(count);
  } catch (error) { shown = ""; complain(error); }
}

function thumb() {
  const item = node("li", ""), button = node("button", "", {type: "button"});
  button.append(node("img", "", {alt: ""}), node("span", ""));
  button.addEventListener("click", () => {
    change({seed: Number(item.dataset.seed), mix: 0, picture: null});
    say("Seed " + item.dataset.seed + " is open.");
  });
  const marking = node("div", "");
  for (const mark of ["A", "B"]) {
    const choose = node("button", mark, {type: "button", "data-mark": mark, "aria-pressed": "false"});
    choose.addEventListener("click", () => put(Number(item.dataset.seed), mark));
    marking.append(choose);
  }
  item.append(button, marking);
  return item;
}

// Marks: by seed, with the picture as it was marked. They belong to a model and the class and variety of that time.
let marks = new Map(), marked = "";

function put(seed, side) {
  if (marks.get(seed)?.side === side) { marks.delete(seed); } else { marks.set(seed, {side, view: view({seed, offsets: {}, mix: 0, picture: null})}); }
  mark();
}

const viewsOf = (side) => [...marks.values()].filter((one) => one.side === side).map((one) => one.view);

async function make() {
  const name = find("mark-name").value.trim(), before = {key: state.set, control: sliders().rows.length - 1};
  if (!name) { complain(new Problem("Give the new direction a name first.")); find("mark-name").focus(); return; }
  say("Making “" + name + "” …");
  try {
    const info = await call("mark", asked({a: viewsOf("A"), b: viewsOf("B"), name}));
    // The random direction is always last, so that it moves by one; all else keeps its place.
    const shifted = (offsets) => Object.fromEntries(Object.entries(offsets).map(([row, offset]) => [row === String(before.control) ? String(before.control + 1) : row, offset]));
    const kept = open.mine[before.key];
    open.mine[info.key] = {...kept, saved: kept.saved.map((one) => ({...one, offsets: shifted(one.offsets)}))};
    addSet(info);
    change({set: info.key, offsets: shifted(state.offsets)});
    remember();
    find("mark-name").value = "";
    say("“" + name + "” is now a slider under Change. “Save sliders” writes it to a file.");
  } catch (error) { complain(error); }
}

function mark() {
  if (marked !== state.model) { marks = new Map(); marked = state.model; }
  const counts = ["A", "B"].map((side) => viewsOf(side).length);
  find("marked").textContent = marks.size ? "Marked: " + counts[0] + " as A, " + counts[1] + " as B." : "No picture is marked.";
  find("unmark").disabled = !marks.size;
  document.querySelectorAll("#thumbs [data-mark]").forEach((button) => {
    button.setAttribute("aria-pressed", String(marks.get(Number(button.closest("li").dataset.seed))?.side === button.dataset.mark));
    button.disabled = find("edited").checked; // marks are for the pictures as they are
  });
  [...find("thumbs").children].forEach((item) => {
    const here = Number(item.dataset.seed) === state.seed && state.mix === 0 && !state.picture;
    if (here) { item.querySelector("button").setAttribute("aria-current", "true"); } else { item.querySelector("button").removeAttribute("aria-current"); }
  });
}

find("shuffle").addEventListener("click", () => { start = Math.floor(1e6 * Math.random()); count = EACH; draw(); });
find("more-pictures").addEventListener("click", () => { count += EACH; draw(); });
find("edited").addEventListener("change", draw);
find("mark").addEventListener("submit", (event) => { event.preventDefault(); make(); });
find("unmark").addEventListener("click", () => { marks = new Map(); mark(); });
document.addEventListener("shown", draw);
document.addEventListener("state", (event) => { if (!event.detail.preview) { draw(); } });
