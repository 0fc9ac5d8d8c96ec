// The gallery of seeds.
import {asked, change, state, view} from "./state.js";
import {call, complain, say} from "./api.js";
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
    item.querySelector("span").textContent = seeds[index];
  });
  mark();
  try {
    for (let first = 0; first < count; first += EACH) {
      const views = seeds.slice(first, first + EACH).map((seed) => view({seed, offsets, mix: 0}));
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
    change({seed: Number(item.dataset.seed), mix: 0});
    say("Seed " + item.dataset.seed + " is open.");
  });
  item.append(button);
  return item;
}

function mark() {
  [...find("thumbs").children].forEach((item) => {
    const here = Number(item.dataset.seed) === state.seed && state.mix === 0;
    if (here) { item.querySelector("button").setAttribute("aria-current", "true"); } else { item.querySelector("button").removeAttribute("aria-current"); }
  });
}

find("shuffle").addEventListener("click", () => { start = Math.floor(1e6 * Math.random()); count = EACH; draw(); });
find("more-pictures").addEventListener("click", () => { count += EACH; draw(); });
find("edited").addEventListener("change", draw);
document.addEventListener("shown", draw);
document.addEventListener("state", (event) => { if (!event.detail.preview) { draw(); } });
