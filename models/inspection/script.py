"""What the page does when it is pointed at and clicked."""

SCRIPT = r"""
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const T = data.tokens.length, L = data.layers, H = data.heads;
const bytes = Uint8Array.from(atob(data.maps), c => c.charCodeAt(0));
const shares = new Uint16Array(bytes.buffer), size = T * (T + 1) / 2;
const state = { layer: data.layer, head: data.head, token: T - 1, held: T - 1 };
const $ = id => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

// ---- numbers

function oneShare(layer, head, t, s) {
  return s > t ? 0 : shares[(layer * H + head) * size + t * (t + 1) / 2 + s] / 65535;
}

function share(layer, head, t, s) {  // head null: the mean of all
  if (head !== null) return oneShare(layer, head, t, s);
  let sum = 0;
  for (let h = 0; h < H; h++) sum += oneShare(layer, h, t, s);
  return sum / H;
}

const percent = p => (100 * p).toFixed(1) + "\u202f%";
const BLUES = ["#ffffff", "#deebf7", "#9ecae1", "#4292c6", "#08519c", "#08306b"];
const ORANGES = ["#ffffff", "#feedde", "#fdbe85", "#fd8d3c", "#d94801", "#8c2d04"];

function mixed(colours, x) {  // x from 0 to 1 -> [r, g, b]
  const at = Math.min(Math.max(x, 0), 1) * (colours.length - 1);
  const i = Math.min(Math.floor(at), colours.length - 2);
  const part = (c, k) => parseInt(c.slice(1 + 2 * k, 3 + 2 * k), 16);
  return [0, 1, 2].map(k => Math.round(
    part(colours[i], k) + (at - i) * (part(colours[i + 1], k) - part(colours[i], k))));
}

// By the root, or the shares of late tokens, who look at many, all look alike.
const blue = p => mixed(BLUES, Math.sqrt(p));
const orange = nats => mixed(ORANGES, nats / data.ignorance);

function paint(node, colour) {
  const [r, g, b] = colour;
  node.style.background = `rgb(${r},${g},${b})`;
  node.style.color = 0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#1b1f24" : "#ffffff";
}

function legend(id, before, after, colours) {
  const bar = element("i");
  bar.style.background = `linear-gradient(90deg, ${colours.join(",")})`;
  $(id).replaceChildren(before, bar, after);
}

// ---- the text, as a row of tokens

function strip(id, enter, leave, click) {
  const nodes = data.tokens.map((text, t) => {
    const node = element("span", { className: "token", textContent: text, tabIndex: 0 });
    node.onmouseenter = node.onfocus = () => enter(t);
    node.onmouseleave = node.onblur = leave;
    node.onclick = () => click(t);
    node.onkeydown = e => {
      if (e.key !== "Enter" && e.key !== " ") return;
      e.preventDefault();
      click(t);
    };
    return node;
  });
  nodes.forEach((node, t) => {
    $(id).append(node);
    for (let i = 0; i < data.breaks[t]; i++) $(id).append(element("br"));
  });
  return nodes;
}

const code = text => element("code", { textContent: text });

// ---- attention

const looking = strip("looking", show, () => show(state.held), hold);

function hold(t) {
  state.held = state.held === t ? null : t;
  show(t);
}

function show(t) {
  state.token = t;
  attention();
}

function attention() {
  const { layer, head, token: t } = state;
  $("layer").value = layer;
  $("head").value = head === null ? "mean" : head;
  looking.forEach((node, s) => {
    const seen = t !== null && s <= t;
    node.classList.toggle("here", s === t);
    node.classList.toggle("unseen", t !== null && s > t);
    paint(node, seen ? blue(share(layer, head, t, s)) : [255, 255, 255]);
    node.title = seen ? percent(share(layer, head, t, s)) : "";
  });
  const readout = ["Point at a token."];
  if (t !== null) {
    const first = data.tokens.slice(0, t + 1).map((_, s) => s)
      .sort((a, b) => share(layer, head, t, b) - share(layer, head, t, a)).slice(0, 5);
    readout.splice(0, 1, code(data.tokens[t]), ` (${t}) in layer ${layer}, `
      + (head === null ? `mean of ${H} heads` : `head ${head}`) + ", looks at ");
    first.forEach((s, i) => readout.push(
      i ? ", " : "", code(data.tokens[s]), ` (${s}) ${percent(share(layer, head, t, s))}`));
  }
  $("seen").replaceChildren(...readout);
  drawMap();
  for (const thumb of document.querySelectorAll(".thumb"))
    thumb.classList.toggle("here", thumb.dataset.layer == layer
      && (head === null || thumb.dataset.head == head));
}

function pixels(layer, head) {  // one for each pair of tokens
  const canvas = element("canvas", { width: T, height: T });
  const context = canvas.getContext("2d"), image = context.createImageData(T, T);
  for (let t = 0; t < T; t++) for (let s = 0; s < T; s++) {
    const colour = s > t ? [244, 245, 247] : blue(share(layer, head, t, s));
    image.data.set([...colour, 255], 4 * (t * T + s));
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

const cell = Math.max(T > 100 ? 6 : 11, Math.min(34, Math.floor(560 / T)));
const letters = Math.max(9, Math.min(14, cell - 2));
const every = Math.ceil((letters + 2) / cell);  // labels of so many cells, where all would overlap
const shorten = text => [...text].length > 12 ? [...text].slice(0, 11).join("") + "\u2026" : text;
const margin = 20 + 0.62 * letters * Math.max(...data.tokens.map(x => [...shorten(x)].length));
let drawn = null;

function drawMap() {
  const { layer, head, token } = state, map = $("map"), side = T * cell;
  const key = `${layer} ${head}`;
  if (drawn !== key) {
    drawn = key;
    const canvas = pixels(layer, head);
    Object.assign(canvas.style, { left: margin + "px", top: margin + "px",
      width: side + "px", height: side + "px" });
    canvas.onmousemove = e => point(e, canvas);
    canvas.onmouseleave = () => { $("cell").hidden = true; show(state.held); };
    canvas.onclick = e => hold(place(e, canvas)[0]);
    Object.assign(map.style, { width: margin + side + 4 + "px", height: margin + side + 4 + "px" });
    map.replaceChildren(canvas);
    data.tokens.forEach((text, i) => {
      if (i % every) return;
      const down = element("span", { textContent: shorten(text), className: "down" });
      const upright = [...text].length === 1 ? " upright" : "";
      const across = element("span", { textContent: shorten(text), className: "across" + upright });
      const middle = margin + i * cell + (cell - 1.3 * letters) / 2;
      for (const node of [down, across])
        Object.assign(node.style, { fontSize: letters + "px", lineHeight: 1.3 });
      if (upright) across.style.width = 1.3 * letters + "px";
      Object.assign(down.style, { right: side + 10 + "px", top: middle + "px" });
      Object.assign(across.style, { left: middle + "px", bottom: side + 10 + "px" });
      map.append(down, across);
    });
    map.append(element("div", { className: "row", id: "row" }),
      element("div", { className: "cell", id: "cell", hidden: true }));
  }
  $("row").hidden = token === null;
  if (token !== null) box("row", token, 0, token + 1);
}

function box(id, t, s, wide) {
  Object.assign($(id).style, { left: margin + s * cell + "px", top: margin + t * cell + "px",
    width: wide * cell + 2 + "px", height: cell + 2 + "px" });
}

function place(e, canvas) {
  const edges = canvas.getBoundingClientRect();
  const at = x => Math.max(0, Math.min(T - 1, Math.floor((x - 1) / cell)));
  return [at(e.clientY - edges.top), at(e.clientX - edges.left)];
}

function point(e, canvas) {
  const [t, s] = place(e, canvas), { layer, head } = state;
  if (state.token !== t) show(t);
  $("cell").hidden = false;
  box("cell", t, s, 1);
  $("seen").replaceChildren(code(data.tokens[t]), ` (${t}) `, ...(s > t
    ? ["cannot see ", code(data.tokens[s]), ` (${s}), which comes later`]
    : ["looks at ", code(data.tokens[s]), ` (${s}): `, percent(share(layer, head, t, s))]));
}

function overview() {
  const side = Math.max(26, Math.min(110, Math.floor(340 / H) - 5));
  const table = element("table"), top = table.insertRow();
  top.append(element("th"));
  for (let h = 0; h < H; h++) top.append(element("th", { textContent: h }));
  for (let l = 0; l < L; l++) {
    const row = table.insertRow();
    row.append(element("th", { textContent: l }));
    for (let h = 0; h < H; h++) {
      const canvas = pixels(l, h);
      Object.assign(canvas.style, { width: side + "px", height: side + "px" });
      const thumb = element("button", { className: "thumb" }, canvas);
      thumb.title = `layer ${l}, head ${h}`;
      Object.assign(thumb.dataset, { layer: l, head: h });
      thumb.onclick = () => go(l, h);
      row.insertCell().append(thumb);
    }
  }
  $("overview").append(table);
}

function go(layer, head) {
  Object.assign(state, { layer, head });
  attention();
}

for (let l = 0; l < L; l++) $("layer").append(element("option", { value: l, textContent: l }));
$("head").append(element("option", { value: "mean", textContent: "mean of all" }));
for (let h = 0; h < H; h++) $("head").append(element("option", { value: h, textContent: h }));
const asked = () => $("head").value === "mean" ? null : +$("head").value;
$("layer").onchange = $("head").onchange = () => go(+$("layer").value, asked());
$("attention").addEventListener("keydown", e => {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const step = steps[e.key];
  if (!step || e.target.tagName === "SELECT" || e.ctrlKey || e.altKey || e.metaKey) return;
  e.preventDefault();
  const at = ((state.head === null ? 0 : state.head + 1) + step[1] + H + 1) % (H + 1);
  go((state.layer + step[0] + L) % L, at ? at - 1 : null);  // the mean stands before head 0
});

// ---- losses

const losses = strip("surprise", surprise, () => {}, surprise);
losses.forEach((node, t) => paint(node, t ? orange(data.losses[t - 1]) : [255, 255, 255]));

function expectations(state, t) {  // the likeliest tokens, after token t
  return data.top[state][t].flatMap((word, k) =>
    [k ? ", " : "", code(data.words[word]), " " + percent(data.chances[state][t][k])]);
}

function surprise(t) {
  losses.forEach((node, s) => node.classList.toggle("here", s === t));
  $("loss").replaceChildren(...(t ? [
    code(data.tokens[t]), ` (${t}): loss ${data.losses[t - 1].toFixed(3)} nats, probability `
      + `${percent(data.true[L][t - 1])}, rank ${data.ranks[L][t - 1]}. Expected: `,
    ...expectations(L, t - 1),
  ] : [code(data.tokens[0]), " (0) is what the text begins with: nobody predicts it."]));
}

// ---- logit lens

const cells = [];

function lens() {
  const table = $("lens"), head = table.createTHead();
  const headed = (row, text) => row.append(element("th", { className: "side", textContent: text }));
  const tokens = head.insertRow(), next = head.insertRow();
  headed(tokens, "after");
  headed(next, "comes");
  data.tokens.forEach((text, t) => {
    tokens.append(element("th", { textContent: text, title: `token ${t}` }));
    next.append(element("th", { textContent: t + 1 < T ? data.tokens[t + 1] : "" }));
  });
  const body = table.createTBody();
  for (let l = L; l >= 0; l--) {
    const row = body.insertRow();
    headed(row, l ? `layer ${data.names[l]}` : "embeddings");
    cells[l] = data.tokens.map((_, t) => {
      const node = row.insertCell();
      node.textContent = data.words[data.top[l][t][0]];
      node.classList.toggle("right", t + 1 < T && data.ranks[l][t] === 1);
      node.tabIndex = 0;
      node.onmouseenter = node.onfocus = node.onclick = () => expected(l, t);
      return node;
    });
  }
}

function colours() {
  const best = $("colour").value === "best";
  cells.forEach((row, l) => row.forEach((node, t) => paint(node, best
    ? blue(data.chances[l][t][0]) : t + 1 < T ? blue(data.true[l][t]) : [255, 255, 255])));
}

function expected(l, t) {
  cells.forEach((row, i) => row.forEach((node, s) =>
    node.classList.toggle("here", i === l && s === t)));
  const comes = t + 1 < T ? [". What comes, ", code(data.tokens[t + 1]),
    `, has ${percent(data.true[l][t])} and rank ${data.ranks[l][t]}.`] : ["."];
  $("expected").replaceChildren(l ? `Layer ${data.names[l]}` : "The embedding", " after ",
    code(data.tokens[t]), ` (${t}) expects `, ...expectations(l, t), ...comes);
}

// ---- all of it

$("model").textContent = data.model;
legend("shares", "share of the attention: 0", "100\u202f%, white to dark by its root", BLUES);
legend("chances", "probability: 0", "100\u202f%", BLUES);
legend("nats", "0", `${data.ignorance.toFixed(1)} nats: knowing nothing`, ORANGES);
const mean = data.losses.reduce((a, b) => a + b, 0) / Math.max(T - 1, 1);
$("mean").textContent = T > 1
  ? `mean ${mean.toFixed(3)} nats a token, perplexity ${Math.exp(mean).toFixed(1)}`
  : "a single token has none";
overview();
attention();
if (T > 1) surprise(data.losses.indexOf(Math.max(...data.losses)) + 1);
lens();
colours();
$("colour").onchange = colours;
expected(L, 0);
"""
