// The form of the tab Train: expert settings (one group open at a time, a search), and marks at the field that is wrong.
// Everything is read from the page as it is now, because Gradio builds the form again when it comes back from a run.
() => {
  const SEARCH_PAUSE = 150; // milliseconds after the last key
  let open = '', wrong = '', asked = 0;
  const words = window.iekdWords, filled = (text, name, value) => text.replace(`{${name}}`, () => value);
  const find = (selector) => document.querySelector(selector);
  const groups = () => [...document.querySelectorAll('.expert-group')];
  const slugOf = (group) => group.id.replace('group-', '');
  const set = (element, name, on) => { if (element && element.hasAttribute(name) !== on) element.toggleAttribute(name, on); };
  const say = (element, text) => { if (element && element.textContent !== text) element.textContent = text; };

  const showGroups = () => {
    const query = (find('#setting-search')?.value || '').trim(), sought = query.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const group of groups()) {
      const slug = slugOf(group);
      let hits = 0;
      for (const field of group.querySelectorAll('.block[id^="f-"]')) {
        const text = `${field.textContent} ${field.id.slice(2)} ${field.id.slice(2).replaceAll('_', ' ')}`.toLowerCase();
        const hit = sought.every((word) => text.includes(word));
        set(field, 'data-no-match', !hit);
        hits += hit;
      }
      found += hits;
      const shown = sought.length ? hits > 0 : slug === open;
      set(group, 'data-open', shown);
      set(find(`#head-${slug}`), 'data-no-match', sought.length > 0 && !hits);
      const button = find(`[data-group="${slug}"]`);
      if (button && button.getAttribute('aria-expanded') !== String(shown)) button.setAttribute('aria-expanded', shown);
    }
    const settings = found === 1 ? words.foundOne : filled(words.found, 'count', found);
    say(find('#setting-found'), !sought.length ? '' : found ? settings : filled(words.foundNone, 'query', query));
  };

  const showCounts = () => {
    const counts = JSON.parse(find('#changes [data-changed]')?.dataset.changed || '{}');
    for (const group of groups()) {
      const count = counts[slugOf(group)] || 0;
      say(find(`[data-group="${slugOf(group)}"] .changed`), count ? filled(words.changed, 'count', count) : '');
    }
  };

  const controlOf = (field) => field.querySelector('input:not([type=file]), textarea');
  const unmark = (field) => {
    field.removeAttribute('data-wrong');
    field.querySelector('.field-problem')?.remove();
    for (const name of ['aria-invalid', 'aria-describedby']) controlOf(field)?.removeAttribute(name);
  };
  const showProblem = () => {
    const problem = find('#error .problem'), name = problem?.dataset.field || '';
    const field = name && document.getElementById(`f-${name}`);
    for (const old of document.querySelectorAll('[data-wrong]')) if (old !== field) unmark(old);
    if (name !== wrong) {
      wrong = name;
      const group = field && field.closest('.expert-group');
      if (group) open = slugOf(group);
    }
    if (!field) return;
    const text = problem.querySelector('.what').textContent, control = controlOf(field);
    let note = field.querySelector('.field-problem');
    if (!note) {
      note = document.createElement('p');
      note.className = 'field-problem';
      note.id = `${field.id}-problem`;
      field.append(note);
    }
    say(note, text);
    set(field, 'data-wrong', true);
    if (control && control.type !== 'radio' && control.getAttribute('aria-describedby') !== note.id) {
      control.setAttribute('aria-invalid', 'true');
      control.setAttribute('aria-describedby', note.id);
    }
  };

  const refresh = () => {
    if (!find('#form')) return;
    showProblem();
    showCounts();
    showGroups();
  };
  const goTo = (name) => {
    const field = document.getElementById(`f-${name}`), group = field?.closest('.expert-group');
    if (!field) return;
    if (group) {
      open = slugOf(group);
      const search = find('#setting-search');
      if (search) search.value = '';
      showGroups();
    }
    field.scrollIntoView({block: 'center'});
    controlOf(field)?.focus({preventScroll: true});
  };

  document.addEventListener('click', (event) => {
    const head = event.target.closest?.('[data-group]'), link = event.target.closest?.('[data-goto]');
    if (link) goTo(link.dataset.goto);
    if (!head) return;
    const search = find('#setting-search'), isOpen = head.getAttribute('aria-expanded') === 'true';
    if (search) search.value = '';
    open = isOpen ? '' : head.dataset.group;
    showGroups();
  });
  document.addEventListener('input', (event) => {
    if (event.target.id !== 'setting-search') return;
    clearTimeout(asked);
    asked = setTimeout(showGroups, event.target.value ? SEARCH_PAUSE : 0);
  });
  // Gradio changes text and attributes in place where the new HTML has the same shape
  new MutationObserver(refresh).observe(document.body, {
    childList: true, subtree: true, characterData: true, attributeFilter: ['data-changed', 'data-field'],
  });
  refresh();
}
