/* The large chart of a run, drawn by uPlot from the JSON that the page receives (chart.py).
   The server sends numbers; what is shown of them (which curve, zoom, scale, smoothing) is chosen and kept here. */
window.iekdChart = (element) => {
  // distances of ticks: epochs and steps are counted, there is none at 0.2
  const WHOLE = [0, 1, 2, 3, 4, 5, 6, 7].flatMap((power) => [1, 2, 5].map((first) => first * 10 ** power));
  const box = element.querySelector('.chart'), plot = box.querySelector('.chart-plot');
  const legend = box.querySelector('.chart-legend'), words = box.querySelector('.chart-hint');
  const pick = (name) => box.querySelector(`[name=${name}]`);
  const hidden = new Set(), say = window.iekdWords;
  let data = null, stamp = '', drawn = null, shown = [], picked = false;

  const colour = (style) => {
    const sample = document.createElement('i');
    sample.className = style;
    box.append(sample);
    const found = getComputedStyle(sample).getPropertyValue('--c').trim();
    sample.remove();
    return found || '#64748b';
  };
  const tone = (name) => getComputedStyle(box).getPropertyValue(name).trim();
  const faint = (of) => `color-mix(in srgb, ${of} 18%, transparent)`;
  const number = (y) => {
    if (y == null || !Number.isFinite(y)) return '–';
    const size = Math.abs(y);
    return size >= 1e5 || (size < 1e-4 && y) ? y.toExponential(2) : y.toFixed(size >= 10 ? 1 : size >= 1 ? 2 : size >= 0.1 ? 3 : 4);
  };
  const text = (y, unit) => `${number(y).replace('-', '−')}${y == null ? '' : unit}`;
  const clock = (s) => (s >= 3600 ? `${(s / 3600).toFixed(1)} ${say.hours}` : s >= 60 ? `${(s / 60).toFixed(1)} ${say.minutes}` : `${s.toFixed(0)} ${say.seconds}`);

  // epoch -> step or seconds, between the points where both are known
  const across = (x, kind) => {
    const from = data.axis.epoch, to = data.axis[kind];
    if (kind === 'epoch' || !to || from.length < 2) return x;
    let i = from.findIndex((value) => value >= x);
    if (i < 1) i = i < 0 ? from.length - 1 : 1;
    return to[i - 1] + ((x - from[i - 1]) / (from[i] - from[i - 1] || 1)) * (to[i] - to[i - 1]);
  };
  const smooth = (ys, weight) => {
    let last = null, sum = 0;
    return ys.map((y) => {
      if (y == null) return y;
      last = last == null ? (1 - weight) * y : weight * last + (1 - weight) * y;
      sum = weight * sum + (1 - weight);
      return last / sum;
    });
  };

  // [x of each, smallest, largest] of several lines
  const rangeOf = (lines) => {
    const least = new Map(), most = new Map();
    for (const [xs, ys] of lines) {
      xs.forEach((x, i) => {
        if (ys[i] == null) return;
        if (!(least.get(x) <= ys[i])) least.set(x, ys[i]);
        if (!(most.get(x) >= ys[i])) most.set(x, ys[i]);
      });
    }
    const where = [...least.keys()].sort((a, b) => a - b);
    return [where, where.map((x) => least.get(x)), where.map((x) => most.get(x))];
  };

  const figure = () => data.figures.find((one) => one.title === pick('curve').value) || data.figures[0];
  const kind = () => (figure().students ? pick('axis').value : 'epoch');

  // round numbers on a log scale: 1, 2, 5, 10 and so on; where less than a factor of 10 is shown, equal steps
  const roundNumbers = (low, high) => {
    const power = (of) => 10 ** Math.floor(Math.log10(of)), near = (of, steps) => steps.map((step) => step * power(of)).find((step) => step >= of * 0.999);
    if (high < 10 * low) {
      const step = near((high - low) / 6, [1, 2, 5, 10]), from = Math.ceil(low / step), count = Math.floor(high / step) - from + 1;
      return Array.from({length: Math.max(0, count)}, (_, i) => Number(((from + i) * step).toPrecision(6)));
    }
    const found = [];
    for (let at = power(low); at <= high; at *= 10) for (const step of high > 1e3 * low ? [1] : [1, 2, 5]) found.push(Number((at * step).toPrecision(6)));
    return found.filter((value) => value >= low && value <= high);
  };

  const draw = () => {
    if (!data || !data.figures.length || !plot.clientWidth) return;
    const one = figure(), axis = kind(), weight = Number(pick('smooth').value) / 100, tables = [], series = [{}], bands = [];
    words.textContent = one.hint;
    words.dataset.curve = one.title;  // for a presentation, which hides the list of curves
    shown = [];
    const xs = (line) => line[0].map((x) => across(x, axis));
    if (one.level != null) shown.push({label: one.levelLabel, style: 'teacher', last: one.level});
    for (const line of one.series) {
      const ink = colour(line.style), show = !hidden.has(line.label), dash = line.style.includes('with-kd') ? [7, 3] : undefined;
      if (line.seeds.length > 1) {  // the range of the seeds, behind their mean
        const [where, least, most] = rangeOf(line.seeds), range = where.map((value) => across(value, axis));
        tables.push([range, most], [range, least]);
        series.push({show, stroke: 'transparent', points: {show: false}, spanGaps: true, label: ''});
        series.push({show, stroke: 'transparent', points: {show: false}, spanGaps: true, label: ''});
        bands.push({series: [series.length - 2, series.length - 1], fill: faint(ink)});
      }
      const ys = weight ? smooth(line.points[1], weight) : line.points[1];
      tables.push([xs(line.points), ys]);
      series.push({
        label: line.label, stroke: ink, width: 2.2, dash, show, spanGaps: true,
        points: {show: line.points[0].length <= 30, size: 6, fill: ink, stroke: ink},
      });
      shown.push({label: line.label, style: line.style, at: series.length - 1, last: line.points[1].at(-1), hides: true});
    }
    if (!tables.length) return;
    const joined = uPlot.join(tables), log = pick('log').checked, zoom = pick('zoom').checked;
    const range = (u, low, high) => {
      const values = one.level == null ? [] : [one.level];
      const from = u.scales.x.min ?? joined[0][0], to = u.scales.x.max ?? joined[0].at(-1);
      const start = zoom ? from + 0.6 * (to - from) : from;  // where the curves are close to their end
      joined.slice(1).forEach((ys, i) => {
        if (series[i + 1].show === false) return;
        let latest = null;
        ys.forEach((y, k) => {
          if (y == null || joined[0][k] > to) return;
          if (joined[0][k] >= start) values.push(y); else latest = y;
        });
        if (latest != null && zoom && joined[0].at(-1) < start) values.push(latest);
      });
      const found = values.filter((y) => Number.isFinite(y) && (!log || y > 0));
      if (!found.length) return [low ?? 0, high ?? 1];
      const least = Math.min(...found), most = Math.max(...found), room = (most - least || Math.abs(most) || 1) * 0.08;
      const limit = one.unit === ' %' ? 100 : Infinity, top = Math.min(limit, most + room);
      if (log) return [least / 1.15, Math.min(limit, most * 1.15)];
      return [one.unit === ' %' ? Math.max(0, least - room) : least - room, top];
    };
    // all epochs to come have their place; a part that was chosen with the mouse is shown as it is
    const whole = (u, from, to) => (axis === 'epoch' && from === joined[0][0] && to === joined[0].at(-1) ? [0, Math.max(one.epochs, to)] : [from, to]);
    const ink = tone('--soft'), grid = {stroke: tone('--line'), width: 1}, large = parseFloat(getComputedStyle(document.documentElement).fontSize) / 16, font = `${12 * large}px system-ui, sans-serif`;  // large: of a presentation
    const level = (u) => {  // a line of two points as a series would make uPlot join all the others with it
      if (one.level == null) return;
      const pen = u.ctx, dot = devicePixelRatio, y = u.valToPos(one.level, 'y', true);
      pen.save();
      pen.strokeStyle = colour('teacher');
      pen.lineWidth = 1.6 * dot;
      pen.setLineDash([7 * dot, 5 * dot]);
      pen.beginPath();
      pen.moveTo(u.bbox.left, y);
      pen.lineTo(u.bbox.left + u.bbox.width, y);
      pen.stroke();
      pen.restore();
    };
    drawn?.destroy();
    drawn = new uPlot({
      width: plot.clientWidth, height: plot.clientHeight, series, bands, legend: {show: false},
      cursor: {drag: {x: true, y: false}, focus: {prox: 24}, points: {size: 7}},
      scales: {x: {time: false, range: whole}, y: {range, distr: log ? 3 : 1}},
      axes: [
        {stroke: ink, grid: {show: false}, ticks: grid, font, label: say[axis],
          labelFont: font, labelSize: 22 * large, size: 34 + 16 * large, space: 50 * large, values: axis === 'time' ? (u, all) => all.map(clock) : undefined,
          incrs: axis === 'time' ? undefined : WHOLE},
        {stroke: ink, grid, ticks: {show: false}, font, size: 14 + 48 * large, space: 30 * large, label: one.y, labelFont: font, labelSize: 20 * large,
          ...(log ? {splits: (u, i, from, to) => roundNumbers(from, to), filter: (u, all) => all, values: (u, all) => all.map(String)} : {})},
      ],
      hooks: {setCursor: [(u) => tell(u.cursor.idx)], draw: [level]},
    }, joined, plot);
    plot.setAttribute('aria-label', `${one.title}: ${shown.map((s) => `${s.label} ${text(s.last, one.unit)}`).join(', ')}`);
    fillLegend();
  };

  const fillLegend = () => {
    const unit = figure().unit;
    legend.replaceChildren(...shown.map((line) => {
      const button = document.createElement(line.hides ? 'button' : 'span');
      if (line.hides) {
        button.type = 'button';
        button.setAttribute('aria-pressed', String(!hidden.has(line.label)));
        button.title = say.toggle;
        button.dataset.line = line.label;
      }
      const key = document.createElement('i'), value = document.createElement('b');
      key.className = `key ${line.style}${line.hides ? '' : ' dashed'}`;
      value.textContent = text(line.last, unit);
      button.append(key, `${line.label} `, value);
      return button;
    }));
  };

  // the values under the mouse, or the newest
  const tell = (row) => {
    const unit = figure().unit, values = [...legend.querySelectorAll('b')];
    shown.forEach((line, i) => {
      let y = line.last;
      if (row != null && line.hides) {
        let k = row;
        while (k > 0 && drawn.data[line.at][k] == null) k -= 1;
        y = drawn.data[line.at][k];
      }
      if (values[i]) values[i].textContent = text(y, unit);
    });
    const at = box.querySelector('.chart-at'), axis = kind();
    const x = row == null ? null : drawn.data[0][row];
    at.textContent = x == null ? '' : axis === 'time' ? clock(x) : `${say[axis]} ${axis === 'step' ? Math.round(x).toLocaleString('en') : Number(x.toFixed(2))}`;
  };

  const save = (name, url) => {
    const link = document.createElement('a');
    link.href = url;
    link.download = name;
    link.click();
  };
  const named = (ending) => `${(new URL(location).searchParams.get('run') || 'run')}-${figure().title.toLowerCase().replace(/[^a-z0-9]+/g, '-')}.${ending}`;
  const png = () => {
    const from = drawn.root.querySelector('canvas'), scale = from.width / plot.clientWidth, canvas = document.createElement('canvas');
    canvas.width = from.width;
    canvas.height = from.height + 64 * scale;
    const pen = canvas.getContext('2d');
    pen.fillStyle = tone('--surface') || '#fff';
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(from, 0, 34 * scale);
    pen.font = `600 ${15 * scale}px system-ui, sans-serif`;
    pen.fillStyle = getComputedStyle(box).color;
    pen.fillText(`${figure().title}. ${data.title}`, 12 * scale, 22 * scale);
    pen.font = `${13 * scale}px system-ui, sans-serif`;
    let left = 12 * scale;
    for (const line of shown.filter((one) => !hidden.has(one.label))) {
      const label = `${line.label} ${text(line.last, figure().unit)}`;
      pen.fillStyle = colour(line.style);
      pen.fillRect(left, canvas.height - 16 * scale, 14 * scale, 4 * scale);
      pen.fillStyle = getComputedStyle(box).color;
      pen.fillText(label, left + 20 * scale, canvas.height - 10 * scale);
      left += 44 * scale + pen.measureText(label).width;
    }
    save(named('png'), canvas.toDataURL('image/png'));
  };
  const csv = () => {
    const quote = (cell) => (/[",\n]/.test(cell) ? `"${String(cell).replaceAll('"', '""')}"` : cell);
    const rows = [['curve', 'seed', 'epoch', figure().y]];
    for (const line of figure().series) {
      line.points[0].forEach((x, i) => rows.push([line.label, '', x, line.points[1][i]]));
      line.seeds.forEach(([x, y], seed) => x.forEach((value, i) => rows.push([line.label, seed + 1, value, y[i]])));
    }
    save(named('csv'), URL.createObjectURL(new Blob([rows.map((row) => row.map(quote).join(',')).join('\n') + '\n'], {type: 'text/csv'})));
  };

  const take = () => {
    const source = document.querySelector('#chart-data [data-chart]');
    if (!source || source.dataset.stamp === stamp) return;
    stamp = source.dataset.stamp;
    data = JSON.parse(source.dataset.chart);
    box.hidden = !data.figures.length;
    const select = pick('curve'), chosen = select.value, titles = data.figures.map((one) => one.title);
    if (titles.join() !== [...select.options].map((one) => one.value).join()) {
      select.replaceChildren(...titles.map((title) => new Option(title, title)));
    }
    // until somebody picks one: the first with a curve, so that the students' accuracy takes over once there is any
    const first = data.figures.find((one) => one.series.length) ?? data.figures[0];
    select.value = picked && titles.includes(chosen) ? chosen : first?.title ?? '';
    pick('axis').disabled = data.axis.epoch.length < 2;
    draw();
  };

  box.addEventListener('input', (event) => {
    if (event.target.name === 'curve') picked = true;
    draw();
  });
  box.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (!button || !drawn) return;
    if (button.dataset.line) {
      const line = button.dataset.line;
      if (!hidden.delete(line)) hidden.add(line);
      draw();
      legend.querySelector(`[data-line="${CSS.escape(line)}"]`)?.focus();
    } else if (button.name === 'png') png();
    else if (button.name === 'csv') csv();
  });
  new ResizeObserver(draw).observe(plot);
  const themes = new MutationObserver(draw);
  [document.documentElement, document.body].forEach((one) => themes.observe(one, {attributes: true, attributeFilter: ['class']}));
  const watch = new MutationObserver(() => { if (box.isConnected) take(); else { watch.disconnect(); themes.disconnect(); } });
  // Gradio may leave the element with the data and change its attributes
  watch.observe(document.body, {childList: true, subtree: true, attributes: true, attributeFilter: ['data-stamp']});
  take();
};
