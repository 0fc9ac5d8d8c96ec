// The sliders: one for each direction, with small pictures of where both ends lead.
import {asked, change, edited, mine, moved, nameOf, remember, sliders, state, view} from "./state.js";
import {Problem, call, complain, say} from "./api.js";
import {play, signed} from "./stage.js";

const FIRST = 12;
const AT_ONCE = 6; // sliders whose ends are drawn in one request, so that a moving slider never waits long
const find = (id) => document.getElementById(id);
let showAll = false, by = "change", shownSet = "", wanted = 0, waiting = 0, cancel = new AbortController();

export const reach = () => Number(find("reach").value);

export function node(tag, words, attributes = {}) {
  const made = document.createElement(tag);
  if (words) { made.textContent = words; }
  for (const [key, value] of Object.entries(attributes)) { made.setAttribute(key, value); }
  return made;
}

// Rows to show: kept ones (newest first), found ones in the chosen order, the random one. Those in use are never hidden.
function order() {
  const rows = sliders().rows;
  const found = rows.map((_, row) => row).filter((row) => !rows[row].control);
  if (by) { found.sort((a, b) => rows[b].scores[by] - rows[a].scores[by] || a - b); }
  find("more").hidden = found.length <= FIRST;
  find("more").textContent = showAll ? "Show the first " + FIRST : "Show all " + found.length;
  const kept = mine().saved.map((_, index) => "s" + index).filter((row, index) => !mine().saved[index].gone || row in state.offsets).reverse();
  return kept.concat(found.filter((row, place) => showAll || place < FIRST || row in state.offsets), [rows.length - 1]).map(String);
}

function about(row) {
  if (row[0] === "s") {
    const kept = mine().saved[Number(row.slice(1))];
    return {words: kept.note, scores: {}, note: "", kept: true};
  }
  const told = sliders().rows[row];
  return {words: mine().notes[row] ?? (told.note || told.words), scores: told.scores, note: mine().notes[row] ?? told.note, told};
}

function entry(row) {
  const {words, scores, note, kept, told} = about(row), name = nameOf(row);
  const item = node("li", "", {"data-row": row});
  item.append(node("h2", name), node("output", "", {"aria-hidden": "true"}), node("p", words, {class: "quiet words"}));
  const slider = node("input", "", {type: "range", min: -reach(), max: reach(), step: reach() / 60, "aria-label": name});
  const ends = [-1, 1].map((side) => {
    const end = node("button", "", {type: "button", class: "end", "aria-label": name + (side < 0 ? ", all the way left" : ", all the way right")});
    end.append(node("img", "", {alt: ""}));
    end.addEventListener("click", () => change(moved(row, side * reach())));
    return end;
  });
  item.append(ends[0], slider, ends[1]);
  slider.addEventListener("input", () => change(moved(row, Number(Number(slider.value).toFixed(4))), true));
  slider.addEventListener("change", () => change({}));
  slider.addEventListener("dblclick", () => change(moved(row, 0)));

  const foot = node("div", "", {class: "foot"});
  const player = node("button", "Play", {type: "button", "aria-pressed": "false", class: "player"});
  player.append(node("span", " " + name, {class: "hidden"}));
  player.addEventListener("click", () => playRow(player, row));
  const zero = node("button", "Back to 0", {type: "button", class: "zero"});
  zero.append(node("span", ": " + name, {class: "hidden"}));
  zero.addEventListener("click", () => { change(moved(row, 0)); slider.focus(); });
  const details = node("details", ""), summary = node("summary", "Details");
  summary.append(node("span", " of " + name, {class: "hidden"}));
  details.append(summary);
  foot.append(player, zero, details);
  item.append(foot);
  details.addEventListener("toggle", () => { if (details.open && details.children.length === 1) { fill(details, row, {scores, note, kept, told, name}); } });
  return item;
}

// What only some ask for: the exact value, another name, a note, and the scores in the words of the papers.
function fill(details, row, {scores, note, kept, told, name}) {
  const box = node("div", "", {class: "box"});
  const exact = field("Exact value", state.offsets[row] ?? 0, (text) => {
    const offset = Number(text.replace("−", "-"));
    if (!text.trim() || !Number.isFinite(offset) || Math.abs(offset) > reach()) {
      exact.querySelector("input").setAttribute("aria-invalid", "true");
      complain(new Problem("“" + text + "” does not fit: an offset is a number from −" + reach() + " to " + reach() + ". “Reach” sets these limits."));
      return;
    }
    exact.querySelector("input").removeAttribute("aria-invalid");
    change(moved(row, offset));
  });
  exact.classList.add("exact");
  box.append(exact);
  if (!told?.control) {
    box.append(field("Name", name, (text) => rename(row, "name", text.trim())));
    if (!kept) { box.append(field("Note", note, (text) => rename(row, "note", text.trim()))); }
  }
  if (kept) {
    const drop = node("button", "Remove this slider", {type: "button"});
    drop.addEventListener("click", () => remove(Number(row.slice(1))));
    box.append(drop);
  }
  const list = node("dl", "");
  const add = (term, words) => list.append(node("dt", term), node("dd", words));
  if (told && !told.control) { add("Name in the file", told.own); add("Effect", told.words); }
  for (const [key, value] of Object.entries(scores)) { add(EXPLAINED[key] ?? key, String(Number(value.toPrecision(3)))); }
  if (list.children.length) { box.append(list); }
  details.append(box);
}

const EXPLAINED = {
  change: "Change of a pixel at an offset of 1 [of 255]",
  "|L|": "Strength learned by the model (|L|)",
  sigma: "Strength in the first layer (singular value, sigma)",
};

function field(label, value, use) {
  const made = node("label", label + " ", {class: "field"});
  const input = node("input", "", {type: "text", maxlength: "400", autocomplete: "off", "aria-describedby": "status"});
  input.value = value;
  input.addEventListener("change", () => use(input.value));
  made.append(input);
  return made;
}

function rename(row, what, text) {
  if (what === "name" && !text) { say("The name stays: it cannot be empty."); build(); return; }
  if (row[0] === "s") {
    mine().saved[Number(row.slice(1))].name = text;
  } else if (what === "name") { mine().names[row] = text; } else { mine().notes[row] = text; }
  remember();
  say("Renamed. “Save sliders” writes it to a file.");
  build();
  change({});
}

function remove(index) {
  const {name} = mine().saved[index];
  mine().saved[index].gone = true;
  const offsets = {...state.offsets}, added = mine().saved[index].offsets, factor = offsets["s" + index] ?? 0;
  delete offsets["s" + index];
  for (const [row, offset] of Object.entries(added)) { // the picture stays as it is
    if (factor) { offsets[row] = (offsets[row] ?? 0) + factor * offset; }
  }
  remember();
  change({offsets});
  say("Removed “" + name + "”.");
  build();
}

/** The present changes as a slider of their own; the picture stays the same. */
function keep(name) {
  if (!name) { say("Give this change a name first."); find("keep-name").focus(); return; }
  const taken = sliders().rows.map((_, row) => nameOf(row)).concat(mine().saved.map((one) => one.name));
  if (taken.includes(name)) { say("There is a slider “" + name + "” already: choose another name."); find("keep-name").focus(); return; }
  const made = Object.entries(state.offsets).map(([row, offset]) => nameOf(row) + " " + signed(offset)).join(", ");
  const index = mine().saved.push({name, note: "Made of " + made + ".", offsets: view().offsets}) - 1;
  remember();
  change({offsets: {["s" + index]: 1}});
  build();
  find("keep-name").value = "";
  say("“" + name + "” is now a slider. “Save sliders” writes it to a file.");
}

function playRow(button, row) {
  if (row[0] !== "s") { play(button, {motion: "direction", row: Number(row), reach: reach(), view: view()}); return; }
  play(button, {motion: "edit", view: view({offsets: {[row]: reach()}})});
}

function paint() {
  document.querySelectorAll("#rows > li").forEach((item) => {
    const {row} = item.dataset, offset = state.offsets[row] ?? 0, slider = item.querySelector("input[type=range]");
    slider.value = offset;
    slider.setAttribute("aria-valuetext", signed(offset));
    const place = Math.min(100, Math.max(0, 50 + 50 * offset / reach())); // the bar grows from the middle
    slider.style.setProperty("--from", Math.min(50, place) + "%");
    slider.style.setProperty("--to", Math.max(50, place) + "%");
    item.querySelector("output").textContent = signed(offset);
    item.querySelector(".zero").hidden = offset === 0;
    item.classList.toggle("moved", offset !== 0);
    const exact = item.querySelector(".exact input");
    if (exact && document.activeElement !== exact) { exact.value = Number(offset.toPrecision(4)); }
  });
  find("reset").disabled = !edited();
  find("keep").hidden = !edited();
}

export function build() {
  choices();
  const opened = new Set([...document.querySelectorAll("#rows details[open]")].map((one) => one.closest("li").dataset.row));
  const focused = document.activeElement?.closest?.("#rows li")?.dataset.row;
  find("rows").replaceChildren(...order().map(entry));
  opened.forEach((row) => { const found = find("rows").querySelector(`[data-row="${row}"] details`); if (found) { found.open = true; } });
  if (focused) { find("rows").querySelector(`[data-row="${focused}"] summary`)?.focus(); }
  shownSet = state.model + state.set;
  paint();
  ends();
}

function choices() {
  const keys = Object.keys(sliders().rows[0].scores).filter((key) => key !== "change");
  const made = [["change", "strongest first"], ["", "as in the model"], ...keys.map((key) => [key, "by " + key])];
  find("order").replaceChildren(...made.map(([value, words]) => node("option", words, {value})));
  if (!made.some(([value]) => value === by)) { by = "change"; }
  find("order").value = by;
}

// The small pictures, a little after the last change; a newer change cancels what is not drawn yet.
function ends() {
  clearTimeout(waiting);
  cancel.abort();
  waiting = setTimeout(drawEnds, 200);
}

async function drawEnds() {
  cancel = new AbortController();
  const run = ++wanted, {signal} = cancel, items = [...document.querySelectorAll("#rows > li")];
  if (find("change").hidden) { return; }
  try {
    for (let first = 0; first < items.length; first += AT_ONCE) {
      const part = items.slice(first, first + AT_ONCE);
      const views = part.flatMap((item) => [-reach(), reach()].map((offset) => view(moved(item.dataset.row, offset))));
      const {images} = await call("pictures", asked({views}), signal);
      if (run !== wanted) { return; }
      part.forEach((item, place) => item.querySelectorAll(".end img").forEach((img, side) => { img.src = images[2 * place + side]; }));
    }
    find("rows").dataset.drawn = String(run);
  } catch (error) { complain(error); }
}

/** Two or three of the stronger sliders at random places, and another seed unless a picture is opened. */
export function surprise() {
  const strong = sliders().rows.map((told, row) => ({row, told})).filter(({told}) => !told.control)
    .sort((a, b) => b.told.scores.change - a.told.scores.change).slice(0, FIRST);
  const offsets = {};
  for (let count = 2 + Math.floor(2 * Math.random()); count > 0; count -= 1) {
    const {row} = strong[Math.floor(strong.length * Math.random())];
    offsets[row] = Number(((Math.random() < 0.5 ? -1 : 1) * reach() * (0.3 + 0.5 * Math.random())).toFixed(1)) || reach();
  }
  change({...(state.picture ? {} : {seed: Math.floor(1e6 * Math.random())}), offsets, mix: 0});
  if (order().length !== document.querySelectorAll("#rows > li").length) { build(); }
}

find("order").addEventListener("change", () => { by = find("order").value; build(); });
find("reach").addEventListener("change", build);
find("more").addEventListener("click", () => { showAll = !showAll; build(); });
find("reset").addEventListener("click", () => { change({offsets: {}}); say("All sliders are back at 0."); });
find("keep").addEventListener("submit", (event) => { event.preventDefault(); keep(find("keep-name").value.trim()); });
document.addEventListener("shown", (event) => { if (event.detail === "change") { ends(); } });
document.addEventListener("state", (event) => {
  const rows = new Set([...document.querySelectorAll("#rows > li")].map((item) => item.dataset.row));
  if (shownSet !== state.model + state.set || Object.keys(state.offsets).some((row) => !rows.has(row))) { build(); return; }
  paint();
  if (!event.detail.preview) { ends(); }
});
