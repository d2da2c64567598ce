// What a page can do beyond being read: points of charts that speak, arms that are hidden, tables that sort and copy.
// Templates need nothing for it: without this script, or without JavaScript, the page is complete.
(async () => {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent), (letter) => letter.charCodeAt());
  const whole = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const { arms = [], values = {}, charts = {} } = await new Response(whole).json();
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const make = (tag, given, ...inside) => {
    const made = Object.assign(document.createElement(tag), given);
    made.append(...inside);
    return made;
  };
  const button = (textContent, onclick) => make("button", { type: "button", textContent, onclick });
  const clip = (v, low, high) => Math.min(Math.max(v, low), high);
  const hidden = new Set();

  // What is said next to a point, and by an abbreviation or a picture that is touched.
  const tip = document.body.appendChild(make("div", { className: "tip", hidden: true, role: "status" }));
  const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  const tell = (text, x, y) => {
    Object.assign(tip, { textContent: text, hidden: false });
    tip.style.left = clip(x + 12, 8, innerWidth - tip.offsetWidth - 8) + "px";
    const below = y + tip.offsetHeight + 24 > innerHeight ? y - tip.offsetHeight - 12 : y + 16;
    tip.style.top = clip(below, 8, innerHeight - tip.offsetHeight - 8) + "px";
  };
  const quiet = () => {
    tip.hidden = true;
    dot.remove();
    all("[data-hot]").forEach((svg) => delete svg.dataset.hot);
  };

  // Points of charts: lines over epochs by the page's tables, others by their own words.
  const scales = [(v) => v, Math.log10, (v) => -Math.log10(Math.max(1.001 - v, 1e-9))];
  const written = (v, { f, d }) => (d == null ? String(+v.toPrecision(3)) : (v * f).toFixed(d)).replace("-", "−");
  // Whole numbers are kept as steps from the one before.
  const summed = (steps, sum = 0) => steps.map((step) => (step == null ? step : (sum += step)));
  const line = ({ b, x, y }, [arm, key], number) => {
    const measure = values[key], { n, q, r = 1 / 0, u, d } = measure, [first, ...columns] = measure.y[arm ?? 0] || [];
    const [means = [], halves = []] = d == null ? columns : columns.map((steps) => summed(steps));
    return means.flatMap((whole, at) => {
      if (whole == null) return [];
      const v = whole / q, half = halves[at] / q, ends = [v - half, v + half].map((end) => clip(end, 0, r));
      const wide = ends[1] - ends[0] > 1.999 * half;
      return {
        x: x[0] + x[1] * (first + at), y: clip(y[1] + y[2] * scales[y[0]](v), b[1], b[3]), arm, number,
        text: `${arm == null ? "" : arms[arm].name + ", "}epoch ${first + at}: ${n} ${written(v, measure)}${u}`
          + (!half ? "" : wide ? " ± " + written(half, measure) : `, 95 % ${ends.map((end) => written(end, measure)).join(" to ")}`),
      };
    });
  };
  const known = {};
  const pointsOf = (name) => (known[name] ??= charts[name].flatMap((axes, place) => [
    ...(axes.l || []).flatMap((one, at) => line(axes, one, `${place}.${at}`)),
    ...(axes.m || []).map(([x, y, text, arm]) => ({ x, y, text, arm, number: `${place}:${arm}` })),
  ])).filter(({ arm }) => !hidden.has(arm));
  const nearest = (points, x, y) => points.reduce((best, point) => {
    const far = Math.hypot(point.x - x, point.y - y);
    return far < best[0] ? [far, point] : best;
  }, [1 / 0])[1];
  all("svg[data-chart]").filter((svg) => charts[svg.dataset.chart]).forEach((svg) => {
    const points = () => pointsOf(svg.dataset.chart);
    const show = (point, byKey) => {
      quiet();
      if (!point) return;
      svg.now = point;
      svg.append(dot);
      Object.entries({ cx: point.x, cy: point.y, r: 4 }).forEach((pair) => dot.setAttribute(...pair));
      if (point.arm != null) svg.dataset.hot = point.arm;
      if (byKey) dot.scrollIntoView({ block: "nearest", inline: "nearest", behavior: "instant" });
      const { x, y } = dot.getBoundingClientRect();
      tell(point.text, x, y);
    };
    // The keys begin with the arm that a chart is of, where it is of one.
    const own = svg.closest("[data-arm]")?.dataset.arm;
    const here = (found) => (found.includes(svg.now) ? svg.now : found.find(({ arm }) => arm == own) || found[0]);
    const at = ({ clientX, clientY }) => {
      const { x, y } = new DOMPoint(clientX, clientY).matrixTransform(svg.getScreenCTM().inverse());
      show(nearest(points(), x, y));
    };
    svg.tabIndex = 0;
    const on = (name, act) => svg.addEventListener(name, act);
    on("pointermove", (event) => event.pointerType == "mouse" && at(event));
    on("pointerleave", (event) => event.pointerType == "mouse" && quiet());
    on("click", (event) => (at(event), event.stopPropagation()));
    on("focus", () => svg.matches(":focus-visible") && show(here(points()), true));
    on("blur", quiet);
    on("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], turn = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      const found = points(), now = here(found);
      if (!now || !step && !turn) return;
      event.preventDefault();
      const lines = [...new Set(found.map(({ number }) => number))];
      const next = lines.at((lines.indexOf(now.number) + turn) % lines.length);
      show(turn ? nearest(found.filter(({ number }) => number == next), now.x, now.y)
        : found[clip(found.indexOf(now) + step, 0, found.length - 1)], true);
    });
  });
  document.addEventListener("click", ({ target, clientX, clientY }) => {
    const text = target.alt || target.closest("abbr[title]")?.title;
    text ? tell(text, clientX, clientY) : quiet();
  });
  document.addEventListener("keydown", ({ key }) => key == "Escape" && quiet());

  // Arms by checkboxes; kept while the tab is open, since the page of something that runs loads itself again.
  const rules = document.head.appendChild(make("style"));
  const reduced = new Set();
  const place = "kernorm:" + location.pathname;
  let store = {};
  try { store = sessionStorage; } catch { /* a browser that keeps nothing */ }
  const apply = () => {
    const gone = [...hidden].map((arm) => `[data-arm="${arm}"]`);
    reduced.forEach((table) => same(table).forEach((is, at) => is && gone.push(`#${table.id} tr>:nth-child(${at + 1})`)));
    rules.textContent = `${gone.join() || "_"}{display:none!important}`
      + arms.map((_, arm) => `[data-hot="${arm}"] [data-arm]:not([data-arm="${arm}"]){opacity:.15}`).join("");
    store[place] = [...hidden];
  };
  const nav = document.querySelector("nav");
  if (nav && arms.length > 1) {
    (store[place] || "").split(",").forEach((arm) => arm && hidden.add(+arm));
    const boxes = arms.map(({ name, colour }, arm) => {
      const box = make("input", { type: "checkbox", checked: !hidden.has(arm) });
      box.onchange = () => (hidden[box.checked ? "delete" : "add"](arm), apply());
      return name ? [box, make("label", {}, box, make("i", { style: `background:var(--${colour})` }), name)] : [];
    });
    const every = (text, checked) => button(text, () => boxes.forEach(([box]) => box && box.checked != checked && box.click()));
    nav.append(make("details", { className: "pick" }, make("summary", { textContent: nav.dataset.arms || "Arms" }),
      make("div", {}, make("p", {}, every("All", true), every("None", false)), ...boxes.flatMap(([, label]) => label || []))));
  }

  // Tables.
  const text = (cell) => (cell?.textContent || "").replace(/\s+/g, " ").trim();
  const lists = new Map();
  const rowsOf = (table) => [...all("thead tr", table), ...lists.get(table) || all("tbody tr", table)]
    .filter((row) => !hidden.has(+(row.dataset.arm ?? -1)));
  const same = (table) => {
    const rows = rowsOf(table).slice(1);
    return all("thead th", table).map((_, at) => {
      const one = text(rows[0]?.cells[at]);
      return at && one != "" && rows.every((row) => text(row.cells[at]) == one);
    });
  };
  const key = (text) => {
    const plain = text.replace(/−/g, "-").replace(/,(?=\d{3})/g, "");
    const time = plain.match(/^(?:(\d+) h )?(\d+) min/);
    const number = plain.match(/^[^\w.+-]*([+-]?\d*\.?\d+(e[+-]?\d+)?)(?![\w-])/i);
    return time ? 3600 * (time[1] || 0) + 60 * time[2] : number ? +number[1] : /^[–]?$/.test(plain) ? null : plain;
  };
  // Numbers before words; what is missing comes last, whichever way.
  const sorted = (items, keyOf, way) => items.map((item) => [keyOf(item), item]).sort(([a], [b]) => {
    if (a == null || b == null) return (a == null) - (b == null);
    const order = typeof a == typeof b ? (a.big ? (a > b) - (a < b) : a - b) : typeof a == "number" ? -1 : 1;
    return way == "descending" ? -order : order;
  }).map(([, item]) => item);
  const sorting = (table, sort) => all("thead th", table).filter(text).forEach((head) => {
    const by = button("", () => {
      const way = { ascending: "descending", descending: "" }[head.ariaSort] ?? "ascending";
      all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
      if (way) head.ariaSort = way;
      sort(head.cellIndex, way);
    });
    by.className = "sort";
    by.append(...head.childNodes);
    head.append(by);
  });
  const quoted = (text) => `"${text.replace(/"/g, '""')}"`;
  const marks = {
    "±": "$\\pm$", "−": "$-$", "λ": "$\\lambda$", "Σ": "$\\Sigma$", "→": "$\\to$", "‖": "$\\|$", "²": "$^2$", "₂": "$_2$",
    "·": "$\\cdot$", "≈": "$\\approx$", "✓": "$\\surd$", "✗": "$\\times$",
    "-": "-{}", "–": "--", "<": "$<$", ">": "$>$", "|": "$|$", "\\": "\\textbackslash{}", "^": "\\^{}", "~": "\\~{}",
  };
  const tex = (text) => text.replace(/-(?=-)|[&%$#_{}±−λΣ→‖²₂·≈✓✗–<>|\\^~]/g, (mark) => marks[mark] || "\\" + mark);
  const forms = {
    CSV: (rows) => rows.map((row) => row.map(quoted).join() + "\n").join(""),
    LaTeX: ([head, ...rows], sides) => [`\\begin{tabular}{${sides}}\n\\toprule`, head, "\\midrule", ...rows, "\\bottomrule\n\\end{tabular}\n"]
      .map((row) => (row.map ? row.map(tex).join(" & ") + " \\\\" : row)).join("\n"),
  };
  const copy = async (what) => {
    try {
      await navigator.clipboard.writeText(what);
      return true;
    } catch {
      const area = document.body.appendChild(make("textarea", { value: what, readOnly: true }));
      area.style.cssText = "position:fixed;top:0";
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };
  const copier = (table, form) => button("Copy " + form, async ({ target }) => {
    const leave = reduced.has(table) ? same(table) : [];
    const rows = rowsOf(table).map((row) => [...row.cells].filter((_, at) => !leave[at]));
    const sides = rows[0].map((cell) => (cell.matches(".text") ? "l" : "r")).join("");
    const done = await copy(forms[form](rows.map((row) => row.map(text)), sides));
    target.textContent = done ? "Copied " + form : "The browser refuses to copy";
    target.focus();
  });
  // A long list: words that a row must have, NAME=VALUE for a column, and MOST rows at first.
  const MOST = 200;
  const searching = (table, first) => {
    const heads = all("thead th", table).map((head) => text(head).toLowerCase()), what = table.dataset.search;
    const box = make("input", { type: "search", placeholder: "Search: words, or norm=gn", ariaLabel: `Search ${what}` });
    const count = make("span", { role: "status" }), every = button("Show all", () => put(rows, true));
    const has = (row, word) => {
      const [name, value] = word.split("="), at = heads.indexOf(name);
      return value && at >= 0 ? text(row.cells[at]).toLowerCase() == value : text(row).toLowerCase().includes(word);
    };
    let rows = first;
    const put = (given, whole) => {
      rows = given;
      const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = words.length ? rows.filter((row) => words.every((word) => has(row, word))) : rows;
      lists.set(table, found);
      every.hidden = whole || found.length <= MOST;
      table.tBodies[0].replaceChildren(...(every.hidden ? found : found.slice(0, MOST)));
      const [shown, of, total] = [table.tBodies[0].rows, found, first].map(({ length }) => length.toLocaleString("en"));
      count.textContent = (of == total ? "" : of + " of ") + `${total} ${what}` + (shown == of ? "" : `, ${shown} shown`);
    };
    box.oninput = () => put(rows);
    put(first);
    return { tools: [box, count, every], put };
  };
  all(".scroll>table").filter((table) => table.tHead && table.tBodies[0].rows.length > 1).forEach((table, number) => {
    const first = [...table.tBodies[0].rows], only = make("input", { type: "checkbox" });
    table.id ||= "t" + number;
    only.onchange = () => (reduced[only.checked ? "add" : "delete"](table), apply());
    const search = table.dataset.search ? searching(table, first) : { tools: [], put: (rows) => table.tBodies[0].append(...rows) };
    table.parentNode.before(make("p", { className: "tools" }, ...search.tools,
      ...(same(table).some(Boolean) ? [make("label", {}, only, "Only differences")] : []), copier(table, "CSV"), copier(table, "LaTeX")));
    sorting(table, (at, way) => search.put(way ? sorted(first, (row) => key(text(row.cells[at])), way) : first));
  });
  all("time").forEach((time) => (time.textContent = new Date(time.dateTime).toTimeString().slice(0, 5)));
  apply();
})();
