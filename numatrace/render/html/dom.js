// Elements, made of text only: nothing here ever parses what it is given.
const SVG = "http://www.w3.org/2000/svg";

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(9)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);
const byId = (id) => document.getElementById(id);

// What a colour of the style is right now, as rgb(): a canvas knows no custom properties.
function colour(name) {
  const probe = h("i", { hidden: true });
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const nodeColour = (index) => `var(--node-${index % 6})`;

const PARTS = { machine: "Machine", tables: "Tables", plans: "Plans", origins: "Sources" };

// A section with a heading, added to the page and to the list of parts.
function section(id, title, lead, ...children) {
  const made = h("section", { id, tabindex: -1, "aria-labelledby": `${id}-title` },
    h("h2", { id: `${id}-title` }, title), lead ? h("p", { class: "lead" }, lead) : null, children);
  byId("main").append(made);
  listPart(id, PARTS[id] || title);
  return made;
}

function listPart(id, title) {
  byId("parts").append(h("li", {}, h("a", { href: `#${id}` }, title)));
}

// Draw now, and again whenever the place has another width.
function atEveryWidth(place, draw) {
  let drawn = 0;
  const look = () => {
    const width = Math.floor(place.clientWidth);
    if (width && width !== drawn) draw(drawn = width);
  };
  look();
  new ResizeObserver(look).observe(place);
}

function fold(title, ...children) {
  return h("details", {}, h("summary", {}, title), children);
}

const list = (texts) => texts.length ? h("ul", {}, texts.map((text) => h("li", {}, text))) : null;

function say(text) {
  byId("said").textContent = text;
}

// The floating note of figures beside what is pointed at or has the focus.
function showTip(target, lines) {
  const tip = byId("tip");
  tip.replaceChildren(...lines.map((line, index) => h(index ? "p" : "b", {}, line)));
  tip.hidden = false;
  const box = target.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const below = box.bottom + own.height + 12 < innerHeight;
  tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - own.width - 8))}px`;
  tip.style.top = `${below ? box.bottom + 6 : Math.max(8, box.top - own.height - 6)}px`;
}

function hideTip() {
  byId("tip").hidden = true;
}
