// Where the numbers come from, how sure they are, what was lost and what is missing.
function origins(report, words, leftOut) {
  const { provenance, access } = report, sampled = report.regions.filter((region) => !region.census && region.error_bytes);
  const dropped = Object.entries(leftOut);
  section("origins", "Where the numbers come from",
    `A recording of ${time(provenance.duration_ns)} (ended: ${word(words.ended, provenance.ended) ?? provenance.ended}); ${plural(provenance.rows, "row")} of trace version ${provenance.trace_version}.`,
    titled("Damaged or missing", provenance.problems, "warn"),
    h("dl", { class: "defined" }, provenance.sources.map((name) => h("div", {}, h("dt", {}, h("span", { class: "source" }, name)), h("dd", {}, word(words.source, name) || "")))),
    access ? accessFacts(report, access, words) : null,
    h("h3", {}, "Account of all events"),
    h("p", { class: "hint" }, "Recorded = attributed to a thread or a region + unattributed + lost."),
    sortable({ id: "loss-table", label: "Account of events", rows: report.losses, columns: [{ name: "events", left: true, of: (row) => row.family },
      ...["recorded", "attributed", "unattributed", "lost"].map((name) => ({ name, of: (row) => row[name], show: (row) => count(row[name]) }))] }),
    sampled.length ? fold("How exact the bytes per node are", h("p", { class: "hint" }, "Of these regions a sample of the pages was looked at; half width of the 95 % interval of a node's bytes:"),
      list(sampled.map((region) => `${region.label} (process ${region.tgid}): ± ${bytes(region.error_bytes)}`))) : null,
    titled("Not recorded", provenance.not_recorded), titled("Remarks", report.notes),
    dropped.length ? titled("Left out of this page, to keep it small; numatrace analyze --json has all of it", dropped.map(([name, number]) => `${name.replaceAll("_", " ")}: ${count(number)}`)) : null);
}

const titled = (title, texts, kind) => texts.length ? [h("h3", { class: kind || null }, title), list(texts)] : null;

function accessFacts(report, access, words) {
  const rate = access.rates.filter((each) => each.source === access.source).at(-1), timed = access.time_ns > 0;
  const amount = (view) => timed ? view.time_ns : view.samples, write = timed ? time : count;
  const rows = [["in accesses to known memory", access.placed], ["waiting for another thread (a barrier, polled)", access.waiting],
    ...access.kernel.map((view) => [(word(words.how, view.reason) || view.reason), view]), ...access.unplaced.map((view) => [word(words.how, view.reason) || view.reason, view])].filter(([, view]) => view.samples);
  const all = rows.reduce((sum, [, view]) => sum + amount(view), 0), effect = access.design_effect;
  return [h("h3", {}, "Samples of memory accesses"),
    h("p", {}, `${word(words.rung, access.rung)}${access.why ? ` (${access.why})` : ""}. ${plural(access.samples, "sample")}, ${access.lost ? `${count(access.lost)} lost` : "none lost"}${rate ? `; ${rate.period_events ? `one every ${count(rate.period_events)} events` : `one every ${time(rate.period_ns)} of CPU time`}${rate.why ? `: ${rate.why}` : ""}` : ""}.`,
      rate && rate.overhead !== null ? ` Tracing cost ${share(rate.overhead)} of the CPU time${rate.budget !== null ? `, ${share(rate.budget)} allowed` : ""}.` : ""),
    rows.length ? h("div", { class: "wide" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { class: "left", scope: "col" }, timed ? "what the time went to" : "what the samples are"), ["part", timed ? "time" : "number", "samples"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map(([name, view]) => h("tr", {}, h("th", { class: "left", scope: "row" }, name), h("td", {}, meter(all ? amount(view) / all : 0, "var(--accent)")), h("td", {}, write(amount(view))), h("td", {}, count(view.samples))))))) : null,
    h("ul", {}, h("li", {}, `Intervals are 95 %${effect !== null && effect > 1.1 ? `, ${fixed(Math.sqrt(effect), 1)} times as wide as if samples in a row were independent` : ""}; a share from fewer than ${access.least_samples} independent samples is withheld.`),
      access.merged ? h("li", {}, "There was more than fits: small entries are merged into their layers and regions.") : null,
      access.unknown_node.samples ? h("li", {}, `${plural(access.unknown_node.samples, "sample")} in known memory whose node is unknown.`) : null,
      access.ratios.length ? h("li", {}, "Lost: remote time × (1 − 1/ratio), where remote memory takes ratio times as long: ", access.ratios.slice(0, 64).map((ratio) => `${fixed(ratio.ratio, 1)} on node ${ratio.cpu_node} for memory of node ${ratio.mem_node} (${ratio.basis})`).join("; "), ".") : null,
      report.phases.map((phase) => phase.note ? h("li", {}, `Phases: ${phase.note}.`) : null))];
}
