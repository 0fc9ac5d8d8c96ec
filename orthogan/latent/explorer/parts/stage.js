// The picture: drawn again whenever the state changes, or played as a loop.
import {asked, edited, nameOf, open, state, view} from "./state.js";
import {call, complain, say} from "./api.js";

const find = (id) => document.getElementById(id);
let drawing = false, again = false, timer = 0, stopped = () => {};

/** "Seed 7", or the name of the opened picture. */
export const start = () => (state.picture ? open.pictures[state.picture]?.name ?? "Opened picture" : "Seed " + state.seed);

/** "Seed 7, blended with seed 8, Direction 4 +1.5" */
export function caption() {
  const words = [start()];
  if (state.mix > 0) { words.push(Math.round(100 * state.mix) + "% of seed " + state.other); }
  const moved = Object.entries(state.offsets).map(([row, offset]) => nameOf(row) + " " + signed(offset));
  return words.concat(moved.length > 4 ? [moved.length + " changes"] : moved).join(", ");
}

export function signed(offset) {
  const text = String(Number(offset.toPrecision(3)));
  return offset > 0 ? "+" + text : text.replace("-", "−");
}

/** Draw the present state; while a picture is drawn, only the newest wish is kept. */
async function draw() {
  if (drawing) { again = true; return; }
  drawing = true;
  try {
    do {
      again = false;
      const words = caption(), told = await call("draw", asked({view: view()}));
      if (again && !edited()) { continue; }
      find("now").src = told.image;
      find("now").alt = words;
      find("compare").hidden = !told.before;
      if (told.before) {
        find("before").src = told.before;
        find("difference").src = told.difference;
        find("difference").alt = "Where your changes show; a pixel changes by " + told.changed + " of 255 on average";
      }
      find("now").dataset.drawn = words;
    } while (again);
  } catch (error) { complain(error); }
  drawing = false;
}

/** Play a motion until it is stopped; the button says which of the two it does. */
export async function play(button, motion) {
  const mine = button.getAttribute("aria-pressed") === "true";
  stop();
  if (mine) { return; }
  button.setAttribute("aria-pressed", "true");
  const words = button.textContent;
  button.textContent = "Stop";
  let over = false;
  stopped = () => { over = true; button.setAttribute("aria-pressed", "false"); button.textContent = words; };
  try {
    const {images, order} = await call("frames", asked(motion));
    let place = 0;
    const step = () => {
      find("now").src = images[order[place]];
      place = (place + 1) % order.length;
      timer = setTimeout(step, 1000 / 24);
    };
    if (!over) { say("Playing."); step(); }
  } catch (error) { stop(); complain(error); }
}

export function stop() {
  clearTimeout(timer);
  if (timer) { say(""); draw(); }
  timer = 0;
  stopped();
  stopped = () => {};
}

document.addEventListener("state", () => { stop(); draw(); });
