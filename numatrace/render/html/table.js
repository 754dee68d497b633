// Tables that sort by any column and search in all text; long ones show their first rows.
const FIRST_ROWS = 20;

// columns: {name, title, of(row) -> value to sort by, show(row) -> text or element, left}
function sortable({ id, label, columns, rows, search, sort, note }) {
  const state = { by: sort ? sort[0] : -1, down: sort ? sort[1] : false, words: "", all: false };
  const body = h("tbody", {}), counted = h("p", { class: "counted", role: "status" });
  const more = h("button", { type: "button", class: "quiet" });
  const heads = columns.map((column, index) => h("th", { scope: "col", class: column.left ? "left" : null },
    h("button", { type: "button", class: "sort", title: column.title || null, onclick: () => order(index) }, column.name)));
  const box = search ? h("input", { type: "search", placeholder: search, "aria-label": `${search} (${label})`, spellcheck: "false" }) : null;
  const texts = new Map(rows.map((row) => [row, columns.filter((column) => column.left)
    .map((column) => String(column.of(row) ?? "")).join(" ").toLowerCase()]));

  function order(index) {
    const numeric = !columns[index].left;
    state.down = state.by === index ? !state.down : numeric;
    state.by = index;
    draw();
  }

  function chosen() {
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const found = rows.filter((row) => words.every((word) => texts.get(row).includes(word)));
    if (state.by < 0) return found;
    const of = columns[state.by].of;
    return found.map((row, place) => [of(row), place, row]).sort(([a, i], [b, j]) => {
      if ((a ?? null) === null || (b ?? null) === null) // what is unknown comes last
        return ((a ?? null) === null) - ((b ?? null) === null) || i - j;
      const way = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
      return (state.down ? -way : way) || i - j;
    }).map(([, , row]) => row);
  }

  function draw() {
    const found = chosen(), shown = state.all ? found : found.slice(0, FIRST_ROWS);
    body.replaceChildren(...shown.map((row) => h("tr", {}, columns.map((column, index) =>
      h(index ? "td" : "th", { scope: index ? null : "row", class: column.left ? "left" : null }, column.show ? column.show(row) : column.of(row))))));
    heads.forEach((head, index) => head.setAttribute("aria-sort", index !== state.by ? "none" : state.down ? "descending" : "ascending"));
    more.hidden = found.length <= FIRST_ROWS;
    more.textContent = state.all ? `Show the first ${FIRST_ROWS}` : `Show all ${count(found.length)}`;
    counted.textContent = `${count(shown.length)} of ${plural(rows.length, "row")}${found.length < rows.length ? `, ${count(found.length)} found` : ""}${note ? `; ${note}` : ""}`;
    counted.hidden = !note && rows.length <= FIRST_ROWS && !state.words;
  }

  if (box) box.addEventListener("input", () => { state.words = box.value; draw(); });
  more.addEventListener("click", () => { state.all = !state.all; draw(); });
  draw();
  return h("div", { class: "sortable", id }, box,
    h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": label },
      h("table", {}, h("thead", {}, h("tr", {}, heads)), body)), h("div", { class: "below" }, counted, more));
}

// Columns that say how an amount lies on the nodes.
function nodeColumns(of, nodes) {
  if (nodes.length > 8)
    return [{ name: "most on", of: (row) => most(of(row)), show: (row) => { const node = most(of(row)); return node === null ? UNKNOWN : `node ${node}: ${share(part(of(row), node))}`; } }];
  return nodes.map((node, index) => ({
    name: `node ${node}`, of: (row) => part(of(row), node),
    show: (row) => meter(part(of(row), node), nodeColour(index)),
  }));
}

function most(amounts) {
  const found = Object.entries(amounts || {}).sort(([, a], [, b]) => b - a)[0];
  return found ? Number(found[0]) : null;
}

function meter(value, tint) {
  if (value === null) return UNKNOWN;
  return h("span", { class: "meter", "--part": value, "--tint": tint }, share(value));
}

// A bar in parts: {value, tint, text, title}.
function stack(parts, label) {
  const all = parts.reduce((sum, each) => sum + each.value, 0);
  return h("div", { class: "stack", role: "img", "aria-label": label }, all ? parts.filter((each) => each.value > 0).map((each) =>
    h("span", { "--size": each.value / all, "--tint": each.tint, title: each.title }, each.value / all > 0.16 ? each.text : "")) : null);
}
