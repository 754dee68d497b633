// The machine, drawn: nodes with their CPUs and memory, what lies and runs where, and how far apart.
const CARD_LEAST = 270, GAP = 96, CPUS_SHOWN = 256, NODES_SHOWN = 64;

function machine(report) {
  const nodes = report.machine.nodes.slice(0, NODES_SHOWN);
  const balancing = { 0: "off", 1: "on", 2: "memory tiering" }[report.machine.numa_balancing];
  const facts = [plural(report.machine.nodes.length, "node"), report.machine.kernel && `Linux ${report.machine.kernel}`,
    balancing && `NUMA balancing ${balancing}`].filter(Boolean).join(" · ");
  if (!nodes.length) return section("machine", "The machine", facts, h("p", {}, "The trace does not say what machine this is."));
  const frame = h("div", { class: "drawing" });
  const made = section("machine", "The machine", facts, frame,
    nodes.length > 2 ? distances(nodes) : null,
    h("p", { class: "hint" }, "A node is some memory and, as a rule, the CPUs next to it. Memory of another node than a thread's CPU takes longer to reach. Distances are the firmware's hint, 10 is the node itself; they are no latencies."),
    report.machine.nodes.length > nodes.length ? h("p", { class: "hint" }, `Not drawn: ${plural(report.machine.nodes.length - nodes.length, "more node")}.`) : null,
    processes(report));
  atEveryWidth(frame, (width) => frame.replaceChildren(drawMachine(report, nodes, width)));
  return made;
}

function drawMachine(report, nodes, width) {
  const pair = nodes.length === 2, wide = pair ? GAP : 28;
  const fit = Math.max(1, Math.min(nodes.length, Math.floor((width + wide) / (CARD_LEAST + wide)), 4));
  const columns = Math.ceil(nodes.length / Math.ceil(nodes.length / fit)), gap = columns === 1 ? 28 : wide;
  const inner = (width - gap * (columns - 1)) / columns, server = report.processes.find((each) => each.is_server);
  const allowed = server && server.allowed_cpus ? new Set(cpus(server.allowed_cpus)) : null;
  const cards = nodes.map((node, index) => nodeCard(report, node, index, inner, allowed));
  const height = Math.max(...cards.map((card) => card.height)), step = height + (columns === 1 && pair ? 56 : 28);
  const rows = Math.ceil(nodes.length / columns), all = s("svg", {
    viewBox: `0 0 ${width} ${rows * step - (step - height)}`, width, height: rows * step - (step - height), role: "img",
    "aria-label": nodes.map((node) => describe(report, node)).join(" "),
  });
  cards.forEach((card, index) => {
    const x = (index % columns) * (inner + gap), y = Math.floor(index / columns) * step;
    all.append(s("g", { transform: `translate(${x} ${y})` }, s("rect", { class: "card", width: inner, height, rx: 10 }), card.parts));
  });
  if (pair) all.append(link(nodes, columns, inner, height, gap, width, step));
  return all;
}

function describe(report, node) {
  const server = report.server;
  const held = server ? ` ${share(part(server.weights_bytes, node.node) || 0)} of the weights, ${share(part(server.compute_ns, node.node) || 0)} of the compute time.` : "";
  return `Node ${node.node}: CPUs ${node.cpus || "none"}, ${bytes(node.total_bytes)} of memory, ${bytes(node.free_bytes)} free.${held}`;
}

function link(nodes, columns, inner, height, gap, width, step) {
  const there = nodes[0].distances[nodes[1].node], back = nodes[1].distances[nodes[0].node];
  const text = there === undefined ? "" : there === back ? `distance ${there}` : `${there} / ${back}`;
  const [x1, y1, x2, y2] = columns === 1 ? [width / 2, height, width / 2, step] : [inner, height / 2, inner + gap, height / 2];
  return s("g", {}, s("line", { class: "link", x1, y1, x2, y2 }),
    s("text", { class: "far", x: columns === 1 ? width / 2 + 10 : (x1 + x2) / 2, y: columns === 1 ? (y1 + y2) / 2 + 4 : y1 - 8, "text-anchor": columns === 1 ? "start" : "middle" }, text));
}

function nodeCard(report, node, index, width, allowed) {
  const pad = 16, room = width - 2 * pad, parts = [], tint = nodeColour(index), own = cpus(node.cpus);
  parts.push(s("text", { class: "title", x: pad, y: 30 }, `Node ${node.node}`));
  parts.push(s("text", { class: "small", x: width - pad, y: 30, "text-anchor": "end" }, own.length ? `${plural(own.length, "CPU")}, ${plural(node.cores, "core")}` : "no CPUs"));
  const size = own.length > 64 ? 9 : own.length > 16 ? 13 : 20, across = Math.max(1, Math.floor((room + 3) / (size + 3)));
  own.slice(0, CPUS_SHOWN).forEach((cpu, place) => parts.push(s("rect", {
    class: !allowed || allowed.has(cpu) ? "cpu" : "cpu barred", fill: tint, x: pad + (place % across) * (size + 3), y: 44 + Math.floor(place / across) * (size + 3), width: size, height: size, rx: 2,
  }, s("title", {}, `CPU ${cpu}${!allowed || allowed.has(cpu) ? "" : ": the server may not use it"}`))));
  let y = 44 + Math.ceil(Math.min(own.length, CPUS_SHOWN) / across) * (size + 3) + 8;
  parts.push(s("text", { class: "small", x: pad, y: y += 8 }, clipped(own.length ? `CPUs ${node.cpus}` : "memory only", room)));
  for (const bar of bars(report, node, tint)) {
    y += 26;
    parts.push(s("text", { class: "label", x: pad, y }, bar.name), s("text", { class: "figure", x: width - pad, y, "text-anchor": "end" }, bar.text));
    parts.push(s("rect", { class: "track", x: pad, y: y + 6, width: room, height: 8, rx: 4 }));
    let x = pad;
    for (const each of bar.parts) {
      if (each.part > 0) parts.push(s("rect", { class: each.class, fill: each.tint || null, x, y: y + 6, width: Math.max(2, room * each.part), height: 8, rx: 3 }, s("title", {}, each.title)));
      x += room * Math.max(0, each.part);
    }
    y += 14;
  }
  return { parts, height: y + 18 };
}

const clipped = (text, room) => text.length * 7 > room ? `${text.slice(0, Math.floor(room / 7) - 1)}…` : text;

function bars(report, node, tint) {
  const found = [], server = report.server, key = String(node.node), all = node.total_bytes;
  if (server && total(server.weights_bytes)) found.push(bar("Weights of the model", server.weights_bytes, key, bytes, tint));
  if (server && total(server.compute_ns)) found.push(bar("Compute threads' time", server.compute_ns, key, time, tint));
  if (all) {
    const free = node.free_bytes ?? 0, inactive = node.reclaimable_bytes ?? 0, used = Math.max(0, all - free - inactive);
    found.push({ name: "Memory", text: `${bytes(node.free_bytes)} of ${bytes(all)} free`, parts: [
      { part: used / all, class: "used", title: `${bytes(used)} used` },
      { part: inactive / all, class: "inactive", title: `${bytes(inactive)} page cache that can be reclaimed` }] });
  }
  return found;
}

function bar(name, amounts, key, write, tint) {
  const own = part(amounts, key) || 0, text = `${share(own)} · ${write(amounts[key] || 0)}`;
  return { name, text, parts: [{ part: own, class: "own", tint, title: text }] };
}

function distances(nodes) {
  const far = Math.max(...nodes.flatMap((node) => Object.values(node.distances)), 11);
  return h("div", { class: "wide distances" }, h("table", { class: "grid" },
    h("thead", {}, h("tr", {}, h("td", {}, "distance"), nodes.map((node) => h("th", { scope: "col" }, node.node)))),
    h("tbody", {}, nodes.map((from) => h("tr", {}, h("th", { scope: "row" }, `node ${from.node}`), nodes.map((to) => {
      const found = from.distances[to.node];
      const part = found ? (found - 10) / (far - 10) : 0;
      return h("td", { class: part > 0.55 ? "cell shown strong" : "cell shown", "--v": part }, found ?? UNKNOWN);
    }))))));
}

function processes(report) {
  if (!report.processes.length) return null;
  return fold(`Processes (${report.processes.length})`, sortable({ id: "processes", label: "Processes", rows: report.processes, search: report.processes.length > 8 ? "Search processes" : null, columns: [
    { name: "process", left: true, of: (row) => row.name, show: (row) => `${row.name} (${row.tgid})${row.is_server ? ", the server" : ""}` },
    { name: "CPU time", of: (row) => total(row.oncpu_ns), show: (row) => time(total(row.oncpu_ns)) },
    { name: "memory", of: (row) => total(row.present_bytes), show: (row) => bytes(total(row.present_bytes)) },
    { name: "CPUs", left: true, of: (row) => row.allowed_cpus || "?" }, { name: "memory of nodes", left: true, of: (row) => row.allowed_nodes || "?" },
    { name: "policy", left: true, of: (row) => row.policy || "?" },
    { name: "run by", left: true, of: (row) => row.unit || row.container || "" },
    { name: "command", left: true, of: (row) => row.argv.join(" "), show: (row) => h("code", {}, row.argv.join(" ")) }] }));
}
