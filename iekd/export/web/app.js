"use strict";
// The page: pictures in, every network's answer out. pixels.js prepares the pictures, networks.js asks the networks.

const page = JSON.parse(document.getElementById("page-data").textContent);
const TOP = 5; // classes beside a picture
const LISTED = 100; // classes in the text about the networks
const one = (selector) => document.querySelector(selector);
const pictures = []; // everything that was asked: {name, url, truth, views, answers, row}
let ready = null; // a promise: the networks are loaded
let turn = Promise.resolve(); // pictures are answered one after the other

/** An element: element("p", {className: "small"}, "text", child, ...). Texts are never read as HTML. */
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const percent = (share) => (share > 0 && share < 0.005 ? "<1 %" : `${Math.round(100 * share)} %`);
const teacher = page.networks.findIndex((network) => network.teacher); // -1: there is none

function duration(milliseconds) {
  if (milliseconds < 0.1) return "under 0.1 ms";
  return milliseconds < 100 ? `${milliseconds.toFixed(1)} ms` : `${Math.round(milliseconds)} ms`;
}

function say(text, share) {
  if (document.body.dataset.state === "broken") return; // other downloads may still arrive
  one("#state span").textContent = text;
  one("#state progress").hidden = share === undefined;
  if (share !== undefined) one("#state progress").value = share;
  document.body.dataset.state = text ? "busy" : "ready";
}

function complain(text) {
  const close = element("button", { type: "button", ariaLabel: "Close", textContent: "×" });
  const shown = element("p", { className: "problem" }, text, close);
  close.onclick = () => shown.remove();
  one("#problems").append(shown);
}

// ---- answering -----------------------------------------------------------------------------------------------------

/** What every network sees and says: {views, answers, inverted, unlike}. `opened` is of Pixels.open. */
async function answer(opened) {
  const views = new Map(); // by size, channels and fit: most networks share one
  const answers = [];
  let inverted = null; // decided by the first network, as in `iekd compare`
  for (const [index, network] of page.networks.entries()) {
    const shape = [network.size, network.channels, network.fit].join();
    if (!views.has(shape)) {
      const data = Pixels.seen(opened, network);
      inverted ??= Pixels.opposite(data, network);
      views.set(shape, { ...network, data: inverted ? data.map((value) => 255 - value) : data });
    }
    const pixels = Pixels.planes(views.get(shape).data, network);
    const { probabilities, unlike } = await Networks.predict(index, pixels);
    const order = probabilities.map((_, k) => k).sort((a, b) => probabilities[b] - probabilities[a]);
    answers.push({ probabilities, order, unlike, label: page.classes[order[0]] });
  }
  const deciding = answers.filter(({ unlike }) => unlike !== null);
  const unlike = 2 * deciding.filter((said) => said.unlike).length > deciding.length; // as in `iekd compare`
  return { views: [...views.values()], answers, inverted, unlike };
}

/** Answers files in their order. truth: the class, where it is known. scroll: to the answer of the first. */
function add(files, truth = null, scroll = true) {
  turn = turn.then(async () => {
    try {
      await ready;
    } catch {
      return; // said already
    }
    let first = true;
    for (const [i, file] of files.entries()) {
      const name = file.name || "pasted image";
      if (files.length > 1) say(`Image ${i + 1} of ${files.length}`, i / files.length);
      let opened;
      try {
        opened = await Pixels.open(file, name);
        const picture = { name, truth, url: URL.createObjectURL(file), ...(await answer(opened)) };
        pictures.push(picture);
        record(picture);
        if (first) {
          show(picture);
          if (scroll) one("#answer").scrollIntoView({ block: "nearest" });
        }
        first = false;
      } catch (error) {
        const known = error instanceof Pixels.Unreadable;
        complain(known ? error.message : `“${name}” could not be answered (${error.message}).`);
      }
      opened?.bitmap.close();
    }
    say("");
  });
  return turn;
}

// ---- showing -------------------------------------------------------------------------------------------------------

const cards = page.networks.map((network) => {
  const label = element("strong");
  const sure = element("span");
  const mark = element("p", { className: "mark" });
  const bars = element("ol");
  const time = element("dd");
  const gain = element("p", { className: "gain" });
  const facts = element(
    "dl", {},
    element("dt", {}, "Parameters"), element("dd", {}, network.params.toLocaleString("en")),
    element("dt", {}, "File"), element("dd", {}, Networks.megabytes(network.bytes)),
    element("dt", {}, "Time here"), time,
    element("dt", {}, "Test accuracy"),
    element("dd", {}, network.accuracy === null ? "not measured" : `${network.accuracy.toFixed(2)} %`),
  ); // prettier-ignore
  const card = element(
    "article", { className: "network" },
    element("header", {}, element("h3", {}, network.title), element("small", {}, network.words)),
    element("p", { className: "said" }, label, sure), mark,
    element("h4", {}, "How sure"), bars, facts, gain,
  ); // prettier-ignore
  colour(card, network);
  one("#networks").append(card);
  return { label, sure, mark, bars, time, gain };
});

function colour(target, { light, dark }) {
  target.style.setProperty("--light", light);
  target.style.setProperty("--dark", dark);
}

/** One picture with its answers, large. */
function show(picture, live = false) {
  one("#answer").hidden = false;
  one("#answer").classList.toggle("live", live);
  if (!live) {
    one("#given").src = picture.url;
    one("#given").alt = picture.name;
    for (const other of pictures) other.row.classList.toggle("current", other === picture);
  }
  one("#unlike").textContent = picture.unlike ? page.unlike : "";
  one("#unlike").hidden = !picture.unlike;
  const view = picture.views[0];
  paint(one("#seen"), view);
  const swapped = picture.inverted ? "; bright and dark swapped, as in the training images" : "";
  one("#seen-words").textContent = `what the networks see, ${view.size} × ${view.size}${swapped}`;
  one("#picture figcaption").textContent = picture.truth === null ? picture.name : `It is: ${picture.truth}`;
  picture.answers.forEach(({ label, order, probabilities }, index) => {
    const card = cards[index];
    card.label.textContent = label;
    card.sure.textContent = percent(probabilities[order[0]]);
    card.time.textContent = duration(Networks.time(index));
    card.gain.textContent = gain(index);
    const marks = [];
    if (picture.truth !== null) marks.push(label === picture.truth ? "✓ right" : "✗ wrong");
    if (teacher >= 0 && index !== teacher) {
      marks.push(label === picture.answers[teacher].label ? "= agrees with the teacher" : "≠ differs from the teacher");
    }
    card.mark.replaceChildren(...marks.map((text) => element("span", { className: kind(text) }, text)));
    card.bars.replaceChildren(...order.slice(0, TOP).map((k) => {
      const bar = element("i");
      bar.style.width = `${Math.max(0.5, 100 * probabilities[k])}%`;
      return element("li", {}, element("span", {}, page.classes[k]), element("b", {}, percent(probabilities[k])), bar);
    })); // prettier-ignore
  });
}

/** How much smaller and faster than the teacher a student is, where it is. */
function gain(index) {
  if (teacher < 0 || index === teacher) return "";
  const ratios = {
    smaller: page.networks[teacher].params / page.networks[index].params,
    faster: Networks.time(teacher) / Networks.time(index),
  };
  const said = Object.entries(ratios).filter(([, ratio]) => ratio >= 1.05 && Number.isFinite(ratio));
  return said.length ? `${said.map(([how, ratio]) => `${ratio.toFixed(1)} × ${how}`).join(", ")} than the teacher` : "";
}

const kind = (mark) => ({ "✓": "yes", "✗": "no" })[mark[0]] ?? "";

function paint(canvas, { data, size, channels }) {
  canvas.width = canvas.height = size;
  const pixels = new ImageData(size, size);
  for (let i = 0; i < size * size; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = data[i * channels + (channels === 1 ? 0 : c)];
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

/** A picture's line in the list, and the sentences above it. */
function record(picture) {
  const image = element("img", { src: picture.url, alt: "", loading: "lazy" });
  const open = element("button", { type: "button", title: picture.name }, image, element("span", {}, picture.name));
  picture.row = element("tr", {}, element("th", { scope: "row" }, open));
  if (picture.unlike) {
    picture.row.firstChild.append(element("small", { className: "unlike" }, "unlike the training images"));
  }
  picture.answers.forEach(({ label, order, probabilities }, index) => {
    const wrong = picture.truth !== null && label !== picture.truth;
    const cell = element("td", { className: wrong ? "no" : "" }, label, " ", element("b", {}, percent(probabilities[order[0]])));
    cell.dataset.network = page.networks[index].title;
    picture.row.append(cell);
  });
  open.onclick = () => {
    show(picture);
    one("#answer").scrollIntoView({ block: "nearest" });
  };
  one("#history tbody").prepend(picture.row);
  one("#history").hidden = pictures.length < 2;
  one("#history h2").textContent = `${pictures.length} images`;
  const said = page.networks.flatMap(({ title }, index) => {
    if (teacher < 0 || index === teacher) return [];
    const same = pictures.filter(({ answers }) => answers[index].label === answers[teacher].label).length;
    return [`${title} on ${same} of ${pictures.length}`];
  });
  one("#agreement").textContent = said.length ? `The same answer as the teacher: ${said.join(", ")}.` : "";
}

// ---- ways to give a picture ----------------------------------------------------------------------------------------

one("#files").onchange = ({ target }) => {
  add([...target.files]);
  target.value = ""; // the same file may be chosen again
};

document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) add(files);
  else complain("There is no image in the clipboard. Copy one first, or take a screenshot.");
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const files = [...event.dataTransfer.files];
  if (files.length) add(files);
  else complain("That was no image file. Save the image first, then drop the file.");
});

let stream = null;

one("#camera").onclick = async () => {
  if (stream) return stop();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    const why = navigator.mediaDevices ? error.message : "a browser allows it on https and localhost only";
    return complain(`The camera cannot be used (${why}).`);
  }
  one("#video").srcObject = stream;
  await one("#video").play();
  one("#live").hidden = false;
  one("#camera").textContent = "Stop the camera";
  try {
    await ready;
    while (stream) {
      const bitmap = await createImageBitmap(one("#video"));
      const found = await answer({ bitmap, jpeg: false });
      bitmap.close();
      if (stream) show({ name: "camera", truth: null, ...found }, true);
      await new Promise(requestAnimationFrame);
    }
  } catch {
    stop();
  }
};

one("#shoot").onclick = () => {
  const { videoWidth, videoHeight } = one("#video");
  const canvas = element("canvas", { width: videoWidth, height: videoHeight });
  canvas.getContext("2d").drawImage(one("#video"), 0, 0);
  canvas.toBlob((blob) => add([new File([blob], `camera ${pictures.length + 1}.png`, { type: "image/png" })]));
  stop();
};

function stop() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  one("#live").hidden = true;
  one("#camera").textContent = "Use the camera";
}

// ---- the page ------------------------------------------------------------------------------------------------------

async function example({ file, label }, scroll = true) {
  const blob = await (await fetch(file)).blob();
  await add([new File([blob], file.split("/").pop(), { type: "image/png" })], label, scroll);
}

for (const shown of page.examples) {
  const image = element("img", { src: shown.file, alt: "" });
  const button = element("button", { type: "button" }, image, element("span", {}, shown.label));
  button.onclick = () => example(shown);
  one("#examples .strip").append(button);
  one("#examples").hidden = false;
}
one("#history thead").append(
  element("tr", {}, element("th", {}, "Image"), ...page.networks.map(({ title }) => element("th", {}, title))),
);
const more = page.classes.length - LISTED;
one("#classes").textContent =
  `${page.networks.length > 1 ? "These networks" : "This network"} can name ${page.classes.length} classes and nothing ` +
  `else: ${page.classes.slice(0, LISTED).join(", ")}${more > 0 ? ` and ${more} more` : ""}.`;
one("#accuracy-words").textContent = page.accuracy;
for (const { title, command, file, certificate } of page.networks) {
  const links = [element("a", { href: file, download: "" }, "ONNX file")];
  if (certificate) links.push(element("a", { href: certificate }, "what was checked"));
  one("#training").append(element("dt", {}, title), element("dd", {}, ...links));
  if (command) one("#training").append(element("dd", {}, element("code", {}, command)));
}
one("#camera").hidden = !navigator.mediaDevices?.getUserMedia;

ready = Networks.load(page, say);
ready.then(
  () => page.examples.length && pictures.length === 0 && example(page.examples[0], false),
  (error) => {
    say("");
    document.body.dataset.state = "broken";
    complain(error.message);
  },
);
