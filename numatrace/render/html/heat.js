// Threads by layers as a map of heat; arrow keys move through it, figures show for the cell in focus.
const HEAT_ROWS = 64, HEAT_COLUMNS = 192, FEW_COLUMNS = 12, DENSE_COLUMNS = 48;

function heat(report) {
  const measured = report.access && report.access.rung !== "placement" && report.grid.length;
  const map = measured ? measuredMap(report) : expectedMap(report);
  if (!map.rows.length)
    return section("heat", "Threads × layers", null, h("p", {}, "The trace has neither samples of memory accesses nor compute threads and weights: there is nothing to map."));
  const metrics = map.metrics.filter((metric) => metric.always || map.cells.some((cell) => metric.of(cell) > 0));
  const holder = h("div", { class: "wide" }), legend = h("p", { class: "legend" }), choice = h("div", { class: "choice", role: "radiogroup", "aria-label": "What the colours show" });
  const made = section("heat", "Threads × layers", map.lead, choice, holder, legend, map.left ? h("p", { class: "hint" }, `Left out: ${map.left}.`) : null, h("p", { class: "hint keys" }, "Tab into the map, then use the arrow keys: the figures of a cell show beside it."));
  metrics.forEach((metric, index) => choice.append(h("label", {}, h("input", { type: "radio", name: "metric", value: metric.id, checked: !index, onchange: () => show(metric) }), metric.name)));
  function show(metric) {
    const most = metric.most || Math.max(1, ...map.cells.map((cell) => metric.of(cell) || 0));
    holder.replaceChildren(drawHeat(map, metric, most));
    legend.replaceChildren(h("span", {}, "0"), h("span", { class: "scale" }), h("span", {}, metric.write(most)), h("span", { class: "swatch withheld" }), h("span", {}, metric.id === "remote" ? TOO_FEW : "not read"));
  }
  show(metrics[0]);
  return made;
}

const place = (cell) => `${cell.tgid} ${cell.path} ${cell.layer === null ? cell.region : `blk.${cell.layer}`}`;

function measuredMap(report) {
  const server = report.processes.find((each) => each.is_server);
  const cells = report.grid.filter((cell) => cell.tid && (!server || cell.tgid === server.tgid));
  const names = new Map(report.threads.map((each) => [`${each.tgid}/${each.tid}`, each]));
  const lost = (cell) => cell.lost_ns, read = (cell) => cell.read_ns;
  return tabulate(cells, {
    row: (cell) => `${cell.tgid}/${cell.tid}`, column: place,
    rowName: (cell) => threadName(names.get(`${cell.tgid}/${cell.tid}`), cell.tid),
    columnName: (cell) => cell.layer === null ? (cell.path ? cell.region.replace(/^weights: /, "") : cell.region) : `blk.${cell.layer}`,
    columnOrder: (cell) => cell.layer === null ? [1, 0] : [0, cell.layer],
    lead: "CPU time of the server's threads in accesses to memory, loading left out: who reads what, and what is lost because it is remote.",
    metrics: [
      { id: "lost", name: "Time lost", of: lost, write: time },
      { id: "read", name: "Time reading", of: read, write: time, always: true },
      { id: "remote", name: "Remote share", of: (cell) => cell.remote_share ? cell.remote_share.value : null, write: share, most: 1, always: true }],
    tip: (cell) => [`reading ${time(cell.read_ns)} (${plural(cell.samples, "sample")})`, `remote ${figure(cell.remote_share)}`, `lost ${time(cell.lost_ns)}`],
  });
}

function expectedMap(report) {
  const names = new Map(report.threads.map((each) => [`${each.tgid}/${each.tid}`, each]));
  return tabulate(report.shares, {
    row: (cell) => `${cell.tgid}/${cell.tid}`, column: (cell) => cell.region,
    rowName: (cell) => threadName(names.get(`${cell.tgid}/${cell.tid}`), cell.tid),
    columnName: (cell) => cell.region.replace(/^weights: /, ""), columnOrder: () => [0, 0],
    lead: "Expected remote share of the compute threads' reads, from where memory lies and where the threads ran: computed, not measured. It holds if a thread reads all of a region alike.",
    metrics: [{ id: "remote", name: "Expected remote share", of: (cell) => cell.remote_share.value, write: share, most: 1, always: true }],
    tip: (cell) => [`expected remote ${figure(cell.remote_share)}`, `source: ${cell.remote_share.source}`],
  });
}

const threadName = (thread, tid) => thread ? `${tid} ${thread.comm}${thread.members > 1 ? ` ×${thread.members}` : ""}` : String(tid);

// Rows and columns by falling weight, the columns of a model in the order of its layers.
function tabulate(cells, about) {
  const [rows, columns] = [about.row, about.column].map((key) => {
    const found = new Map();
    for (const cell of cells) {
      const each = found.get(key(cell)) || { key: key(cell), cell, weight: 0 };
      each.weight += cell.read_ns ?? 1;
      found.set(each.key, each);
    }
    return [...found.values()].sort((a, b) => b.weight - a.weight);
  });
  const left = [rows.length > HEAT_ROWS && plural(rows.length - HEAT_ROWS, "thread"), columns.length > HEAT_COLUMNS && plural(columns.length - HEAT_COLUMNS, "layer or region", "layers or regions")].filter(Boolean).join(", ");
  const kept = columns.slice(0, HEAT_COLUMNS).sort((a, b) => { const [i, j] = [about.columnOrder(a.cell), about.columnOrder(b.cell)]; return i[0] - j[0] || i[1] - j[1]; });
  const at = new Map(cells.map((cell) => [`${about.row(cell)}\n${about.column(cell)}`, cell]));
  return { ...about, cells, left, at, rows: rows.slice(0, HEAT_ROWS), columns: kept };
}

function drawHeat(map, metric, most) {
  const few = map.columns.length <= FEW_COLUMNS, dense = map.columns.length > DENSE_COLUMNS;
  const named = (index) => !dense || index % 4 === 0 || map.columns[index].cell.layer == null;
  const grid = h("table", { class: `grid heat${few ? " few" : ""}${dense ? " dense" : ""}`, role: "grid", "aria-label": metric.name });
  grid.append(h("thead", {}, h("tr", {}, h("td", {}, "thread"), map.columns.map((column, index) => h("th", { scope: "col", title: map.columnName(column.cell) }, h("span", { class: named(index) ? null : "unseen" }, shortened(map.columnName(column.cell), few ? 34 : 24)))))));
  const cells = [];
  grid.append(h("tbody", {}, map.rows.map((row, i) => h("tr", {}, h("th", { scope: "row", title: map.rowName(row.cell) }, h("span", {}, map.rowName(row.cell))), map.columns.map((column, j) => {
    const cell = map.at.get(`${row.key}\n${column.key}`), value = cell ? metric.of(cell) : null;
    const head = `${map.rowName(row.cell)} × ${map.columnName(column.cell)}`, lines = [head, ...(cell ? map.tip(cell) : ["not read"])];
    const made = h("td", { role: "gridcell", tabindex: i || j ? -1 : 0, class: value === null ? "cell withheld" : value / most > 0.55 ? "cell strong" : "cell", "--v": value === null ? null : value / most, "aria-label": lines.join(", ") }, few && value !== null ? (value ? metric.write(value) : "0") : "");
    made.addEventListener("focus", () => showTip(made, lines));
    made.addEventListener("mouseenter", () => showTip(made, lines));
    (cells[i] ||= []).push(made);
    return made;
  })))));
  grid.addEventListener("mouseleave", hideTip);
  grid.addEventListener("focusout", hideTip);
  grid.addEventListener("keydown", (event) => walk(event, cells));
  return grid;
}

function walk(event, cells) {
  const i = cells.findIndex((row) => row.includes(event.target));
  if (i < 0) return;
  const j = cells[i].indexOf(event.target), last = cells[i].length - 1;
  if (event.key === "Escape") return hideTip();
  const to = { ArrowUp: [i - 1, j], ArrowDown: [i + 1, j], ArrowLeft: [i, j - 1], ArrowRight: [i, j + 1], Home: [i, 0], End: [i, last] }[event.key];
  if (!to) return;
  event.preventDefault();
  const next = (cells[to[0]] || [])[to[1]];
  if (!next) return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}
