// The answer in five seconds: verdict, the figures that it rests on, and the fix.
function answer(report, words) {
  const place = byId("answer"), kind = byId("kind");
  kind.textContent = word(words.verdict, report.verdict.kind) || report.verdict.kind;
  kind.dataset.kind = report.verdict.kind;
  byId("sentence").textContent = glued(report.verdict.sentence);
  if (report.provenance.problems.length)
    place.append(h("p", { class: "warn" }, "The trace is damaged or incomplete: ", h("a", { href: "#origins" }, "what is missing"), "."));
  if (report.filters) place.append(restricted(report.filters));
  const shown = tiles(report);
  if (shown.length) place.append(h("div", { class: "tiles" }, shown));
  const fixes = report.findings.flatMap((finding) => finding.fixes.map((fix) => [finding, fix]));
  if (fixes.length) place.append(fixCard(...fixes[0], true));
  else if (report.findings.length)
    place.append(h("p", {}, "numatrace has no commands for this: ", h("a", { href: "#causes" }, "see the notes of the cause"), "."));
  if (fixes.length > 1)
    place.append(fold(plural(fixes.length - 1, "other fix", "other fixes"), fixes.slice(1).map((each) => fixCard(...each, false))));
  if (report.verdict.reasons.length)
    place.append(h("h3", {}, "What this rests on"), evidence(report.verdict.reasons));
  listPart("answer", "Answer");
}

function restricted(filters) {
  const to = [filters.pid !== null && `process ${filters.pid}`, filters.phase !== null && `phase ${filters.phase}`].filter(Boolean).join(", ");
  return h("div", { class: "warn" }, h("p", {}, h("b", {}, `Restricted to ${to}. `), filters.left_out.length ? `Left out: ${filters.left_out.join("; ")}.` : ""),
    filters.whole.length ? h("p", {}, `Still of the whole recording: ${filters.whole.join("; ")}.`) : null);
}

function evidence(reasons) {
  return h("ul", { class: "evidence" }, reasons.map((reason) => h("li", {}, glued(reason.text), " ", sources(reason.figures))));
}

function sources(figures) {
  return [...new Set(figures.map((each) => each.source))].map((name) =>
    h("span", { class: "source", title: word(DATA.words.source, name) || null }, name));
}

function tiles(report) {
  const found = [], server = report.server, nodes = report.machine.nodes.map((node) => String(node.node));
  if (server) {
    const remote = server.remote_share || server.expected_share;
    found.push(tile("Remote reads of the weights", remote ? share(remote.value) : TOO_FEW, remote && [interval(remote) && `95 %: ${interval(remote)} %. `, remote.source === "model" ? "expected, not measured " : "", sources([remote])]));
  }
  const lost = report.findings.length ? report.findings[0].lost_ns : null;
  if (lost) found.push(tile("CPU time lost", time(lost.value), [interval(lost) && `${interval(lost)} `, sources([lost])]));
  if (server && nodes.length > 1)
    found.push(h("div", { class: "tile both" },
      lies("Weights lie on", server.weights_bytes, bytes, nodes), lies("Compute threads run on", server.compute_ns, time, nodes)));
  return found;
}

function tile(name, value, note) {
  return h("div", { class: "tile" }, h("p", { class: "name" }, name), h("p", { class: "value" }, value), note ? h("p", { class: "note" }, note) : null);
}

function lies(name, amounts, write, nodes) {
  const parts = nodes.map((node, index) => ({ value: amounts[node] || 0, tint: nodeColour(index), text: `node ${node}: ${share(part(amounts, node) || 0)}`, title: `node ${node}: ${write(amounts[node] || 0)}` }));
  const text = parts.filter((each) => each.value).map((each) => each.text).join(", ") || "unknown";
  return h("div", {}, h("p", { class: "name" }, name, h("span", {}, write(total(amounts)))), stack(parts, `${name}: ${text}`));
}

function fixCard(finding, fix, first) {
  const usable = fix.steps.every((step) => !step.unshowable);
  const script = fix.steps.map((step) => `# ${step.why}\n${step.command}\n`).join("\n");
  return h("div", { class: first ? "fix first" : "fix" },
    h("div", { class: "head" }, h("div", {}, h("p", { class: "name" }, first ? `Fix for ${finding.cause}, ${finding.name}` : `${finding.cause}, ${finding.name}`),
      h("h3", {}, fix.title.charAt(0).toUpperCase() + fix.title.slice(1))),
    usable && fix.steps.length > 1 ? copyButton(script, "Copy all steps", fix.title) : null),
    h("p", { class: "note" }, `Server started: ${fix.deployment} · ${fix.id}`),
    fix.notes.length ? h("div", { class: "before" }, h("b", {}, "Before you start"), list(fix.notes)) : null,
    steps(fix.steps),
    fix.verify.length ? fold("See that it worked", steps(fix.verify)) : null,
    fix.undo.length ? fold("Undo it", steps(fix.undo)) : null,
    fix.lint.length ? fold(`Checked against the trace (${fix.lint.length})`, list(fix.lint)) : null);
}

function steps(all) {
  return h("ol", { class: "steps" }, all.map((step, index) => h("li", {},
    h("p", {}, step.why, step.stays ? " It runs on: give it a terminal of its own." : "", " ", step.needs_root ? h("span", { class: "root", title: "run it as root, or put sudo before it" }, "root") : null),
    commandBox(step, `step ${index + 1}`))));
}
