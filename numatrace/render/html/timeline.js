// What happened when, drawn by uPlot: CPUs in use by node, remote share, moves, faults; one cursor for all.
function timeline(report, words) {
  const line = report.timeline;
  if (!line || !line.phases.length)
    return section("timeline", "Timeline", null, h("p", {}, "The trace has no events with a time."));
  const lead = `${report.server ? "The server" : "All processes"}, in steps of ${time(line.step_ns)}. CPU time: ${line.source === "counter" ? "counted by the kernel, spread evenly between two readings" : "from samples"}. Faults: estimated from the sampled ones.`;
  const readout = h("dl", { class: "readout" }), slider = h("input", { type: "range", min: 0, max: line.phases.length - 1, value: 0, "aria-label": "Moment" });
  const charts = h("div", { class: "charts" });
  section("timeline", "Timeline", lead, phaseStrip(line, words), charts, h("label", { class: "moment" }, "Moment ", slider), readout);
  const starts = line.phases.map((_, index) => index * line.step_ns / 1e9);
  const plots = [];
  const tell = (index) => {
    slider.value = index;
    slider.setAttribute("aria-valuetext", moment(line, index, words).map((each) => each.join(" ")).join(", "));
    readout.replaceChildren(...moment(line, index, words).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  };
  const draw = () => {
    plots.splice(0).forEach((plot) => plot.destroy());
    charts.replaceChildren();
    for (const chart of chartsOf(line, starts)) {
      const holder = h("div", { class: "chart", role: "img", "aria-label": chart.title }), title = h("p", { class: "name" }, chart.title, chart.key);
      charts.append(title, holder);
      if (!chart.data) holder.append(h("p", { class: "hint" }, chart.nothing));
      else plots.push(new uPlot(options(chart, holder.clientWidth, starts, line, tell), chart.data, holder));
    }
  };
  slider.addEventListener("input", () => {
    const index = Number(slider.value);
    tell(index);
    for (const plot of plots) plot.setCursor({ left: plot.valToPos((index + 0.5) * line.step_ns / 1e9, "x"), top: 4 }, false);
  });
  atEveryWidth(charts, draw);
  document.addEventListener("themed", draw);
  tell(Math.max(0, line.phases.findIndex((phase) => phase !== "idle")));
}

function phaseStrip(line, words) {
  const runs = [];
  line.phases.forEach((phase) => runs.length && runs.at(-1).phase === phase ? runs.at(-1).steps++ : runs.push({ phase, steps: 1 }));
  const seen = [...new Set(line.phases)];
  return h("div", { class: "phases" }, h("div", { class: "strip", role: "img", "aria-label": `Phases: ${runs.map((run) => `${word(words.phase, run.phase) || run.phase} for ${time(run.steps * line.step_ns)}`).join(", then ")}` },
    runs.map((run) => h("span", { class: `phase ${run.phase}`, "--size": run.steps, title: `${word(words.phase, run.phase) || run.phase}, ${time(run.steps * line.step_ns)}` }))),
  h("p", { class: "legend" }, seen.map((phase) => h("span", { class: "pair" }, h("span", { class: `swatch phase ${phase}` }), word(words.phase, phase) || phase))));
}

function spanAt(line, index) {
  const at = (index + 0.5) * line.step_ns;
  return line.shares.find((span) => span.start_ns <= at && at < span.end_ns);
}

function moment(line, index, words) {
  const span = spanAt(line, index);
  return [["time", `${fixed(index * line.step_ns / 1e9, 1)} s`], ["phase", word(words.phase, line.phases[index]) || line.phases[index]],
    ...line.nodes.slice(0, 6).map((node) => [`node ${node.node}`, `${fixed(node.oncpu_ns[index] / line.step_ns, 1)} CPUs`]),
    ["remote", span ? figure(span.remote_share) : "no samples"], ["moves", count(line.moves[index])], ["faults", count(line.faults[index])]];
}

function chartsOf(line, starts) {
  const nodes = line.nodes.slice(0, 6), more = line.nodes.length - nodes.length, told = line.shares.filter((span) => span.remote_share);
  // After every span a point without a value: what is not told is not drawn.
  const edges = line.shares.flatMap((span) => [[span.start_ns, span.remote_share], [span.end_ns - 2, span.remote_share], ...(span.remote_share ? [] : [[span.end_ns - 1, null]])]);
  const of = (name) => edges.map(([, each]) => !each || each[name] === null ? null : each[name] * 100);
  const accent = colour("--accent");
  return [
    { title: "CPUs in use on each node", key: [nodes.map((node, index) => h("span", { class: "key", "--tint": nodeColour(index) }, `node ${node.node}`)), more > 0 ? `, and ${plural(more, "node")} not drawn` : ""],
      data: nodes.length ? [starts, ...nodes.map((node) => node.oncpu_ns.map((ns) => ns / line.step_ns))] : null, nothing: "No CPU time was recorded.",
      series: nodes.map((node, index) => ({ label: `node ${node.node}`, stroke: colour(`--node-${index}`), width: 2, dash: index ? [6 - index % 3 * 2, 3] : [], paths: uPlot.paths.stepped({ align: 1 }), points: { show: false } })), height: 150 },
    { title: "Remote share of reads, with its 95 % interval", percent: true, height: 130, nothing: `Samples are too few for a remote share at any time.`,
      data: told.length ? [edges.map(([at]) => at / 1e9), of("value"), of("low"), of("high")] : null, bands: [{ series: [3, 2], fill: faded(accent, 0.22) }],
      series: [{ label: "remote", stroke: accent, width: 2, points: { show: false } }, ...["low", "high"].map((label) => ({ label, stroke: faded(accent, 0.35), width: 1, points: { show: false } }))] },
    ...[["moves", "Moves between nodes"], ["faults", "Page faults"]].map(([name, title]) => ({
      title: `${title}: ${count(total(line[name]))}`, height: 90, nothing: "None.", data: total(line[name]) ? [starts, line[name].map((each) => each || null)] : null,
      series: [{ label: title, stroke: accent, fill: faded(accent, 0.5), width: 1, paths: uPlot.paths.bars({ size: [0.8, 40], align: 1 }), points: { show: false } }] }))];
}

const faded = (rgb, alpha) => rgb.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);

function options(chart, width, starts, line, tell) {
  const ink = colour("--faint"), rule = colour("--line"), end = starts.length * line.step_ns / 1e9;
  const axis = { stroke: ink, grid: { stroke: rule, width: 1 }, ticks: { stroke: rule, width: 1, size: 4 }, font: "12px system-ui, sans-serif" };
  return {
    width, height: chart.height, legend: { show: false }, bands: chart.bands || [], padding: [6, 18, 0, 0],
    scales: { x: { time: false, range: [0, end] }, y: { range: chart.percent ? [0, 100] : (_, low, high) => [0, (high || 1) * 1.08] } },
    axes: [{ ...axis, size: 26, values: (_, splits) => splits.map((each) => `${each} s`) },
      { ...axis, size: 52, space: 28, values: (_, splits) => splits.map((each) => each === null ? "" : `${count(each)}${chart.percent ? " %" : ""}`) }],
    series: [{}, ...chart.series],
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false }, sync: { key: "time", scales: ["x", null] } },
    hooks: { setCursor: [(plot) => {
      const { left } = plot.cursor;
      if (left >= 0 && plot.root.matches(":hover")) tell(Math.max(0, Math.min(line.phases.length - 1, Math.floor(plot.posToVal(left, "x") * 1e9 / line.step_ns))));
    }] },
  };
}
