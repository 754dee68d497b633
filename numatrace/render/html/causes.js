// Every cause with its evidence, those that were ruled out, and the plans that were weighed.
function causes(report) {
  const judged = report.ruled_out.filter((each) => each.judged), open = report.ruled_out.filter((each) => !each.judged);
  section("causes", "Causes", report.findings.length ? null : "No cause of lost time was found.",
    report.findings.map(finding),
    judged.length ? [h("h3", {}, "Ruled out"), ruledOut(judged, "not it")] : null,
    open.length ? [h("h3", {}, "Cannot be told from this trace"), ruledOut(open, "unknown")] : null,
    report.corrections.length ? [h("h3", {}, "What circulating advice gets wrong here"), list(report.corrections)] : null);
  if (report.plans.length) plans(report);
}

function finding(each) {
  return h("article", { class: "cause" },
    h("div", { class: "head" }, h("h3", {}, h("span", { class: "id" }, each.cause), each.name), h("span", { class: `sure ${each.confidence}` }, `confidence: ${each.confidence}`)),
    h("p", {}, glued(each.sentence)), each.lost_ns ? h("p", {}, h("b", {}, `Lost: ${figure(each.lost_ns)} of CPU time `), sources([each.lost_ns])) : null,
    evidence(each.evidence), list(each.notes),
    each.refuted_by ? h("p", { class: "hint" }, h("b", {}, "What would refute it: "), each.refuted_by) : null,
    each.document ? fold(`The usual guides' own check: ${each.document.command}`, h("p", { class: "hint" }, `Their cause ${each.document.number}, ${each.document.name}. What it would have shown, from the trace:`), h("pre", { tabindex: 0 }, each.document.shows.join("\n"))) : null);
}

function ruledOut(all, mark) {
  return h("ul", { class: "ruled" }, all.map((each) => h("li", {}, h("span", { class: "id" }, each.cause), h("div", {}, h("b", {}, each.name), h("span", { class: "mark" }, mark), h("p", {}, glued(each.why))))));
}

function plans(report) {
  const most = Math.max(1.2, ...report.plans.map((plan) => plan.speedup ? plan.speedup.high ?? plan.speedup.value : 0));
  const rows = [...report.plans].sort((a, b) => b.chosen - a.chosen), nodes = report.machine.nodes.map((node) => String(node.node));
  section("plans", "Plans that were weighed", "Predicted, not measured. Speed is a multiple of today's tokens per second, with its range.",
    h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Plans" }, h("table", { class: "plans" },
      h("thead", {}, h("tr", {}, ["plan", "remote", "speed", "", "why not"].map((name, index) => h("th", { scope: "col", class: index === 1 || index === 2 ? null : "left" }, name)))),
      h("tbody", {}, rows.map((plan) => h("tr", { class: plan.chosen ? "chosen" : null },
        h("th", { scope: "row", class: "left" }, h("code", {}, plan.id), h("p", {}, plan.title)),
        h("td", {}, plan.remote_share ? share(plan.remote_share.value) : "?"), h("td", {}, plan.speedup ? speed(plan.speedup) : "?"),
        h("td", { class: "left" }, plan.speedup ? range(plan.speedup, most) : null),
        h("td", { class: "left" }, plan.chosen ? h("b", {}, "the fix") : plan.why_not, list(plan.lint.filter((each) => each !== plan.why_not)))))))),
    h("p", { class: "hint" }, "The dotted line is today's speed."),
    fold("What the predictions rest on", rows.map((plan) => h("div", {}, h("h4", {}, h("code", {}, plan.id)), h("p", { class: "hint" }, `Weights: ${nodes.filter((node) => plan.node_bytes[node]).map((node) => `${bytes(plan.node_bytes[node])} on node ${node}`).join(", ") || "unknown"}`), list(plan.assumptions)))));
}

const speed = (each) => each.low === null || each.high === null ? `${fixed(each.value, 1)}×` : `${fixed(each.low, 1)}–${fixed(each.high, 1)}×`;

function range(each, most) {
  const low = each.low ?? each.value, high = each.high ?? each.value, x = (value) => 4 + 152 * Math.min(1, Math.max(0, value / most));
  return s("svg", { class: "range", width: 160, height: 18, viewBox: "0 0 160 18", role: "img", "aria-label": speed(each) },
    s("line", { class: "axis", x1: 4, y1: 9, x2: 156, y2: 9 }), s("line", { class: "today", x1: x(1), y1: 1, x2: x(1), y2: 17 }),
    s("line", { class: "reach", x1: x(low), y1: 9, x2: Math.max(x(high), x(low) + 2), y2: 9 }));
}
