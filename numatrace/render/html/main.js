// Read the data, put the parts on the page, and let it be light or dark.
const DATA = JSON.parse(byId("data").textContent);

function theme() {
  const root = document.documentElement, button = byId("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const show = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-pressed", String(isDark()));
    button.setAttribute("aria-label", isDark() ? "Switch to light" : "Switch to dark");
    document.dispatchEvent(new Event("themed"));
  };
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; show(); });
  dark.addEventListener("change", show);
  let before = [];
  addEventListener("beforeprint", () => { // on paper: light, and nothing folded away
    before = [root.dataset.theme, [...document.querySelectorAll("details:not([open])")]];
    root.dataset.theme = "light";
    before[1].forEach((each) => { each.open = true; });
    show();
  });
  addEventListener("afterprint", () => {
    if (before[0]) root.dataset.theme = before[0]; else delete root.dataset.theme;
    before[1].forEach((each) => { each.open = false; });
    show();
  });
  show();
}

function about(report) {
  const server = report.processes.find((each) => each.is_server);
  return [server && `${server.name} (pid ${server.tgid})`, report.machine.kernel && `Linux ${report.machine.kernel}`, `recorded for ${time(report.provenance.duration_ns)}`].filter(Boolean).join(" · ");
}

function start() {
  const { report, words, left_out: leftOut } = DATA;
  byId("about").textContent = about(report);
  for (const draw of [answer, machine, heat, timeline, memory, causes, origins]) {
    try {
      draw(report, words, leftOut);
    } catch (error) { // one part that cannot be drawn takes no other with it
      console.error(error);
      byId("main").append(h("section", {}, h("p", { class: "warn" }, `A part of this page could not be drawn (${draw.name}). numatrace analyze has it as text.`)));
    }
  }
  byId("foot").append(h("p", {}, "Made by numatrace from one trace; it needs no network and sends nothing. Charts: uPlot by Leon Sorokin, MIT licence."));
  addEventListener("scroll", hideTip, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  theme();
}

start();
