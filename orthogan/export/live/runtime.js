// A small runtime for the programs that orthogan/export/program.py writes: a list of steps on flat float32 arrays, for a
// batch of one. All sizes are known beforehand, so every array is made once.

/** Float32Array of base64 text in little-endian float32 or float16. */
function numbers(text, half) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) { bytes[i] = raw.charCodeAt(i); }
  if (!half) { return new Float32Array(bytes.buffer); }
  const words = new Uint16Array(bytes.buffer);
  return Float32Array.from(words, (word) => {
    const exponent = (word >> 10) & 31, fraction = word & 1023, sign = word >> 15 ? -1 : 1;
    if (exponent === 0) { return sign * fraction * 2 ** -24; }
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  });
}

/** Calls visit(out, a, b) for all positions of shape, with their places in arrays of other strides. */
function walk(shape, first, second, visit) {
  const last = shape.length - 1, width = last < 0 ? 1 : shape[last];
  const stepA = last < 0 ? 0 : first[last], stepB = last < 0 ? 0 : second[last];
  const index = new Array(Math.max(0, last)).fill(0);
  let out = 0, a = 0, b = 0;
  for (;;) {
    for (let i = 0, x = a, y = b; i < width; i++, x += stepA, y += stepB) { visit(out++, x, y); }
    let d = last - 1;
    for (; d >= 0; d--) {
      a += first[d]; b += second[d];
      if (++index[d] < shape[d]) { break; }
      a -= first[d] * shape[d]; b -= second[d] * shape[d];
      index[d] = 0;
    }
    if (d < 0) { return; }
  }
}

/** The error function, by erf x = 2 / sqrt(pi) exp(-x^2) (x + 2 x^3 / 3 + 4 x^5 / 15 + ...), whose terms have one sign. */
function erf(x) {
  if (Math.abs(x) > 6) { return Math.sign(x); }
  let term = x, sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) { sum += term *= 2 * x * x / (2 * n + 1); }
  return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
}

const UNARY = {
  relu: () => (x) => x > 0 ? x : 0,
  leaky_relu: (slope) => (x) => x > 0 ? x : x * slope,
  elu: (alpha) => (x) => x > 0 ? x : alpha * Math.expm1(x),
  clamp: (low, high) => (x) => Math.min(high === null ? Infinity : high, Math.max(low === null ? -Infinity : low, x)),
  pow: (exponent) => exponent === 2 ? (x) => x * x : (x) => x ** exponent,
  sigmoid: () => (x) => 1 / (1 + Math.exp(-x)),
  rsqrt: () => (x) => 1 / Math.sqrt(x),
  reciprocal: () => (x) => 1 / x,
  erf: () => erf,
  neg: () => (x) => -x,
};
const BINARY = {
  add: (x, y) => x + y, sub: (x, y) => x - y, mul: (x, y) => x * y, div: (x, y) => x / y,
  maximum: Math.max, minimum: Math.min,
};

/**
 * A convolution of one image as a function of its input. Every output pixel is a sum over (input channel, tap); a
 * transposed one splits into stride^2 such sums ("phases"), one per remainder of the output position.
 */
function convolution(step, weight, bias, out) {
  const {C, H, W, O, OH, OW, kh, kw, stride, pad, dilation, groups, transposed} = step;
  const inGroup = C / groups, outGroup = O / groups, taps = kh * kw;
  const phases = [];
  if (!transposed) {
    const all = [];
    for (let y = 0; y < kh; y++) {
      for (let x = 0; x < kw; x++) { all.push([y * dilation[0] - pad[0], x * dilation[1] - pad[1], y * kw + x]); }
    }
    phases.push({rows: OH, cols: OW, y: 0, x: 0, stepY: 1, stepX: 1, inY: stride[0], inX: stride[1], all});
  } else {
    for (let py = 0; py < stride[0]; py++) {
      for (let px = 0; px < stride[1]; px++) {
        const all = [];
        for (let y = 0; y < kh; y++) {
          for (let x = 0; x < kw; x++) {
            const dy = py + pad[0] - y * dilation[0], dx = px + pad[1] - x * dilation[1];
            if (dy % stride[0] === 0 && dx % stride[1] === 0) { all.push([dy / stride[0], dx / stride[1], y * kw + x]); }
          }
        }
        const rows = Math.ceil((OH - py) / stride[0]), cols = Math.ceil((OW - px) / stride[1]);
        if (rows > 0 && cols > 0) {
          phases.push({rows, cols, y: py, x: px, stepY: stride[0], stepX: stride[1], inY: 1, inX: 1, all});
        }
      }
    }
  }
  let top = 0, left = 0, bottom = 0, right = 0;  // zeros around the input, so that no tap leaves it
  for (const p of phases) {
    for (const [dy, dx] of p.all) {
      top = Math.max(top, -dy); left = Math.max(left, -dx);
      bottom = Math.max(bottom, dy + (p.rows - 1) * p.inY - H + 1); right = Math.max(right, dx + (p.cols - 1) * p.inX - W + 1);
    }
  }
  const PW = W + left + right, plane = (H + top + bottom) * PW;
  const padded = new Float32Array(C * plane);
  const width = outGroup % 4 === 0 ? 4 : 1;  // output channels at a time
  for (const p of phases) {
    const count = inGroup * p.all.length;
    p.offsets = new Int32Array(count);
    for (let c = 0, at = 0; c < inGroup; c++) {
      for (const [dy, dx] of p.all) { p.offsets[at++] = c * plane + (dy + top) * PW + dx + left; }
    }
    p.weights = new Float32Array(O * count);
    for (let o = 0; o < O; o++) {
      for (let c = 0, t = 0; c < inGroup; c++) {
        for (const [, , tap] of p.all) {
          const g = Math.floor(o / outGroup);
          const from = transposed
            ? ((g * inGroup + c) * outGroup + o % outGroup) * taps + tap : (o * inGroup + c) * taps + tap;
          p.weights[(Math.floor(o / width) * count + t++) * width + o % width] = weight[from];
        }
      }
    }
  }
  return (input) => {
    for (let c = 0; c < C; c++) {
      for (let y = 0; y < H; y++) {
        const from = (c * H + y) * W;
        padded.set(input.subarray(from, from + W), c * plane + (y + top) * PW + left);
      }
    }
    for (const {rows, cols, y, x, stepY, stepX, inY, inX, offsets, weights} of phases) {
      const count = offsets.length, area = OH * OW;
      for (let o = 0; o < O; o += width) {
        const base = Math.floor(o / outGroup) * inGroup * plane, start = o * count;
        const b0 = bias ? bias[o] : 0;
        const [b1, b2, b3] = width === 4 && bias ? [bias[o + 1], bias[o + 2], bias[o + 3]] : [0, 0, 0];
        for (let i = 0; i < rows; i++) {
          let to = o * area + (y + i * stepY) * OW + x;
          let at = base + i * inY * PW;
          if (width === 4) {
            for (let j = 0; j < cols; j++, to += stepX, at += inX) {
              let s0 = b0, s1 = b1, s2 = b2, s3 = b3;
              for (let t = 0, w = start; t < count; t++, w += 4) {
                const value = padded[at + offsets[t]];
                s0 += value * weights[w]; s1 += value * weights[w + 1];
                s2 += value * weights[w + 2]; s3 += value * weights[w + 3];
              }
              out[to] = s0; out[to + area] = s1; out[to + 2 * area] = s2; out[to + 3 * area] = s3;
            }
          } else {
            for (let j = 0; j < cols; j++, to += stepX, at += inX) {
              let s0 = b0;
              for (let t = 0, w = start; t < count; t++, w++) { s0 += padded[at + offsets[t]] * weights[w]; }
              out[to] = s0;
            }
          }
        }
      }
    }
  };
}

/** What a step does: a function of the list of all arrays. */
function prepare(step, arrays) {
  const [a, b, c] = step.in, out = arrays[step.out];
  switch (step.op) {
    case "linear":  // rows of a (m, k) times b (n, k), plus c (n)
      return () => {
        const x = arrays[a], w = arrays[b], bias = c === undefined ? null : arrays[c], {m, k, n} = step;
        for (let row = 0; row < m; row++) {
          for (let o = 0; o < n; o++) {
            let sum = bias ? bias[o] : 0;
            for (let i = 0, p = row * k, q = o * k; i < k; i++, p++, q++) { sum += x[p] * w[q]; }
            out[row * n + o] = sum;
          }
        }
      };
    case "product":  // batches of a (m, k) times b (k, n)
      return () => {
        const x = arrays[a], w = arrays[b], {batch, m, k, n} = step;
        for (let r = 0; r < batch * m; r++) {
          const shift = Math.floor(r / m) * k * n;
          for (let o = 0; o < n; o++) {
            let sum = 0;
            for (let i = 0; i < k; i++) { sum += x[r * k + i] * w[shift + i * n + o]; }
            out[r * n + o] = sum;
          }
        }
      };
    case "convolution": {
      const run = convolution(step, arrays[b], c === undefined ? null : arrays[c], out);
      return () => run(arrays[a]);
    }
    case "scale":  // per channel: a * b + c
      return () => {
        const x = arrays[a], gain = arrays[b], shift = arrays[c], {inner} = step;
        for (let i = 0, o = 0; o < gain.length; o++) {
          for (const end = i + inner; i < end; i++) { out[i] = x[i] * gain[o] + shift[o]; }
        }
      };
    case "normalize":  // rows to mean 0 and variance 1
      return () => {
        const x = arrays[a], {rows, eps} = step, n = out.length / rows;
        for (let r = 0; r < rows; r++) {
          let sum = 0, squares = 0;
          for (let i = r * n; i < (r + 1) * n; i++) { sum += x[i]; }
          const mean = sum / n;
          for (let i = r * n; i < (r + 1) * n; i++) { squares += (x[i] - mean) ** 2; }
          const gain = 1 / Math.sqrt(squares / n + eps);
          for (let i = r * n; i < (r + 1) * n; i++) { out[i] = (x[i] - mean) * gain; }
        }
      };
    case "softmax":  // rows
      return () => {
        const x = arrays[a], {rows} = step, n = out.length / rows;
        for (let r = 0; r < rows; r++) {
          let most = -Infinity, sum = 0;
          for (let i = r * n; i < (r + 1) * n; i++) { most = Math.max(most, x[i]); }
          for (let i = r * n; i < (r + 1) * n; i++) { sum += out[i] = Math.exp(x[i] - most); }
          for (let i = r * n; i < (r + 1) * n; i++) { out[i] /= sum; }
        }
      };
    case "unary": {
      const make = UNARY[step.fn], f = make ? make(...step.args) : Math[step.fn];
      return () => {
        const x = arrays[a];
        for (let i = 0; i < out.length; i++) { out[i] = f(x[i]); }
      };
    }
    case "binary": {
      const f = BINARY[step.fn];
      return () => {
        const x = arrays[a], y = arrays[b];
        walk(step.shape, step.first, step.second, (to, i, j) => { out[to] = f(x[i], y[j]); });
      };
    }
    case "copy":  // a view with strides
      return () => {
        const x = arrays[a];
        walk(step.shape, step.strides, step.strides, (to, i) => { out[to] = x[step.offset + i]; });
      };
    case "pad":
      return () => {
        const x = arrays[a];
        out.fill(step.value);
        walk(step.shape, step.strides, step.strides, (from, i) => { out[step.offset + i] = x[from]; });
      };
    case "cat":  // parts of (outer, size) next to each other
      return () => {
        let at = 0;
        for (let o = 0; o < step.outer; o++) {
          step.in.forEach((part, i) => {
            const size = step.sizes[i];
            out.set(arrays[part].subarray(o * size, (o + 1) * size), at);
            at += size;
          });
        }
      };
    case "row":  // the row of a table that a label chooses
      return () => { out.set(arrays[a].subarray(arrays[b][0] * out.length, (arrays[b][0] + 1) * out.length)); };
    case "resize": {  // each output pixel from two rows and two columns
      const {C, H, W, rows, cols} = step, [up, down, ry] = rows, [west, east, rx] = cols;
      return () => {
        const x = arrays[a];
        for (let ch = 0, to = 0; ch < C; ch++) {
          for (let y = 0; y < up.length; y++) {
            const p = (ch * H + up[y]) * W, q = (ch * H + down[y]) * W, v = ry[y];
            for (let i = 0; i < west.length; i++) {
              const s = x[p + west[i]] + rx[i] * (x[p + east[i]] - x[p + west[i]]);
              const t = x[q + west[i]] + rx[i] * (x[q + east[i]] - x[q + west[i]]);
              out[to++] = s + v * (t - s);
            }
          }
        }
      };
    }
    case "reduce":  // the sum or mean over the axes whose stride in the result is 0
      return () => {
        const x = arrays[a];
        out.fill(0);
        walk(step.shape, step.strides, step.strides, (from, to) => { out[to] += x[from]; });
        for (let i = 0; i < out.length; i++) { out[i] /= step.count; }
      };
    default:
      throw new Error("unknown step " + step.op);
  }
}

/** A program as a function: lists of numbers, one per input -> Float32Array, valid until the next call. */
function build(program, weights) {
  const arrays = [];
  for (const [id, start, size] of program.constants) { arrays[id] = weights.subarray(start, start + size); }
  for (const [id, size] of program.sizes) { arrays[id] = new Float32Array(size); }
  const steps = program.steps.map((step) => prepare(step, arrays));
  return (...inputs) => {
    program.inputs.forEach((id, i) => { arrays[id] = inputs[i]; });
    for (const step of steps) { step(); }
    return arrays[program.output];
  };
}

/** RGBA bytes of an image (channels, height, width) in [-1, 1], rounded as torch and orthogan do; alpha on white. */
function pixels(image, channels) {
  const area = image.length / channels, out = new Uint8ClampedArray(4 * area);
  const level = (x) => {
    const value = Math.fround(Math.fround(Math.min(1, Math.max(-1, x)) * 127.5) + 127.5);
    const low = Math.floor(value), part = value - low;
    return part > 0.5 || (part === 0.5 && low % 2 === 1) ? low + 1 : low;
  };
  const clear = channels === 2 || channels === 4, colors = channels < 3 ? 1 : 3;
  for (let i = 0; i < area; i++) {
    const alpha = clear ? level(image[(channels - 1) * area + i]) : 255;
    for (let c = 0; c < 3; c++) {
      const color = level(image[Math.min(c, colors - 1) * area + i]);
      out[4 * i + c] = Math.floor((color * alpha + 255 * (255 - alpha) + 127) / 255);
    }
    out[4 * i + 3] = 255;
  }
  return out;
}
