"use strict";
// Runs the networks beside the page, so that the page stays responsive. Every request is answered by its id.
// Everything that it needs is sent to it: it loads nothing itself.

let ort = null;
const sessions = [];

const actions = {
  /** script, wasm: the two files of onnxruntime-web as bytes. */
  async start({ script, wasm }) {
    const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    ort = await import(url);
    URL.revokeObjectURL(url);
    ort.env.wasm.numThreads = 1; // threads need headers that static pages do not have
    ort.env.wasm.wasmBinary = wasm;
  },

  /** bytes: an ONNX file; logits: the name of its output with the logits, if it has one. */
  async model({ bytes, logits }) {
    const session = await ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: ["wasm"] });
    sessions.push({ session, logits });
  },

  /** index: of the network; pixels: uint8; dims: [1, channels, height, width]. */
  async predict({ index, pixels, dims }) {
    const { session, logits } = sessions[index];
    const start = performance.now();
    const found = await session.run({ pixels: new ort.Tensor("uint8", pixels, dims) });
    const milliseconds = performance.now() - start;
    const values = (name) => (name ? Array.from(found[name].data) : null);
    return { milliseconds, probabilities: values("probabilities"), logits: values(logits) };
  },
};

let turn = Promise.resolve(); // one at a time, so that each time is that of one network alone

onmessage = ({ data: { id, action, values } }) => {
  turn = turn
    .then(() => actions[action](values))
    .then((value) => postMessage({ id, value }))
    .catch((error) => postMessage({ id, error: String(error?.message ?? error) }));
};
