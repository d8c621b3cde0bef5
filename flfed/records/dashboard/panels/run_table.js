// The table of runs: sorted and filtered in the browser, so that nobody waits for the server.
// Cells are put in as text, never as markup: names in them come from studies.

const picked = (window.flfedPicked ??= {ids: new Set(), change: new Set()});

function make(tag, settings = {}, ...inside) {
  const {dataset, ...others} = settings;
  const element = Object.assign(document.createElement(tag), others);
  Object.assign(element.dataset, dataset);
  element.append(...inside);
  return element;
}

function options(select, values, chosen) {
  select.append(...values.map(([value, text]) => new Option(text, value, false, value === chosen)));
  return select;
}

function order(state) {
  // A cell without a value comes last, in either direction.
  return (a, b) => {
    const [x, y] = [a, b].map(row => row.cells[state.sort].value);
    if (x === null || y === null) return (x === null) - (y === null);
    const way = typeof x === "number" ? x - y : x.localeCompare(y);
    return state.down ? -way : way;
  };
}

function matches(row, state) {
  for (const [key, value] of Object.entries(state.filters)) {
    if (value && row.cells[key].group !== value) return false;
  }
  return state.words.every(word => row.text.includes(word));
}

function cellOf(column, cell, row) {
  const inside = make("div");
  if (cell.sign) inside.append(make("span", {className: `sign ${cell.kind}`, ariaHidden: "true"}, cell.sign), " ");
  inside.append(column.link ? make("a", {href: row.href, target: "_self"}, cell.text) : cell.text);
  for (const below of cell.below) inside.append(make("small", {}, below));
  const className = cell.text || cell.below.length ? "" : "empty";
  return make("td", {className, dataset: {title: column.title, column: column.key}}, inside);
}

function lower(row) {
  for (const cell of Object.values(row.cells)) {
    cell.below ??= [];
    cell.group ??= cell.text;
    if (cell.value === undefined) cell.value = cell.text || null;
  }
  const texts = Object.values(row.cells).flatMap(cell => [cell.text, ...cell.below]);
  return {...row, text: [row.id, row.label, ...texts].join(" ").toLowerCase()};
}

export default function ({data, parentElement, setTriggerValue}) {
  const {words, most} = data;
  const before = parentElement.flfed;
  // A running run changes twice a second: only its cells do, as a click needs a link that stays.
  if (before && !data.controls) {
    before.replace(data.rows);
    return;
  }
  let rows = data.rows.map(lower);
  // A column without a cell takes no room; of running runs each may get one.
  const columns = data.columns.filter(({key}) => !data.controls || !rows.length || rows.some(row => row.cells[key].text));
  const lines = new Map();
  const state = before?.state ?? {sort: null, down: false, filters: {}, words: [], text: "", shown: data.step};
  if (data.controls && data.compared.join() !== (before?.compared ?? "")) picked.ids = new Set(data.compared);
  const body = make("tbody"), count = make("p", {role: "status"});
  const more = make("button", {type: "button"}), compare = make("button", {type: "button"});
  const heads = columns.map(column => {
    const button = make("button", {type: "button"}, column.title);
    button.onclick = () => sort(column.key, state.sort === column.key ? !state.down : Boolean(column.number));
    return make("th", {scope: "col", dataset: {column: column.key}}, button);
  });
  const field = (label, control) => {
    control.ariaLabel = label;
    return make("label", {}, make("span", {}, label), control);
  };
  const sorts = options(make("select", {dataset: {focus: "sort"}}), [["", words.newest],
    ...columns.flatMap(({key, title}) => [[`${key} up`, `${title} ↑`], [`${key} down`, `${title} ↓`]])]);
  sorts.onchange = () => {
    const [key, way] = sorts.value.split(" ");
    sort(key || null, way === "down");
  };

  function sort(key, down) {
    Object.assign(state, {sort: key, down});
    show();
  }

  function tick(row) {
    const box = make("input", {type: "checkbox", ariaLabel: `${words.pick} ${row.label}`, dataset: {focus: row.id}});
    box.onchange = () => {
      picked.ids[box.checked ? "add" : "delete"](row.id);
      for (const change of picked.change) change();
    };
    return make("td", {dataset: {title: words.pick, column: "pick"}}, box);
  }

  function line(row) {
    const known = lines.get(row.id) ?? {shown: make("tr", {dataset: {run: row.id}}, tick(row)), cells: {}};
    lines.set(row.id, known);
    columns.forEach((column, place) => {
      const cell = row.cells[column.key], text = JSON.stringify(cell);
      if (known.cells[column.key] === text) return;
      known.cells[column.key] = text;
      known.shown.children[place + 1]?.remove();
      known.shown.insertBefore(cellOf(column, cell, row), known.shown.children[place + 1] ?? null);
    });
    const box = known.shown.querySelector("input");
    box.checked = picked.ids.has(row.id);
    box.disabled = !box.checked && picked.ids.size >= most;
    return known.shown;
  }

  function show() {
    const focus = document.activeElement?.dataset?.focus;
    const found = rows.filter(row => matches(row, state));
    if (state.sort) found.sort(order(state));
    const shown = found.slice(0, state.shown).map(line);
    if (shown.length !== body.children.length || shown.some((one, place) => one !== body.children[place])) {
      body.replaceChildren(...shown);
    }
    heads.forEach((head, place) => {
      const way = state.sort === columns[place].key ? (state.down ? "descending" : "ascending") : "none";
      head.ariaSort = way;
    });
    sorts.value = state.sort ? `${state.sort} ${state.down ? "down" : "up"}` : "";
    count.textContent = words.count.replace("{found}", found.length).replace("{all}", rows.length);
    more.hidden = found.length <= state.shown;
    more.textContent = words.more.replace("{found}", found.length);
    compare.textContent = picked.ids.size < 2 ? words.tick : words.compare.replace("{picked}", picked.ids.size);
    compare.disabled = picked.ids.size < 2;
    if (focus) parentElement.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus();
  }

  more.onclick = () => {
    state.shown = Infinity;
    show();
  };
  compare.onclick = () => setTriggerValue("compare", [...picked.ids]);
  const table = make("table", {}, make("caption", {}, words.caption), make("thead", {}, make("tr", {},
    make("th", {scope: "col", dataset: {column: "pick"}}, words.pick), ...heads)), body);
  const parts = [make("div", {className: "scroll", tabIndex: -1}, table)];
  if (data.controls) {
    const text = make("input", {type: "search", value: state.text, placeholder: words.example, dataset: {focus: "text"}});
    text.oninput = () => {
      Object.assign(state, {text: text.value, words: text.value.toLowerCase().split(/\s+/).filter(Boolean)});
      show();
    };
    const filters = data.filters.map(({key, title}) => {
      const values = new Set(rows.map(row => row.cells[key].group));
      values.delete("");
      const select = options(make("select", {dataset: {focus: `filter ${key}`}}),
        [["", words.all], ...[...values].sort().map(value => [value, value])], state.filters[key]);
      select.onchange = () => {
        state.filters[key] = select.value;
        show();
      };
      return values.size ? field(title, select) : "";
    });
    parts.unshift(make("div", {className: "controls"}, field(words.search, text), ...filters, field(words.sort, sorts)),
      make("div", {className: "counted"}, count, compare));
    parts.push(more);
  }
  if (before) picked.change.delete(before.show);
  picked.change.add(show);
  const focus = document.activeElement?.dataset?.focus;
  const root = make("div", {className: "flfed-runs"}, ...parts);
  if (before) before.root.replaceWith(root); else parentElement.append(root);
  function replace(newer) {
    rows = newer.map(lower);
    show();
  }
  parentElement.flfed = {state, root, show, replace, compared: data.compared.join()};
  show();
  if (focus) root.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus();
  return () => {
    picked.change.delete(show);
  };
}
