// Pictures, loops and sliders as files.
import {addSet, asked, change, edited, mine, nameOf, open, sliders, state, view} from "./state.js";
import {build, node, reach} from "./change.js";
import {complain, download, say, upload} from "./api.js";
import {play} from "./stage.js";

const find = (id) => document.getElementById(id);
const smooth = () => document.querySelector(".smooth").checked;

/** Sizes are multiples of the model's, so that sharp pixels are all alike; one is nearest to each usual size. */
export function sizes() {
  const {side, height} = open.info, words = (size) => (height === side ? "" : Math.round(size * height / side) + " x ") + size + " pixels", fill = (id, wanted, chosen) => {
    const found = [...new Set([side, ...wanted.map((size) => Math.max(1, Math.round(size / side)) * side)])].filter((size) => size <= wanted.at(-1));
    find(id).replaceChildren(...found.map((size) => node("option", words(size), {value: size})));
    find(id).value = String(found.reduce((a, b) => (Math.abs(b - chosen) < Math.abs(a - chosen) ? b : a)));
  };
  fill("png-side", [128, 256, 512, 1024, 2048, 4096], 1024);
  fill("loop-side", [128, 256, 512, 1024], 512);
  const mp4 = find("format").querySelector("[value=mp4]");
  mp4.disabled = !open.info.video;
  mp4.textContent = open.info.video ? "MP4" : "MP4 (needs the extra “video”)";
  find("about").querySelector("dl").replaceChildren(...Object.entries({
    Model: state.model, "Hash of the weights": open.info.hash, ...sliders().about,
  }).flatMap(([key, value]) => [node("dt", key), node("dd", value)]));
}

function motions() {
  const before = find("motion").value, made = [];
  if (edited()) { made.push(["edit", "My changes, there and back"]); }
  if (state.other !== null) { made.push(["blend", "Blend with seed " + state.other]); }
  sliders().rows.forEach((_, row) => made.push([String(row), nameOf(row)]));
  find("motion").replaceChildren(...made.map(([value, words]) => node("option", words, {value})));
  find("motion").value = made.some(([value]) => value === before) ? before : made[0][0];
}

function motion() {
  const chosen = find("motion").value;
  if (chosen === "edit") { return {motion: "edit", view: view()}; }
  if (chosen === "blend") { return {motion: "blend", view: {...view(), other: state.other}}; }
  return {motion: "direction", row: Number(chosen), reach: reach(), view: view()};
}

async function busy(button, words, work) {
  button.disabled = true;
  say(words);
  try { say("Saved as " + await work() + "."); } catch (error) { complain(error); }
  button.disabled = false;
}

find("png").addEventListener("click", () => busy(find("png"), "Saving the picture …", () => download(
  "png", asked({view: view(), side: Number(find("png-side").value), smooth: smooth()}))));
find("loop").addEventListener("click", () => busy(find("loop"), "Making the loop …", () => download("loop", asked({
  ...motion(), seconds: Number(find("seconds").value), side: Number(find("loop-side").value), smooth: smooth(), format: find("format").value,
}))));
find("loop-play").addEventListener("click", () => play(find("loop-play"), motion()));
find("file").addEventListener("click", () => busy(find("file"), "Saving the sliders …", () => download("directions", asked({
  names: mine().names, notes: mine().notes, saved: mine().saved.filter((one) => !one.gone),
}))));
find("load").addEventListener("change", async () => {
  const [file] = find("load").files;
  find("load").value = "";
  if (!file) { return; }
  say("Loading " + file.name + " …");
  try {
    const info = await upload(state.model, file);
    addSet(info);
    change({set: info.key, offsets: {}});
    sizes();
    build();
    say(info.warnings[0] ? "Loaded, but: " + info.warnings.join("; ") : "Loaded " + (info.rows.length - 1) + " sliders from " + file.name + ".");
  } catch (error) { complain(error); }
});
document.querySelectorAll(".smooth").forEach((box, _, all) => box.addEventListener("change", () => {
  all.forEach((other) => { other.checked = box.checked; });
  document.body.classList.toggle("smoothed", box.checked);
}));
document.addEventListener("shown", (event) => { if (event.detail === "save") { sizes(); motions(); } });
document.addEventListener("state", (event) => { if (!event.detail.preview && !find("save").hidden) { motions(); } });
