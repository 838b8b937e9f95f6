"use strict";
// Loads the runtime and the networks, and asks them. They run in worker.js.

const Networks = (() => {
  const REMEMBERED = 45; // runs whose median is the time shown
  const WARM_UP = { rounds: 12, milliseconds: 1500 }; // before the first picture, whichever comes first
  const waiting = new Map(); // id of a request to the worker -> how to answer it
  const times = {}; // milliseconds by architecture: how it was taught makes a network no faster
  let networks = [];
  let worker = null;
  let asked = 0; // requests to the worker so far

  const megabytes = (bytes) =>
    bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} KB` : `${(bytes / 1e6).toFixed(1)} MB`;

  class Trouble extends Error {} // with a sentence for the visitor

  /** The bytes of a file of this page, or of the runtime; checked against its hash if there is one. */
  async function download(url, { integrity, arrived }) {
    let response;
    try {
      response = await fetch(url, { integrity: integrity ?? "" });
      if (!response.ok) throw new Error(`status ${response.status}`);
    } catch (error) {
      const file = new URL(url, location.href);
      throw new Trouble(
        `${file.pathname.split("/").pop()} could not be loaded from ${file.host} (${error.message}). ` +
          "Check the connection and load the page again.",
      );
    }
    const reader = response.body.getReader();
    const parts = [];
    for (let part; !(part = await reader.read()).done; arrived(part.value.length)) parts.push(part.value);
    return new Blob(parts).arrayBuffer();
  }

  function ask(action, values, transfer = []) {
    const id = asked++;
    return new Promise((resolve, reject) => {
      waiting.set(id, { resolve, reject });
      worker.postMessage({ id, action, values }, transfer);
    });
  }

  function answered({ data: { id, value, error } }) {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(value);
    else reject(new Error(error));
  }

  /** Loads everything. data: of index.html; say(sentence, share): called with the progress. */
  async function load(data, say) {
    networks = data.networks;
    if (location.protocol === "file:") {
      throw new Trouble(
        "A browser does not let a page that was opened as a file load its networks. " +
          "Run “python -m http.server” in this folder and open http://localhost:8000.",
      );
    }
    if (typeof WebAssembly !== "object" || typeof Worker !== "function") {
      throw new Trouble(
        "This browser cannot run the networks: it has no WebAssembly, or it is switched off. " +
          "Use a current Firefox, Chrome, Edge or Safari.",
      );
    }
    const { runtime } = data;
    const all = runtime.files.concat(networks).reduce((sum, { bytes }) => sum + bytes, 0);
    let here = 0;
    const arrived = (bytes) => {
      here += bytes;
      say(`Loading the networks: ${megabytes(Math.min(here, all))} of ${megabytes(all)}`, here / all);
    };
    arrived(0);
    const from = (file) => download(new URL(file.name, new URL(runtime.base, location.href)), { ...file, arrived });
    const [code, files, models] = await Promise.all([
      download("worker.js", { arrived() {} }),
      Promise.all(runtime.files.map(from)),
      Promise.all(networks.map(({ file }) => download(file, { arrived }))),
    ]);
    // from a blob, because such a worker is held to this page's Content-Security-Policy
    worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
    worker.onmessage = answered;
    try {
      say("Starting the networks");
      await ask("start", { script: files[0], wasm: files[1] });
      for (const [index, { unlike }] of networks.entries()) {
        const bytes = unlike ? joined(models[index], unlike.append) : models[index];
        await ask("model", { bytes, logits: unlike?.logits }, [bytes]);
      }
      await warmUp();
    } catch (error) {
      throw new Trouble(
        `The networks could not be started in this browser (${error.message}). ` +
          "Use a current Firefox, Chrome, Edge or Safari.",
      );
    }
    say("");
  }

  /** Runs all networks in turn, so that a busy moment of the machine is no disadvantage of one. */
  async function warmUp() {
    const start = performance.now();
    for (let round = 0; round < WARM_UP.rounds && performance.now() - start < WARM_UP.milliseconds; round++) {
      for (const [index, network] of networks.entries()) {
        await predict(index, new Uint8Array(network.channels * network.size ** 2), round > 0); // the first run is slow
      }
    }
  }

  /** bytes with those that base64 `text` stands for after them. */
  function joined(bytes, text) {
    const added = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const all = new Uint8Array(bytes.byteLength + added.length);
    all.set(new Uint8Array(bytes));
    all.set(added, bytes.byteLength);
    return all.buffer;
  }

  /** What a network says, {probabilities, unlike}; the time it took is remembered. pixels: (C,H,W) uint8.
   * unlike: whether the picture is unlike the training images; null if this network does not decide that. */
  async function predict(index, pixels, timed = true) {
    const { model, channels, size, unlike } = networks[index];
    const dims = [1, channels, size, size];
    const { probabilities, logits, milliseconds } = await ask("predict", { index, pixels, dims });
    times[model] ??= [];
    if (timed) times[model] = [...times[model], milliseconds].slice(-REMEMBERED);
    return { probabilities, unlike: unlike ? energy(logits) < unlike.below : null };
  }

  /** The logarithm of the sum of exp(logit), as engine/scoring.py has it. */
  function energy(logits) {
    const most = Math.max(...logits);
    return most + Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0));
  }

  /** The median time of a network so far, in milliseconds. */
  function time(index) {
    const sorted = times[networks[index].model].slice().sort((a, b) => a - b);
    return sorted[sorted.length >> 1];
  }

  return { load, predict, time, megabytes };
})();
