// One card per class, to be filled with images by choosing, dropping, pasting or a camera. What is on the cards becomes a
// zip with a folder per class, which goes into the page's own field for zips: its limits and checks hold here too.
(() => {
  const LONGEST = 1024; // pixels of an image's longer side; larger ones are made smaller before they are sent
  const QUALITY = 0.92; // of the JPEG that such an image, and one of the camera, becomes
  const BETWEEN = 125; // milliseconds between two pictures of the camera
  const SHOWN = 24; // images of a card that are drawn; the newest
  const KINDS = {'image/jpeg': 'jpg', 'image/png': 'png', 'image/webp': 'webp', 'image/gif': 'gif', 'image/bmp': 'bmp'};
  const MAYBE = /\.(jpe?g|jfif|png|webp|bmp|gif|tiff?|avif|ppm|pgm|pbm|pnm|heic|heif)$/i;
  const words = window.iekdWords, said = (text, values) =>
    Object.entries(values).reduce((text, [name, value]) => text.replace(`{${name}}`, () => value), text);
  const counted = (one, many, count) => count === 1 ? one : said(many, {count: count.toLocaleString('en')});
  const cards = []; // {name, images: [{blob, url, ending, taken}], box, draw}; taken: by the camera
  let active = null, numbered = 0, reading = 0, problem = '', camera = null;

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, '');
      else if (value !== false) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };
  const root = () => document.querySelector('#class-cards');

  // images

  const smaller = async (source, width, height) => {
    const scale = Math.min(1, LONGEST / Math.max(width, height));
    const canvas = make('canvas', {width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale))});
    const brush = canvas.getContext('2d');
    brush.fillStyle = '#fff'; // under what is transparent, as the program itself has it
    brush.fillRect(0, 0, canvas.width, canvas.height);
    brush.imageSmoothingQuality = 'high';
    brush.drawImage(source, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => canvas.toBlob(done, 'image/jpeg', QUALITY));
  };
  const read = async (file) => {
    let bitmap = null;
    try { bitmap = await createImageBitmap(file); } catch { /* a format that this browser does not know: the server looks */ }
    if (!bitmap) return MAYBE.test(file.name) ? {blob: file, ending: file.name.split('.').pop().toLowerCase()} : null;
    const small = Math.max(bitmap.width, bitmap.height) <= LONGEST;
    const blob = small ? file : await smaller(bitmap, bitmap.width, bitmap.height);
    bitmap.close();
    return {blob, ending: small ? KINDS[file.type] || file.name.split('.').pop().toLowerCase() : 'jpg'};
  };
  const put = (card, image) => {
    if (!cards.includes(card)) return; // removed while its images were read
    card.images.push({...image, url: URL.createObjectURL(image.blob)});
    problem = '';
  };
  const add = async (card, files) => {
    const refused = [];
    reading += files.length;
    drawBar();
    for (const file of files) {
      const image = await read(file);
      if (image) put(card, image);
      else refused.push(file.name);
      reading -= 1;
      card.draw();
      drawBar();
    }
    if (refused.length) {
      problem = said(refused.length > 1 ? words.cardsRefused : words.cardsRefusedOne, {name: refused[0], count: refused.length - 1});
      drawBar();
    }
  };
  // the files of what was dropped, by class; those that lie in no folder are under ''. A folder with files of its own is a
  // class with all that lies below it; one that has only folders holds the classes
  const dropped = async (transfer) => {
    const found = new Map(), entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const walk = async (entry, folder) => {
      if (entry.isFile) {
        const file = await new Promise((done, fail) => entry.file(done, fail));
        if (!file.name.startsWith('.')) found.set(folder, [...(found.get(folder) || []), file]);
        return;
      }
      if (/^(train|training|test|testing|val|valid|validation)$/i.test(entry.name)) throw new Error(words.cardsSplit);
      const reader = entry.createReader(), inside = [];
      for (;;) { // a folder is read in parts
        const part = await new Promise((done, fail) => reader.readEntries(done, fail));
        if (!part.length) break;
        inside.push(...part);
      }
      const isClass = folder || inside.some((inner) => inner.isFile && !inner.name.startsWith('.'));
      for (const inner of inside) await walk(inner, isClass ? folder || entry.name : '');
    };
    const loose = [...transfer.files];
    if (!entries.length) return new Map(loose.length ? [['', loose]] : []);
    for (const entry of entries) await walk(entry, '');
    return found;
  };

  // the camera: one at a time

  const closeCamera = () => {
    if (!camera) return;
    clearInterval(camera.timer);
    camera.stream.getTracks().forEach((track) => track.stop());
    const {card} = camera;
    camera = null;
    card.draw();
  };
  const openCamera = async (card) => {
    closeCamera();
    try {
      if (!navigator.mediaDevices) throw new Error(words.cameraNotHere);
      const stream = await navigator.mediaDevices.getUserMedia({video: {width: {ideal: 640}}});
      const video = make('video', {muted: true, playsinline: true, autoplay: true, 'aria-label': words.camera});
      video.srcObject = stream;
      camera = {card, stream, video, timer: 0};
      problem = '';
    } catch (error) {
      problem = said(words.cameraFails, {reason: error.name === 'NotAllowedError' ? words.cameraNotAllowed : error.message});
    }
    card.draw();
    drawBar();
  };
  const snap = async () => {
    if (!camera || !camera.video.videoWidth) return;
    const {card, video} = camera;
    put(card, {blob: await smaller(video, video.videoWidth, video.videoHeight), ending: 'jpg', taken: true});
    card.draw();
    drawBar();
  };
  const hold = (on) => {
    if (!camera) return;
    clearInterval(camera.timer);
    if (!on) return;
    snap();
    camera.timer = setInterval(snap, BETWEEN);
  };

  // drawing

  const newCard = (name = '') => {
    numbered += 1;
    const card = {name: name || said(words.cardName, {count: numbered}), images: []};
    cards.push(card);
    return card;
  };
  const drop = (element, take) => {
    element.addEventListener('dragover', (event) => { event.preventDefault(); element.toggleAttribute('data-over', true); });
    element.addEventListener('dragleave', () => element.removeAttribute('data-over'));
    element.addEventListener('drop', async (event) => {
      event.preventDefault();
      element.removeAttribute('data-over');
      try {
        take(await dropped(event.dataTransfer));
      } catch (error) { // of folders that are not those of classes, or that the browser cannot read
        problem = error.message;
        drawBar();
      }
    });
    return element;
  };
  const remove = (card) => {
    if (camera?.card === card) closeCamera();
    card.images.forEach((image) => URL.revokeObjectURL(image.url));
    cards.splice(cards.indexOf(card), 1);
    problem = '';
    draw();
  };
  const drawCard = (card) => {
    const picker = make('input', {
      type: 'file', multiple: true, accept: 'image/*', hidden: true, tabindex: '-1',
      onchange: (event) => { add(card, [...event.target.files]); event.target.value = ''; },
    });
    const name = make('input', {
      type: 'text', value: card.name, 'aria-label': words.cardNameOf, maxlength: '80',
      oninput: (event) => { card.name = event.target.value; problem = ''; drawBar(); },
    });
    const count = make('span', {class: 'card-count'}), thumbs = make('div', {class: 'card-thumbs'});
    const film = make('div', {class: 'card-camera'}), buttons = make('div', {class: 'card-buttons'});
    card.draw = () => {
      count.textContent = card.images.length ? counted(words.cardOne, words.cardMany, card.images.length) : words.cardNone;
      const first = Math.max(0, card.images.length - SHOWN);
      const seen = card.images.slice(first).reverse().map((image) => {
        const take = () => { URL.revokeObjectURL(image.url); card.images.splice(card.images.indexOf(image), 1); problem = ''; card.draw(); drawBar(); };
        const label = said(words.cardRemoveImage, {count: card.images.indexOf(image) + 1, name: card.name});
        return make('button', {type: 'button', class: 'card-image', title: words.cardRemove, 'aria-label': label, onclick: take}, make('img', {src: image.url, alt: ''}));
      });
      thumbs.replaceChildren(...seen, ...(first ? [make('span', {class: 'card-more'}, `+${first.toLocaleString('en')}`)] : []));
      const on = camera?.card === card;
      film.replaceChildren(...(on ? [camera.video] : []));
      const held = (event) => [' ', 'Enter'].includes(event.key) && (event.preventDefault(), event.repeat || snap());
      buttons.replaceChildren(...(on ? [
        make('button', {
          type: 'button', class: 'card-button', onpointerdown: () => hold(true), onpointerup: () => hold(false),
          onpointerleave: () => hold(false), onpointercancel: () => hold(false), onkeydown: held,
        }, words.cameraHold),
        make('button', {type: 'button', class: 'card-button', onclick: closeCamera}, words.cameraClose),
      ] : [
        make('button', {type: 'button', class: 'card-button', onclick: () => picker.click()}, words.cardChoose),
        make('button', {type: 'button', class: 'card-button', onclick: () => openCamera(card)}, words.camera),
      ]));
    };
    const close = make('button', {
      type: 'button', class: 'card-close', 'aria-label': said(words.cardRemoveClass, {name: card.name}), onclick: () => remove(card),
    }, '×');
    card.box = drop(make('div', {
      class: 'class-card', role: 'group', 'aria-label': words.cardGroup, onpointerdown: () => { active = card; },
      onfocusin: () => { active = card; },
    }, make('div', {class: 'card-head'}, name, close), make('p', {class: 'card-hint'}, words.cardDrop), buttons, picker, film, count, thumbs),
    (found) => add(card, [...found.values()].flat()));
    card.draw();
    return card.box;
  };
  // folders become classes of their names; images without one a class more
  const takeFolders = (found) => {
    const filled = [...found].map(([folder, files]) => [newCard(folder), files]);
    for (const card of cards.filter((card) => !card.images.length && !filled.some(([other]) => other === card))) {
      cards.splice(cards.indexOf(card), 1); // the empty ones that the page begins with
    }
    draw();
    filled.forEach(([card, files]) => add(card, files));
  };
  const draw = () => {
    const place = root();
    if (!place) return;
    while (cards.length < 2) newCard();
    const more = drop(make('button', {
      type: 'button', class: 'card-add', onclick: () => { const card = newCard(); draw(); card.box.querySelector('input').select(); },
    }, make('b', {}, words.cardAdd), make('span', {}, words.cardAddDrop)), takeFolders);
    const grid = make('div', {class: 'class-grid'}, ...cards.map(drawCard), more);
    const bar = make('div', {class: 'class-bar'},
      make('button', {type: 'button', class: 'card-button card-use', onclick: use}, words.cardsUse),
      make('p', {role: 'status', class: 'card-said'}));
    place.replaceChildren(grid, bar);
    drawBar();
  };
  const drawBar = () => {
    const place = root(), text = place?.querySelector('.card-said');
    if (!text) return;
    const images = cards.reduce((sum, card) => sum + card.images.length, 0);
    place.querySelector('.card-use').disabled = reading > 0 || !images;
    text.toggleAttribute('data-problem', Boolean(problem));
    const taken = cards.some((card) => card.images.some((image) => image.taken));
    const note = taken ? words.cardsAlike : images ? '' : words.cardsNote;
    text.textContent = problem || (reading ? said(words.cardsReading, {count: reading}) : note);
  };

  // what is on the cards, to the page

  const wrong = () => {
    const names = cards.map((card) => card.name.trim());
    const odd = names.findIndex((name) => !name || /[/\\]/.test(name) || name.startsWith('.'));
    if (odd >= 0) return said(words.cardsBadName, {name: names[odd]});
    const twice = names.find((name, i) => names.findIndex((other) => other.toLowerCase() === name.toLowerCase()) < i);
    if (twice) return said(words.cardsTwice, {name: twice});
    const empty = cards.find((card) => !card.images.length);
    if (cards.length - Boolean(empty) < 2) return words.cardsTwo;
    return empty ? said(words.cardsEmpty, {name: empty.name.trim()}) : '';
  };
  const use = async () => {
    closeCamera();
    problem = wrong();
    drawBar();
    const field = document.querySelector('#f-archive input[type=file]');
    if (problem || !field) return;
    const files = {};
    for (const card of cards) {
      for (const [i, image] of card.images.entries()) {
        const name = `${card.name.trim()}/${String(i + 1).padStart(4, '0')}.${image.ending}`;
        files[name] = new Uint8Array(await image.blob.arrayBuffer());
      }
    }
    // images are compressed already
    fflate.zip(files, {level: 0}, (error, packed) => {
      if (error) { problem = String(error.message || error); drawBar(); return; }
      const transfer = new DataTransfer();
      transfer.items.add(new File([packed], `${words.cardsFile}.zip`, {type: 'application/zip'}));
      field.files = transfer.files;
      field.dispatchEvent(new Event('change', {bubbles: true}));
    });
  };

  document.addEventListener('paste', (event) => {
    const files = [...(event.clipboardData?.files || [])];
    if (!files.length || !root()?.offsetParent) return;
    event.preventDefault();
    add(cards.includes(active) ? active : cards[0], files);
  });
  // Gradio builds the form again when it comes back from a run; what is on the cards stays
  const look = () => {
    const place = root();
    if (place && !place.firstChild) draw();
    if (camera && !camera.video.isConnected) closeCamera();
  };
  new MutationObserver(look).observe(document.body, {childList: true, subtree: true});
  look();
})();
