// The latent of a seed, as orthogan draws it (orthogan/rng.py, standard_normal): BLAKE2b of the seed, the Mersenne
// twister of torch's CPU generator, and torch's normal numbers; truncation and blends as in orthogan/models/generate.py
// and orthogan/latent/explorer/session.py.

const LARGEST = (1n << 63n) - 1n;  // seed
const WORD = (1n << 64n) - 1n;

/** The first 8 bytes of BLAKE2b with a digest of 8 bytes (RFC 7693), as a little-endian number; text: at most 128 bytes. */
function blake2b(text) {
  const start = [0x6a09e667f3bcc908n, 0xbb67ae8584caa73bn, 0x3c6ef372fe94f82bn, 0xa54ff53a5f1d36f1n,
    0x510e527fade682d1n, 0x9b05688c2b3e6c1fn, 0x1f83d9abfb41bd6bn, 0x5be0cd19137e2179n];
  const order = ["0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8", "905724afe1bc683d",
    "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a", "6fe9b308c2d714a5", "a2847615fb9e3cd0"];
  const bytes = new TextEncoder().encode(text);
  const block = new DataView(new ArrayBuffer(128));
  bytes.forEach((byte, i) => block.setUint8(i, byte));
  const m = Array.from({length: 16}, (_, i) => block.getBigUint64(8 * i, true));
  const h = start.slice();
  h[0] ^= 0x01010008n;
  const v = [...h, ...start];
  v[12] ^= BigInt(bytes.length);
  v[14] ^= WORD;
  const turn = (x, n) => ((x >> n) | (x << (64n - n))) & WORD;
  const mix = (a, b, c, d, x, y) => {
    v[a] = (v[a] + v[b] + x) & WORD; v[d] = turn(v[d] ^ v[a], 32n);
    v[c] = (v[c] + v[d]) & WORD; v[b] = turn(v[b] ^ v[c], 24n);
    v[a] = (v[a] + v[b] + y) & WORD; v[d] = turn(v[d] ^ v[a], 16n);
    v[c] = (v[c] + v[d]) & WORD; v[b] = turn(v[b] ^ v[c], 63n);
  };
  for (let round = 0; round < 12; round++) {
    const s = Array.from(order[round % 10], (digit) => parseInt(digit, 16));
    for (let i = 0; i < 4; i++) { mix(i, 4 + i, 8 + i, 12 + i, m[s[2 * i]], m[s[2 * i + 1]]); }
    for (let i = 0; i < 4; i++) {
      mix(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[s[8 + 2 * i]], m[s[9 + 2 * i]]);
    }
  }
  return h[0] ^ v[0] ^ v[8];
}

/** A function that returns the 32-bit words of MT19937. */
function twister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) {
    state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  }
  let at = 624;
  return () => {
    if (at === 624) {
      for (let i = 0; i < 624; i++) {
        const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let y = state[at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** standard_normal(1, dim, seed=seed): a Float32Array. */
function normal(dim, seed) {
  const derived = blake2b("int:" + seed + "\x1fstr:latent") >> 1n;
  const word = twister(Number(derived & 0xffffffffn));
  const out = new Float32Array(dim);
  if (dim < 16) {  // torch draws few numbers in pairs of doubles
    const share = () => {
      const high = word() & 0x1fffff;
      return (high * 4294967296 + word()) / 9007199254740992;
    };
    for (let i = 0; i < dim; i += 2) {
      const angle = 2 * Math.PI * share();
      const radius = Math.sqrt(-2 * Math.log1p(-share()));
      out[i] = radius * Math.cos(angle);
      if (i + 1 < dim) { out[i + 1] = radius * Math.sin(angle); }
    }
    return out;
  }
  const share = () => (word() & 0xffffff) / 16777216;
  const pairs = (from) => {
    for (let i = from; i < from + 8; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - out[i]));
      const angle = 2 * Math.PI * out[i + 8];
      out[i] = radius * Math.cos(angle);
      out[i + 8] = radius * Math.sin(angle);
    }
  };
  for (let i = 0; i < dim; i++) { out[i] = share(); }
  for (let from = 0; from + 16 <= dim; from += 16) { pairs(from); }
  if (dim % 16) {
    for (let i = dim - 16; i < dim; i++) { out[i] = share(); }
    pairs(dim - 16);
  }
  return out;
}

function erf(x) {
  const size = Math.abs(x);
  if (size > 6) { return Math.sign(x); }
  let term = size, sum = size;  // Taylor series times exp(-x^2): all terms are positive
  for (let k = 1; term > 1e-17 * sum; k++) {
    term *= 2 * size * size / (2 * k + 1);
    sum += term;
  }
  return Math.sign(x) * sum * Math.exp(-size * size) * 2 / Math.sqrt(Math.PI);
}

/** The inverse of erf on (-1, 1), by Newton's method from an approximation (Giles 2010). */
function inverseErf(p) {
  if (p === 0) { return 0; }
  const w = Math.log(1 - p * p), a = 2 / (Math.PI * 0.147) + w / 2;
  let x = Math.sign(p) * Math.sqrt(Math.sqrt(a * a - w / 0.147) - a);
  for (let i = 0; i < 3; i++) { x -= (erf(x) - p) / (2 / Math.sqrt(Math.PI) * Math.exp(-x * x)); }
  return x;
}

/** Latents of the space z as orthogan.latent.truncate maps them; those of other spaces are scaled (StyleGAN's psi). */
function truncate(latent, share, space) {
  if (share === 1) { return latent; }
  if (space !== "z") { return latent.map((x) => x * share); }
  return latent.map((x) => Math.SQRT2 * inverseErf(share * erf(x * Math.SQRT1_2)));
}

/** From one latent at 0 to another at 1: along the sphere in z, else along the line. */
function blend(a, b, mix, space) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  const lengths = [Math.sqrt(dot(a, a)), Math.sqrt(dot(b, b))];
  let weights = [1 - mix, mix];
  if (space === "z" && Math.min(...lengths) > 0) {
    const angle = Math.acos(Math.min(1, Math.max(-1, dot(a, b) / (lengths[0] * lengths[1]))));
    if (Math.sin(angle) > 1e-6) {
      const size = (weights[0] * lengths[0] + weights[1] * lengths[1]) / Math.sin(angle);
      weights = [Math.sin((1 - mix) * angle) * size / lengths[0], Math.sin(mix * angle) * size / lengths[1]];
    }
  }
  return a.map((x, i) => weights[0] * x + weights[1] * b[i]);
}
