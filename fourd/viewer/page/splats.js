// A compact splat sequence as one mesh of Spark whose Gaussians are set anew for each moment.
// The layout of the file is described in fourd/export/splats.py.
import { PackedSplats, SplatMesh, utils } from "@sparkjsdev/spark";

const SH_C0 = 0.28209479177387814;
const DTYPES = { F32: Float32Array, U32: Uint32Array, U16: Uint16Array, U8: Uint8Array, F16: Uint16Array };
/** From so many Gaussians on, frames are not blended: setting them takes longer than a picture lasts. */
const MANY = 150_000;

/** The tensors of a safetensors file, each with its shape, and the file's metadata. */
export function readSafetensors(bytes) {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const { __metadata__: metadata, ...entries } = header;
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of Object.entries(entries)) {
    const copy = bytes.slice(8 + length + begin, 8 + length + end); // a copy is aligned
    tensors[name] = { shape, data: new DTYPES[dtype](copy.buffer) };
  }
  return { metadata, tensors };
}

export class SplatSequence {
  constructor(bytes) {
    const { metadata, tensors } = readSafetensors(bytes);
    this.fps = Number(metadata.fps);
    this.numFrames = Number(metadata.num_frames);
    this.tensors = tensors;
    this.count = tensors.positions.shape[1];
    this.blends = this.count <= MANY;
    this.shown = null;
    const [low, high] = tensors.log_scale_bounds.data;
    this.scaleLow = low;
    this.scaleStep = (high - low) / 65535;
    this.colours = this.#colours();
    this.encoding = { rgbMin: 0, rgbMax: 1, lnScaleMin: low - 0.01, lnScaleMax: high + 0.01, ...this.#limits() };
    const size = Math.ceil(this.count / 2048) * 2048; // a row of Spark's texture
    this.packedArray = new Uint32Array(size * 4);
    this.splats = new PackedSplats({
      packedArray: this.packedArray, numSplats: this.count, extra: this.#harmonics(), splatEncoding: this.encoding,
    });
    this.mesh = new SplatMesh({ packedSplats: this.splats, splatEncoding: this.encoding });
    this.show(0, false);
  }

  /** Set all Gaussians to how they are at a frame; frames between two are blended if asked. True if that changed. */
  show(frame, between) {
    const last = this.numFrames - 1;
    const at = between && this.blends ? Math.min(Math.max(frame, 0), last) : Math.min(Math.max(Math.floor(frame + 1e-6), 0), last);
    if (at === this.shown) return false;
    this.shown = at;
    const first = Math.floor(at);
    const second = Math.min(first + 1, last);
    const share = at - first;
    const { bounds, positions, rotations, log_scales: scales, opacities } = this.tensors;
    const row = (tensor, index) => Math.min(index, tensor.shape[0] - 1);
    const n = this.count;
    const low = [0, 0, 0], step = [0, 0, 0], low2 = [0, 0, 0], step2 = [0, 0, 0];
    for (let a = 0; a < 3; a++) {
      low[a] = bounds.data[first * 6 + a];
      step[a] = (bounds.data[first * 6 + 3 + a] - low[a]) / 65535;
      low2[a] = bounds.data[second * 6 + a];
      step2[a] = (bounds.data[second * 6 + 3 + a] - low2[a]) / 65535;
    }
    const p = first * n * 3, p2 = second * n * 3;
    const r = row(rotations, first) * n, r2 = row(rotations, second) * n;
    const s = row(scales, first) * n * 3, s2 = row(scales, second) * n * 3;
    const o = row(opacities, first) * n, o2 = row(opacities, second) * n;
    const colour = Math.min(first, this.colours.length - 1);
    const q = [0, 0, 0, 0], q2 = [0, 0, 0, 0], x = [0, 0, 0], ln = [0, 0, 0];
    for (let i = 0; i < n; i++) {
      unpackRotation(rotations.data[r + i], q);
      if (share > 0) {
        unpackRotation(rotations.data[r2 + i], q2);
        const sign = q[0] * q2[0] + q[1] * q2[1] + q[2] * q2[2] + q[3] * q2[3] < 0 ? -1 : 1;
        for (let a = 0; a < 4; a++) q[a] += share * (sign * q2[a] - q[a]);
        const length = Math.hypot(q[0], q[1], q[2], q[3]);
        for (let a = 0; a < 4; a++) q[a] /= length;
      }
      for (let a = 0; a < 3; a++) {
        const k = i * 3 + a;
        const here = low[a] + step[a] * positions.data[p + k];
        x[a] = here + share * (low2[a] + step2[a] * positions.data[p2 + k] - here);
        const size = scales.data[s + k];
        ln[a] = Math.exp(this.scaleLow + this.scaleStep * (size + share * (scales.data[s2 + k] - size)));
      }
      const opacity = (opacities.data[o + i] + share * (opacities.data[o2 + i] - opacities.data[o + i])) / 255;
      const rgb = this.colours[colour];
      utils.setPackedSplat(
        this.packedArray, i, x[0], x[1], x[2], ln[0], ln[1], ln[2], q[1], q[2], q[3], q[0], opacity,
        rgb[i * 3], rgb[i * 3 + 1], rgb[i * 3 + 2], this.encoding,
      );
    }
    this.splats.needsUpdate = true;
    this.mesh.updateVersion();
    return true;
  }

  /** The part of the colour that is the same from all sides, a frame each, or one for all. */
  #colours() {
    const { shape: [rows, n, k], data } = this.tensors.sh;
    return Array.from({ length: rows }, (_, row) => {
      const rgb = new Float32Array(n * 3);
      for (let i = 0; i < n; i++) {
        for (let c = 0; c < 3; c++) rgb[i * 3 + c] = 0.5 + SH_C0 * fromHalf(data[((row * n + i) * k) * 3 + c]);
      }
      return rgb;
    });
  }

  #limits() {
    const { shape: [, n, k], data } = this.tensors.sh;
    const largest = [1e-3, 1e-3, 1e-3];
    for (let i = 0; i < n; i++) {
      for (let j = 1; j < k; j++) {
        const degree = j < 4 ? 0 : j < 9 ? 1 : 2;
        for (let c = 0; c < 3; c++) largest[degree] = Math.max(largest[degree], Math.abs(fromHalf(data[(i * k + j) * 3 + c])));
      }
    }
    return { sh1Max: largest[0], sh2Max: largest[1], sh3Max: largest[2] };
  }

  /** The part of the colour that changes with the side it is seen from; of frame 0. */
  #harmonics() {
    const { shape: [, n, k], data } = this.tensors.sh;
    const extra = {};
    const size = this.packedArray.length / 4;
    const degrees = [["sh1", 1, 4, 2, utils.encodeSh1Rgb], ["sh2", 4, 9, 4, utils.encodeSh2Rgb], ["sh3", 9, 16, 4, utils.encodeSh3Rgb]];
    for (const [name, from, to, words, encode] of degrees) {
      if (k < to) break;
      const packed = new Uint32Array(size * words);
      const values = new Float32Array((to - from) * 3);
      for (let i = 0; i < n; i++) {
        for (let j = 0; j < values.length; j++) values[j] = fromHalf(data[(i * k + from) * 3 + j]);
        encode(packed, i, values, this.encoding);
      }
      extra[name] = packed;
    }
    return extra;
  }
}

function unpackRotation(packed, out) {
  const largest = packed >>> 30;
  let rest = 1;
  let shift = 20;
  for (let a = 0; a < 4; a++) {
    if (a === largest) continue;
    out[a] = ((((packed >>> shift) & 1023) / 1023) * 2 - 1) * Math.SQRT1_2;
    rest -= out[a] * out[a];
    shift -= 10;
  }
  out[largest] = Math.sqrt(Math.max(rest, 0));
}

function fromHalf(bits) {
  return utils.fromHalf(bits);
}
