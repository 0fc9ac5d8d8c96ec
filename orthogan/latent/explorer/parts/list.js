// The list of directions: body of a function (element, trigger, props, watch), run once by gradio's HTML component.
// props.value: {rows: [{name, note, scores, kind}], offsets, current, reach, dirty}. Texts of files go in as text only.
"use strict";
const FIRST = 12;
const find = (selector) => element.querySelector(selector);
const list = find("ol"), sort = find(".sort"), reach = find(".reach"), more = find(".more");
const nameField = find(".name-field"), noteField = find(".note-field");
let showAll = false;

function say(changes, event) {
  props.value = Object.assign({}, props.value, changes);
  if (event) { trigger(event); }
}

function text(tag, className, content) {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = content;
  return node;
}

function short(number) {
  const size = Math.abs(number);
  return size !== 0 && (size < 0.01 || size >= 1000) ? number.toExponential(1) : String(Number(number.toPrecision(3)));
}

// Indices to show: saved (newest first), found by the chosen score, the control. Rows in use are never hidden.
function order() {
  const rows = props.value.rows;
  const of = (kind) => rows.map((row, index) => index).filter((index) => rows[index].kind === kind);
  const found = of("found");
  if (sort.value) { found.sort((a, b) => (rows[b].scores[sort.value] - rows[a].scores[sort.value]) || a - b); }
  const used = (index) => props.value.offsets[index] !== 0 || index === props.value.current;
  const shown = found.filter((index, place) => showAll || place < FIRST || used(index));
  more.hidden = found.length <= FIRST;
  more.textContent = showAll ? "Show the first " + FIRST : "Show all " + found.length;
  return of("saved").reverse().concat(shown, of("control"));
}

function paint(item, offset) {
  const slider = item.querySelector("input[type=range]"), field = item.querySelector("input[type=number]");
  slider.value = offset;
  slider.setAttribute("aria-valuetext", "offset " + short(offset));
  const at = Math.min(100, Math.max(0, 50 + 50 * offset / props.value.reach));  // the bar grows from the middle
  slider.style.setProperty("--from", Math.min(50, at) + "%");
  slider.style.setProperty("--to", Math.max(50, at) + "%");
  if (document.activeElement !== field) { field.value = short(offset); }
  item.classList.toggle("moved", offset !== 0);
}

function move(index, offset, item) {
  if (!Number.isFinite(offset)) { return; }
  const offsets = props.value.offsets.slice();
  offsets[index] = offset;
  paint(item, offset);
  select(index);
  say({offsets: offsets}, "input");
}

function select(index) {
  if (index !== props.value.current) { say({current: index}); }
  list.querySelectorAll("li").forEach((item) => {
    item.classList.toggle("current", Number(item.dataset.index) === index);
  });
  const row = props.value.rows[index];
  const control = row.kind === "control";
  nameField.value = row.name;
  noteField.value = row.note;
  nameField.disabled = noteField.disabled = control;
}

function entry(index) {
  const row = props.value.rows[index];
  const item = text("li", row.kind, "");
  item.dataset.index = index;
  const name = text("button", "name", row.name);
  name.type = "button";
  name.title = row.note ? row.name + ": " + row.note : row.name;
  name.addEventListener("click", () => select(index));
  const end = props.value.reach;
  const field = document.createElement("input");
  Object.assign(field, {type: "number", step: "0.1", min: -end, max: end});
  field.setAttribute("aria-label", "offset along " + row.name + ", as a number");
  field.addEventListener("input", () => move(index, Math.max(-end, Math.min(end, field.valueAsNumber)), item));
  field.addEventListener("blur", () => paint(item, props.value.offsets[index]));
  const slider = document.createElement("input");
  Object.assign(slider, {type: "range", min: -end, max: end, step: end / 60});
  slider.setAttribute("aria-label", "offset along " + row.name);
  slider.title = "double-click: back to 0";
  slider.addEventListener("input", () => move(index, Number(Number(slider.value).toFixed(4)), item));
  slider.addEventListener("dblclick", () => move(index, 0, item));
  const told = Object.entries(row.scores).map(([key, value]) => key + " " + short(value));
  const scores = text("p", "scores", told.concat(row.note ? [row.note] : []).join(" · "));
  item.append(name, field, slider, scores);
  paint(item, props.value.offsets[index]);
  return item;
}

function choices() {
  const keys = new Set();
  props.value.rows.forEach((row) => {
    if (row.kind === "found") { Object.keys(row.scores).forEach((key) => keys.add(key)); }
  });
  const before = sort.value, first = sort.options.length === 0;
  sort.replaceChildren(...[...keys, ""].map((key) => {
    const option = text("option", "", key ? "by " + key : "as in the file");
    option.value = key;
    return option;
  }));
  sort.value = first ? (keys.has("change") ? "change" : "") : (keys.has(before) ? before : "");
}

function build() {
  choices();
  reach.value = String(props.value.reach);
  list.replaceChildren(...order().map(entry));
  select(props.value.current);
}

sort.addEventListener("change", build);
more.addEventListener("click", () => { showAll = !showAll; build(); });
reach.addEventListener("change", () => { say({reach: Number(reach.value)}); build(); });
find(".reset").addEventListener("click", () => {
  say({offsets: props.value.offsets.map(() => 0)}, "input");
  build();
});
find(".loop").addEventListener("click", () => trigger("select"));
function rename(key, value) {
  const rows = props.value.rows.slice();
  rows[props.value.current] = Object.assign({}, rows[props.value.current], {[key]: value});
  say({rows: rows, dirty: true});
}
nameField.addEventListener("change", () => {
  if (nameField.value.trim()) { rename("name", nameField.value.trim()); }
  build();
});
noteField.addEventListener("change", () => { rename("note", noteField.value.trim()); build(); });
document.addEventListener("orthogan-directions-kept", () => say({dirty: false}));
window.addEventListener("beforeunload", (event) => { if (props.value.dirty) { event.preventDefault(); } });
watch("value", build);
build();
