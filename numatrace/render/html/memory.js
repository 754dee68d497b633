// Tables of what lies where: threads, memory, layers, tensors.
function measuredColumns() {
  return [{ name: "reading", title: "measured CPU time in accesses to it, loading left out", of: (row) => row.read_ns, show: (row) => row.read_ns ? time(row.read_ns) : UNKNOWN },
    { name: "remote", title: "remote part of that time, with its 95 % interval", of: (row) => row.remote_share ? row.remote_share.value : null, show: (row) => row.read_ns ? figure(row.remote_share, "too few") : UNKNOWN },
    { name: "lost", title: "of that, time lost because it was remote", of: (row) => row.lost_ns, show: (row) => row.lost_ns ? time(row.lost_ns) : UNKNOWN }];
}

function memory(report, words, leftOut) {
  const nodes = report.machine.nodes.map((node) => String(node.node));
  const note = (name) => leftOut[name] ? `${count(leftOut[name])} more are left out of this page: numatrace analyze --json has them` : "";
  const several = new Set(report.tensors.map((row) => row.path)).size > 1;
  const columns = [
    { name: "tensor", left: true, of: (row) => row.name, show: (row) => h("code", {}, row.name) },
    { name: "layer", of: (row) => row.layer, show: (row) => row.layer === null ? UNKNOWN : row.layer },
    { name: "type", left: true, of: (row) => row.type },
    several ? { name: "file", left: true, of: (row) => basename(row.path) } : null,
    { name: "size", of: (row) => row.bytes, show: (row) => bytes(row.bytes) },
    ...nodeColumns((row) => row.node_bytes, nodes), ...measuredColumns()].filter(Boolean);
  const lost = report.tensors.some((row) => row.lost_ns) ? columns.findIndex((each) => each.name === "lost") : -1;
  const tensors = report.tensors.length ? sortable({ id: "tensor-table", label: "Tensors", rows: report.tensors, search: "Search tensors", sort: [lost, true], note: note("tensors"), columns })
    : h("p", {}, "No model file was mapped, or its table of tensors was not recorded.");
  const files = [...new Set(report.tensors.map((row) => row.path))].join(", ");
  section("tensors", "Tensors", files ? `Of ${files}: where each lies, and what reading it costs.` : null, tensors);
  section("tables", "Threads, layers, memory", "Where threads ran and where memory lies at the end of the recording.",
    fold(`Threads (${count(report.threads.length)})`, threadTable(report, nodes, note("threads"))),
    fold(`Layers (${count(report.layers.length)})`, layerTable(report, nodes, note("layers"))),
    fold(`Memory regions (${count(report.regions.length)})`, regionTable(report, nodes, note("regions"))),
    report.hot.length ? fold(`Reads that cost most (${count(report.hot.length)})`, hotTable(report)) : null);
}

const processColumn = (rows) => new Set(rows.map((row) => row.tgid)).size > 1 ? [{ name: "process", of: (row) => row.tgid }] : [];

function threadTable(report, nodes, note) {
  return sortable({ id: "thread-table", label: "Threads", rows: report.threads, search: "Search threads", note, columns: [
    { name: "thread", left: true, of: (row) => row.comm, show: (row) => `${row.comm} (${row.tid}${row.members > 1 ? `, a slot of ${row.members}` : ""})` },
    { name: "role", left: true, of: (row) => row.role }, ...processColumn(report.threads),
    { name: "CPU time", of: (row) => total(row.oncpu_ns), show: (row) => time(total(row.oncpu_ns)) },
    ...nodeColumns((row) => row.oncpu_ns, nodes),
    { name: "moves", title: "times it began to run on another node", of: (row) => row.moves, show: (row) => count(row.moves) },
    { name: "faults", title: "page faults, exact", of: (row) => row.faults, show: (row) => count(row.faults) }, ...measuredColumns()] });
}

function layerTable(report, nodes, note) {
  return sortable({ id: "layer-table", label: "Layers", rows: report.layers, note, columns: [
    { name: "layer", left: true, of: (row) => row.layer === null ? "in no layer" : `blk.${row.layer}` },
    { name: "file", left: true, of: (row) => basename(row.path) }, { name: "tensors", of: (row) => row.tensors },
    { name: "size", of: (row) => row.bytes, show: (row) => bytes(row.bytes) },
    ...nodeColumns((row) => row.node_bytes, nodes), ...measuredColumns()] });
}

function regionTable(report, nodes, note) {
  return sortable({ id: "region-table", label: "Memory regions", rows: report.regions, search: "Search memory", note, columns: [
    { name: "region", left: true, of: (row) => row.label }, { name: "kind", left: true, of: (row) => row.cls }, ...processColumn(report.regions),
    { name: "size", of: (row) => row.bytes, show: (row) => bytes(row.bytes) },
    { name: "in memory", of: (row) => total(row.node_bytes), show: (row) => bytes(total(row.node_bytes)) },
    { name: "±", title: "half width of the 95 % interval of a node's bytes; every page was looked at where it is exact", of: (row) => row.error_bytes, show: (row) => row.census ? "exact" : bytes(row.error_bytes) },
    ...nodeColumns((row) => row.node_bytes, nodes),
    { name: "faults", title: "estimated from the sampled ones", of: (row) => row.faults, show: (row) => count(row.faults) }, ...measuredColumns()] });
}

function hotTable(report) {
  const node = (number) => number === null ? "?" : `node ${number}`;
  return sortable({ id: "hot-table", label: "Reads that cost most", rows: report.hot, columns: [
    { name: "thread", left: true, of: (row) => String(row.tid) },
    { name: "reads", left: true, of: (row) => row.layer === null ? row.region : `blk.${row.layer} of ${basename(row.path)}` },
    { name: "from", left: true, of: (row) => node(row.mem_node) }, { name: "on", left: true, of: (row) => node(row.cpu_node) },
    { name: "samples", of: (row) => row.samples, show: (row) => count(row.samples) },
    { name: "reading", of: (row) => row.time_ns, show: (row) => time(row.time_ns) }, { name: "lost", of: (row) => row.lost_ns, show: (row) => time(row.lost_ns) }] });
}
