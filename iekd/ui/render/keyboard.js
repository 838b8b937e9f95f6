// What Gradio's elements lack for people who use the keyboard or a screen reader: arrows move between tabs and between
// the answers of one question, and the focus does not fall back to the start of the page.
(() => {
  const STEPS = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1};
  const seen = (element) => element.isConnected && element.getClientRects().length > 0;
  let quiet = false;

  const moved = (items, now, key) => {
    const open = items.filter((item) => !item.disabled && seen(item)), at = open.indexOf(now);
    if (key === 'Home') return open[0];
    if (key === 'End') return open[open.length - 1];
    return open[(at + STEPS[key] + open.length) % open.length];
  };

  document.addEventListener('keydown', (event) => {
    const {key, target} = event;
    if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey || !(target instanceof Element)) return;
    const tab = target.matches('[role=tab]'), radio = target.matches('input[type=radio]');
    if (tab ? ['ArrowLeft', 'ArrowRight', 'Home', 'End'].includes(key) : radio && key in STEPS) {
      const group = tab ? target.closest('[role=tablist]') : target.closest('fieldset, .block');
      const next = moved([...group.querySelectorAll(tab ? '[role=tab]' : 'input[type=radio]')], target, key);
      event.preventDefault();
      next.focus();
      next.click();
    }
    // Gradio's lists drop the focus once something is chosen
    if (target.matches('[role=combobox]') && (key === 'Enter' || key === 'Escape')) {
      setTimeout(() => {
        if (document.activeElement !== document.body || !seen(target)) return;
        quiet = true;
        target.focus();
        quiet = false;
      });
    }
  });
  // a list that gets the focus back stays closed
  document.addEventListener('focus', (event) => { if (quiet) event.stopImmediatePropagation(); }, true);

  // whoever pressed a button that is gone now, such as Start, goes on at the heading of what took its place
  document.addEventListener('focusout', ({target}) => setTimeout(() => {
    if (document.activeElement !== document.body || !document.hasFocus() || seen(target)) return;
    const heading = [...document.querySelectorAll('[role=tabpanel] :is(h2, h3)')].find(seen);
    if (!heading) return;
    heading.tabIndex = -1;
    heading.focus({preventScroll: true});
  }, 100));
})();
