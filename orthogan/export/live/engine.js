// From what the page shows to its pixels. This runs in a worker, or in the page where workers are not available.

/** A function {seed, other, mix, label, truncation, offsets} -> {pixels, label, time}; seeds are decimal text. */
function engine(data) {
  const weights = numbers(data.weights, data.half), rows = numbers(data.rows, false);
  const image = build(data.image, weights), mapping = data.mapping && build(data.mapping, weights);
  const kept = new Map();

  function latent(seed, label) {
    const key = seed + " " + label;
    if (!kept.has(key)) {
      const z = data.table ? rows.subarray(data.table[0] + Number(seed) * data.latent, data.table[0] + (Number(seed) + 1) * data.latent)
        : normal(data.latent, seed);
      const inputs = data.classes.length ? [z, [label]] : [z];
      if (kept.size > 50) { kept.clear(); }
      kept.set(key, mapping ? mapping(...inputs).slice() : z);
    }
    return truncate(kept.get(key), latent.share, data.space);
  }

  return (view) => {
    const began = performance.now(), count = data.classes.length;
    let label = view.label;
    if (count && label === null) {  // the classes take turns, unless the seeds have an order of their own
      const place = Number(BigInt(view.seed) % BigInt(data.order ? data.order.length : count));
      label = data.order ? data.order[place] : place;
    }
    latent.share = view.truncation;
    let start = latent(view.seed, label);
    if (view.mix > 0) { start = blend(start, latent(view.other, label), view.mix, data.space); }
    const moved = Float32Array.from(start);
    view.offsets.forEach((offset, i) => {
      if (offset) {
        const from = i * moved.length;
        for (let k = 0; k < moved.length; k++) { moved[k] += offset * rows[from + k]; }
      }
    });
    const inputs = [moved];
    if (data.layered) { inputs.push(start); } else if (count && data.space === "z") { inputs.push([label]); }
    return {pixels: pixels(image(...inputs), data.channels), label, time: performance.now() - began};
  };
}
