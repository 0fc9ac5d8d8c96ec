// From one seed to another.
import {asked, change, readSeed, state, view} from "./state.js";
import {call, complain, say} from "./api.js";
import {play, start} from "./stage.js";

const find = (id) => document.getElementById(id);
const percent = (part) => Math.round(100 * part) + "%";
let shown = "";

async function draw() {
  if (find("blend").hidden) { return; }
  if (state.other === null) { change({other: state.seed + 1}); return; }
  for (const [id, seed] of [["first", state.picture ? "" : state.seed], ["second", state.other]]) {
    if (document.activeElement !== find(id)) { find(id).value = seed; }
    find(id).removeAttribute("aria-invalid");
  }
  find("swap").disabled = Boolean(state.picture); // an opened picture has no seed to take the second place with
  find("mix").value = Math.round(100 * state.mix);
  find("mix").setAttribute("aria-valuetext", percent(state.mix) + " of the second picture");
  find("mix-value").textContent = percent(state.mix);
  const ends = [{mix: 0}, {seed: state.other, mix: 0, picture: null}].map(view), key = JSON.stringify([state.model, state.set, ends]);
  if (key === shown) { return; }
  shown = key;
  try {
    const {images} = await call("pictures", asked({views: ends}));
    find("blend-first").src = images[0];
    find("blend-second").src = images[1];
    find("blend-first").alt = "First picture, " + start();
    find("blend-second").alt = "Second picture, seed " + ends[1].seed;
  } catch (error) { shown = ""; complain(error); }
}

for (const [id, key] of [["first", "seed"], ["second", "other"]]) {
  find(id).addEventListener("change", () => {
    try { change({[key]: readSeed(find(id).value), ...(id === "first" ? {picture: null} : {})}); say(""); } catch (error) { find(id).setAttribute("aria-invalid", "true"); complain(error); }
  });
}
find("mix").addEventListener("input", () => change({mix: Number(find("mix").value) / 100}, true));
find("mix").addEventListener("change", () => change({}));
find("swap").addEventListener("click", () => change({seed: state.other, other: state.seed, mix: Number((1 - state.mix).toFixed(2))}));
find("another").addEventListener("click", () => change({other: Math.floor(1e6 * Math.random()), mix: state.mix || 0.5}));
find("blend-play").addEventListener("click", () => {
  play(find("blend-play"), {motion: "blend", view: {...view(), other: state.other}});
});
document.addEventListener("shown", draw);
document.addEventListener("state", draw);
