"use strict";
// From an image file to the pixels that a network was trained on: the same steps as iekd/data/decoding.py.
// Pillow's arithmetic is repeated (whole numbers, rounding after each pass), because a canvas scales in its own way.

const Pixels = (() => {
  const MOST_PIXELS = 20_000_000;
  const ENOUGH = 4; // times the size that is needed: a JPEG is first reduced to that, as Pillow decodes it smaller
  const STRIP = 4_000_000; // pixels read from the canvas at once: some browsers limit the area of a canvas
  const READABLE = "Use PNG, JPEG, WebP, GIF, BMP or AVIF.";

  class Unreadable extends Error {}

  /** A file (Blob), upright and in front of white: {bitmap, jpeg}. Throws Unreadable with a sentence for the visitor. */
  async function open(blob, name) {
    let head;
    try {
      head = new Uint8Array(await blob.slice(0, 32).arrayBuffer());
    } catch {
      throw new Unreadable(`“${name}” cannot be read. It may be a folder, or it was moved.`);
    }
    const png = head[0] === 0x89 && head[1] === 0x50;
    if (png && head[24] === 16 && head[25] === 0) {
      throw new Unreadable(`“${name}” is a grey image of 16 bits, of which a browser reads only 8. Save it with 8 bits.`);
    }
    let bitmap;
    try {
      // no colour management: the networks were trained on the numbers in the file
      bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
    } catch {
      throw new Unreadable(`“${name}” is broken, or not an image that this browser can read. ${READABLE}`);
    }
    const jpeg = head[0] === 0xff && head[1] === 0xd8;
    if (bitmap.width * bitmap.height > MOST_PIXELS && !jpeg) {
      bitmap.close();
      throw new Unreadable(`“${name}” has more than 20 million pixels. Make it smaller and try again.`);
    }
    return { bitmap, jpeg };
  }

  /** The pixels of a bitmap, row by row: {data: Uint8Array, width, height, channels}; 1 channel is grey, 3 are colour. */
  function read(bitmap, channels) {
    const { width, height } = bitmap;
    const data = new Uint8Array(width * height * channels);
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = Math.max(1, Math.min(height, Math.floor(STRIP / width)));
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingEnabled = false;
    context.fillStyle = "#fff";
    for (let top = 0, to = 0; top < height; top += canvas.height) {
      const rows = Math.min(canvas.height, height - top);
      context.fillRect(0, 0, width, rows);
      context.drawImage(bitmap, 0, top, width, rows, 0, 0, width, rows);
      const rgba = context.getImageData(0, 0, width, rows).data;
      for (let from = 0; from < rgba.length; from += 4) {
        const [r, g, b] = [rgba[from], rgba[from + 1], rgba[from + 2]];
        if (channels === 1) {
          data[to++] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16; // ITU-R 601, as Pillow's convert("L")
        } else {
          data[to++] = r;
          data[to++] = g;
          data[to++] = b;
        }
      }
    }
    return { data, width, height, channels };
  }

  /** Mean of each square of `factor` x `factor` pixels, as a JPEG that is decoded at a half, quarter or eighth. */
  function reduced(image, factor) {
    const { data, width, height, channels } = image;
    const [w, h] = [Math.ceil(width / factor), Math.ceil(height / factor)];
    const found = new Uint8Array(w * h * channels);
    for (let y = 0, to = 0; y < h; y++) {
      const [top, bottom] = [y * factor, Math.min(height, (y + 1) * factor)];
      for (let x = 0; x < w; x++) {
        const [left, right] = [x * factor, Math.min(width, (x + 1) * factor)];
        const count = (bottom - top) * (right - left);
        for (let c = 0; c < channels; c++) {
          let sum = count >> 1;
          for (let j = top; j < bottom; j++) {
            for (let i = left; i < right; i++) sum += data[(j * width + i) * channels + c];
          }
          found[to++] = sum / count;
        }
      }
    }
    return { data: found, width: w, height: h, channels };
  }

  /** Which pixels make each of `count` new ones, and by how much: a triangle as wide as the scale, in whole numbers. */
  function weights(size, from, to, count) {
    [from, to] = [Math.fround(from), Math.fround(to)]; // Pillow hands the box over in single precision
    const scale = Math.fround(to - from) / count;
    const support = Math.max(scale, 1);
    const found = [];
    for (let i = 0; i < count; i++) {
      const middle = from + (i + 0.5) * scale;
      const first = Math.max(0, Math.trunc(middle - support + 0.5));
      const last = Math.min(size, Math.trunc(middle + support + 0.5));
      const shares = [];
      for (let x = first; x < last; x++) shares.push(Math.max(0, 1 - Math.abs((x - middle + 0.5) / support)));
      const sum = shares.reduce((a, b) => a + b, 0);
      found.push({ first, shares: Int32Array.from(shares, (s) => Math.trunc(0.5 + (s / sum) * 2 ** 22)) });
    }
    return found;
  }

  /** Pillow's resize(size, BILINEAR, box): across, then down, with rounding to 8 bits in between. */
  function resized(image, width, height, [left, top, right, bottom]) {
    const { data, channels } = image;
    const across = weights(image.width, left, right, width);
    const down = weights(image.height, top, bottom, height);
    const end = down[height - 1].first + down[height - 1].shares.length;
    const half = new Uint8ClampedArray(width * image.height * channels);
    for (let y = down[0].first; y < end; y++) {
      for (let x = 0; x < width; x++) {
        const { first, shares } = across[x];
        for (let c = 0; c < channels; c++) {
          let sum = 1 << 21;
          for (let i = 0, at = (y * image.width + first) * channels + c; i < shares.length; i++, at += channels) {
            sum += shares[i] * data[at];
          }
          half[(y * width + x) * channels + c] = sum >> 22;
        }
      }
    }
    const row = width * channels;
    const found = new Uint8ClampedArray(row * height);
    for (let y = 0; y < height; y++) {
      const { first, shares } = down[y];
      for (let x = 0; x < row; x++) {
        let sum = 1 << 21;
        for (let i = 0, at = first * row + x; i < shares.length; i++, at += row) sum += shares[i] * half[at];
        found[y * row + x] = sum >> 22;
      }
    }
    return { data: new Uint8Array(found.buffer), width, height, channels };
  }

  /** Python's round(): a half goes to the even number. */
  function round(value) {
    const up = Math.round(value);
    return Math.abs(value % 1) === 0.5 && up % 2 ? up - 1 : up;
  }

  /** The centre of an image, as ImageOps.fit cuts it out. */
  function cropped(image, size) {
    const { width, height } = image;
    const side = Math.min(width, height);
    const [left, top] = [(width - side) / 2, (height - side) / 2];
    return resized(image, size, size, [left, top, left + side, top + side]);
  }

  /** The whole image between black bars, as ImageOps.pad does it. */
  function padded(image, size) {
    const { width, height, channels } = image;
    const [w, h] =
      width > height ? [size, round((height / width) * size)] : [round((width / height) * size), size];
    const small = resized(image, Math.max(1, w), Math.max(1, h), [0, 0, width, height]);
    const [x, y] = [round((size - small.width) / 2), round((size - small.height) / 2)];
    const data = new Uint8Array(size * size * channels);
    for (let i = 0; i < small.height; i++) {
      const line = small.data.subarray(i * small.width * channels, (i + 1) * small.width * channels);
      data.set(line, ((y + i) * size + x) * channels);
    }
    return { data, width: size, height: size, channels };
  }

  /** What a network sees of an opened image: (size, size, channels) numbers from 0 to 255 in a Uint8Array. */
  function seen({ bitmap, jpeg }, { size, channels, fit }) {
    let image = read(bitmap, channels);
    if (jpeg) {
      const large = image.width * image.height > MOST_PIXELS;
      const smaller = Math.floor(Math.min(image.width, image.height) / (ENOUGH * size));
      const factor = large ? 8 : [8, 4, 2, 1].find((f) => smaller >= f) ?? 1;
      if (factor > 1) image = reduced(image, factor);
    }
    if (image.width !== size || image.height !== size) {
      if (fit === "squash") image = resized(image, size, size, [0, 0, image.width, image.height]);
      else image = fit === "pad" ? padded(image, size) : cropped(image, size);
    }
    return image.data;
  }

  /** Whether a grey picture's edges are bright where the training images' were dark, or the other way round. */
  function opposite(data, { size, channels, background }) {
    if (channels !== 1 || background === null) return false;
    let sum = 0;
    for (let i = 0; i < size; i++) {
      sum += data[i] + data[(size - 1) * size + i] + data[i * size] + data[i * size + size - 1];
    }
    const edges = sum / (4 * size) / 255;
    return (edges > 0.6 && background < 0.3) || (edges < 0.3 && background > 0.7);
  }

  /** (H,W,C) as the networks take it: (C,H,W). */
  function planes(data, { size, channels }) {
    if (channels === 1) return data;
    const found = new Uint8Array(data.length);
    const area = size * size;
    for (let i = 0; i < area; i++) for (let c = 0; c < channels; c++) found[c * area + i] = data[i * channels + c];
    return found;
  }

  return { open, seen, opposite, planes, Unreadable };
})();
