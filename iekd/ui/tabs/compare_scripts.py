"""What the Compare tab does in the browser: which examples and which view are wanted, and where the focus stays."""

from __future__ import annotations

PICK = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-example]');
  if (!button) return;
  button.setAttribute('aria-pressed', String(button.getAttribute('aria-pressed') !== 'true'));
  button.dataset.when = performance.now();
  trigger('click', {});
});
"""
# what the browser remembers: the view, which images are open, what has the focus, and whether the images are new
STATE = (
    "const state = (window.iekdComparing ??= {view: {}, open: [], focus: '', fresh: false, turned: false, from: 0});"
)
# a click or a right answer asks for another view of the same images
ON_LOAD = """
STATE
const want = (change, focus) => {
  Object.assign(state.view, change);
  state.focus = focus;
  trigger('input', {});
};
element.addEventListener('click', (event) => {
  const more = event.target.closest('.more'), show = event.target.closest('[data-show]');
  const turn = event.target.closest('[data-turn]');
  if (more) {
    const panel = element.querySelector('#' + more.getAttribute('aria-controls'));
    panel.hidden = !panel.hidden;
    const small = [...more.closest('.answer').querySelectorAll('.seen img')];  // the same images, sent once
    panel.querySelectorAll('img').forEach((image, i) => { image.src = small[i].src; });
    more.setAttribute('aria-expanded', String(!panel.hidden));
    const open = [...element.querySelectorAll('.more[aria-expanded=true]')];
    state.open = open.map((one) => one.getAttribute('aria-controls'));
  }
  if (show) want({show: show.dataset.show, page: 0}, `[data-show="${show.dataset.show}"]`);
  if (turn) {
    state.turned = true;
    want({page: (state.view.page || 0) + Number(turn.dataset.turn)}, `[data-turn="${turn.dataset.turn}"]`);
  }
});
element.addEventListener('change', (event) => {
  const of = event.target.closest('[data-right]')?.dataset.right;
  if (of) want({right: {...state.view.right, [of]: event.target.value}}, `[data-right="${of}"]`);
});
""".replace("STATE", STATE)
# other images or models: what is shown now is not about them. The place keeps its height, so that nothing moves
LOOK = """STATE
  const place = document.querySelector('#comparison');
  state.view = {...state.view, page: 0};
  state.fresh = true;
  state.from = scrollY;
  const waiting = `<div class="placeholder" role="status" style="min-height:${place?.offsetHeight ?? 0}px">` +
    `${window.iekdWords.looking}</div>`;""".replace("STATE", STATE)
LOOKING = f"() => {{ {LOOK} return [waiting, state.view]; }}"
# the pressed examples, in order; read in the browser, so that no click waits for the server
PICKED = f"""() => {{ {LOOK}
  const pressed = [...document.querySelectorAll('#examples [aria-pressed=true]')];
  const picked = pressed.sort((a, b) => a.dataset.when - b.dataset.when).map((b) => Number(b.dataset.example));
  return [picked, waiting, state.view];
}}"""
VIEW = f"() => {{ {STATE} return state.view; }}"
# one event asks the networks, whatever was changed: only calls of the same event wait for each other in Gradio, and an
# older answer that arrives late would replace the newest
ASK = "() => { document.querySelector('#ask')?.click(); }"
# Gradio's button that removes all models is no input, only a change
ASK_IF_NONE = """(models) => {
  if (models && !models.length && document.querySelector('#comparison .answer')) (ASK)();
}""".replace("ASK", ASK)
# the tab may show other networks now, without predictions for the chosen images
ASK_AGAIN = "() => setTimeout(() => { if (document.querySelector('#comparison .placeholder')) (ASK)(); }, 100)".replace(
    "ASK", ASK
)
# answers are below the uploads and the examples, out of sight on a phone: scroll to where they begin, if they are new
# and nobody has gone on to read elsewhere. Else what was open and had the focus before does so again.
# Gradio runs this when an answer is there, but on a busy machine it draws it some frames later; and it may be the
# answer to what was asked before, while the newest is still to come
SHOW = """() => {
  STATE
  const show = () => {
    const place = document.querySelector('#comparison');
    const drawn = place?.querySelector('[data-view]');
    if (drawn) {
      state.view = JSON.parse(drawn.dataset.view);
      for (const id of state.open) {
        const panel = place.querySelector('#' + id);
        if (panel?.hidden) place.querySelector(`[aria-controls="${id}"]`)?.click();
      }
      const waits = Math.abs(scrollY - state.from) < 50 && place.getBoundingClientRect().bottom > 0;
      if (state.fresh && waits && place.querySelector('.answer')) place.scrollIntoView({block: 'nearest'});
      if (state.turned) place.scrollIntoView({block: 'start'});
      const again = state.focus && place.querySelector(state.focus);
      const next = again && !again.disabled ? again : place.querySelector('.filters [aria-pressed=true]');
      if (state.focus) next?.focus({preventScroll: true});
      Object.assign(state, {focus: '', fresh: false, turned: false});
    }
  };
  const waiting = () => document.querySelector('#comparison .placeholder[role=status]');
  const look = () => waiting() ? requestAnimationFrame(look) : show();
  look();
}""".replace("STATE", STATE)
