"use strict";
(function () {
  const FIRST = 8;  // directions that are shown to begin with
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const canvas = byId("canvas"), status = byId("status"), context = canvas.getContext("2d", {willReadFrequently: true});
  const state = {
    seed: data.seed, other: String((Number(data.seed) + 1) % limit()), mix: 0, label: null, truncation: 1,
    offsets: data.directions.map(() => 0),
  };
  let busy = false, waiting = false, count = 0, timer = 0, last = null;

  function limit() { return data.table ? data.table[1] : 1000000; }

  // drawing: one picture at a time, always the newest state
  const draw = start();
  function start() {
    const code = byId("engine").textContent;
    try {
      const glue = "let run; onmessage = ({data}) => {"
        + "if (!run) { run = engine(data); return; } postMessage(run(data)); };";
      const address = URL.createObjectURL(new Blob([code + glue], {type: "text/javascript"}));
      const worker = new Worker(address);
      let direct = null;
      worker.onmessage = (event) => show(event.data);
      worker.onerror = (event) => {  // where a page from a file may not start a worker
        event.preventDefault();
        direct = direct || engine(data);
        show(direct(view()));
      };
      worker.postMessage(data);
      return (what) => direct ? setTimeout(() => show(direct(what))) : worker.postMessage(what);
    } catch (error) {
      const run = engine(data);
      return (what) => setTimeout(() => show(run(what)));
    }
  }
  function view() { return {...state, offsets: state.offsets.slice()}; }
  function change() {
    byId("reset").disabled = !state.offsets.some(Boolean);
    waiting = true;
    if (!busy) { next(); }
  }
  function next() {
    busy = true;
    waiting = false;
    last = view();
    draw(last);
  }
  function show(result) {
    context.putImageData(new ImageData(result.pixels, data.width, data.height), 0, 0);
    count++;
    document.documentElement.dataset.drawn = count;
    busy = false;
    if (waiting) { next(); return; }
    const what = describe(result.label);
    canvas.setAttribute("aria-label", "Picture of " + what);
    status.textContent = what + ", drawn in " + Math.max(1, Math.round(result.time)) + " ms";
    document.documentElement.dataset.ready = count;
  }
  function describe(label) {
    const parts = ["seed " + last.seed];
    if (last.mix) { parts.push(Math.round(100 * last.mix) + "% of seed " + last.other); }
    if (data.classes.length) { parts.push("class " + data.classes[label]); }
    const moved = last.offsets.filter(Boolean).length;
    if (moved) { parts.push(moved + (moved === 1 ? " direction" : " directions") + " changed"); }
    const text = parts.join(", ");
    return text[0].toUpperCase() + text.slice(1);
  }

  // seeds
  function valid(text) {
    return /^\d{1,19}$/.test(text) && BigInt(text) <= 9223372036854775807n && (!data.table || Number(text) < limit());
  }
  function seedField(id, key) {
    const field = byId(id);
    field.value = state[key];
    field.addEventListener("input", () => {
      const text = field.value.trim(), good = valid(text);
      field.setAttribute("aria-invalid", String(!good));
      if (!good) {
        status.textContent = "A seed is a whole number from 0 to "
          + (data.table ? limit() - 1 : "9223372036854775807") + ".";
        return;
      }
      state[key] = String(BigInt(text));
      change();
    });
    return (text) => {
      state[key] = text;
      field.value = text;
      field.setAttribute("aria-invalid", "false");
      change();
    };
  }
  const setSeed = seedField("seed", "seed"), setOther = seedField("other", "other");
  const anySeed = () => String(Math.floor(Math.random() * limit()));
  function step(by) {
    const text = String(BigInt(state.seed) + by);
    if (!text.startsWith("-") && valid(text)) { setSeed(text); }
  }
  byId("random").addEventListener("click", () => setSeed(anySeed()));
  byId("previous").addEventListener("click", () => step(-1n));
  byId("next").addEventListener("click", () => step(1n));
  byId("another").addEventListener("click", () => setOther(anySeed()));

  // class, truncation, blend
  if (data.classes.length) {
    byId("classes").hidden = false;
    const choices = [["", "By seed"], ...data.classes.map((name, i) => [String(i), name])];
    for (const [value, name] of choices) { byId("class").add(new Option(name, value)); }
    byId("class").addEventListener("change", () => {
      const value = byId("class").value;
      state.label = value === "" ? null : Number(value);
      change();
    });
  }
  function percent(id, key) {
    const field = byId(id), output = byId(id + "-value");
    const write = () => {
      output.textContent = field.value + "%";
      field.setAttribute("aria-valuetext", field.value + "%");
    };
    field.addEventListener("input", () => {
      if (id === "mix" && timer) { stop(); }
      state[key] = Number(field.value) / 100;
      write();
      change();
    });
    write();
    return (value) => { field.value = value; state[key] = value / 100; write(); change(); };
  }
  percent("truncation", "truncation");
  const setMix = percent("mix", "mix");
  function stop() {
    clearInterval(timer);
    timer = 0;
    byId("play").textContent = "Play";
    byId("play").setAttribute("aria-pressed", "false");
  }
  byId("play").addEventListener("click", () => {
    if (timer) { stop(); return; }
    byId("play").textContent = "Stop";
    byId("play").setAttribute("aria-pressed", "true");
    let phase = state.mix * 100;
    timer = setInterval(() => {
      if (busy) { return; }  // slow devices skip no picture
      phase = (phase + 2) % 200;
      setMix(phase <= 100 ? phase : 200 - phase);
    }, 40);
  });

  // directions
  const sliders = data.directions.map((direction, i) => {
    const item = document.createElement("li");
    item.className = "slider";
    item.hidden = i >= FIRST;
    const label = document.createElement("label"), output = document.createElement("output");
    const slider = document.createElement("input"), note = document.createElement("span");
    label.textContent = direction.name;
    label.htmlFor = slider.id = "direction" + i;
    output.htmlFor = slider.id;
    Object.assign(slider, {type: "range", min: -data.reach, max: data.reach, step: 0.05, value: 0});
    note.className = "note";
    note.textContent = direction.note;
    const write = () => {
      const text = Number(slider.value).toFixed(1);
      output.textContent = text;
      slider.setAttribute("aria-valuetext", text);
    };
    slider.addEventListener("input", () => { state.offsets[i] = Number(slider.value); write(); change(); });
    write();
    item.append(label, output, slider, note);
    byId("sliders").append(item);
    return {item, reset: () => { slider.value = 0; state.offsets[i] = 0; write(); }};
  });
  byId("reset").addEventListener("click", () => { sliders.forEach((one) => one.reset()); change(); });
  byId("more").hidden = sliders.length <= FIRST;
  byId("more").addEventListener("click", () => {
    sliders.forEach((one) => { one.item.hidden = false; });
    byId("more").hidden = true;
    sliders[FIRST].item.querySelector("input").focus();
  });

  // saving
  const side = Math.max(data.width, data.height);
  for (let scale = 1; scale * side <= Math.max(side, 1024); scale *= 2) {
    const name = data.width * scale + " × " + data.height * scale;
    byId("size").add(new Option(name, String(scale), false, scale * side <= 512));
  }
  byId("smooth").addEventListener("change", () => canvas.classList.toggle("smooth", byId("smooth").checked));
  byId("save").addEventListener("click", () => {
    const scale = Number(byId("size").value), large = document.createElement("canvas");
    large.width = data.width * scale;
    large.height = data.height * scale;
    const onto = large.getContext("2d");
    onto.imageSmoothingEnabled = byId("smooth").checked;
    onto.drawImage(canvas, 0, 0, large.width, large.height);
    large.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = data.name.replace(/[^\w.-]+/g, "-") + "-seed" + state.seed + ".png";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }, "image/png");
  });
  change();
}());
