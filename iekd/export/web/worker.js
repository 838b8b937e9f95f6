"use strict";
// Runs the networks beside the page, so that the page stays responsive. One request at a time, answered by its id.
// Everything that it needs is sent to it: it loads nothing itself.

const WARM_UP = { runs: 10, milliseconds: 400 }; // whichever comes first
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

  /** bytes: an ONNX file; dims: [1, channels, height, width]. Answers with the milliseconds of a few runs. */
  async model({ bytes, dims }) {
    const session = await ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: ["wasm"] });
    sessions.push(session);
    const blank = new Uint8Array(dims.reduce((a, b) => a * b));
    await run(session, blank, dims); // the first run also prepares memory
    const times = [];
    const start = performance.now();
    while (times.length < WARM_UP.runs && performance.now() - start < WARM_UP.milliseconds) {
      times.push((await run(session, blank, dims)).milliseconds);
    }
    return { times };
  },

  /** index: of the network; pixels: uint8. Answers with the probabilities and the milliseconds they took. */
  predict({ index, pixels, dims }) {
    return run(sessions[index], pixels, dims);
  },
};

async function run(session, pixels, dims) {
  const start = performance.now();
  const { probabilities } = await session.run({ pixels: new ort.Tensor("uint8", pixels, dims) });
  return { milliseconds: performance.now() - start, probabilities: Array.from(probabilities.data) };
}

onmessage = async ({ data: { id, action, values } }) => {
  try {
    postMessage({ id, value: await actions[action](values) });
  } catch (error) {
    postMessage({ id, error: String(error?.message ?? error) });
  }
};
